package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/subjects"
)

// ErrBadReplaySubject is returned for a subject that a replay may not publish on.
var ErrBadReplaySubject = errors.New("not a subject for a replay")

// ReplayToSubject publishes events as they are on a subject of the operator's own, with DerivedHeader and Cim-Replay-Id; one that ends
// with ".>" has the event's own subject in place of it. Subjects of the bus, the server or a stream of the bus are refused with
// ErrBadReplaySubject. Where a stream listens each event is stored in it once, those of a conversation in order; else they are
// published over core NATS, and a replay that was broken off without an ending repeats what was published after its last record.
func (b *Bus) ReplayToSubject(ctx context.Context, subject string) (ReplayTarget, error) {
	if err := checkReplaySubject(subject); err != nil {
		return nil, err
	}
	t := &subjectTarget{b: b, subject: subject}
	names := b.js.StreamNames(ctx, jetstream.WithStreamListSubject(subject))
	for name := range names.Name() {
		s, err := b.js.Stream(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("stream %s, which listens on %s: %w", name, subject, err)
		}
		takes := s.CachedInfo().Config.Subjects
		whole := false
		for _, filter := range takes {
			whole = whole || covers(filter, subject)
		}
		if !whole {
			return nil, fmt.Errorf("subject %s: %w: stream %s takes only a part of it, %s", subject, ErrBadReplaySubject, name, strings.Join(takes, ", "))
		}
		t.lanes = &lanes{b: b, stream: name, filter: []string{subject}, lane: conversationLane, of: SequenceOf}
	}
	if err := names.Err(); err != nil {
		return nil, fmt.Errorf("streams that listen on %s: %w", subject, err)
	}
	return t, nil
}

// checkReplaySubject tells whether a subject is the operator's own.
func checkReplaySubject(subject string) error {
	bad := func(why string) error { return fmt.Errorf("subject %q: %w: %s", subject, ErrBadReplaySubject, why) }
	tokens := strings.Split(strings.TrimSuffix(subject, ".>"), ".")
	for _, token := range tokens {
		if token == "" || strings.ContainsAny(token, "*> \t\r\n") {
			return bad("give a subject without wildcards, or one that ends with .>")
		}
	}
	first := strings.ToLower(tokens[0])
	switch {
	case first == "cim", strings.HasPrefix(first, "cim-"):
		return bad("it belongs to the bus, and what is published there may reach agents: give one of your own")
	case strings.HasPrefix(first, "$"), strings.HasPrefix(first, "_inbox"):
		return bad("it belongs to the server: give one of your own")
	}
	return nil
}

// conversationLane is the lane of messages that go in the order of their conversation.
func conversationLane(_ string, h nats.Header) string { return LastHeader(h, HeaderConversation) }

type subjectTarget struct {
	b       *Bus
	subject string
	lanes   *lanes // nil: nobody stores it
	id      string
}

// Stream is the stream that stores what is published, "" if none does.
func (t *subjectTarget) Stream() string {
	if t.lanes == nil {
		return ""
	}
	return t.lanes.stream
}

func (t *subjectTarget) Open(ctx context.Context, r OpenReplay) (Ahead, error) {
	t.id = r.Record.ID
	if t.lanes == nil {
		return Ahead{}, nil
	}
	return Ahead{}, t.lanes.open(ctx, r)
}

func (t *subjectTarget) Put(ctx context.Context, e StoredEvent) (bool, error) {
	m := &nats.Msg{Subject: t.subject, Data: e.Data, Header: DerivedHeader(e.Header, Source{
		Conversation: e.Conversation, Channel: e.Name.Channel, ID: e.ID, Name: e.Name.Event, Sequence: e.Sequence, Subject: e.Subject, Stored: e.Time,
	})}
	if prefix, ok := strings.CutSuffix(t.subject, ">"); ok {
		m.Subject = prefix + e.Subject
	}
	m.Header[HeaderReplayID] = []string{t.id}
	if t.lanes == nil {
		return true, t.b.nc.PublishMsg(m)
	}
	m.Header[jetstream.MsgIDHeader] = []string{replayMessageID(t.id, e.Sequence)}
	m.Header[jetstream.ExpectedStreamHeader] = []string{t.lanes.stream}
	return true, t.lanes.put(ctx, e.Sequence, m)
}

// replayMessageID is what a stream knows a replayed event by.
func replayMessageID(id string, sequence uint64) string {
	token, err := subjects.Encode(id)
	if err != nil {
		token = id
	}
	return fmt.Sprintf("replay:%s:%d", token, sequence)
}

func (t *subjectTarget) Flush(ctx context.Context) (uint64, error) {
	if t.lanes == nil {
		ctx, cancel := context.WithTimeout(ctx, defaultAckWait)
		defer cancel()
		return 0, t.b.nc.FlushWithContext(ctx)
	}
	return t.lanes.flush(ctx)
}

func (t *subjectTarget) Close() error { return nil }
