package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/cim"
)

// crowd is everybody who uses a bus: services that publish conversations, and agents at their desks who come back where they were.
type crowd struct {
	o       crowdOptions
	authors []*author
	desks   []*desk
	refused []string // ids of valid events that the handler gives up
	stop    chan struct{}
	ended   sync.Once
	writing sync.WaitGroup // authors
	reading sync.WaitGroup // desks
	cancel  context.CancelFunc
}

type crowdOptions struct {
	url           string
	seed          uint64
	every         time.Duration // an author's pace
	authors       int           // default 2
	conversations int           // each author's; default 15
	large         int           // body size of the largest legal event; 0 = none are sent
	clock         time.Duration // how wrong the authors' clocks are
	stay          time.Duration // how long a desk stays at most before it drops; default 1 s
	retryFor      time.Duration // how long an event is tried; default 1 minute
	verified      bool          // desks go on from what is verified, for faults that lose live copies without a trace
}

var crowdAgents = []string{"ada", "ben", "cleo", "dan"}

func startCrowd(t testing.TB, o crowdOptions) *crowd {
	t.Helper()
	o.every = time.Duration(shortOrLong(2, 1) * int(o.every)) // the short form is for busy machines and the race detector, too
	o.authors, o.conversations = max(o.authors, 2), max(o.conversations, 15)
	if o.stay == 0 {
		o.stay = time.Second
	}
	if o.retryFor == 0 {
		o.retryFor = time.Minute
	}
	c := &crowd{o: o, stop: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	c.cancel = cancel
	t.Cleanup(func() {
		c.endWriting()
		cancel()
		c.writing.Wait()
		c.reading.Wait()
	})
	for i := range o.authors {
		b, err := bus.Open(ctx, bus.Options{Conn: patiently(t, o.url), LeaveStreams: true})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, b.Close(context.WithoutCancel(t.Context()))) })
		p, err := b.NewPublisher(bus.PublisherOptions{MaxPending: 64, AckWait: 2 * time.Second, RetryFor: o.retryFor})
		require.NoError(t, err)
		a := &author{o: o, number: i, publisher: p, outcomes: make(chan *written, 1024)}
		c.authors = append(c.authors, a)
		c.writing.Go(func() { a.write(ctx, c.stop) })
		c.writing.Go(a.collect)
	}
	for i, name := range crowdAgents {
		d := &desk{url: o.url, name: name, stay: o.stay, careful: o.verified}
		c.desks = append(c.desks, d)
		c.reading.Go(func() { d.sit(ctx, rand.New(rand.NewPCG(o.seed, uint64(100+i)))) })
	}
	return c
}

func (c *crowd) endWriting() { c.ended.Do(func() { close(c.stop) }) }

// end stops the authors once they know what became of everything they published.
func (c *crowd) end(t testing.TB) {
	t.Helper()
	c.endWriting()
	c.writing.Wait()
	for _, a := range c.authors {
		require.NoError(t, a.err)
	}
}

// acknowledged is how many events were acknowledged so far.
func (c *crowd) acknowledged() int64 {
	var n int64
	for _, a := range c.authors {
		n += a.acknowledged.Load()
	}
	return n
}

// more waits until so many more events were acknowledged.
func (c *crowd) more(t testing.TB, n int64) {
	t.Helper()
	target := c.acknowledged() + n
	bustest.Eventually(t, 90*time.Second, func() error {
		if have := c.acknowledged(); have < target {
			return fmt.Errorf("%d of %d events acknowledged", have, target)
		}
		return nil
	})
}

// author publishes conversations of its own: agents come, talk, change roles and go, with garbage, repeated publishes and events of
// the largest legal size among them.
type author struct {
	o            crowdOptions
	number       int
	publisher    *bus.Publisher
	outcomes     chan *written
	acknowledged atomic.Int64
	written      []*written // in the order they were published; read after the author has ended
	err          error
}

// written is one event as its author knows it.
type written struct {
	id, conversation string
	pending          *bus.Pending
	receipt          bus.Receipt
	err              error
	at               time.Time // of the outcome
}

func (a *author) write(ctx context.Context, stop chan struct{}) {
	defer close(a.outcomes)
	rng := rand.New(rand.NewPCG(a.o.seed, uint64(a.number+1)))
	tick := time.NewTicker(a.o.every)
	defer tick.Stop()
	var earlier []bus.Event
	for i := 0; a.err == nil; i++ {
		select {
		case <-stop:
			a.err = a.publisher.Close(ctx)
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		e := a.event(rng, i)
		events := []bus.Event{e}
		if rng.IntN(50) == 0 {
			events = append(events, e) // as a service does that does not know the library tries by itself
		}
		if earlier = append(earlier, e); len(earlier) > 100 {
			earlier = earlier[1:]
		}
		if rng.IntN(50) == 0 {
			events = append(events, earlier[rng.IntN(len(earlier))]) // or one that was told nothing in time
		}
		for _, e := range events {
			pending, err := a.publisher.Publish(ctx, e)
			if err != nil {
				a.err = err
				break
			}
			a.outcomes <- &written{id: e.ID, conversation: e.Conversation, pending: pending}
		}
	}
	a.err = errors.Join(a.err, a.publisher.Close(ctx))
}

func (a *author) collect() {
	for w := range a.outcomes {
		w.receipt, w.err = w.pending.Receipt()
		w.at, w.pending = time.Now(), nil
		if w.err == nil {
			a.acknowledged.Add(1)
		}
		a.written = append(a.written, w)
	}
}

func (a *author) event(rng *rand.Rand, i int) bus.Event {
	conversation := fmt.Sprintf("k%d-%d", a.number, rng.IntN(a.o.conversations))
	agent, id := crowdAgents[rng.IntN(len(crowdAgents))], fmt.Sprintf("a%d-%d", a.number, i)
	e := bus.Event{Tenant: tenant, ID: id, Conversation: conversation}
	now := time.Now().Add(a.o.clock)
	m := cim.Membership{ID: id, Time: now, Conversation: conversation, Agent: agent, Role: "PRIMARY"}
	switch k := rng.IntN(40); {
	case k < 4 || i < a.o.conversations:
		e.Name, e.Body = cim.AgentSubscribed, cim.Subscribed(m)
	case k < 6:
		e.Name, e.Body = cim.AgentUnsubscribed, cim.Unsubscribed(m)
	case k == 6:
		e.Name, e.Body = "PARTICIPANT_ROLE_CHANGED", fmt.Appendf(nil,
			`{"id":%q,"name":"PARTICIPANT_ROLE_CHANGED","type":"ACTIVITY","conversationId":%q,"data":{"conversationParticipant":{"id":"p","role":"ASSISTANT","participant":{"id":%q}}}}`, id, conversation, agent)
	case k == 7 && rng.IntN(8) == 0:
		e.Name, e.Body = "TOPIC_STATE_CHANGE_EVENT", fmt.Appendf(nil,
			`{"id":%q,"name":"TOPIC_STATE_CHANGE_EVENT","type":"NOTIFICATION","conversationId":%q,"data":{"state":"CLOSED"}}`, id, conversation)
	case k == 8:
		e.Name, e.Body = cim.TypingIndicator, fmt.Appendf(nil, `{"id":%q,"name":"TYPING_INDICATOR","type":"NOTIFICATION","conversationId":%q}`, id, conversation)
	case k < 11:
		p := poisons[rng.IntN(len(poisons))]
		e.Name, e.Channel, e.Body = p.name, "web", p.of(id, conversation)
	case k == 11 && a.o.large > 0 && rng.IntN(4) == 0:
		e.Name, e.Channel, e.Body = cim.AgentMessage, "web", largest(id, conversation, a.o.large)
	default:
		e.Name, e.Channel, e.Body = cim.AgentMessage, "WEB", fmt.Appendf(nil,
			`{"id":%q,"name":"AGENT_MESSAGE","type":"MESSAGE","timestamp":%d,"conversationId":%q,"data":{"text":%q}}`,
			id, now.UnixMilli(), conversation, strings.Repeat("hello ", rng.IntN(200)))
	}
	return e
}

// largest is an event of exactly size bytes, nearly all of it in the channel session, which its deliveries hold a second time.
func largest(id, conversation string, size int) []byte {
	body := fmt.Sprintf(`{"id":%q,"name":"AGENT_MESSAGE","type":"MESSAGE","conversationId":%q,"data":{},"channelSession":{"id":"s","pad":"`, id, conversation)
	return []byte(body + strings.Repeat("x", size-len(body)-3) + `"}}`)
}

// largestBody is how large a body of the crowd may be on a bus.
func largestBody(t testing.TB, b *bus.Bus) int {
	t.Helper()
	stream, err := b.JetStream().Stream(t.Context(), bus.StreamEvents)
	require.NoError(t, err)
	const headers = 256 // more than those of the crowd's events take
	return int(stream.CachedInfo().Config.MaxMsgSize) - headers
}

// events compares what the authors know with what is stored.
func (c *crowd) events(t testing.TB, b *bus.Bus) sums {
	t.Helper()
	sequences := map[string][]uint64{}
	var s sums
	for m, err := range b.Read(context.WithoutCancel(t.Context()), bus.Range{Stream: bus.StreamEvents, Filter: ">"}) {
		require.NoError(t, err)
		id := bus.LastHeader(m.Header, bus.HeaderEventID)
		sequences[id] = append(sequences[id], m.Sequence)
		s.stored++
	}
	seen := map[string]bool{}
	for _, a := range c.authors {
		last := map[string]uint64{}
		for _, w := range a.written {
			there := sequences[w.id]
			switch {
			case w.err == nil && len(there) == 0:
				s.lost++
				c.tell(t, "lost", w)
			case w.err != nil:
				s.unknown++
			case w.receipt.Sequence != there[0]:
				s.mistold++
				c.tell(t, "stored elsewhere than its receipt says", w)
			}
			if w.err == nil {
				s.acknowledged++
			}
			if seen[w.id] {
				continue // published again
			}
			seen[w.id] = true
			s.published++
			if len(there) > 1 {
				s.repeated++
				c.tell(t, "stored twice", w)
			}
			if len(there) > 0 && w.err == nil { // what failed may be stored by a later try
				if there[0] < last[w.conversation] {
					s.misordered++
					c.tell(t, "out of order", w)
				}
				last[w.conversation] = there[0]
			}
		}
	}
	return s
}

func (c *crowd) tell(t testing.TB, what string, w *written) {
	t.Helper()
	t.Logf("event %s of %s is %s: receipt %+v, error %v", w.id, w.conversation, what, w.receipt, w.err)
}
