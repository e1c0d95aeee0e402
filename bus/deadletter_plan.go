package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/subjects"
)

// Refusal is why an entry is not redriven, "" if it is.
type Refusal string

// The refusals. Those that a forced redrive overcomes say so.
const (
	RefusedRedriven Refusal = "already-redriven" // it was redriven before; forced it goes again, as one more event
	RefusedUnclear  Refusal = "unclear"          // a redrive was broken off, and CIM_EVENTS no longer reaches back to tell whether it stored its event; forced it goes again
	RefusedHandler  Refusal = "no-handler"       // its handler has no consumer, so nobody would handle the event; forced it goes nevertheless
	RefusedSubject  Refusal = "bad-subject"      // its source subject is not of the grammar: publish the payload on a proper one instead
	RefusedPayload  Refusal = "no-payload"       // the payload was left out for its size, and CIM_EVENTS no longer keeps the event
	RefusedGone     Refusal = "gone"             // it was dropped, or has expired since the plan was made
	RefusedChanged  Refusal = "changed"          // it was redriven since the plan was made: plan again
)

// Forcible tells whether a forced redrive overcomes the refusal.
func (r Refusal) Forcible() bool {
	return r == RefusedRedriven || r == RefusedUnclear || r == RefusedHandler
}

// DeadLetterPlan is what a redrive or a drop is to do: exactly these entries, in the state in which they were planned. A plan may be
// carried out again after it was broken off: what was done is not done again.
type DeadLetterPlan struct {
	Entries []PlannedDeadLetter // oldest first
}

// PlannedDeadLetter is one entry of a plan.
type PlannedDeadLetter struct {
	DeadLetter         // without Header and Payload
	Refused    Refusal // why a redrive refuses it, "" = it does not
}

// Count is how many entries of a plan have something in common.
type Count struct {
	Name    string
	Entries int
}

// Count counts the entries by what name says of them, the largest count first.
func (p DeadLetterPlan) Count(name func(PlannedDeadLetter) string) []Count {
	entries := map[string]int{}
	for _, e := range p.Entries {
		entries[name(e)]++
	}
	counts := make([]Count, 0, len(entries))
	for name, n := range entries {
		counts = append(counts, Count{name, n})
	}
	slices.SortFunc(counts, func(x, y Count) int {
		return cmp.Or(cmp.Compare(y.Entries, x.Entries), strings.Compare(x.Name, y.Name))
	})
	return counts
}

// Redrivable is how many entries a redrive takes, forced or not.
func (p DeadLetterPlan) Redrivable(force bool) int {
	n := 0
	for _, e := range p.Entries {
		if e.Refused == "" || force && e.Refused.Forcible() {
			n++
		}
	}
	return n
}

// PlanRedrive lists what Redrive would do with the entries that pass the filter. It changes nothing.
func (b *Bus) PlanRedrive(ctx context.Context, f DeadLetterFilter) (DeadLetterPlan, error) {
	plan, err := b.planDeadLetters(ctx, f)
	if err == nil {
		err = b.planRefusals(ctx, plan.Entries)
	}
	if err != nil {
		return DeadLetterPlan{}, fmt.Errorf("plan redrive: %w", err)
	}
	return plan, nil
}

// PlanDrop lists the entries that pass the filter, for Drop. It changes nothing.
func (b *Bus) PlanDrop(ctx context.Context, f DeadLetterFilter) (DeadLetterPlan, error) {
	plan, err := b.planDeadLetters(ctx, f)
	if err != nil {
		return DeadLetterPlan{}, fmt.Errorf("plan drop: %w", err)
	}
	return plan, nil
}

func (b *Bus) planDeadLetters(ctx context.Context, f DeadLetterFilter) (DeadLetterPlan, error) {
	var plan DeadLetterPlan
	for d, err := range b.deadLetters(ctx, f) {
		if err != nil {
			return DeadLetterPlan{}, err
		}
		d.Header, d.Payload = nil, nil
		plan.Entries = append(plan.Entries, PlannedDeadLetter{DeadLetter: d})
	}
	return plan, nil
}

// planRefusals fills in why entries are refused. A refusal that force does not overcome comes first.
func (b *Bus) planRefusals(ctx context.Context, entries []PlannedDeadLetter) error {
	if len(entries) == 0 {
		return nil
	}
	events, err := b.eventsNow(ctx)
	if err != nil {
		return err
	}
	handled := map[string]bool{}
	for i := range entries {
		e := &entries[i]
		if _, known := handled[e.Handler]; !known {
			if handled[e.Handler], err = b.hasConsumer(ctx, e.Handler); err != nil {
				return err
			}
		}
		kept := true
		if e.LeftOut {
			if kept, err = b.keepsSource(ctx, &e.DeadLetter); err != nil {
				return err
			}
		}
		_, subjectErr := subjects.ParseEvent(e.SourceSubject)
		switch {
		case subjectErr != nil:
			e.Refused = RefusedSubject
		case e.Redrive.dropped():
			e.Refused = RefusedGone
		case !kept:
			e.Refused = RefusedPayload
		case e.Redrive.unfinished() && !events.reachBack(e.Redrive):
			e.Refused = RefusedUnclear
		case e.Redrive != nil && !e.Redrive.unfinished():
			e.Refused = RefusedRedriven
		case !handled[e.Handler]:
			e.Refused = RefusedHandler
		}
	}
	return nil
}

func (b *Bus) hasConsumer(ctx context.Context, handler string) (bool, error) {
	_, err := b.js.Consumer(ctx, StreamEvents, HandlerConsumer(handler))
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return false, fmt.Errorf("handler %s: %w", handler, err)
	}
	return err == nil, nil
}

func (b *Bus) keepsSource(ctx context.Context, d *DeadLetter) (bool, error) {
	_, err := b.sourceOf(ctx, d)
	if err != nil && !errors.Is(err, ErrNoMessage) {
		return false, err
	}
	return err == nil, nil
}

// eventStore is how far CIM_EVENTS reaches.
type eventStore struct {
	first, last uint64        // sequences
	window      time.Duration // in which it remembers message ids
}

func (b *Bus) eventsNow(ctx context.Context) (eventStore, error) {
	s, err := b.js.Stream(ctx, StreamEvents)
	if err != nil {
		return eventStore{}, fmt.Errorf("stream %s: %w", StreamEvents, err)
	}
	info := s.CachedInfo()
	return eventStore{first: info.State.FirstSeq, last: info.State.LastSeq, window: info.Config.Duplicates}, nil
}

// reachBack tells whether everything that was stored since an attempt was started is still there.
func (s eventStore) reachBack(r *Redrive) bool { return s.first <= r.After+1 }

// sourceOf reads the event an entry was made of from CIM_EVENTS; it returns ErrNoMessage where that is no longer kept, or the stream
// was made anew and holds another one there.
func (b *Bus) sourceOf(ctx context.Context, d *DeadLetter) (*jetstream.RawStreamMsg, error) {
	m, err := b.MessageAt(ctx, StreamEvents, d.SourceSequence)
	if err == nil && (m.Subject != d.SourceSubject || !m.Time.Equal(d.SourceTime)) {
		err = ErrNoMessage
	}
	return m, err
}
