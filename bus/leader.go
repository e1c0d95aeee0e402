package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrNoMessage is returned by the leader reads when no message is stored where they looked.
var ErrNoMessage = errors.New("no message found")

// codeNoMessage is the server's err_code for a read that found nothing.
const codeNoMessage = 10037

type msgGetRequest struct {
	Seq     uint64 `json:"seq,omitempty"`
	LastFor string `json:"last_by_subj,omitempty"`
	NextFor string `json:"next_by_subj,omitempty"`
}

type msgGetResponse struct {
	Error   *jetstream.APIError `json:"error"`
	Message *struct {
		Subject  string    `json:"subject"`
		Sequence uint64    `json:"seq"`
		Header   []byte    `json:"hdrs"`
		Data     []byte    `json:"data"`
		Time     time.Time `json:"time"`
	} `json:"message"`
}

// LastMessage reads the last message stored on subject, which may be a filter, from the leader of stream. Correctness hangs on
// it: a direct read, as nats.go's GetLastMsgForSubject and KeyValue.Get do, may be answered by a replica that has not yet seen
// the message just acknowledged. It returns ErrNoMessage when there is none.
func (b *Bus) LastMessage(ctx context.Context, stream, subject string) (*jetstream.RawStreamMsg, error) {
	return readLeader(ctx, b.nc, stream, msgGetRequest{LastFor: subject})
}

// NextMessage reads the first message at or after seq on subject, which may be a filter, from the leader of stream. It
// returns ErrNoMessage when there is none.
func (b *Bus) NextMessage(ctx context.Context, stream string, seq uint64, subject string) (*jetstream.RawStreamMsg, error) {
	return readLeader(ctx, b.nc, stream, msgGetRequest{Seq: max(seq, 1), NextFor: subject})
}

// MessageAt reads the message with exactly this sequence from the leader of stream. It returns ErrNoMessage when it was
// deleted, has expired or does not exist yet.
func (b *Bus) MessageAt(ctx context.Context, stream string, seq uint64) (*jetstream.RawStreamMsg, error) {
	return readLeader(ctx, b.nc, stream, msgGetRequest{Seq: max(seq, 1)})
}

// readLeader asks until ctx ends or five seconds have passed; it retries nothing, its callers know what a failure means to them.
func readLeader(ctx context.Context, nc *nats.Conn, stream string, req msgGetRequest) (*jetstream.RawStreamMsg, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("read from stream %s: %w", stream, err)
	}
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	reply, err := nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, body)
	if err != nil {
		return nil, fmt.Errorf("read from stream %s: %w", stream, err)
	}
	var resp msgGetResponse
	if err := json.Unmarshal(reply.Data, &resp); err != nil {
		return nil, fmt.Errorf("read from stream %s: answer of the server: %w", stream, err)
	}
	switch {
	case resp.Error != nil && resp.Error.ErrorCode == codeNoMessage:
		return nil, ErrNoMessage
	case resp.Error != nil:
		return nil, fmt.Errorf("read from stream %s: %w", stream, resp.Error)
	case resp.Message == nil:
		return nil, fmt.Errorf("read from stream %s: the server answered without a message", stream)
	}
	m := &jetstream.RawStreamMsg{
		Subject: resp.Message.Subject, Sequence: resp.Message.Sequence,
		Data: resp.Message.Data, Time: resp.Message.Time, Header: nats.Header{},
	}
	if len(resp.Message.Header) > 0 {
		if m.Header, err = nats.DecodeHeadersMsg(resp.Message.Header); err != nil {
			return nil, fmt.Errorf("read from stream %s: headers of message %d: %w", stream, m.Sequence, err)
		}
	}
	return m, nil
}

// leaderTimeout bounds one leader read; an election on a cluster lasts longer, and then the caller asks again.
const leaderTimeout = 5 * time.Second
