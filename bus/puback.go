package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Errors of publishing that callers branch on. After each but ErrUnknownOutcome the event is not stored.
var (
	// ErrUnknownOutcome: the event was sent and no answer came in time. It may be stored or not. Publishing the same event again is safe
	// within the duplicate window: it is stored once.
	ErrUnknownOutcome = errors.New("outcome of the publish is unknown, the event may be stored")
	// ErrStoreFull: CIM_EVENTS, the account or the server has reached its limit of bytes. Room comes back as events age out.
	ErrStoreFull = errors.New("event store is full")
	// ErrTooLarge: the event is above the limit for a message, of the stream (1 MiB unless told otherwise) or of the server.
	ErrTooLarge = errors.New("event is too large")
	// ErrNoStream: nothing stores the event's subject, or another stream than CIM_EVENTS does.
	ErrNoStream = errors.New("no stream CIM_EVENTS takes the event")
)

// Receipt says where an event is stored.
type Receipt struct {
	Subject  string `json:"subject"`
	Stream   string `json:"stream"`
	Sequence uint64 `json:"seq"`
	// Duplicate: an event with this message id had been stored before this publish, at Sequence; nothing was added. Where a try of this
	// same publish had gone unanswered, a duplicate is taken for that try, and Duplicate is false.
	Duplicate bool `json:"duplicate"`
}

// answerKind is what the answer to one try of a publish means.
type answerKind int

const (
	answerStored  answerKind = iota // done
	answerRefused                   // not stored, and trying again would not help
	answerAgain                     // not stored, trying again may help
	answerUnknown                   // it may be stored, trying again will tell
)

// The server's err_code of answers to a publish that are told apart.
const (
	codeAccountResources   = 10002
	codeMessageTooLarge    = 10054
	codeWrongStream        = 10060
	codeStoreFailed        = 10077
	codeHeaderTooLarge     = 10097
	codeDuplicateInProcess = 10158
	codeTooManyRequests    = 10167
)

// readAnswer reads what the server answered to one try.
func readAnswer(subject string, m *nats.Msg) (Receipt, answerKind, error) {
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return Receipt{}, answerAgain, nats.ErrNoResponders
	}
	if r, ok := plainReceipt(m.Data); ok {
		r.Subject = subject
		return r, answerStored, nil
	}
	var ack struct {
		Error     *jetstream.APIError `json:"error"`
		Stream    string              `json:"stream"`
		Sequence  uint64              `json:"seq"`
		Duplicate bool                `json:"duplicate"`
	}
	if err := json.Unmarshal(m.Data, &ack); err != nil {
		return Receipt{}, answerUnknown, fmt.Errorf("answer of the server: %w", err)
	}
	switch {
	case ack.Error != nil:
		kind, err := readRefusal(ack.Error)
		return Receipt{}, kind, err
	case ack.Stream == "":
		return Receipt{}, answerUnknown, errors.New("somebody who is no stream answered the publish")
	}
	return Receipt{Subject: subject, Stream: ack.Stream, Sequence: ack.Sequence, Duplicate: ack.Duplicate}, answerStored, nil
}

// plainReceipt reads the acknowledgement of a stored event as the server spells it to a publisher at full speed; anything else is left
// to a JSON decoder, which costs ten times as much.
func plainReceipt(data []byte) (Receipt, bool) {
	const before, after = `{"stream":"` + StreamEvents + `","seq":`, `}`
	if len(data) <= len(before) || string(data[:len(before)]) != before || string(data[len(data)-len(after):]) != after {
		return Receipt{}, false
	}
	sequence, err := strconv.ParseUint(string(data[len(before):len(data)-len(after)]), 10, 64)
	return Receipt{Stream: StreamEvents, Sequence: sequence}, err == nil
}

func readRefusal(api *jetstream.APIError) (answerKind, error) {
	switch api.ErrorCode {
	case codeStoreFailed:
		// One code for every failure to store; only the description tells a limit from a broken disk.
		if strings.HasPrefix(api.Description, "maximum ") {
			return answerRefused, fmt.Errorf("%w: give the streams more bytes or the disk more room (cimbus doctor says which), or wait until events age out: %w", ErrStoreFull, api)
		}
	case codeInsufficient, codeAccountResources, codeNoStorage:
		return answerRefused, fmt.Errorf("%w: the server or account has no storage left: %w", ErrStoreFull, api)
	case codeMessageTooLarge, codeHeaderTooLarge:
		return answerRefused, fmt.Errorf("%w: send a smaller one, or raise the streams' max event bytes: %w", ErrTooLarge, api)
	case codeWrongStream:
		return answerRefused, fmt.Errorf("%w: another stream stores its subject: %w", ErrNoStream, api)
	case codeClusterUnavailable, codeClusterNotLeader, codeTooManyRequests:
		return answerAgain, api
	case codeDuplicateInProcess:
		// An earlier try is on its way through the cluster.
		return answerUnknown, api
	}
	return answerRefused, fmt.Errorf("stream %s refused the event: %w", StreamEvents, api)
}

// readFailure judges an error of sending one try, or of waiting for its answer.
func readFailure(err error) (answerKind, error) {
	switch {
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrReconnectBufExceeded):
		return answerAgain, err
	case errors.Is(err, nats.ErrMaxPayload):
		return answerRefused, fmt.Errorf("%w: it is above the server's max_payload: send a smaller one: %w", ErrTooLarge, err)
	case errors.Is(err, nats.ErrBadSubject), errors.Is(err, nats.ErrBadHeaderMsg), errors.Is(err, nats.ErrHeadersNotSupported):
		return answerRefused, err
	}
	return answerUnknown, err
}

// denied returns the server's complaint that this connection may not publish on subject. It comes beside the publish, which then is
// never answered.
func denied(nc *nats.Conn, subject string) error {
	err := nc.LastError()
	if errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), `"`+subject+`"`) {
		return fmt.Errorf("%w: this user may not publish on %s: %w", ErrUnauthorized, subject, err)
	}
	return nil
}
