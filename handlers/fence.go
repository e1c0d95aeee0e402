package handlers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus"
)

// headerExpected makes the server refuse a message unless the last one on its subject has this stream sequence.
const headerExpected = "Nats-Expected-Last-Subject-Sequence"

// The server's err_codes that the fence reads.
const (
	codeWrongLastSequence  = 10071 // another message is the subject's last
	codeConcurrentSequence = 10164 // the same, found while replicas agree
	codeMessageTooLarge    = 10054
	codeHeaderTooLarge     = 10097 // above 64 KiB
)

// mark is what is known of the last message on a subject.
type mark struct {
	known    bool   // read or written by this epoch; otherwise optimistic: none
	stream   uint64 // its stream sequence, 0 = there is none
	sequence uint64 // its Cim-Sequence
	made     string // its Cim-Source-Time, where it was read
}

// derived is a message made of an event, and the stream that keeps it.
type derived struct {
	stream string
	msg    *nats.Msg
	since  time.Time // when its event was stored, of what is measured by it; zero: nothing is
}

// publish makes sure that each of out is stored exactly once for event s, whoever else tries the same: every message expects
// the last one of its subject to be the one this worker knows of. Cached Cim-Sequence at or above s: done before. It returns
// nil when all are stored, errOvertaken when another worker is ahead, errTooLarge when one can never be stored, or ctx's
// error. An outage is waited out.
func (c *conversation) publish(ctx context.Context, s uint64, out ...derived) error {
	futures := make([]jetstream.PubAckFuture, len(out))
	failed := make([]error, len(out))
	for i, d := range out {
		if c.marks[d.msg.Subject].sequence >= s {
			continue
		}
		futures[i], failed[i] = c.send(d)
	}
	for i, d := range out {
		if futures[i] != nil {
			failed[i] = c.await(ctx, s, d, futures[i])
		}
		if failed[i] == nil {
			continue
		}
		if err := c.settle(ctx, s, d, failed[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *conversation) send(d derived) (jetstream.PubAckFuture, error) {
	d.msg.Header[headerExpected] = []string{strconv.FormatUint(c.marks[d.msg.Subject].stream, 10)}
	return c.w.js.PublishMsgAsync(d.msg)
}

func (c *conversation) await(ctx context.Context, s uint64, d derived, f jetstream.PubAckFuture) error {
	select {
	case ack := <-f.Ok():
		c.marks[d.msg.Subject] = mark{known: true, stream: ack.Sequence, sequence: s}
		if !d.since.IsZero() {
			c.tally.latency.observe(time.Since(d.since))
		}
		return nil
	case err := <-f.Err():
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// settle finds out what became of a message whose publish failed, and publishes it again until it is stored. The subject's
// last message, read from the leader, decides; the error does not: a lost acknowledgement and a lost message look the same.
func (c *conversation) settle(ctx context.Context, s uint64, d derived, cause error) error {
	subject := d.msg.Subject
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if tooLarge(cause) {
			return fmt.Errorf("%w: %d bytes for %s", errTooLarge, len(d.msg.Data), subject)
		}
		if !conflict(cause) {
			c.w.trouble(ctx, d.stream, cause)
			if err := c.rest(ctx, outagePolicy.wait(n)); err != nil {
				return err
			}
		}
		cached := c.marks[subject]
		last, err := lastOn(ctx, c.w.bus, d.stream, subject)
		if err != nil {
			cause = err
			continue
		}
		if d.stream == bus.StreamIndex && last.stream == 0 && cached.stream != 0 {
			if cause = c.sameStreams(ctx, bus.StreamIndex); cause != nil {
				continue
			}
		}
		switch {
		case last.sequence > s && c.w.trustsFences(s, c.takes):
			if err := c.sameEvents(ctx, s, last); err != nil {
				return err
			}
			c.marks[subject] = last
			return nil
		case last.sequence == s:
			c.marks[subject] = last
			return nil
		case last.sequence > s, cached.known && last.stream != cached.stream:
			return errOvertaken
		}
		c.marks[subject] = last
		again := derived{stream: d.stream, since: d.since, msg: &nats.Msg{Subject: subject, Header: cloneHeader(d.msg.Header), Data: d.msg.Data}}
		f, err := c.send(again)
		if err == nil {
			err = c.await(ctx, s, again, f)
		}
		if err == nil {
			c.w.outage.over(d.stream)
			return nil
		}
		cause = err
	}
}

// lastOn reads the last message of a subject from the leader; none is a mark of zeros.
func lastOn(ctx context.Context, b *bus.Bus, stream, subject string) (mark, error) {
	m, err := b.LastMessage(ctx, stream, subject)
	if errors.Is(err, bus.ErrNoMessage) {
		return mark{known: true}, nil
	}
	if err != nil {
		return mark{}, err
	}
	return mark{known: true, stream: m.Sequence, sequence: bus.SequenceOf(m.Header), made: bus.LastHeader(m.Header, bus.HeaderSourceTime)}, nil
}

func conflict(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == codeWrongLastSequence || api.ErrorCode == codeConcurrentSequence)
}

func tooLarge(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, nats.ErrMaxPayload) ||
		errors.As(err, &api) && (api.ErrorCode == codeMessageTooLarge || api.ErrorCode == codeHeaderTooLarge)
}

func cloneHeader(h nats.Header) nats.Header {
	out := make(nats.Header, len(h))
	for k, v := range h {
		out[k] = append([]string(nil), v...)
	}
	return out
}

// derivedHeader are the headers of everything made of e: what the publisher sent that is not reserved, and the bus's own. The caller may
// set others, and changes no value in place.
func derivedHeader(e *Event) nats.Header {
	if e.derived == nil {
		e.derived = makeDerivedHeader(e)
	}
	return maps.Clone(e.derived)
}

func makeDerivedHeader(e *Event) nats.Header {
	return bus.DerivedHeader(e.Header, bus.Source{
		Conversation: e.Conversation, Channel: cmp.Or(e.Channel, bus.LastHeader(e.Header, bus.HeaderChannel), e.Source.Channel),
		ID: e.ID, Name: e.Name, Sequence: e.Sequence, Subject: e.Subject, Stored: e.Stored,
	})
}
