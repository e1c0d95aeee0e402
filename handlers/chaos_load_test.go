package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
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
	h.Retry = handlers.RetryPolicy{Attempts: 1000, First: 10 * time.Millisecond, Longest: time.Second}
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

// Agents that never read come in two kinds: an application that takes nothing from its stream, and a connection of which nobody reads.
func TestChaosAnAgentThatNeverReadsCostsBoundedMemoryAndDisturbsNobody(t *testing.T) {
	_, seed := chaos(t)
	b := whole(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	c := startCrowd(t, crowdOptions{url: b.Server().NATSURL(), seed: seed, every: 5 * time.Millisecond})
	events := shortOrLong[int64](150, 10000)
	c.more(t, events)
	c.lateness()
	first := heap()
	c.more(t, events)
	undisturbed, before := c.lateness(), heap()
	silent := int64(0)
	for _, name := range crowdAgents {
		for range shortOrLong(1, 5) {
			a, err := bus.OpenAgent(t.Context(), patiently(t, b.Server().NATSURL()), bus.AgentOptions{
				Tenant: tenant, Agent: name, After: &bus.Position{}, BufferMessages: 64, BufferBytes: 64 << 10,
			})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, a.Close()) })
			unread(t, b.Server().NATSURL(), "cim-live.acme."+name+".>")
			silent += 2
		}
	}
	c.more(t, events)
	disturbed, after := c.lateness(), heap()
	c.end(t)
	c.account(t, b, 0)
	each := (after - before - (before - first)) / silent // the events themselves take their part
	t.Logf("%d silent agents; heap: %d KiB, after as many events without them %d KiB, with them %d KiB: %d KiB each",
		silent, first>>10, before>>10, after>>10, each>>10)
	t.Logf("from stored to received, median and 90th percentile: %v, %v without them, %v, %v with them",
		quantile(undisturbed, 0.5), quantile(undisturbed, 0.9), quantile(disturbed, 0.5), quantile(disturbed, 0.9))
	require.Less(t, each, int64(4<<20))
}

// unread is a connection that subscribes and reads nothing.
func unread(t testing.TB, url, subject string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "nats://"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() }) // the server may have closed it
	if tcp, ok := conn.(*net.TCPConn); ok {
		require.NoError(t, tcp.SetReadBuffer(4<<10))
	}
	_, err = fmt.Fprintf(conn, "CONNECT {\"verbose\":false}\r\nSUB %s 1\r\n", subject)
	require.NoError(t, err)
}

// heap is what is in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	d = slices.Sorted(slices.Values(d))
	return d[int(q*float64(len(d)-1))].Round(10 * time.Microsecond)
}
