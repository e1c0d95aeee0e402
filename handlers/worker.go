package handlers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/embedded"
)

// balancedHoldback is how old a state must be before its checkpoint is written in balanced durability: five times the interval
// in which the server brings everything to the disk.
const balancedHoldback = 5 * time.Second

// holdback is how old a state on b must be before its checkpoint is written.
func holdback(b *bus.Bus) time.Duration {
	if srv := b.Server(); srv != nil && srv.Durability() == embedded.Balanced {
		return balancedHoldback
	}
	return 0
}

// Worker runs one handler. Several processes may run a worker of the same name; one acts, the others stand by.
type Worker struct {
	bus     *bus.Bus
	js      jetstream.JetStream // of its own, for the limits on what is in flight
	handler Handler
	log     hclog.Logger
	outage  *reports // NATS or a stream is in trouble
	failing *reports // the handler fails
	dying   *reports // events became dead letters, by their reason
	stats   counters
	tenants *bus.PerTenant[tally]
	reasons *reasons
	gate    *gate // what is worked on at once

	holdback            time.Duration // age of a state before it may be checkpointed
	redoFrom, redoUntil uint64        // events done again by the fences alone, after an unclean stop; 0 = none

	// The goroutine of run alone uses these.
	release    func()            // says that all was done again; nil = nothing was to be
	eventsMade time.Time         // creation of the CIM_EVENTS that resumeAt is of
	resumeAt   uint64            // the first event not finished when the last epoch ended, 0 = unknown
	metadata   map[string]string // of the durable

	mending sync.Mutex // held by who makes missing streams

	ctx      context.Context // ends everything at once
	cancel   context.CancelFunc
	draining chan struct{} // closed: finish what was taken, take no more
	closing  sync.Once
	done     chan struct{}
	lanes    sync.WaitGroup
}

type counters struct {
	handled, redelivered, deadLetters, lost, epochs atomic.Uint64
	acts                                            atomic.Bool
	waiting                                         atomic.Int64
	trouble                                         atomic.Pointer[error]
}

// Stats are a worker's counts since it was started.
type Stats struct {
	Handled     uint64 // events committed, whatever their outcome
	Redelivered uint64 // events that came again within an epoch
	DeadLetters uint64
	Lost        uint64 // events that the server reports as terminated though they have no dead letter; anything but 0 is an alarm
	Epochs      uint64 // how often this process took up the work
	Acts        bool   // this process has the work now; otherwise it stands by, for another one or for the first event
	Waiting     int    // events taken and not yet finished
	Trouble     error  // why no event is handled though this process would; nil if there is nothing of the kind
}

// Start begins to run h on b and returns once its durable exists. The worker goes on until Close; ctx bounds only the start.
func Start(ctx context.Context, b *bus.Bus, h Handler) (*Worker, error) {
	if err := h.Validate(); err != nil {
		return nil, err
	}
	h = h.withDefaults()
	log := b.Logger().Named("handler").With("handler", h.Name)
	w := &Worker{
		bus: b, handler: h, log: log, gate: newGate(h.Parallel), tenants: bus.NewPerTenant[tally](b), reasons: newReasons(),
		outage:   &reports{log: log, message: "NATS is in trouble, trying again"},
		failing:  &reports{log: log, message: "the handler fails, trying again"},
		dying:    &reports{log: log, message: "an event became a dead letter", events: true},
		draining: make(chan struct{}), done: make(chan struct{}),
	}
	var err error
	w.js, err = jetstream.New(b.Conn(),
		jetstream.WithPublishAsyncMaxPending(4*h.MaxAckPending), jetstream.WithPublishAsyncTimeout(5*time.Second))
	if err != nil {
		return nil, fmt.Errorf("start handler %s: %w", h.Name, err)
	}
	w.holdback = holdback(b)
	for _, step := range []func(context.Context) error{w.planRecovery, w.ensureConsumer, w.rewind, w.sync} {
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("start handler %s: %w", h.Name, err)
		}
	}
	w.ctx, w.cancel = context.WithCancel(context.WithoutCancel(ctx))
	w.lanes.Go(w.watchAdvisories)
	go w.run()
	return w, nil
}

// sync makes the durable outlive a power cut: without it a handler that begins with new events would miss some.
func (w *Worker) sync(context.Context) error {
	if srv := w.bus.Server(); srv != nil {
		return srv.Sync()
	}
	return nil
}

// Close finishes the events already taken, writes the checkpoints and hands the work over to a standby. When ctx ends first it
// breaks off at once, which loses nothing: what is not acknowledged is delivered again. It may be called more than once.
func (w *Worker) Close(ctx context.Context) error {
	w.closing.Do(func() { close(w.draining) })
	defer w.cancel()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
	}
	w.cancel()
	select {
	case <-w.done:
	case <-time.After(breakOff):
		return fmt.Errorf("handler %s: still busy after it was told to stop: %w", w.handler.Name, ctx.Err())
	}
	return fmt.Errorf("handler %s: events were left for the next worker: %w", w.handler.Name, ctx.Err())
}

// breakOff is how long a handler has to return after its context ended.
const breakOff = 2 * time.Second

// Stats returns the worker's counts.
func (w *Worker) Stats() Stats {
	var trouble error
	if t := w.stats.trouble.Load(); t != nil {
		trouble = *t
	}
	return Stats{
		Trouble: trouble,
		Acts:    w.stats.acts.Load(), Waiting: int(w.stats.waiting.Load()),
		Handled: w.stats.handled.Load(), Redelivered: w.stats.redelivered.Load(),
		DeadLetters: w.stats.deadLetters.Load(), Lost: w.stats.lost.Load(), Epochs: w.stats.epochs.Load(),
	}
}

// commits tells whether this is the handler that keeps index, members and checkpoints.
func (w *Worker) commits() bool { return w.handler.NewState != nil }

// redoes tells whether event s is one to be done again whatever the index says.
func (w *Worker) redoes(s uint64) bool { return s >= w.redoFrom && s <= w.redoUntil }

// trustsFences tells whether a subject whose last message is of a later event than s is proof enough that s was done: where
// the index is not to be believed, and at the second taking, when the index was read after the conflict and still lay below s.
func (w *Worker) trustsFences(s uint64, takes int) bool { return takes > 1 || w.redoes(s) }

// run lives through one epoch after the other.
func (w *Worker) run() {
	defer close(w.done)
	defer w.lanes.Wait()
	pin := ""
	for n := 1; ; n++ {
		began := time.Now()
		err := w.epoch(&pin)
		select {
		case <-w.draining:
			return
		case <-w.ctx.Done():
			return
		default:
		}
		if time.Since(began) > 5*time.Second {
			n = 1
		}
		if errors.Is(err, errSilence) {
			_, gone := w.lookUp() // nobody answers for a consumer that was deleted, either
			err = errors.Join(err, gone)
		}
		switch {
		case errors.Is(err, jetstream.ErrConsumerNotFound), errors.Is(err, errConsumerGone), bus.IsStreamGone(err):
			err = errors.Join(err, w.persistConsumer())
		case errors.Is(err, errWentBack):
			w.stats.trouble.Store(&err)
			w.outage.report(bus.StreamEvents, err)
		case ordinary(err):
		default:
			w.stats.trouble.Store(&err)
			w.outage.report("work", err)
		}
		w.log.Debug("taking the work up again", "because", err)
		if pause(w.ctx, outagePolicy.wait(n)/2) != nil {
			return
		}
	}
}

// ordinary tells whether an epoch ended as epochs do, or by what was reported already.
func ordinary(err error) bool {
	for _, end := range []error{errPinLost, errGap, errReconnected, errRemade, errSilence, errReported} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// errReported marks an error that is in the log.
var errReported = errors.New("reported")

// persist repeats f until it succeeds, waiting out whatever is wrong with NATS or a stream. It returns only ctx's error, or errWentBack.
func (w *Worker) persist(ctx context.Context, cause string, f func() error) error {
	for n := 1; ; n++ {
		err := f()
		if err == nil {
			w.outage.over(cause)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errWentBack) {
			return err // no waiting mends it
		}
		w.trouble(ctx, cause, err)
		if err := pause(ctx, outagePolicy.wait(n)); err != nil {
			return err
		}
	}
}

// trouble reports what is wrong with NATS or a stream. A stream that is gone is made again: the work goes on without what was in it.
func (w *Worker) trouble(ctx context.Context, cause string, err error) {
	w.outage.report(cause, err)
	if !bus.IsStreamGone(err) || !w.mending.TryLock() {
		return
	}
	defer w.mending.Unlock()
	if _, err := w.bus.MendStreams(ctx); err != nil && !errors.Is(err, bus.ErrLeftAlone) {
		w.outage.report("streams", err)
	}
}
