package handlers_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// latencies collects how long deliveries took from publish to the live copy.
type latencies struct {
	mu   sync.Mutex
	sent map[string]time.Time
	took []time.Duration
}

// hear times the live copies of one agent.
func (l *latencies) hear(b *testing.B, bb *bus.Bus, agent string) {
	b.Helper()
	l.sent = map[string]time.Time{}
	sub, err := bb.Conn().Subscribe("cim-live.acme."+agent+".onCimEvent.>", func(m *nats.Msg) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if at, ok := l.sent[m.Header.Get(bus.HeaderEventID)]; ok {
			l.took = append(l.took, time.Since(at))
		}
	})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, sub.Unsubscribe()) })
	require.NoError(b, bb.Conn().Flush())
}

func (l *latencies) send(b *testing.B, bb *bus.Bus, id, conversation string) {
	b.Helper()
	l.mu.Lock()
	l.sent[id] = time.Now()
	l.mu.Unlock()
	require.NoError(b, bb.Conn().Publish("cim.acme.web.AGENT_MESSAGE", message(id, conversation)))
}

func (l *latencies) wait(b *testing.B, n int) {
	b.Helper()
	bustest.Eventually(b, time.Minute, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if have := len(l.took); have != n {
			return fmt.Errorf("%d of %d deliveries", have, n)
		}
		return nil
	})
}

func (l *latencies) quantile(q float64) time.Duration {
	slices.Sort(l.took)
	return l.took[int(q*float64(len(l.took)-1))]
}

func (l *latencies) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took, l.sent = nil, map[string]time.Time{}
}

// stuckHandler is the bus's own handler, which stands still at an event named stuck until it is let go on.
type stuckHandler struct {
	handlers.Handler
	reached chan struct{}
	goOn    chan struct{}
}

func newStuckHandler() *stuckHandler {
	s := &stuckHandler{Handler: oncimevent.New(oncimevent.Options{}), reached: make(chan struct{}), goOn: make(chan struct{})}
	translate := s.Handle
	s.Handle = func(ctx context.Context, e handlers.Event) ([]handlers.Delivery, error) {
		if e.ID == "stuck" {
			s.reached <- struct{}{}
			<-s.goOn
		}
		return translate(ctx, e)
	}
	s.AttemptTimeout = time.Hour
	return s
}

// One of a thousand conversations is stuck, with others' events waiting behind it: the latency of the others, beside the same without
// it. Both are measured several times in turn; the figures are medians.
func BenchmarkOthersWhileOneOfAThousandConversationsIsStuck(b *testing.B) {
	bb := openBus(b)
	h := newStuckHandler()
	w, err := handlers.Start(b.Context(), bb, h.Handler)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, w.Close(context.Background())) })
	const conversations, events, pairs = 1000, 2000, 7
	for i := range conversations {
		publish(b, bb, "cim.acme._.AGENT_SUBSCRIBED", join(fmt.Sprint("j", i), fmt.Sprint("c", i), "ada", "PRIMARY"))
	}
	publish(b, bb, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c0", "ben", "PRIMARY"))
	var l latencies
	l.hear(b, bb, "ada")
	free := func() (p50, p99 float64) {
		l.reset()
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		for i := range events {
			l.send(b, bb, fmt.Sprint("e", i), fmt.Sprint("c", 1+i%(conversations-1)))
			<-pace.C
		}
		l.wait(b, events)
		return float64(l.quantile(0.5).Microseconds()), float64(l.quantile(0.99).Microseconds())
	}
	beside := func() (p50, p99 float64) {
		require.NoError(b, bb.Conn().Publish("cim.acme.web.AGENT_MESSAGE", message("stuck", "c0")))
		<-h.reached
		for range 100 {
			require.NoError(b, bb.Conn().Publish("cim.acme.web.AGENT_MESSAGE", message("waits", "c0")))
		}
		p50, p99 = free()
		h.goOn <- struct{}{}
		drained(b, bb)
		return p50, p99
	}
	free()
	for b.Loop() {
		var without, with, ratios, middle []float64
		for pair := range pairs {
			order := []func() (float64, float64){free, beside}
			var p50, p99 [2]float64
			for turn := range order {
				i := (pair + turn) % 2 // the other one first
				p50[i], p99[i] = order[i]()
			}
			without, with = append(without, p99[0]), append(with, p99[1])
			ratios, middle = append(ratios, p99[1]/p99[0]), append(middle, p50[1]/p50[0])
		}
		b.ReportMetric(median(without), "p99-free-µs")
		b.ReportMetric(median(with), "p99-stuck-µs")
		b.ReportMetric(median(ratios), "p99-ratio")
		b.ReportMetric(slices.Min(ratios), "p99-ratio-min")
		b.ReportMetric(slices.Max(ratios), "p99-ratio-max")
		b.ReportMetric(median(middle), "p50-ratio")
	}
}

func median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}

// A tenant publishes as fast as it can while another has fifty events a second: the other's latency beside the flood.
func BenchmarkTenantBesideAFlood(b *testing.B) {
	bb := openBus(b)
	w, err := handlers.Start(b.Context(), bb, oncimevent.New(oncimevent.Options{}))
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, w.Close(context.Background())) })
	const n, floods = 200, 8000
	for i := range n {
		publish(b, bb, "cim.acme._.AGENT_SUBSCRIBED", join(fmt.Sprint("c", i), fmt.Sprint("c", i), "ada", "PRIMARY"))
	}
	for i := range floods {
		publish(b, bb, "cim.flood._.AGENT_SUBSCRIBED", join(fmt.Sprint("f", i), fmt.Sprint("f", i), "ben", "PRIMARY"))
	}
	var l latencies
	l.hear(b, bb, "ada")
	for b.Loop() {
		l.reset()
		pace := time.NewTicker(20 * time.Millisecond)
		for i := range n {
			l.send(b, bb, fmt.Sprint("quiet", i), fmt.Sprint("c", i))
			<-pace.C
		}
		pace.Stop()
		l.wait(b, n)
		quiet := l.quantile(0.99)
		l.reset()
		// A burst of two seconds' work, and the calm tenant's events in its midst.
		for i := range 10 * n {
			for k := range 8 {
				require.NoError(b, bb.Conn().Publish("cim.flood.web.AGENT_MESSAGE", message(fmt.Sprint("x", i, k), fmt.Sprint("f", (8*i+k)%floods))))
			}
			if i%10 == 0 {
				l.send(b, bb, fmt.Sprint("beside", i), fmt.Sprint("c", i/10))
			}
		}
		l.wait(b, n)
		b.ReportMetric(float64(quiet.Microseconds()), "p99-quiet-µs")
		b.ReportMetric(float64(l.quantile(0.5).Microseconds()), "p50-flood-µs")
		b.ReportMetric(float64(l.quantile(0.99).Microseconds()), "p99-flood-µs")
		b.ReportMetric(float64(w.Stats().Handled), "handled")
	}
}
