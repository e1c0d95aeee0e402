package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// HandlerStatus is how far a handler is, and whether anybody runs it.
type HandlerStatus struct {
	Handler string
	ConsumerStatus
	Worker      WorkerState
	Oldest      time.Time // when the oldest event it has not done was stored, zero = it has done all
	DeadLetters uint64    // entries of this handler in CIM_DEAD_LETTERS
}

// WorkerState is whether there is a process that runs a handler.
type WorkerState string

// The states, the best first.
const (
	WorkerActs  WorkerState = "acts"  // a process has the work
	WorkerWaits WorkerState = "waits" // at least one process is there; the next event decides which one has the work
	WorkerNone  WorkerState = "none"  // events wait until a process is started
)

const (
	handlerPrefix = "handler-"
	askAgain      = 3
	askAgainAfter = 100 * time.Millisecond
)

// HandlerConsumer is the name of a handler's durable consumer on CIM_EVENTS.
func HandlerConsumer(handler string) string { return handlerPrefix + handler }

// UntilResumed is the end of a pause that was given none.
func UntilResumed() time.Time { return time.Date(9999, time.December, 31, 23, 59, 59, 0, time.UTC) }

// handler is the handler that a consumer belongs to, "" if to none.
func (c ConsumerStatus) handler() string {
	name, ours := strings.CutPrefix(c.Name, handlerPrefix)
	if !ours || !c.Durable {
		return ""
	}
	return name
}

func (c ConsumerStatus) worker() WorkerState {
	switch {
	case c.Pinned:
		return WorkerActs
	case c.Pulls > 0:
		return WorkerWaits
	}
	return WorkerNone
}

// Handlers tells the status of every handler that was ever started on this bus and not deleted since, by name. It returns
// jetstream.ErrStreamNotFound where there is no CIM_EVENTS.
func (b *Bus) Handlers(ctx context.Context) ([]HandlerStatus, error) {
	events, err := b.streamStatus(ctx, StreamEvents)
	if err == nil && !events.Exists {
		err = jetstream.ErrStreamNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("handlers: %w", err)
	}
	dead, err := b.countDeadLetters(ctx)
	if err != nil {
		return nil, fmt.Errorf("handlers: count dead letters: %w", err)
	}
	var all []HandlerStatus
	for _, c := range events.Consumers {
		name := c.handler()
		if name == "" {
			continue
		}
		h := HandlerStatus{Handler: name, ConsumerStatus: c, DeadLetters: dead[name]}
		if h.Oldest, err = b.oldestWaiting(ctx, c); err == nil {
			h.Worker, err = b.workerOf(ctx, c)
		}
		if err != nil {
			return nil, fmt.Errorf("handler %s: %w", name, err)
		}
		all = append(all, h)
	}
	return all, nil
}

// workerOf tells whether somebody runs a consumer's handler. Who seems to be away is looked at again: between two requests for events a
// process is not seen to wait.
func (b *Bus) workerOf(ctx context.Context, c ConsumerStatus) (WorkerState, error) {
	state := c.worker()
	for n := 0; n < askAgain && state == WorkerNone; n++ {
		select {
		case <-ctx.Done():
			return state, ctx.Err()
		case <-time.After(askAgainAfter):
		}
		now, err := b.js.Consumer(ctx, StreamEvents, c.Name)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			return state, nil
		}
		if err != nil {
			return state, err
		}
		state = consumerStatus(now.CachedInfo()).worker()
	}
	return state, nil
}

// HandlerPaused tells whether a handler is paused, and until when.
func (b *Bus) HandlerPaused(ctx context.Context, handler string) (until time.Time, paused bool, err error) {
	c, err := b.js.Consumer(ctx, StreamEvents, HandlerConsumer(handler))
	if err != nil {
		return time.Time{}, false, fmt.Errorf("handler %s: %w", handler, err)
	}
	if at := consumerStatus(c.CachedInfo()).PausedUntil; at != nil {
		return *at, true, nil
	}
	return time.Time{}, false, nil
}

// oldestWaiting is when the oldest event was stored that a consumer has not done; zero if it has done all.
func (b *Bus) oldestWaiting(ctx context.Context, c ConsumerStatus) (time.Time, error) {
	if c.Lag == 0 {
		return time.Time{}, nil
	}
	m, err := b.NextMessage(ctx, StreamEvents, c.AckFloor+1, ">")
	if errors.Is(err, ErrNoMessage) {
		return time.Time{}, nil // done, or gone by age, since it was counted
	}
	if err != nil {
		return time.Time{}, err
	}
	return m.Time, nil
}

// countDeadLetters counts the entries by handler.
func (b *Bus) countDeadLetters(ctx context.Context) (map[string]uint64, error) {
	owned, err := b.countDeadLettersOf(ctx)
	if err != nil {
		return nil, err
	}
	count := map[string]uint64{}
	for owner, n := range owned {
		count[owner.handler] += n
	}
	return count, nil
}

// paused judges a handler's pause, which must not be forgotten: what waits ages. keeps is how long CIM_EVENTS does.
func (c ConsumerStatus) paused(oldest time.Time, keeps time.Duration) Finding {
	f := Finding{Check: "paused", Of: c.handler(), Level: LevelOK, Found: "is not paused", Remedy: nothing, Why: "while a handler is paused what is published is stored and reaches nobody"}
	if c.PausedUntil == nil {
		return f
	}
	f.Level, f.Found, f.Remedy = LevelWarn, "is paused "+PauseWords(*c.PausedUntil), "cimbus handler resume "+f.Of+", once what it was paused for is over"
	if c.Lag == 0 {
		return f
	}
	f.Found += fmt.Sprintf("; %d events wait", c.Lag)
	if oldest.IsZero() {
		return f
	}
	waits := max(time.Since(oldest), 0)
	f.Found += fmt.Sprintf(", the oldest for %s", waits.Round(time.Second))
	if keeps > 0 {
		f.Why += fmt.Sprintf(", and after %s it is gone", keeps)
		if waits > keeps/2 {
			f.Level = LevelFail
		}
	}
	return f
}

// PauseWords says for people until when a handler is paused.
func PauseWords(until time.Time) string {
	if !until.Before(UntilResumed()) {
		return "until it is resumed"
	}
	return "until " + until.UTC().Format(time.RFC3339)
}
