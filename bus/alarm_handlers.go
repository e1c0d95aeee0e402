package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/subjects"
)

// OtherHandlers is the name of all handlers together that CIM_EVENTS has no consumer of. Dead letters name them, and whoever may publish
// those may give them any names, any number of them and such as are no text.
const OtherHandlers = "_other"

// DeadLetterStatus is what CIM_DEAD_LETTERS holds of one handler.
type DeadLetterStatus struct {
	Handler string
	Tenants map[string]uint64 // by the name the tenant is counted under
	Oldest  time.Time         // when the oldest was stored; zero of OtherHandlers, of whom it is not asked
}

// Handlers are the handlers as of the last look that was answered, by name. A process that is between two requests for events is not
// seen there as one that waits: Bus.Handlers looks again.
func (a *Alarms) Handlers() []HandlerStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.handlers
}

// DeadLetters are the handlers that have any, by name, as of the last count.
func (a *Alarms) DeadLetters() []DeadLetterStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.dead
}

// Stored is how many events CIM_EVENTS stored since the watch began, as of the last look, whoever published them.
func (a *Alarms) Stored() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stored
}

// countStored adds what was stored since the look before. What a stream that was made anew, or went back, has got meanwhile is not known.
// Lock held.
func (a *Alarms) countStored(before, now []StreamStatus) {
	if len(before) == 0 || !before[0].Exists || !now[0].Created.Equal(before[0].Created) || now[0].LastSequence < before[0].LastSequence {
		return
	}
	a.stored += now[0].LastSequence - before[0].LastSequence
}

// lookAtHandlers judges every handler's pause and lag, and ends the alarms of one that is not there any more.
func (a *Alarms) lookAtHandlers(ctx context.Context, events StreamStatus) {
	var all []HandlerStatus
	seen := map[string]bool{}
	for _, c := range events.Consumers {
		name := c.handler()
		if name == "" {
			continue
		}
		seen[name], seen[c.Name] = true, true
		oldest, err := a.bus.oldestWaiting(ctx, c)
		if err != nil {
			a.log.Debug("oldest waiting event not asked for", "handler", name, "error", err)
			all = append(all, a.before(name, c))
			continue
		}
		all = append(all, HandlerStatus{Handler: name, ConsumerStatus: c, Worker: c.worker(), Oldest: oldest})
		a.tell(c.paused(oldest, time.Duration(events.MaxAge*float64(time.Second))))
		a.tell(c.late(oldest, a.o.Lag))
	}
	a.mu.Lock()
	a.handlers = all
	a.mu.Unlock()
	for _, f := range a.Findings() {
		if (f.Check == "paused" || f.Check == "lag") && !seen[f.Of] {
			a.tell(Finding{Check: f.Check, Of: f.Of, Level: LevelOK, Found: "is gone", Why: f.Why, Remedy: nothing})
		}
	}
}

// before is a handler as it is now but for its oldest event, which was asked for last time.
func (a *Alarms) before(name string, c ConsumerStatus) HandlerStatus {
	h := HandlerStatus{Handler: name, ConsumerStatus: c, Worker: c.worker()}
	for _, old := range a.Handlers() {
		if old.Handler == name && c.Lag > 0 {
			h.Oldest = old.Oldest
		}
	}
	return h
}

// lookAtDeadLetters counts them where there were others at the last count. That lists all their subjects: no more than a twentieth of
// the time goes into it.
func (a *Alarms) lookAtDeadLetters(ctx context.Context, s StreamStatus) {
	state := [3]uint64{s.FirstSequence, s.LastSequence, s.Messages}
	if state == a.deadState || time.Now().Before(a.deadNext) {
		return
	}
	began := time.Now()
	dead, err := a.bus.deadLetterStatus(ctx, a.Handlers())
	a.deadNext = time.Now().Add(20 * time.Since(began))
	if err != nil {
		a.log.Debug("dead letters not counted", "error", err)
		return
	}
	a.deadState = state
	a.mu.Lock()
	a.dead = dead
	a.mu.Unlock()
}

func (b *Bus) deadLetterStatus(ctx context.Context, handlers []HandlerStatus) ([]DeadLetterStatus, error) {
	count, err := b.countDeadLettersOf(ctx)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, h := range handlers {
		known[h.Handler] = true
	}
	// Of more tenants than are told apart those are named that have most.
	owners := make([]deadLetterOwner, 0, len(count))
	for owner := range count {
		owners = append(owners, owner)
	}
	slices.SortFunc(owners, func(x, y deadLetterOwner) int {
		return cmp.Or(cmp.Compare(count[y], count[x]), cmp.Compare(x.handler, y.handler), cmp.Compare(x.tenant, y.tenant))
	})
	by := map[string]map[string]uint64{}
	for _, owner := range owners {
		handler := owner.handler
		if !known[handler] {
			handler = OtherHandlers
		}
		if by[handler] == nil {
			by[handler] = map[string]uint64{}
		}
		by[handler][b.tenants.of(owner.tenant)] += count[owner]
	}
	all := make([]DeadLetterStatus, 0, len(by))
	for handler, tenants := range by {
		if !known[handler] {
			all = append(all, DeadLetterStatus{Handler: handler, Tenants: tenants})
			continue
		}
		filter, err := subjects.DeadLetterFilter{Handler: subjects.Is(handler)}.Subject()
		if err != nil {
			return nil, err
		}
		first, err := b.NextMessage(ctx, StreamDeadLetters, 1, filter)
		if errors.Is(err, ErrNoMessage) {
			continue // gone since it was counted
		}
		if err != nil {
			return nil, err
		}
		all = append(all, DeadLetterStatus{Handler: handler, Tenants: tenants, Oldest: first.Time})
	}
	slices.SortFunc(all, func(x, y DeadLetterStatus) int { return cmp.Compare(x.Handler, y.Handler) })
	return all, nil
}

// deadLetterOwner is whose a dead letter is.
type deadLetterOwner struct{ handler, tenant string }

func (b *Bus) countDeadLettersOf(ctx context.Context) (map[deadLetterOwner]uint64, error) {
	stream, err := b.js.Stream(ctx, StreamDeadLetters)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(subjects.AllDeadLetters))
	if err != nil {
		return nil, err
	}
	count := map[deadLetterOwner]uint64{}
	for subject, n := range info.State.Subjects {
		if name, err := subjects.ParseDeadLetter(subject); err == nil {
			count[deadLetterOwner{name.Handler, name.Tenant}] += n
		}
	}
	return count, nil
}

// late judges how far a handler is behind; from fail on it is a failure, in one that is paused nothing.
func (c ConsumerStatus) late(oldest time.Time, fail time.Duration) Finding {
	f := Finding{
		Check: "lag", Of: c.Name, Level: LevelOK, Found: "has done every event", Remedy: nothing,
		Why: "an event that waits has reached no agent yet",
	}
	if c.Lag == 0 || oldest.IsZero() {
		return f
	}
	if c.PausedUntil != nil {
		f.Found = "is paused"
		return f
	}
	waits := max(time.Since(oldest), 0)
	f.Found = fmt.Sprintf("%d events wait and %d are in work, the oldest for %s", c.Pending, c.AckPending, waits.Round(time.Millisecond))
	switch {
	case waits >= fail:
		f.Level, f.Remedy = LevelFail, "see with cimbus handler ls that a process runs it, and what its log says"
	case waits >= lagWarn:
		f.Level, f.Remedy = LevelWarn, "look again: if it grows, see the log of the process that runs this handler"
	}
	return f
}
