package bus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// StatusEnd is the value of Cim-Status on the last message of every answer, errors included. Messages before it are
// deliveries or events; a stored message cannot carry the header there.
const StatusEnd = "end"

// The codes of {"error":{"code","message"}}.
const (
	CodeBadRequest     = "bad-request"     // the request, or the event in it, is not what it should be; the message names the field
	CodeNoConversation = "no-conversation" // the event belongs to no conversation
	CodeNotMember      = "not-a-member"    // the agent is no member of the conversation
	CodeForbidden      = "forbidden"       // an event, or a conversation, that is not the agent's to publish or join
	CodeTooLarge       = "too-large"       // the event is larger than CIM_EVENTS takes
	CodeStoreFull      = "store-full"      // CIM_EVENTS is full
	CodeUnavailable    = "unavailable"     // try again: the service is busy, or its server did not answer in time
	CodeInternal       = "internal"        // a fault; the service's log has it
)

// ControlError is the error the control service answered with.
type ControlError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Error gives the code and the message.
func (e *ControlError) Error() string { return "control service: " + e.Code + ": " + e.Message }

var errBusy = &ControlError{CodeUnavailable, "the service is busy: try again"}

func badRequest(message string) error { return &ControlError{CodeBadRequest, message} }

// coded is err as the agent hears it.
func coded(err error) *ControlError {
	var (
		told     *ControlError
		name     *subjects.Error
		event    *cim.Error
		position = errors.Is(err, ErrBadPosition)
	)
	switch {
	case errors.As(err, &told):
		return told
	case errors.As(err, &event) && event.Reason == cim.ReasonNoConversation:
		return &ControlError{CodeNoConversation, invalidEvent(event).Error()}
	case errors.As(err, &event):
		return &ControlError{CodeBadRequest, invalidEvent(event).Error()}
	case errors.As(err, &name):
		return &ControlError{CodeBadRequest, name.Error()}
	case position:
		return &ControlError{CodeBadRequest, err.Error()}
	case errors.Is(err, ErrNotMember):
		return &ControlError{CodeNotMember, err.Error()}
	case errors.Is(err, ErrTooLarge):
		return &ControlError{CodeTooLarge, err.Error()}
	case errors.Is(err, ErrStoreFull):
		return &ControlError{CodeStoreFull, err.Error()}
	case errors.Is(err, ErrUnknownOutcome):
		return &ControlError{CodeUnavailable, "the event may be stored or not: send it again, with the same id"}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, nats.ErrTimeout), errors.Is(err, nats.ErrNoResponders),
		errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrDisconnected):
		return &ControlError{CodeUnavailable, "the bus did not answer in time: try again"}
	}
	return &ControlError{CodeInternal, "the service failed: its log says why"}
}

// request is a request whose reply subject was found to be the caller's, and the only way to answer one.
type request struct {
	control   *Control
	agent     agentName
	verb      string
	reply     string
	data      []byte
	header    nats.Header
	endpoint  *endpoint
	began     time.Time
	unflushed int
}

// decode reads the body into v; none is {}.
func (r *request) decode(v any) error {
	if len(r.data) == 0 {
		return nil
	}
	if err := json.Unmarshal(r.data, v); err != nil {
		var kind *json.UnmarshalTypeError
		switch {
		case errors.Is(err, ErrBadPosition):
			return badRequest(err.Error())
		case errors.As(err, &kind):
			return badRequest(misfit(kind))
		}
		return badRequest("body is not JSON (" + err.Error() + "): send one JSON object")
	}
	return nil
}

// misfit says in JSON's words, not in Go's, what a value is and what is wanted in its place.
func misfit(e *json.UnmarshalTypeError) string {
	// Value is array, object, string, bool or number, the last of them perhaps with what was written: "number 1.5".
	kind, written, _ := strings.Cut(e.Value, " ")
	if kind == "bool" {
		kind = "boolean"
	}
	if e.Field == "" {
		return "body is a JSON " + kind + ": send one JSON object"
	}
	article := "a "
	if kind == "array" || kind == "object" {
		article = "an "
	}
	is := cmp.Or(written, article+kind)
	wanted := "a string"
	if e.Type.Kind() == reflect.Int {
		wanted = "a whole number"
	}
	// The path begins with the names of embedded structs; no request has a field within a field.
	return e.Field[strings.LastIndexByte(e.Field, '.')+1:] + " is " + is + ": give " + wanted
}

// end sends v, the last message of the answer.
func (r *request) end(v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return r.control.bus.nc.PublishMsg(&nats.Msg{Subject: r.reply, Data: body, Header: nats.Header{HeaderStatus: []string{StatusEnd}}})
}

// fail sends err as the answer.
func (r *request) fail(err error) {
	if expired, ok := errors.AsType[*ExpiredError](err); ok {
		err = r.end(expiredAnswer{Expired: true, From: expired.From.String(), To: expired.To.String(), Reason: expired.Reason})
	} else {
		told := coded(err)
		switch told.Code {
		case CodeInternal:
			r.control.log.Error("request failed", "verb", r.verb, "tenant", r.agent.tenant, "agent", r.agent.agent, "error", err)
		case CodeUnavailable:
			r.control.log.Debug("request not answered", "verb", r.verb, "tenant", r.agent.tenant, "agent", r.agent.agent, "error", err)
		}
		err = r.end(errorAnswer{Error: told})
	}
	if err != nil {
		r.control.log.Debug("answer not sent", "verb", r.verb, "tenant", r.agent.tenant, "agent", r.agent.agent, "error", err)
	}
}

// politeBytes is how much of a page is sent before waiting for the server to have taken it: the connection is shared.
const politeBytes = 256 << 10

// send sends a stored message as the live copy has it: its own headers, and where and when it is stored.
func (r *request) send(ctx context.Context, stream string, m *jetstream.RawStreamMsg, h nats.Header) error {
	out := make(nats.Header, len(h)+4)
	maps.Copy(out, h)
	delete(out, HeaderStatus)
	delete(out, jetstream.LastSequenceHeader)
	out[jetstream.StreamHeader] = []string{stream}
	out[jetstream.SubjectHeader] = []string{m.Subject}
	out[jetstream.SequenceHeader] = []string{strconv.FormatUint(m.Sequence, 10)}
	out[jetstream.TimeStampHeaer] = []string{m.Time.UTC().Format(time.RFC3339Nano)}
	if r.unflushed += len(m.Data) + headerSize(out); r.unflushed > politeBytes {
		if err := r.control.bus.nc.FlushWithContext(ctx); err != nil {
			return err
		}
		r.unflushed = 0
	}
	return r.control.bus.nc.PublishMsg(&nats.Msg{Subject: r.reply, Data: m.Data, Header: out})
}

// The answers, as JSON. Positions are strings.
type (
	errorAnswer struct {
		Error *ControlError `json:"error"`
	}
	expiredAnswer struct {
		Expired bool   `json:"expired"`
		From    string `json:"from"` // resume after it to get everything that is left
		To      string `json:"to"`
		Reason  string `json:"reason"`
	}
	pageAnswer struct {
		Last  string `json:"last"`  // read up to here: the next after
		Upto  string `json:"upto"`  // the end when the page was read
		More  bool   `json:"more"`  // last is short of upto: ask again
		Count int    `json:"count"` // messages before this one; fewer came: some were lost on the way
	}
	checkAnswer struct {
		Upto  string `json:"upto"`
		Count uint64 `json:"count"`
		More  bool   `json:"more,omitempty"` // upto is short of the end: check again after it
	}
)
