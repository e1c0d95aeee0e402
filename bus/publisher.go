package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const defaultMaxPending = 4096

// PublisherOptions say how an asynchronous publisher behaves.
type PublisherOptions struct {
	// MaxPending is how many events may be without an outcome; at that number Publish waits. Default 4096.
	MaxPending int
	// AckWait is how long an answer is awaited before an event is sent again, default 5 s.
	AckWait time.Duration
	// RetryFor is how long an event whose turn it is in its conversation is tried, default 30 s. Where the server is silent all that
	// time, the events behind it end with it. An event whose outcome is unknown is sent again only as long as the server is sure to
	// know its message id, half the duplicate window.
	RetryFor time.Duration
}

// Publisher publishes events without waiting for each: many are on their way at once, every one gets its outcome. Events of one
// conversation are stored in the order of their Publish calls, whatever happens in between. For that the next event of a conversation
// is sent when the one before it has its outcome (● with more of them on their way a reconnect or a change of leader stores a later
// one first, and no resending mends that); different conversations go side by side. After a failure that may pass an event is
// sent again with the same message id.
//
// All methods may be called from several goroutines at once. A Publisher has two goroutines of its own and ends with Close, or with the
// bus.
type Publisher struct {
	b     *Bus
	o     PublisherOptions
	inbox string // answers arrive below it, with the number of the event and of the try
	sub   *nats.Subscription

	resendFor time.Duration // how long after a try of unknown outcome an event may be sent again

	slots   chan struct{} // one per event without an outcome
	wake    chan struct{} // the queue is no longer empty
	answers chan *nats.Msg

	mu       sync.Mutex
	closed   bool
	accepted uint64              // events accepted, the last one's number
	pending  map[uint64]*Pending // without an outcome, by number
	lanes    map[laneKey]*lane
	queue    []*Pending // to be sent, in this order

	answered  time.Time // when the server last decided about an event
	connected bool      // as last seen; spares the connection's buffer
	links     uint64    // reconnects, as last seen

	closing  sync.Once
	refuse   chan struct{} // closed when Close begins
	ctx      context.Context
	cancel   context.CancelFunc
	workers  sync.WaitGroup
	closeErr error
}

// NewPublisher starts a publisher. The caller ends it with Close.
func (b *Bus) NewPublisher(o PublisherOptions) (*Publisher, error) {
	o.MaxPending = cmp.Or(o.MaxPending, defaultMaxPending)
	o.AckWait = cmp.Or(o.AckWait, defaultAckWait)
	o.RetryFor = cmp.Or(o.RetryFor, defaultRetryFor)
	if o.MaxPending < 0 || o.AckWait < 0 || o.RetryFor < 0 {
		return nil, fmt.Errorf("publisher options %+v: give positive values, or 0 for the defaults", o)
	}
	p := &Publisher{
		b: b, o: o, inbox: b.nc.NewInbox() + ".", resendFor: b.resendFor(),
		slots: make(chan struct{}, o.MaxPending), wake: make(chan struct{}, 1),
		// What does not fit is lost to the connection's reader, and its event sent again.
		answers: make(chan *nats.Msg, 2*o.MaxPending),
		pending: make(map[uint64]*Pending), lanes: make(map[laneKey]*lane),
		connected: b.nc.IsConnected(), links: b.nc.Stats().Reconnects, refuse: make(chan struct{}),
	}
	p.ctx, p.cancel = context.WithCancel(b.ctx)
	var err error
	if p.sub, err = b.nc.ChanSubscribe(p.inbox+"*", p.answers); err != nil {
		p.cancel()
		return nil, fmt.Errorf("start publisher: %w", err)
	}
	p.workers.Go(p.run)
	p.workers.Go(p.mind)
	return p, nil
}

// Publish accepts an event and returns at once, unless MaxPending events are without an outcome: then it waits for one of them, or
// for ctx. ctx bounds nothing else. An error means that the event was not accepted: ErrInvalidEvent, ErrClosed, or that of ctx. The
// event's Body and Header must not change until it has its outcome.
func (p *Publisher) Publish(ctx context.Context, e Event) (*Pending, error) {
	msg, err := e.message()
	if err != nil {
		p.b.published.count(e.Tenant, Receipt{}, err)
		return nil, err
	}
	q := &Pending{msg: msg, done: make(chan struct{}), span: p.b.startPublish(ctx, &e, msg)}
	if err := p.admit(ctx, q, laneKey{e.Tenant, e.Conversation}); err != nil {
		err = fmt.Errorf("publish %s: %w", msg.Subject, err)
		endPublish(q.span, Receipt{}, err)
		return nil, err
	}
	return q, nil
}

// admit takes an event in once there is room for it.
func (p *Publisher) admit(ctx context.Context, q *Pending, key laneKey) error {
	if err := p.slot(ctx); err != nil {
		return err
	}
	if !p.accept(q, key) {
		<-p.slots
		return ErrClosed
	}
	return nil
}

// slot waits until one more event may be on its way.
func (p *Publisher) slot(ctx context.Context) error {
	select {
	case p.slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-p.refuse:
		return ErrClosed
	case <-p.ctx.Done():
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("%d events wait for their outcome: %w", p.o.MaxPending, ctx.Err())
	}
}

// accept numbers an event and sends it, or puts it behind its conversation's last one.
func (p *Publisher) accept(q *Pending, key laneKey) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.ctx.Err() != nil {
		return false
	}
	p.accepted++
	q.number = p.accepted
	p.pending[q.number] = q
	l := p.lanes[key]
	if l == nil {
		l = &lane{key: key}
		p.lanes[key] = l
	}
	q.lane = l
	if l.last != nil {
		l.last.next = q
	} else {
		l.first, q.turn = q, time.Now()
		p.enqueue(q)
	}
	l.last = q
	return true
}

// Flush waits until every event accepted before has its outcome, or for ctx. What the outcomes are is told by each Pending.
func (p *Publisher) Flush(ctx context.Context) error {
	p.mu.Lock()
	waiting := make([]*Pending, 0, len(p.pending))
	for _, q := range p.pending {
		waiting = append(waiting, q)
	}
	p.mu.Unlock()
	for i, q := range waiting {
		select {
		case <-q.done:
		case <-ctx.Done():
			return fmt.Errorf("flush publisher: up to %d events without an outcome: %w", len(waiting)-i, ctx.Err())
		}
	}
	return nil
}

// Close accepts no more events, flushes, and ends the publisher. Where ctx ends first, or the bus was closed, events that have no
// outcome get one: ErrUnknownOutcome if they were sent, else ErrClosed. It may be called more than once. Where the network is stuck in
// the middle of a write it waits for the connection's own write deadline (nats.FlusherTimeout, 1 minute).
func (p *Publisher) Close(ctx context.Context) error {
	p.closing.Do(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		close(p.refuse)
		p.closeErr = p.Flush(ctx)
		p.cancel()
		if err := p.sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrBadSubscription) {
			p.closeErr = errors.Join(p.closeErr, fmt.Errorf("close publisher: %w", err))
		}
		p.workers.Wait()
	})
	return p.closeErr
}
