package bustest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/subjects"
)

// ErrNotWhole: CIM_EVENTS no longer begins with its first event, so nobody can
// say any more what it demands.
var ErrNotWhole = errors.New("stream does not begin with its first message")

// readTimeout is how long the next message may be in coming; elections were
// seen to take a dozen seconds.
const readTimeout = 30 * time.Second

// Audit reads CIM_EVENTS whole, folds what it demands on its own account, and
// compares that exactly with what is stored: deliveries, index, member records,
// dead letters of the onCimEvent handler. The bus has to be at rest, with
// everything published committed, and no stream may have reached a limit.
// refused are the ids of valid events that the handler gives up, none of
// membership: they demand a dead letter instead of deliveries.
//
// Deliveries count in the order of their conversation, notices among the
// events; index entries in the order of theirs. A delivery has to hold its
// event byte for byte, a dead letter its payload. The error is about reading,
// Report.Err about what was found. Everything is read from the leaders.
func Audit(ctx context.Context, js jetstream.JetStream, refused ...string) (Report, error) {
	contents := contents{}
	events, err := readEvents(ctx, js, refused, contents)
	if err != nil {
		return Report{}, fmt.Errorf("audit: %w", err)
	}
	want := demand(events)
	r := Report{Events: len(events)}
	for _, account := range []struct {
		demanded []Entry
		read     func(context.Context, jetstream.JetStream) ([]Entry, error)
		line     func(Entry) string
	}{
		{want.deliveries, contents.readDeliveries, conversationOfAgent},
		{want.index, readIndex, bySubject},
		{want.members, readMembers, bySubject},
		{want.deadLetters, contents.readDeadLetters, bySubject},
	} {
		there, err := account.read(ctx, js)
		if err != nil {
			return Report{}, fmt.Errorf("audit: %w", err)
		}
		r.compare(account.demanded, there, account.line)
	}
	return r, nil
}

// Received is a message as an agent received it: its stored subject or its
// live one, and its Cim-Sequence.
type Received struct {
	Subject  string
	Sequence uint64
}

// AuditAgent holds what an agent received, in the order in which it did,
// against what CIM_EVENTS demands for it behind a position: after is the
// sequence in CIM_DELIVERIES of the last delivery the agent had before, 0 for
// none. Deliveries of types other than onCimEvent and topicUnsubscription are
// not counted, nor transient ones (leave those out: they have no sequence).
// refused is as in Audit.
func AuditAgent(ctx context.Context, js jetstream.JetStream, tenant, agent string, after uint64, received []Received, refused ...string) (Report, error) {
	events, err := readEvents(ctx, js, refused, contents{})
	if err != nil {
		return Report{}, fmt.Errorf("audit of agent %q: %w", agent, err)
	}
	had := map[Entry]bool{}
	err = read(ctx, js, streamDeliveries, subjects.AllDeliveries, func(m stored) error {
		if m.sequence <= after {
			had[m.entry(streamDeliveries)] = true
		}
		return nil
	})
	if err != nil {
		return Report{}, fmt.Errorf("audit of agent %q: %w", agent, err)
	}
	var demanded, there []Entry
	for _, e := range demand(events).deliveries {
		if d, err := subjects.ParseDelivery(e.Subject); err == nil && d.Tenant == tenant && d.Agent == agent && !had[e] {
			demanded = append(demanded, e)
		}
	}
	for _, m := range received {
		subject := m.Subject
		if rest, live := strings.CutPrefix(subject, "cim-live."); live {
			subject = "cim-agent." + rest
		}
		if promised(subject) {
			there = append(there, Entry{Stream: streamDeliveries, Subject: subject, Sequence: m.Sequence})
		}
	}
	r := Report{Events: len(events)}
	r.compare(demanded, there, conversationOfAgent)
	return r, nil
}

// promised tells whether a delivery on subject is of a type the promise covers.
// What has no proper subject was promised to nobody and is not let off.
func promised(subject string) bool {
	d, err := subjects.ParseDelivery(subject)
	return err != nil || d.Type == typeEvent || d.Type == typeNotice
}

func readEvents(ctx context.Context, js jetstream.JetStream, refused []string, contents contents) ([]Event, error) {
	stream, err := js.Stream(ctx, streamEvents)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", streamEvents, err)
	}
	if first := stream.CachedInfo().State.FirstSeq; first > 1 {
		return nil, fmt.Errorf("stream %s: %w: it begins with %d", streamEvents, ErrNotWhole, first)
	}
	var events []Event
	err = read(ctx, js, streamEvents, subjects.AllEvents, func(m stored) error {
		// Redriven for another handler: no business of onCimEvent.
		if h := last(m.header, "Cim-Redrive-Handler"); h == "" || h == handlerEvents {
			e := decodeEvent(m.subject, m.header, m.data, m.sequence)
			if e.Invalid == "" && slices.Contains(refused, e.ID) {
				e.Invalid = "refused"
			}
			events = append(events, e)
			contents[m.sequence] = content{event: sha256.Sum256(eventIn(m.data)), payload: sha256.Sum256(m.data)}
		}
		return nil
	})
	return events, err
}

// contents are the events' own bytes, by their sequence.
type contents map[uint64]content

// content is the hashes of an event and of what was published, which may be a
// wrapper around it.
type content struct{ event, payload [sha256.Size]byte }

func (c contents) readDeliveries(ctx context.Context, js jetstream.JetStream) (there []Entry, err error) {
	err = read(ctx, js, streamDeliveries, subjects.AllDeliveries, func(m stored) error {
		if !promised(m.subject) {
			return nil
		}
		e := m.entry(streamDeliveries)
		if d, err := subjects.ParseDelivery(m.subject); err == nil && d.Type == typeEvent &&
			sha256.Sum256(object(m.data)["cimEvent"]) != c[e.Sequence].event {
			e.Record = "with other bytes"
		}
		there = append(there, e)
		return nil
	})
	return there, err
}

func readIndex(ctx context.Context, js jetstream.JetStream) (there []Entry, err error) {
	err = read(ctx, js, streamIndex, subjects.AllIndex, func(m stored) error {
		e := m.entry(streamIndex)
		if outcome := last(m.header, "Cim-Outcome"); outcome == outcomeDeadLetter {
			e.Record = outcome
		}
		there = append(there, e)
		return nil
	})
	return there, err
}

func (c contents) readDeadLetters(ctx context.Context, js jetstream.JetStream) (there []Entry, err error) {
	filter, err := subjects.DeadLetterFilter{Handler: subjects.Is(handlerEvents)}.Subject()
	if err != nil {
		return nil, err
	}
	err = read(ctx, js, streamDeadLetters, filter, func(m stored) error {
		e := m.entry(streamDeadLetters)
		truncated := len(m.data) == 0 && last(m.header, "Cim-Payload-Left-Out") != ""
		if !truncated && sha256.Sum256(m.data) != c[e.Sequence].payload {
			e.Record = "with other bytes"
		}
		there = append(there, e)
		return nil
	})
	return there, err
}

// readMembers gives the last record of every key, without those that have
// expired or were deleted.
func readMembers(ctx context.Context, js jetstream.JetStream) (there []Entry, err error) {
	records := map[string]Entry{}
	err = read(ctx, js, streamMembers, subjects.AllMembers, func(m stored) error {
		delete(records, m.subject)
		if len(m.data) == 0 {
			return nil
		}
		var record member
		if err := json.Unmarshal(m.data, &record); err != nil {
			return fmt.Errorf("member record %s: %w", m.subject, err)
		}
		records[m.subject] = record.entry(m.subject)
		return nil
	})
	for _, e := range records {
		there = append(there, e)
	}
	return there, err
}

// stored is a message of a stream.
type stored struct {
	subject  string
	sequence uint64
	header   nats.Header
	data     []byte
}

func (m stored) entry(stream string) Entry {
	// A derived message without its sequence has 0, which nothing demands.
	s, _ := strconv.ParseUint(last(m.header, "Cim-Sequence"), 10, 64)
	return Entry{Stream: stream, Subject: m.subject, Sequence: s}
}

// read visits the messages of a stream from the first to the last that the
// leader has when it has got there.
func read(ctx context.Context, js jetstream.JetStream, stream, filter string, visit func(stored) error) error {
	if err := readAll(ctx, js, stream, filter, visit); err != nil {
		return fmt.Errorf("stream %s: %w", stream, err)
	}
	return nil
}

func readAll(ctx context.Context, js jetstream.JetStream, stream, filter string, visit func(stored) error) error {
	consumer, err := js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{FilterSubjects: []string{filter}})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	at := uint64(0)
	for {
		// The consumer may live on a replica that is behind, and then runs out
		// of messages early: only the leader knows whether there are more.
		more, err := leaderHas(ctx, js, stream, filter, at+1)
		if err != nil || !more {
			return err
		}
		for pending := uint64(1); pending > 0; {
			m, err := messages.Next(jetstream.NextMaxWait(readTimeout))
			if err = cmp.Or(ctx.Err(), err); err != nil {
				return err
			}
			meta, err := m.Metadata()
			if err != nil {
				return err
			}
			at, pending = meta.Sequence.Stream, meta.NumPending
			if err := visit(stored{m.Subject(), at, m.Headers(), m.Data()}); err != nil {
				return err
			}
		}
	}
}

// leaderHas asks the stream's leader for a message from a sequence on.
func leaderHas(ctx context.Context, js jetstream.JetStream, stream, filter string, from uint64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	request, err := json.Marshal(map[string]any{"seq": from, "next_by_subj": filter})
	if err != nil {
		return false, err
	}
	reply, err := js.Conn().RequestWithContext(ctx, jetstream.DefaultAPIPrefix+"STREAM.MSG.GET."+stream, request)
	if err != nil {
		return false, err
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return false, err
	}
	switch {
	case answer.Error == nil:
		return true, nil
	case answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return false, nil
	}
	return false, answer.Error
}
