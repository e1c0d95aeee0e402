package handlers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// rehearsed is one conversation on the way through its events.
type rehearsed struct {
	loader  loader
	subject string // of its index
	state   State  // nil until it is asked for
	at      uint64 // the last event folded

	next    uint64  // where in the index its entries go on
	entries []entry // read ahead from there

	delivered map[string]*deliveries // by type
}

// entry is what of an index entry is needed to fold its event.
type entry struct {
	sequence uint64
	made     string // its Cim-Source-Time
}

// entriesAhead is how many index entries are read at once.
const entriesAhead = 64

// recent are the conversations used last, and some used before them.
type recent struct{ young, old map[laneKey]*rehearsed }

// recentlyUsed is how many conversations are kept at least; it may be twice as many.
const recentlyUsed = 512

func (r *recent) get(key laneKey) *rehearsed {
	c := r.young[key]
	if c != nil {
		return c
	}
	if c = r.old[key]; c == nil {
		c = &rehearsed{delivered: map[string]*deliveries{}}
	}
	if r.young == nil || len(r.young) == recentlyUsed {
		r.young, r.old = make(map[laneKey]*rehearsed, recentlyUsed), r.young
	}
	r.young[key] = c
	return c
}

// stateBefore is a conversation with its state as it was before event s.
func (r *Rehearsal) stateBefore(ctx context.Context, key laneKey, s uint64) (*rehearsed, error) {
	c := r.conversations.get(key)
	if c.state == nil || c.at >= s {
		if err := r.load(ctx, c, key, s); err != nil {
			c.state = nil
			return nil, err
		}
	}
	if err := r.foldUpto(ctx, c, key, s); err != nil {
		c.state = nil
		return nil, err
	}
	return c, nil
}

// load begins with the checkpoint where that is of an earlier event, and with nothing otherwise.
func (r *Rehearsal) load(ctx context.Context, c *rehearsed, key laneKey, s uint64) error {
	index, err := subjects.Index{Tenant: key.tenant, Conversation: key.conversation}.Subject()
	if err != nil {
		return fmt.Errorf("index of conversation: %w", err)
	}
	c.loader = loader{bus: r.bus, log: r.bus.Logger(), newState: r.handler.NewState, key: key, before: s, long: true}
	c.subject, c.entries = index, nil
	if c.state, c.at, c.next, err = c.loader.readCheckpoint(ctx); err != nil {
		return err
	}
	if c.at == 0 {
		// Who joined by an event that has expired is a member by its record alone.
		stream, err := r.bus.JetStream().Stream(ctx, bus.StreamEvents)
		if err != nil {
			return err
		}
		if stream.CachedInfo().State.FirstSeq > 1 {
			return c.loader.readMembers(ctx, c.state)
		}
		return nil
	}
	last, err := lastOn(ctx, r.bus, bus.StreamIndex, index)
	if err == nil && last.sequence > c.at && last.stream < c.next {
		c.next = 1 // the index was made anew since the checkpoint
	}
	return err
}

// foldUpto folds what lies between the state and event s: the committed events by the index, then those that are not committed yet.
func (r *Rehearsal) foldUpto(ctx context.Context, c *rehearsed, key laneKey, s uint64) error {
	c.loader.before = s
	gone := false
	take := func(e entry) error {
		if e.sequence <= c.at {
			return nil
		}
		there, err := c.loader.foldEvent(ctx, c.state, e.sequence, e.made)
		gone = gone || !there
		c.at = e.sequence
		return err
	}
	for {
		if len(c.entries) == 0 {
			if err := c.readAhead(ctx); err != nil {
				return err
			}
		}
		if len(c.entries) == 0 || c.entries[0].sequence >= s {
			break
		}
		if err := take(c.entries[0]); err != nil {
			return err
		}
		c.entries = c.entries[1:]
	}
	later, err := r.backlog.before(ctx, r, key, s)
	if err != nil {
		return err
	}
	for _, sequence := range later {
		if err := take(entry{sequence: sequence}); err != nil {
			return err
		}
	}
	if gone {
		return c.loader.readMembers(ctx, c.state)
	}
	return nil
}

// readAhead reads the next entries of the index.
func (c *rehearsed) readAhead(ctx context.Context) error {
	for m, err := range c.loader.bus.Read(ctx, bus.Range{Stream: bus.StreamIndex, Filter: c.subject, From: c.next, Batch: entriesAhead}) {
		if err != nil {
			return err
		}
		c.next = m.Sequence + 1
		c.entries = append(c.entries, entry{bus.SequenceOf(m.Header), bus.LastHeader(m.Header, bus.HeaderSourceTime)})
		if len(c.entries) == entriesAhead {
			return nil
		}
	}
	return nil
}

// backlog are the events that have no index entry yet, as their handler has not come to them.
type backlog struct {
	floor  uint64 // up to here all have theirs
	upto   uint64 // up to here they are known
	events map[laneKey][]uint64
}

// before are a conversation's events of the backlog before event s.
func (l *backlog) before(ctx context.Context, r *Rehearsal, key laneKey, s uint64) ([]uint64, error) {
	if s > l.floor+1 && s > l.upto+1 {
		if err := l.read(ctx, r, s); err != nil {
			return nil, err
		}
	}
	waiting := l.events[key]
	n, _ := slices.BinarySearch(waiting, s)
	return waiting[:n], nil
}

func (l *backlog) read(ctx context.Context, r *Rehearsal, s uint64) error {
	c, err := r.bus.JetStream().Consumer(ctx, bus.StreamEvents, r.handler.durable())
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
	case err != nil:
		return err
	default:
		l.floor = max(l.floor, c.CachedInfo().AckFloor.Stream)
	}
	maps.DeleteFunc(l.events, func(key laneKey, waiting []uint64) bool {
		n, _ := slices.BinarySearch(waiting, l.floor+1)
		l.events[key] = waiting[n:]
		return n == len(waiting)
	})
	l.upto = max(l.upto, l.floor)
	if s <= l.floor+1 {
		return nil
	}
	if l.events == nil {
		l.events = map[laneKey][]uint64{}
	}
	for m, err := range r.bus.Scan(ctx, bus.Scan{Stream: bus.StreamEvents, From: l.upto + 1, Name: "cimbus-rehearsal"}) {
		if err != nil {
			return err
		}
		l.upto = m.Sequence
		e, key, why := decode(m.Subject, m.Header, m.Data, m.Sequence, m.Time)
		if why != nil || cim.IsTransient(e.Name) {
			continue
		}
		others, err := redrivenForOthers(ctx, r.bus, r.handler.Name, &e)
		if err != nil {
			return err
		}
		if !others {
			l.events[key] = append(l.events[key], m.Sequence)
		}
	}
	return nil
}
