package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

func TestChaosNothingIsLostOrRepeatedWhenTheWorkerIsStoppedUnderLoadAndClocksAreADayOff(t *testing.T) {
	rng, seed := chaos(t)
	b := whole(t)
	c := startCrowd(t, crowdOptions{
		url: b.Server().NATSURL(), seed: seed, every: 2 * time.Millisecond, clock: []time.Duration{-24 * time.Hour, 24 * time.Hour}[rng.IntN(2)],
	})
	for range shortOrLong(5, 100) {
		w, err := handlers.Start(t.Context(), b, oncimevent.New(oncimevent.Options{}))
		require.NoError(t, err)
		c.more(t, rng.Int64N(150))
		ctx, cancel := context.WithTimeout(t.Context(), []time.Duration{time.Millisecond, 10 * time.Second}[rng.IntN(2)])
		_ = w.Close(ctx) // that events were left for the next worker is what is wanted
		cancel()
	}
	start(t, b, oncimevent.New(oncimevent.Options{}))
	c.end(t)
	c.account(t, b, 0)
}

func TestChaosNothingIsLostOrRepeatedWhenTheHandlerFailsForAWhile(t *testing.T) {
	_, seed := chaos(t)
	b := whole(t)
	var failing atomic.Bool
	var failures atomic.Int64
	h := oncimevent.New(oncimevent.Options{})
	works := h.Handle
	h.Retry = handlers.RetryPolicy{Attempts: 1000, First: 10 * time.Millisecond, Longest: 200 * time.Millisecond}
	h.Handle = func(ctx context.Context, e handlers.Event) ([]handlers.Delivery, error) {
		if failing.Load() {
			failures.Add(1)
			return nil, errors.New("a service it needs is away")
		}
		return works(ctx, e)
	}
	start(t, b, h)
	c := startCrowd(t, crowdOptions{url: b.Server().NATSURL(), seed: seed, every: 3 * time.Millisecond})
	c.more(t, 100)
	failing.Store(true)
	elapse(shortOrLong(2*time.Second, 3*time.Minute))
	failing.Store(false)
	c.more(t, 100)
	c.end(t)
	t.Logf("the handler failed %d times", failures.Load())
	c.account(t, b, 0)
}

func TestChaosAnAgentThatNeverReadsCostsBoundedMemoryAndDisturbsNobody(t *testing.T) {
	_, seed := chaos(t)
	b := whole(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	c := startCrowd(t, crowdOptions{url: b.Server().NATSURL(), seed: seed, every: 5 * time.Millisecond})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, name := range crowdAgents {
		for range shortOrLong(1, 5) {
			a, err := bus.OpenAgent(t.Context(), patiently(t, b.Server().NATSURL()), bus.AgentOptions{
				Tenant: tenant, Agent: name, After: &bus.Position{}, BufferMessages: 64, BufferBytes: 64 << 10,
			})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, a.Close()) })
		}
	}
	c.more(t, shortOrLong[int64](300, 20000))
	c.end(t)
	c.account(t, b, 0)
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("heap in use: %d KiB before, %d KiB after", before.HeapInuse>>10, after.HeapInuse>>10)
	require.Less(t, int64(after.HeapInuse)-int64(before.HeapInuse), int64(96<<20))
}

// Each join sees a snapshot and what comes after it: together they must be the conversation without a hole and without an overlap.
func TestChaosJoinsAtRandomMomentsSeeNeitherHoleNorOverlap(t *testing.T) {
	rng, _ := chaos(t)
	b := whole(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
	stop := make(chan struct{})
	var talking sync.WaitGroup
	talking.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(3 * time.Millisecond):
			}
			// A failure shows as a conversation that does not go on.
			_, _ = b.JetStream().Publish(context.WithoutCancel(t.Context()), "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprint(i), "c1"))
		}
	})
	joins := shortOrLong(200, 10000)
	failed := make(chan error, joins)
	var joining sync.WaitGroup
	slots := make(chan struct{}, 8)
	for range joins {
		slots <- struct{}{}
		wait := between(rng, 0, 10*time.Millisecond)
		joining.Go(func() {
			defer func() { <-slots }()
			elapse(wait)
			if err := followOnce(t, b, 3+rand.IntN(5)); err != nil {
				failed <- err
			}
		})
	}
	joining.Wait()
	close(stop)
	talking.Wait()
	close(failed)
	n := 0
	for err := range failed {
		t.Log(err)
		n++
	}
	t.Logf("%d joins, %d with a hole or an overlap", joins, n)
	require.Zero(t, n)
	drained(t, b)
	audit(t, b)
}

// followOnce joins, takes some deliveries, and holds them and the end of the snapshot against the index: every committed event in
// between must be there, in order. The conversation's events are numbered by CIM_EVENTS alone, so they follow on each other.
func followOnce(t testing.TB, b *bus.Bus, n int) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	defer cancel()
	f, err := b.Follow(ctx, tenant, "ada", "c1")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // never fails
	last := uint64(0)
	for _, e := range f.Snapshot {
		if e.Sequence != last+1 {
			return fmt.Errorf("snapshot: event %d after %d", e.Sequence, last)
		}
		last = e.Sequence
	}
	for range n {
		d, err := f.Next(ctx)
		if err != nil {
			return err
		}
		if d.Sequence != last+1 {
			return fmt.Errorf("after the snapshot up to %d: event %d after %d", f.Sequence, d.Sequence, last)
		}
		last = d.Sequence
	}
	return nil
}
