package bus_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

// unrepublished is a road whose server sends no live copies: the test sends those that are to arrive.
func unrepublished(t testing.TB, o bus.StreamOptions) *road {
	t.Helper()
	r := newRoad(t, o)
	config := r.deliveries()
	config.RePublish = nil
	_, err := r.js.UpdateStream(r.within(time.Minute), config)
	require.NoError(t, err)
	r.serve(bus.ControlOptions{})
	return r
}

// copies are the live copies of stored deliveries, as the server would send them.
type copies struct {
	r    *road
	last map[string]uint64
}

func (c *copies) deliver(agent, conversation string, s uint64) *nats.Msg {
	c.r.t.Helper()
	subject := deliverySubject(agent, "onCimEvent", conversation)
	seq := c.r.deliver(agent, conversation, s)
	m, err := c.r.bus.MessageAt(c.r.within(time.Minute), bus.StreamDeliveries, seq)
	require.NoError(c.r.t, err)
	live := nats.NewMsg("cim-live" + subject[len("cim-agent"):])
	live.Data = m.Data
	live.Header = nats.Header{
		bus.HeaderSequence: m.Header[bus.HeaderSequence],
		"Nats-Stream":      {bus.StreamDeliveries}, "Nats-Subject": {subject}, "Nats-Sequence": {strconv.FormatUint(seq, 10)},
		"Nats-Last-Sequence": {strconv.FormatUint(c.last[subject], 10)}, "Nats-Time-Stamp": {m.Time.Format(time.RFC3339Nano)},
	}
	c.last[subject] = seq
	return live
}

// handedOut collects what Next gives until all n came, then makes sure that nothing else does.
func handedOut(t require.TestingT, a *bus.Agent, n int, quiet time.Duration) []bus.Delivery {
	var out []bus.Delivery
	for len(out) < n {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		d, err := a.Next(ctx)
		cancel()
		require.NoError(t, err, "%d of %d came", len(out), n)
		out = append(out, d)
	}
	ctx, cancel := context.WithTimeout(context.Background(), quiet)
	defer cancel()
	d, err := a.Next(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded, "one too many: %+v", d)
	return out
}

// onceInOrder fails unless every sequence 1…n was handed out once, and those of a subject in order.
func onceInOrder(t require.TestingT, out []bus.Delivery, n int) {
	seen := map[uint64]bool{}
	last := map[string]uint64{}
	for _, d := range out {
		s := d.Sequence // the test's own, which counts with the stream's
		require.False(t, seen[s], "%d twice", s)
		seen[s] = true
		require.Greater(t, s, last[d.Subject], "out of order on %s", d.Subject)
		last[d.Subject] = s
	}
	require.Equal(t, upTo(uint64(n)), slices.Sorted(maps.Keys(seen)))
}

func TestLiveCopiesLostRepeatedOrLateNeverShowInTheStream(t *testing.T) {
	r := unrepublished(t, bus.StreamOptions{DeliveriesPerSubject: 1_000_000})
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		// A tenant's agents share the stream: each run is an agent of its own.
		agent := fmt.Sprint("agent", run)
		a, err := r.bus.Agent(r.within(time.Minute), bus.AgentOptions{
			Tenant: "acme", Agent: agent, CheckEvery: 10 * time.Millisecond,
			BufferMessages: rapid.IntRange(1, 40).Draw(rt, "buffer"),
		})
		require.NoError(rt, err)
		defer func() { require.NoError(rt, a.Close()) }()
		c := &copies{r: r, last: map[string]uint64{}}
		steps := rapid.SliceOfN(rapid.IntRange(0, 11), 1, 60).Draw(rt, "steps")
		var late []*nats.Msg
		for i, step := range steps {
			m := c.deliver(agent, fmt.Sprint("c", step%3), uint64(i+1))
			switch step / 3 {
			case 0: // arrives
				late = append(late, m)
				for _, l := range late {
					require.NoError(rt, r.bus.Conn().PublishMsg(l))
				}
				late = nil
			case 1: // is lost
			case 2: // arrives twice
				require.NoError(rt, r.bus.Conn().PublishMsg(m))
				require.NoError(rt, r.bus.Conn().PublishMsg(m))
			case 3: // arrives behind the next
				late = append(late, m)
			}
		}
		onceInOrder(rt, handedOut(rt, a, len(steps), 10*time.Millisecond), len(steps))
	})
}

func TestALossOfTheTailShowsAtTheNextCheck(t *testing.T) {
	r := unrepublished(t, bus.StreamOptions{})
	a := r.open(r.connect("ada"), bus.AgentOptions{CheckEvery: 20 * time.Millisecond})
	c := &copies{r: r, last: map[string]uint64{}}
	require.NoError(t, r.bus.Conn().PublishMsg(c.deliver("ada", "c", 1)))
	c.deliver("ada", "c", 2)
	c.deliver("ada", "quiet", 3)
	onceInOrder(t, handedOut(t, a, 3, 50*time.Millisecond), 3)
	bustest.Eventually(t, 5*time.Second, func() error {
		r.silent(a)
		if v := a.Verified(); v.Sequence != 3 {
			return fmt.Errorf("verified %s", v)
		}
		return nil
	})
}

func TestAGapIsFilledBeforeWhatFollowsItAndALateOneOfAnotherSubjectComesBehind(t *testing.T) {
	r := unrepublished(t, bus.StreamOptions{})
	a := r.open(r.connect("ada"), bus.AgentOptions{CheckEvery: time.Hour})
	c := &copies{r: r, last: map[string]uint64{}}
	arrive := func(m *nats.Msg) { require.NoError(t, r.bus.Conn().PublishMsg(m)) }
	arrive(c.deliver("ada", "c", 1))
	c.deliver("ada", "other", 2) // lost without a trace
	arrive(c.deliver("ada", "c", 3))
	c.deliver("ada", "c", 4) // lost, shows at 5
	m := c.deliver("ada", "c", 5)
	require.Equal(t, []uint64{1, 3}, r.next(a, 2))
	arrive(m)
	var got []uint64
	ctx := r.within(10 * time.Second)
	var positions []uint64
	for range 3 {
		d, err := a.Next(ctx)
		require.NoError(t, err)
		got, positions = append(got, d.Sequence), append(positions, d.Position.Sequence)
	}
	require.Equal(t, []uint64{2, 4, 5}, got)
	require.Equal(t, []uint64{3, 4, 5}, positions, "what was handed out before is not repeated after the late one")
	r.silent(a)
}

func TestManyUnverifiedDeliveriesAreVerifiedAndForgotten(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{DeliveriesPerSubject: 100_000})
	r.serve(bus.ControlOptions{})
	a := r.open(r.connect("ada"), bus.AgentOptions{CheckEvery: time.Hour})
	const n = 5000
	message := func(s int) *nats.Msg {
		return &nats.Msg{Subject: deliverySubject("ada", "onCimEvent", fmt.Sprint("c", rand.IntN(5))), Header: sequenceHeader(uint64(s))}
	}
	pending := make([]<-chan error, 0, n)
	for s := range n {
		f, err := r.js.PublishMsgAsync(message(s+1), jetstream.WithStallWait(time.Minute))
		require.NoError(t, err)
		pending = append(pending, f.Err())
	}
	onceInOrder(t, handedOut(t, a, n, 50*time.Millisecond), n)
	more := n
	bustest.Eventually(t, 20*time.Second, func() error {
		if verified := a.Verified().Sequence; verified < 4096 {
			more++
			_, err := r.js.PublishMsg(t.Context(), message(more))
			require.NoError(t, err)
			require.EqualValues(t, more, handedOut(t, a, 1, 0)[0].Sequence)
			return fmt.Errorf("verified up to %d", verified)
		}
		return nil
	})
	for _, err := range pending {
		require.Empty(t, err)
	}
}
