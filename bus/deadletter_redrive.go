package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// RedriveOptions say who redrives, and how.
type RedriveOptions struct {
	Operator string // recorded on every entry; required
	Force    bool   // overcome the refusals that can be
}

// EntryOutcome is what Redrive or Drop did with an entry.
type EntryOutcome string

// The outcomes.
const (
	EntryRedriven EntryOutcome = "redriven" // the payload is in CIM_EVENTS as a new event, and the entry says so
	EntryDropped  EntryOutcome = "dropped"  // the entry is deleted
	EntryRefused  EntryOutcome = "refused"  // nothing was done, see Refused
	EntryFailed   EntryOutcome = "failed"   // see Err; nothing was stored, or with ErrUnknownOutcome perhaps. Repeating it does no harm
	EntrySkipped  EntryOutcome = "skipped"  // not tried: an earlier entry of its conversation failed, or the whole was broken off
)

// DeadLetterResult is what became of one entry of a plan.
type DeadLetterResult struct {
	PlannedDeadLetter // Refused is set where Outcome is EntryRefused
	Outcome           EntryOutcome
	NewEvent          uint64 // its sequence in CIM_EVENTS; that of the earlier redrive where the entry was redriven already
	Err               error
}

// redriveLanes is how many conversations are redriven at once, and how many entries dropped.
const redriveLanes = 16

// Redrive appends the entries of a plan to CIM_EVENTS, each as a new event on its source subject, for its handler alone: the others
// acknowledge it without doing anything. What belongs to one conversation is appended in the order of the original events, one
// after the other; when one fails those behind it in its conversation are skipped.
//
// Each entry is appended once, whatever happens: broken off anywhere and repeated, now or days later, by this plan or another one, by
// one operator or by several at once. A redriven entry is refused a second time unless o.Force is set and nobody else has redriven
// it since the plan was made. When an event fails again it becomes a dead letter of its own, with RedriveOf.
//
// It returns one result per entry, in the order of the plan, and an error when the whole was broken off: ctx ended, or CIM_EVENTS
// takes nothing (ErrStoreFull, ErrNoStream, ErrUnreachable …).
func (b *Bus) Redrive(ctx context.Context, plan DeadLetterPlan, o RedriveOptions) ([]DeadLetterResult, error) {
	if o.Operator == "" {
		return nil, errors.New("redrive: operator is empty: say who redrives")
	}
	events, err := b.eventsNow(ctx)
	if err != nil {
		return nil, fmt.Errorf("redrive: %w", err)
	}
	r := &redrive{b: b, o: o, events: events}
	results, err := carryOut(ctx, plan, conversationLanes(plan), r.entry)
	if err != nil {
		return results, fmt.Errorf("redrive: %w", err)
	}
	return results, nil
}

// conversationLanes are the entries' places in the plan by conversation, in the order of their events.
func conversationLanes(plan DeadLetterPlan) [][]int {
	type key struct{ tenant, conversation string }
	at := map[key]int{}
	var lanes [][]int
	for i, e := range plan.Entries {
		k := key{e.Tenant, e.Conversation}
		n, known := at[k]
		if !known {
			n = len(lanes)
			at[k] = n
			lanes = append(lanes, nil)
		}
		lanes[n] = append(lanes[n], i)
	}
	for _, l := range lanes {
		slices.SortStableFunc(l, func(x, y int) int { return cmp.Compare(plan.Entries[x].SourceSequence, plan.Entries[y].SourceSequence) })
	}
	return lanes
}

// carryOut does the entries lane by lane, several lanes at once. An entry that fails ends its lane; one that fails for a reason
// that all have in common ends them all, once the entries at hand are done.
func carryOut(ctx context.Context, plan DeadLetterPlan, lanes [][]int, do func(context.Context, PlannedDeadLetter) DeadLetterResult) ([]DeadLetterResult, error) {
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	results := make([]DeadLetterResult, len(plan.Entries))
	for i, e := range plan.Entries {
		e.Refused = ""
		results[i] = DeadLetterResult{PlannedDeadLetter: e, Outcome: EntrySkipped}
	}
	queue := make(chan []int)
	var workers sync.WaitGroup
	for range min(redriveLanes, len(lanes)) {
		workers.Go(func() {
			for l := range queue {
				for _, i := range l {
					if running.Err() != nil {
						break
					}
					results[i] = do(ctx, plan.Entries[i])
					if err := results[i].Err; err != nil {
						if !errors.Is(err, ErrTooLarge) && ctx.Err() == nil {
							stop(err)
						}
						break
					}
				}
			}
		})
	}
	for _, l := range lanes {
		queue <- l
	}
	close(queue)
	workers.Wait()
	return results, context.Cause(running)
}

// redrive is one call of Redrive.
type redrive struct {
	b      *Bus
	o      RedriveOptions
	events eventStore // when it began
}

// entry redrives one entry. The record that an attempt was started comes first, fenced by the record before it, so of several
// operators one starts it; the record that it is done comes last. Whoever finds an attempt started finishes it.
func (r *redrive) entry(ctx context.Context, e PlannedDeadLetter) DeadLetterResult {
	result := DeadLetterResult{PlannedDeadLetter: e}
	result.Refused, result.Err = r.take(ctx, &result)
	switch {
	case result.Err != nil:
		result.Outcome = EntryFailed
	case result.Refused != "":
		result.Outcome = EntryRefused
	default:
		result.Outcome = EntryRedriven
	}
	if result.Redrive != nil {
		result.NewEvent = result.Redrive.Event
	}
	return result
}

// take brings an entry to its end and leaves its last record in e.
func (r *redrive) take(ctx context.Context, e *DeadLetterResult) (refused Refusal, err error) {
	if e.Refused != "" && (!r.o.Force || !e.Refused.Forcible()) {
		return e.Refused, nil
	}
	planned := e.Redrive.position()
	var msg *nats.Msg
	for {
		var at uint64
		if e.Redrive, at, err = r.b.lastRedrive(ctx, &e.DeadLetter); err != nil {
			return "", err
		}
		a, fresh, refused := r.attempt(&e.DeadLetter, planned)
		// The message is there before anything is written: no attempt is started that cannot be finished.
		if refused == "" && msg == nil {
			msg, refused, err = r.message(ctx, &e.DeadLetter)
		}
		if refused != "" || err != nil {
			return refused, err
		}
		if fresh {
			err = r.b.recordRedrive(ctx, &e.DeadLetter, a, at)
			if errors.Is(err, errRecordOvertaken) {
				continue
			}
			if err != nil {
				return "", err
			}
		}
		e.Redrive, err = r.finish(ctx, &e.DeadLetter, a, msg, fresh)
		return "", err
	}
}

// attempt is the one to be finished: that which somebody started, or a new one.
func (r *redrive) attempt(d *DeadLetter, planned uint64) (a *Redrive, fresh bool, refused Refusal) {
	number := 1
	switch now := d.Redrive; {
	case now == nil:
	case now.dropped():
		return nil, false, RefusedGone
	case now.unfinished() && r.events.reachBack(now):
		return now, false, ""
	case now.unfinished() && !r.o.Force:
		return nil, false, RefusedUnclear
	case !r.o.Force:
		return nil, false, RefusedRedriven
	case now.position() != planned:
		return nil, false, RefusedChanged
	default:
		number = now.Attempt + 1
	}
	return &Redrive{
		Attempt: number, State: RedriveStarted, Operator: r.o.Operator, DeadLetter: d.Sequence, After: r.events.last,
		// It names the original and the attempt; the rest keeps anybody from having used it.
		MessageID: fmt.Sprintf("redrive:%s:%d:%d:%d:%s", d.Handler, d.SourceSequence, d.Sequence, number, nuid.Next()),
	}, true, ""
}

// message is the new event, but for its id: the payload as it is, what the publisher's headers were, and whom it is for.
func (r *redrive) message(ctx context.Context, d *DeadLetter) (*nats.Msg, Refusal, error) {
	now, err := r.b.readEntry(ctx, d)
	switch {
	case errors.Is(err, ErrNoMessage):
		return nil, RefusedGone, nil
	case err != nil:
		return nil, "", err
	}
	if now.LeftOut {
		source, err := r.b.sourceOf(ctx, d)
		switch {
		case errors.Is(err, ErrNoMessage):
			return nil, RefusedPayload, nil
		case err != nil:
			return nil, "", err
		}
		now.Payload = source.Data
	}
	h := copiedHeader(now.Header)
	// An id that a header cannot carry came from the body, which still has it.
	if now.Conversation != "" && headerSafe(now.Conversation) {
		h[HeaderConversation] = []string{now.Conversation}
	}
	h[jetstream.ExpectedStreamHeader] = []string{StreamEvents}
	h[HeaderRedriveOf] = []string{strconv.FormatUint(d.Sequence, 10)}
	h[HeaderRedriveHandler] = []string{d.Handler}
	return &nats.Msg{Subject: d.SourceSubject, Header: h, Data: now.Payload}, "", nil
}

// finish brings an attempt to its end and returns its record. Where nobody knows whether the event is stored the record stays as it is.
func (r *redrive) finish(ctx context.Context, d *DeadLetter, a *Redrive, msg *nats.Msg, fresh bool) (*Redrive, error) {
	msg.Header[jetstream.MsgIDHeader] = []string{a.MessageID}
	event, err := r.append(ctx, msg, a, fresh)
	if errors.Is(err, ErrUnknownOutcome) || ctx.Err() != nil && err != nil {
		return a, err
	}
	end := *a
	end.Operator, end.State, end.Event, end.Error = r.o.Operator, RedriveDone, event, ""
	if err != nil {
		end.State, end.Error = RedriveFailed, err.Error()
	}
	last, recordErr := r.settle(ctx, d, &end, a.at)
	switch {
	case last != nil && last.State == RedriveDone:
		return last, nil
	case recordErr != nil && err == nil:
		return a, fmt.Errorf("the event is stored at %d, but the entry does not say so; repeat the redrive to have it said: %w", event, recordErr)
	}
	return a, cmp.Or(err, recordErr)
}

// settle records the end of an attempt behind its record at a sequence, and returns what is recorded then: another operator may have
// ended the attempt too. That the event is stored is the last word.
func (r *redrive) settle(ctx context.Context, d *DeadLetter, end *Redrive, at uint64) (*Redrive, error) {
	for {
		err := r.b.recordRedrive(ctx, d, end, at)
		if err == nil {
			return end, nil
		}
		if !errors.Is(err, errRecordOvertaken) {
			return nil, err
		}
		var last *Redrive
		if last, at, err = r.b.lastRedrive(ctx, d); err != nil {
			return nil, err
		}
		if last != nil && (last.State == RedriveDone || end.State == RedriveFailed) {
			return last, nil
		}
	}
}

// append makes sure that the event of an attempt is in CIM_EVENTS, once, and returns its sequence. The server recognizes the message
// id within its window; beyond that, and whenever an answer is missing, the stream itself is asked.
func (r *redrive) append(ctx context.Context, msg *nats.Msg, a *Redrive, fresh bool) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, defaultRetryFor)
	defer cancel()
	known := time.Time{} // when the event was certainly not stored
	if fresh {
		known = time.Now()
	}
	p := syncPublish{b: r.b, msg: msg}
	for {
		if time.Since(known) > r.events.window/2 {
			known = time.Now()
			event, err := r.find(ctx, msg.Subject, a)
			if event != 0 {
				return event, nil
			}
			if err != nil {
				return 0, errors.Join(ErrUnknownOutcome, err)
			}
		}
		receipt, done, err := p.try(ctx)
		switch {
		case done && err == nil:
			return receipt.Sequence, nil
		case done && p.unknown.IsZero():
			return 0, err
		case done:
			event, findErr := r.find(ctx, msg.Subject, a)
			if event != 0 {
				return event, nil
			}
			return 0, errors.Join(ErrUnknownOutcome, err, findErr)
		case !p.unknown.IsZero():
			known = time.Time{}
		}
		select {
		case <-ctx.Done():
			return 0, p.giveUp(ctx.Err())
		case <-time.After(retryPause):
		}
	}
}

// find looks for the event of an attempt among those stored since it was started; 0 = it is not there.
func (r *redrive) find(ctx context.Context, subject string, a *Redrive) (uint64, error) {
	for m, err := range r.b.Read(ctx, Range{Stream: StreamEvents, Filter: subject, From: a.After + 1}) {
		if err != nil {
			return 0, fmt.Errorf("look for the redriven event: %w", err)
		}
		if LastHeader(m.Header, jetstream.MsgIDHeader) == a.MessageID {
			return m.Sequence, nil
		}
	}
	return 0, nil
}
