package bus

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"

	"github.com/cimbus/cimbus/subjects"
)

// Delivery is what an agent receives.
type Delivery struct {
	// Position is where to resume once this delivery is dealt with; see Agent for what it promises. A transient delivery has
	// the position of the one before it.
	Position     Position
	Subject      string // as stored: cim-agent.<tenant>.<agent>.<type>.<conversation>
	Agent        string
	Type         string // onCimEvent, topicUnsubscription, replay, taskRequest, …
	Conversation string // "" if it belongs to none
	Sequence     uint64 // Cim-Sequence, 0 if agent-scoped or transient
	Header       nats.Header
	Body         []byte
	Transient    bool // it is in no stream: it cannot be resumed
}

// AgentOptions say whose deliveries to open, and from where.
type AgentOptions struct {
	Tenant string
	Agent  string
	// After is the position to go on from, the Position of the last delivery dealt with; the zero Position is everything that is
	// stored. nil is from now on.
	After *Position
	// SkipExpired goes on with what is left when the position has expired, and logs it, instead of failing with an *ExpiredError.
	SkipExpired bool
	// CheckEvery is how often the log is asked whether something was missed unnoticed; default 1 minute.
	CheckEvery time.Duration
	// BufferMessages and BufferBytes bound what waits for Next; defaults 4096 and 8 MiB. More is dropped, and read from the log
	// when its turn comes.
	BufferMessages int
	BufferBytes    int
	Logger         hclog.Logger // default: none
}

const (
	defaultCheckEvery     = time.Minute
	defaultBufferMessages = 4096
	defaultBufferBytes    = 8 << 20
)

// ErrAgentClosed is returned by Next after Close.
var ErrAgentClosed = errors.New("agent is closed")

// Agent is one agent's deliveries as one ordered stream: the live copies, and from the log what was missed.
//
// What Next promises, counted from the position it was opened at: every stored delivery is handed out exactly once; those of one
// subject, so of one conversation and type, strictly in order. In normal operation all come in the order of the stream. After
// a break a late delivery of another subject may come behind a younger one: a lost live copy shows at the next one of its
// subject, or else at the next check, which follows every reconnect and every minute.
//
// What a Position promises: resuming from the last delivery's loses nothing that was known to be missing when it was handed out,
// and repeats nothing in normal operation. What was lost on the way without a trace shows within CheckEvery; who cannot afford
// even that keeps Verified instead, and gets some deliveries again.
//
// Next may be called from several goroutines, which then share the stream.
type Agent struct {
	feed *feed

	mu       sync.Mutex
	position Position
	verified Position
}

// OpenAgent opens an agent's deliveries over a connection that need not hold more than an agent's permissions: subscribe
// cim-live.<tenant>.<agent>.> and cim-inbox.<tenant>.<agent>.>, publish cim-ctl.<tenant>.<agent>.*. It asks the control service,
// and waits for one until ctx ends, which bounds the opening only. The connection is never closed; the agent lives through its
// reconnects. An expired position gives an *ExpiredError.
func OpenAgent(ctx context.Context, nc *nats.Conn, o AgentOptions) (*Agent, error) {
	client, err := newControlClient(nc, o.Tenant, o.Agent)
	if err != nil {
		return nil, fmt.Errorf("open agent: %w", err)
	}
	return openAgent(ctx, nc, client, o)
}

// Agent opens an agent's deliveries as OpenAgent does, but reads the log itself: it needs no control service, and the
// permissions of the bus.
func (b *Bus) Agent(ctx context.Context, o AgentOptions) (*Agent, error) {
	filter, err := agentName{o.Tenant, o.Agent}.deliveries()
	if err != nil {
		return nil, fmt.Errorf("open agent: %w", err)
	}
	if o.Logger == nil {
		o.Logger = b.log.Named("agent")
	}
	return openAgent(ctx, b.nc, &directBacklog{bus: b, filter: filter}, o)
}

func openAgent(ctx context.Context, nc *nats.Conn, log backlog, o AgentOptions) (*Agent, error) {
	subject, err := subjects.DeliveryFilter{Tenant: subjects.Is(o.Tenant), Agent: subjects.Is(o.Agent)}.Live()
	if err != nil {
		log.close()
		return nil, fmt.Errorf("open agent: %w", err)
	}
	f := newFeed(nc, log, o)
	if err = f.subscribe(ctx, subject); err == nil {
		err = f.begin(ctx, o.After)
	}
	if err != nil {
		f.close()
		return nil, fmt.Errorf("open agent %q: %w", o.Agent, err)
	}
	a := &Agent{feed: f, position: f.position, verified: f.verified}
	f.start()
	return a, nil
}

// Next waits for the next delivery. It returns ctx's error, an *ExpiredError when what comes next may no longer be stored, the
// connection's error when that was closed, and ErrAgentClosed after Close; all but the first are final.
func (a *Agent) Next(ctx context.Context) (Delivery, error) {
	for {
		select {
		case <-a.feed.done:
			return Delivery{}, ErrAgentClosed
		default:
		}
		select {
		case h, ok := <-a.feed.out:
			if !ok {
				return Delivery{}, a.feed.err
			}
			a.mu.Lock()
			a.position, a.verified = h.position, h.verified
			a.mu.Unlock()
			if h.delivery != nil {
				h.delivery.Position = h.position
				return *h.delivery, nil
			}
		case <-ctx.Done():
			return Delivery{}, ctx.Err()
		}
	}
}

// All yields deliveries until ctx ends, the loop is left or Next fails; the failure is its last pair.
func (a *Agent) All(ctx context.Context) iter.Seq2[Delivery, error] {
	return func(yield func(Delivery, error) bool) {
		for {
			d, err := a.Next(ctx)
			if !yield(d, err) || err != nil {
				return
			}
		}
	}
}

// Position is where to resume after what Next handed out so far.
func (a *Agent) Position() Position {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.position
}

// Verified is the last position of which the log confirmed that everything up to it was handed out. It is at or behind
// Position, by CheckEvery at most while the control service answers.
func (a *Agent) Verified() Position {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.verified
}

// Close ends the stream and waits for its goroutines. The connection stays open. It may be called more than once.
func (a *Agent) Close() error {
	a.feed.close()
	return nil
}
