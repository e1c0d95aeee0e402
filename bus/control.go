package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"

	"github.com/cimbus/cimbus/subjects"
)

// The verbs of the control service, the last token of cim-ctl.<tenant>.<agent>.<verb>.
const (
	VerbResume  = "resume"  // {"after":P,"max":≤256,"max_bytes":≤4 MiB} → the deliveries after P, then {"last","upto","more","count"}
	VerbCheck   = "check"   // {"after":P} → {"upto","count","more"}: how many deliveries lie between; without after the end, and 0
	VerbJoin    = "join"    // {"conversation","role"} → receipt
	VerbLeave   = "leave"   // {"conversation"} → receipt
	VerbPublish = "publish" // {"event":{…}} → receipt
	VerbHistory = "history" // {"conversation","after":Cim-Sequence,"max","max_bytes"} → the events, then {"last","upto","more","count"}
)

// ControlOptions say how the control service answers.
type ControlOptions struct {
	// OpenInboxes answers to _INBOX.> too, not only to the caller's cim-inbox.<tenant>.<agent>.>. For a server on loopback
	// without identities; with them one agent could have its answers sent to another.
	OpenInboxes bool
	// Allow decides whether an agent may join; its error is the answer's message, with code "forbidden". nil allows all.
	Allow func(ctx context.Context, r JoinRequest) error
	// Concurrency is how many requests are worked on at a time, default 32; pages hold up to 4 MiB each.
	Concurrency int
	// Version is what the service tells of itself, a semantic version; default 0.0.0.
	Version string
	Logger  hclog.Logger // default: the bus's, named "control"
}

// JoinRequest is what ControlOptions.Allow decides about.
type JoinRequest struct {
	Tenant, Conversation, Agent, Role string
}

const (
	defaultConcurrency = 32
	maxWaiting         = 1024 // requests of all agents that wait for their turn
	maxPerAgent        = 4    // requests of one agent, waiting or worked on
	patience           = 2 * time.Second
	requestTimeout     = 20 * time.Second
)

// Control serves the agents' requests on cim-ctl, together with every other process that does. It is safe for concurrent use.
type Control struct {
	bus     *Bus
	o       ControlOptions
	log     hclog.Logger
	service *service

	ctx      context.Context
	cancel   context.CancelFunc
	turns    chan struct{}
	dropped  atomic.Uint64
	counters map[string]*requestCounters // by verb
	resumed  atomic.Uint64
	closing  sync.Once
	closeErr error

	mu       sync.Mutex
	closed   bool
	inflight map[agentName]int
	total    int
	requests sync.WaitGroup
}

type agentName struct{ tenant, agent string }

// ServeControl starts answering agents as the NATS micro service ServiceName, in a queue group of that name: several processes
// share the work. It serves until Close, or the bus's; ctx bounds the start only.
func (b *Bus) ServeControl(ctx context.Context, o ControlOptions) (*Control, error) {
	if b.ctx.Err() != nil {
		return nil, ErrClosed
	}
	o.Concurrency = cmp.Or(o.Concurrency, defaultConcurrency)
	o.Version = cmp.Or(o.Version, "0.0.0")
	if o.Concurrency < 0 {
		return nil, fmt.Errorf("control: concurrency %d: give at least 1, or 0 for %d", o.Concurrency, defaultConcurrency)
	}
	if o.Logger == nil {
		o.Logger = b.log.Named("control")
	}
	c := &Control{bus: b, o: o, log: o.Logger, turns: make(chan struct{}, o.Concurrency), inflight: map[agentName]int{}, counters: map[string]*requestCounters{}}
	c.ctx, c.cancel = context.WithCancel(b.ctx)
	var err error
	if c.service, err = newService(b.nc, o.Version, c.drop); err != nil {
		c.cancel()
		return nil, fmt.Errorf("control: %w", err)
	}
	handlers := map[*endpoint]nats.MsgHandler{}
	for verb, run := range c.verbs() {
		c.counters[verb] = &requestCounters{}
		subject, err := subjects.ControlFilter{Verb: subjects.Is(verb)}.Subject()
		if err != nil {
			c.cancel()
			return nil, fmt.Errorf("control: serve %s: %w", verb, err)
		}
		e := c.service.add(verb, subject)
		handlers[e] = c.handler(e, run)
	}
	if err := c.service.start(handlers); err != nil {
		return nil, errors.Join(fmt.Errorf("control: %w", err), c.Close())
	}
	// From here on the server knows of the service.
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	if err := b.nc.FlushWithContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("control: %w", err), c.Close())
	}
	b.workers.Go(func() {
		<-c.ctx.Done()
		c.stop()
	})
	return c, nil
}

// Dropped is how many requests were not answered because their reply subject was none of the caller's.
func (c *Control) Dropped() uint64 { return c.dropped.Load() }

// Close stops serving and waits for the requests being worked on, which are cut short. It may be called more than once.
func (c *Control) Close() error {
	c.stop()
	return c.closeErr
}

func (c *Control) stop() {
	c.closing.Do(func() {
		if err := c.service.stop(); err != nil {
			c.closeErr = fmt.Errorf("control: %w", err)
		}
		// The server passes requests on until it has heard of the end; those are still worked on.
		if c.bus.nc.IsConnected() {
			_ = c.bus.nc.FlushTimeout(time.Second)
		}
		c.mu.Lock()
		c.closed = true
		c.mu.Unlock()
		c.cancel()
		c.requests.Wait()
	})
}

// handler takes requests off the endpoint's subscription, which all agents share: whatever may take time happens elsewhere. Nothing is
// answered but through the request it makes.
func (c *Control) handler(e *endpoint, run controlVerb) nats.MsgHandler {
	return func(m *nats.Msg) {
		began := time.Now()
		r, ok := c.admit(m)
		if !ok {
			c.drop(m)
			e.done(began, "dropped: the reply subject is none of the caller's")
			return
		}
		r.endpoint, r.began = e, began
		if !c.enter(r.agent) {
			c.answered(r, errBusy)
			return
		}
		go func() {
			defer c.leave(r.agent)
			ctx, cancel := context.WithTimeout(c.ctx, requestTimeout)
			defer cancel()
			if err := c.turn(ctx); err != nil {
				c.answered(r, err)
				return
			}
			defer func() { <-c.turns }()
			c.answered(r, run(ctx, r))
		}()
	}
}

// drop leaves a request unanswered.
func (c *Control) drop(m *nats.Msg) {
	if n := c.dropped.Add(1); n&(n-1) == 0 { // at 1, 2, 4, 8 …
		c.log.Warn("request dropped: its reply subject is none of the caller's", "subject", m.Subject, "dropped", n)
	}
}

// admit looks at the reply subject before anything else of a request. A reply subject is input: the bus may publish where an
// agent may not, so an answer to $JS.API.STREAM.PURGE.CIM_EVENTS would purge it in the agent's stead.
func (c *Control) admit(m *nats.Msg) (*request, bool) {
	name, err := subjects.ParseControl(m.Subject)
	if err != nil {
		return nil, false
	}
	inbox := subjects.Inbox{Tenant: name.Tenant, Agent: name.Agent}
	if !inbox.Contains(m.Reply) && (!c.o.OpenInboxes || !openInbox(m.Reply)) {
		return nil, false
	}
	return &request{control: c, agent: agentName{name.Tenant, name.Agent}, verb: name.Verb, reply: m.Reply, data: m.Data, header: m.Header}, true
}

// enter counts a request in, unless the agent or the service has too many already.
func (c *Control) enter(a agentName) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.total >= maxWaiting || c.inflight[a] >= maxPerAgent {
		return false
	}
	c.total++
	c.inflight[a]++
	c.requests.Add(1)
	return true
}

func (c *Control) leave(a agentName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	if c.inflight[a]--; c.inflight[a] == 0 {
		delete(c.inflight, a)
	}
	c.requests.Done()
}

// turn waits for a place among the requests being worked on.
func (c *Control) turn(ctx context.Context) error {
	select {
	case c.turns <- struct{}{}:
		return nil
	case <-time.After(patience):
		return errBusy
	case <-ctx.Done():
		return errBusy
	}
}
