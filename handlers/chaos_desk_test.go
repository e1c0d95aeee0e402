package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

// desk is an agent who drops at random and goes on from the position it had: sometimes its stream ends, sometimes its connection.
type desk struct {
	url, name string
	stay      time.Duration
	careful   bool // it goes on from the verified position, and drops what it had
	resumed   atomic.Int64

	had map[bustest.Received]int // the session it came in, of every delivery but the running session's

	mu       sync.Mutex
	received []bustest.Received
	at       []time.Time     // when each was
	late     []time.Duration // since it was stored
	again    []again
	err      error
}

// again is a delivery that came once more, in a session that went on from a position.
type again struct {
	bustest.Received
	session int
	after   uint64
}

func (d *desk) sit(ctx context.Context, rng *rand.Rand) {
	position := bus.Position{}.String()
	d.had = map[bustest.Received]int{}
	var nc *nats.Conn
	defer func() {
		if nc != nil {
			nc.Close()
		}
	}()
	for session := 0; ctx.Err() == nil; session++ {
		if nc == nil {
			var err error
			if nc, err = nats.Connect(d.url, restless()...); err != nil {
				nc = nil
				elapse(20 * time.Millisecond) // where nobody listens that is told at once
				continue
			}
		}
		next, err := d.session(ctx, nc, session, position, between(rng, 10*time.Millisecond, d.stay))
		if err != nil {
			d.mu.Lock()
			d.err = err
			d.mu.Unlock()
			return
		}
		position = next
		d.mu.Lock()
		for _, r := range d.received[len(d.had):] {
			d.had[r] = session
		}
		d.mu.Unlock()
		d.resumed.Add(1)
		if rng.IntN(3) == 0 {
			nc.Close()
			nc = nil
		}
	}
}

// session receives for a while and returns the position it came to. Only an error that no waiting mends is one.
func (d *desk) session(ctx context.Context, nc *nats.Conn, number int, position string, stay time.Duration) (string, error) {
	after, err := bus.ParsePosition(position)
	if err != nil {
		return "", err
	}
	opening, cancel := context.WithTimeout(ctx, 10*time.Second)
	a, err := bus.OpenAgent(opening, nc, bus.AgentOptions{Tenant: tenant, Agent: d.name, After: &after, CheckEvery: 3 * time.Second})
	cancel()
	var expired *bus.ExpiredError
	if errors.As(err, &expired) {
		return "", err
	}
	if err != nil {
		return position, nil // nobody answers yet
	}
	defer func() { _ = a.Close() }() // never fails
	ctx, cancel = context.WithTimeout(ctx, stay)
	defer cancel()
	for {
		delivery, err := a.Next(ctx)
		switch {
		case errors.As(err, &expired):
			return "", err
		case err != nil && d.careful:
			return a.Verified().String(), nil
		case err != nil:
			return a.Position().String(), nil
		case !delivery.Transient:
			d.take(delivery, number, after.Sequence)
		}
	}
}

// take keeps a delivery. One that an earlier session had already is only noted: whether it may come again, the account tells.
func (d *desk) take(delivery bus.Delivery, session int, after uint64) {
	r := bustest.Received{Subject: delivery.Subject, Sequence: delivery.Sequence}
	_, had := d.had[r]
	late := time.Since(delivery.Position.Stored)
	d.mu.Lock()
	defer d.mu.Unlock()
	if had {
		d.again = append(d.again, again{r, session, after})
		return
	}
	d.received = append(d.received, r)
	d.at = append(d.at, time.Now())
	d.late = append(d.late, late)
}

func (d *desk) soFar() []bustest.Received {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clip(d.received)
}

// lateness is how long the desks' deliveries since the last call took from the stream to them.
func (c *crowd) lateness() (late []time.Duration) {
	for _, d := range c.desks {
		d.mu.Lock()
		late = append(late, d.late...)
		d.late = nil
		d.mu.Unlock()
	}
	return late
}

func (d *desk) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// wronglyAgain are the deliveries that came once more without need: at or before the position that was gone on from; or, to a desk
// that is not careful, with nothing before them that was missing then, for which the position had to be held back.
func (d *desk) wronglyAgain(t testing.TB, b *bus.Bus) (wrong []string, all int) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.again) == 0 {
		return nil, 0
	}
	var order []bustest.Received
	place := map[bustest.Received]uint64{}
	places := map[bustest.Received]int{}
	for m, err := range b.Read(context.WithoutCancel(t.Context()), bus.Range{Stream: bus.StreamDeliveries, Filter: "cim-agent." + tenant + "." + d.name + ".>"}) {
		require.NoError(t, err)
		r := bustest.Received{Subject: m.Subject, Sequence: bus.SequenceOf(m.Header)}
		place[r], places[r] = m.Sequence, len(order)
		order = append(order, r)
	}
	for _, a := range d.again {
		missing := slices.ContainsFunc(order[:places[a.Received]], func(r bustest.Received) bool {
			session, had := d.had[r]
			return place[r] > a.after && (!had || session >= a.session)
		})
		if place[a.Received] <= a.after || !d.careful && !missing {
			wrong = append(wrong, fmt.Sprintf("%v, %d in the stream, in session %d that went on after %d", a.Received, place[a.Received], a.session, a.after))
		}
	}
	return wrong, len(d.again)
}

// desksComplete gives every desk the time to receive what is stored for it. What is still missing then the account tells.
func (c *crowd) desksComplete(t testing.TB, b *bus.Bus) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	stream, err := b.JetStream().Stream(ctx, bus.StreamDeliveries)
	require.NoError(t, err)
	deadline := time.Now().Add(60 * time.Second)
	for _, d := range c.desks {
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter("cim-agent."+tenant+"."+d.name+".>"))
		require.NoError(t, err)
		want := 0
		for _, n := range info.State.Subjects {
			want += int(n)
		}
		for len(d.soFar()) < want && time.Now().Before(deadline) && d.failure() == nil {
			elapse(10 * time.Millisecond)
		}
	}
}
