package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/subjects"
)

// ErrReplayRefused is returned for a target that replays may not have.
var ErrReplayRefused = errors.New("replay refused")

// ReplayToHandler has a handler handle events again, for real: each is appended to CIM_EVENTS as a copy, for that handler alone, in the
// order of its conversation and once. Copies that a redrive or a replay appended before are left out, their originals are there. The
// handler of onCimEvent is refused: what it makes reaches live agents.
func (b *Bus) ReplayToHandler(ctx context.Context, handler string) (ReplayTarget, error) {
	if handler == TypeEvent {
		return nil, fmt.Errorf("handler %s: %w: what it makes of events reaches live agents; replay to agent:<name> for agents, or to rehearsal:%s to see what it would make", handler, ErrReplayRefused, handler)
	}
	if known, err := b.hasConsumer(ctx, handler); err != nil {
		return nil, err
	} else if !known {
		return nil, fmt.Errorf("handler %s: %w: no handler of that name runs on this bus", handler, ErrReplayRefused)
	}
	return &handlerTarget{handler: handler, lanes: lanes{
		b: b, stream: StreamEvents, filter: []string{subjects.AllEvents}, lane: conversationLane, of: replayOf,
	}}, nil
}

type handlerTarget struct {
	lanes
	handler string
}

func (t *handlerTarget) Open(ctx context.Context, r OpenReplay) (Ahead, error) {
	if r.Record.Follow {
		return Ahead{}, fmt.Errorf("handler %s: %w: it handles new events anyway, so there is nothing to follow", t.handler, ErrReplayRefused)
	}
	return Ahead{}, t.open(ctx, r)
}

func (t *handlerTarget) Put(ctx context.Context, e StoredEvent) (bool, error) {
	if isCopy(e.Header) {
		return false, nil
	}
	h := copiedHeader(e.Header)
	if e.Conversation != "" && headerSafe(e.Conversation) {
		h[HeaderConversation] = []string{e.Conversation}
	}
	h[HeaderRedriveHandler] = []string{t.handler}
	h[HeaderReplayID] = []string{t.id}
	h[HeaderReplayOf] = []string{strconv.FormatUint(e.Sequence, 10)}
	h[jetstream.MsgIDHeader] = []string{replayMessageID(t.id, e.Sequence)}
	h[jetstream.ExpectedStreamHeader] = []string{StreamEvents}
	return true, t.put(ctx, e.Sequence, &nats.Msg{Subject: e.Subject, Header: h, Data: e.Data})
}

func (t *handlerTarget) Flush(ctx context.Context) (uint64, error) { return t.flush(ctx) }
func (t *handlerTarget) Close() error                              { return nil }

// copiedHeader is what a copy of an event has of the headers it was published with.
func copiedHeader(published nats.Header) nats.Header {
	h := takenOver(published)
	for _, key := range []string{HeaderChannel, HeaderEventID, HeaderEventName} {
		if v := LastHeader(published, key); v != "" {
			h[key] = []string{v}
		}
	}
	return h
}

// isCopy tells whether an event was appended for one handler alone, by a redrive or a replay.
func isCopy(h nats.Header) bool { return LastHeader(h, HeaderRedriveHandler) != "" }

// replayOf is the event that a message is a copy of, 0 if of none.
func replayOf(h nats.Header) uint64 {
	n, err := strconv.ParseUint(LastHeader(h, HeaderReplayOf), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
