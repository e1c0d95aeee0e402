package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// backlog is what the log of deliveries says of one agent. Both methods return an *ExpiredError for a position that can no
// longer be told the truth about.
type backlog interface {
	// check counts the deliveries after p up to the position it returns; nil counts none and returns the end. more says that
	// the position is short of the end.
	check(ctx context.Context, p *Position) (upto Position, count uint64, more bool, err error)
	// resume reads a page of the deliveries after p; gap says that a live copy of one was lost.
	resume(ctx context.Context, p Position, gap bool) (page, []*jetstream.RawStreamMsg, error)
	close()
}

// handout is what goes to Next: a delivery, or nil and only how far the stream is.
type handout struct {
	delivery *Delivery
	position Position // everything known to be at or before it was handed out
	verified Position
}

const (
	manyHanded    = 4096                   // so many handed out above the verified position call for a check
	tooManyHanded = 16 * manyHanded        // so many wait for it
	settleTime    = 2 * time.Second        // when a new subscription is known to every server of a cluster, generously
	lateLive      = 250 * time.Millisecond // how long the answer to a check may overtake a live copy
	minRetryWait  = 100 * time.Millisecond
	maxRetryWait  = 5 * time.Second
)

// feed makes one ordered stream of live copies and log. One goroutine does all of it, run; what is below it belongs to it.
type feed struct {
	nc    *nats.Conn
	log   hclog.Logger
	back  backlog
	o     AgentOptions
	live  *liveBuffer
	sub   *nats.Subscription
	wake  chan struct{} // there is a live message
	moved chan struct{} // the connection changed
	out   chan handout
	err   error                // why out was closed
	keeps func(*Delivery) bool // nil: hand out all; otherwise those it is true for

	done    chan struct{} // closed by close
	cancel  context.CancelFunc
	running sync.WaitGroup
	status  chan nats.Status
	closing sync.Once

	// What is known, owned by run.
	identity   string           // of the log
	verified   Position         // everything up to it was handed out
	handed     map[uint64]int64 // what was handed out above it: when which sequence was stored
	position   Position         // of the last handout
	behind     bool             // something after verified is missing: hand out nothing before it is read
	gap        bool             // what is missing was lost on its way, and no page of it was read yet
	unsure     bool             // something may be missing: hand out nothing before the log was asked
	held       *liveMessage     // waits for what is before it
	nextCheck  time.Time
	failures   int    // control requests that failed in a row
	reconnects uint64 // of the connection, as seen last
	dropped    int    // by the subscription, as seen last
}

func newFeed(nc *nats.Conn, back backlog, o AgentOptions) *feed {
	o.CheckEvery = cmp.Or(o.CheckEvery, defaultCheckEvery)
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return &feed{
		nc: nc, back: back, o: o, log: o.Logger.With("tenant", o.Tenant, "agent", o.Agent),
		live: &liveBuffer{messages: cmp.Or(o.BufferMessages, defaultBufferMessages), bytes: cmp.Or(o.BufferBytes, defaultBufferBytes)},
		wake: make(chan struct{}, 1), moved: make(chan struct{}, 1), out: make(chan handout, 16), handed: map[uint64]int64{},
		done: make(chan struct{}), cancel: func() {},
	}
}

// subscribe hears the live subject from here on; the server this connection talks to knows of it when subscribe returns.
func (f *feed) subscribe(ctx context.Context, subject string) error {
	f.status = f.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	f.running.Go(func() {
		for range f.status {
			nudge(f.moved)
		}
	})
	f.reconnects = f.nc.Stats().Reconnects
	var err error
	f.sub, err = f.nc.Subscribe(subject, func(m *nats.Msg) {
		f.live.push(m)
		nudge(f.wake)
	})
	if err != nil {
		return fmt.Errorf("subscribe %s: %w", subject, err)
	}
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	if err := f.nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("subscribe %s: %w", subject, err)
	}
	// The server refuses a subscription out of band; nothing else tells of it.
	if err := f.nc.LastError(); errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), subject) {
		return fmt.Errorf("subscribe %s: %w", subject, err)
	}
	return nil
}

func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// begin settles where the stream begins: after p, or now.
func (f *feed) begin(ctx context.Context, p *Position) error {
	for {
		upto, count, more, err := f.back.check(ctx, p)
		var expired *ExpiredError
		switch {
		case err == nil:
			f.identity = upto.Identity
			f.verified = upto
			if p != nil && (count > 0 || more) {
				f.verified, f.behind = *p, true
			}
			f.position = f.verified
			f.settle()
			return nil
		case errors.As(err, &expired) && f.o.SkipExpired:
			f.skip(expired)
			p = &expired.From
		default:
			if err := f.wait(ctx, err); err != nil {
				return err
			}
		}
	}
}

func (f *feed) skip(e *ExpiredError) {
	f.log.Warn("position has expired, going on with what is left", "reason", e.Reason, "from", e.From.String(), "to", e.To.String())
	f.identity = e.To.Identity
	f.verified, f.position = e.From, e.From
	clear(f.handed)
	f.behind, f.unsure, f.held = true, false, nil
}

func (f *feed) start() {
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	f.running.Go(func() {
		defer close(f.out)
		for f.err == nil {
			f.err = f.step(ctx)
		}
		if ctx.Err() != nil {
			f.err = ErrAgentClosed
		}
	})
}

func (f *feed) close() {
	f.closing.Do(func() {
		close(f.done)
		f.cancel()
		if f.sub != nil {
			// It fails only on a connection that is closed, with all its subscriptions.
			_ = f.sub.Unsubscribe()
		}
		if f.status != nil {
			f.nc.RemoveStatusListener(f.status)
		}
		f.running.Wait()
		f.back.close()
	})
}

// step does the next thing there is to do: first what makes sure that nothing is missing, then the next live message.
func (f *feed) step(ctx context.Context) error {
	if f.nc.IsClosed() {
		return nats.ErrConnectionClosed
	}
	f.notice()
	switch {
	case f.behind:
		return f.catchUp(ctx)
	case f.unsure:
		return f.makeSure(ctx)
	}
	if m := f.held; m != nil {
		f.held = nil
		return f.take(ctx, m)
	}
	if m := f.live.pop(); m != nil {
		return f.receive(ctx, m)
	}
	wait := time.Until(f.nextCheck)
	if wait <= 0 {
		return f.routineCheck(ctx)
	}
	return f.pause(ctx, wait, f.wake)
}

// notice looks for signs of loss: the connection was another one for a while, a buffer ran over.
func (f *feed) notice() {
	if n := f.nc.Stats().Reconnects; n != f.reconnects {
		f.reconnects = n
		f.unsure = true
		f.settle()
	}
	// A subscription that is gone counts nothing; then the connection is closed.
	if n, err := f.sub.Dropped(); err == nil && n != f.dropped {
		f.dropped = n
		f.unsure = true
	}
	if f.live.overflowed() {
		f.behind, f.gap = true, true
	}
}

// settle has the next check soon: a server far from this one may publish for a moment yet without knowing of the subscription.
func (f *feed) settle() { f.nextCheck = time.Now().Add(min(settleTime, f.o.CheckEvery)) }

// receive takes what came on the live subject.
func (f *feed) receive(ctx context.Context, m *nats.Msg) error {
	if live, ok := parseLive(m); ok {
		return f.take(ctx, live)
	}
	if d := transient(m); d != nil {
		return f.hand(ctx, d)
	}
	return nil
}

// take hands out a live message, unless it was handed out before or something before it is missing.
func (f *feed) take(ctx context.Context, live *liveMessage) error {
	if live.Sequence <= f.verified.Sequence {
		// A repetition, unless it is younger than what was handed out: then the log is another one.
		if !f.verified.Stored.IsZero() && live.Time.After(f.verified.Stored) {
			f.unsure = true
		}
		return nil
	}
	if stored, ok := f.handed[live.Sequence]; ok {
		f.unsure = f.unsure || stored != live.Time.UnixNano()
		return nil
	}
	if live.previous > f.verified.Sequence && !f.has(live.previous) {
		f.held, f.behind, f.gap = live, true, true
		return nil
	}
	f.handed[live.Sequence] = live.Time.UnixNano()
	if len(f.handed) == manyHanded {
		f.nextCheck = time.Now()
	} else if len(f.handed) >= tooManyHanded {
		f.unsure = true
	}
	if live.Sequence > f.position.Sequence {
		f.position = f.at(live.Sequence, live.Time)
	}
	return f.hand(ctx, delivery(&live.RawStreamMsg))
}

func (f *feed) has(seq uint64) bool {
	_, ok := f.handed[seq]
	return ok
}

func (f *feed) at(seq uint64, stored time.Time) Position {
	return Position{Identity: f.identity, Sequence: seq, Stored: stored}
}

// hand gives a delivery, at the position reached, to Next.
func (f *feed) hand(ctx context.Context, d *Delivery) error {
	if f.keeps != nil && !f.keeps(d) {
		return nil
	}
	select {
	case f.out <- handout{delivery: d, position: f.position, verified: f.verified}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// confirm moves the verified position: everything up to p was handed out.
func (f *feed) confirm(p Position) {
	f.verified = p
	for seq := range f.handed {
		if seq <= p.Sequence {
			delete(f.handed, seq)
		}
	}
	if p.Sequence >= f.position.Sequence {
		f.position = p
	}
	// If Next is so far behind that there is no room, what it takes next carries the position.
	select {
	case f.out <- handout{position: f.position, verified: f.verified}:
	default:
	}
}
