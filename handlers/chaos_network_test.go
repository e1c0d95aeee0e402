package handlers_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// openWhole opens a bus as it is in life, with the duplicate window that publishers need.
func openWhole(t testing.TB, o bus.Options) *bus.Bus {
	t.Helper()
	o.NATS = append(o.NATS, nats.IgnoreDiscoveredServers(), nats.ReconnectWait(50*time.Millisecond))
	b, err := bus.Open(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close(context.WithoutCancel(t.Context()))) })
	return b
}

// control answers the crowd's desks.
func control(t testing.TB, b *bus.Bus) {
	t.Helper()
	c, err := b.ServeControl(t.Context(), bus.ControlOptions{OpenInboxes: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
}

func TestChaosNothingIsLostOrRepeatedWhenConnectionsAreCutAtRandom(t *testing.T) {
	rng, seed := chaos(t)
	server := bustest.Server(t, func(o *embedded.Options) { o.NATSAddr = "127.0.0.1:0" })
	clients, workers := bustest.NewProxy(t, server.NATSURL()), bustest.NewProxy(t, server.NATSURL())
	b := openWhole(t, bus.Options{URL: workers.URL()})
	start(t, b, oncimevent.New(oncimevent.Options{}))
	control(t, b)
	c := startCrowd(t, crowdOptions{url: clients.URL(), seed: seed, every: 3 * time.Millisecond})
	cut, stalled := 0, 0
	for range shortOrLong(6, 300) {
		elapse(between(rng, 50*time.Millisecond, 600*time.Millisecond))
		p := []*bustest.Proxy{clients, workers}[rng.IntN(2)]
		switch rng.IntN(4) {
		case 0:
			p.Down()
			elapse(between(rng, 0, 500*time.Millisecond))
			p.Up()
		case 1: // what is under way waits, then half of it is lost
			stalled++
			p.Stall()
			elapse(between(rng, 0, 500*time.Millisecond))
			p.Cut()
			p.Flow()
		default:
			cut += p.Cut()
		}
	}
	c.more(t, 100)
	c.end(t)
	t.Logf("%d connections cut, %d times all were stalled before", cut, stalled)
	c.account(t, onlooker(t, server.NATSURL()), 0)
}
