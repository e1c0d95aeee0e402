package bus_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
)

func TestWhatIsCountedByTenantIsCountedOnceAndUnderABoundedNumberOfPrintableNames(t *testing.T) {
	nc := testConn(t, bustest.Server(t))
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.IntRange(1, 4).Draw(rt, "limit")
		b, err := bus.Open(t.Context(), bus.Options{Conn: nc, LeaveStreams: true, CountedTenants: limit})
		require.NoError(rt, err)
		defer func() { require.NoError(rt, b.Close(context.WithoutCancel(t.Context()))) }()
		p := bus.NewPerTenant[int](b)
		tenants := rapid.SliceOf(rapid.OneOf(
			rapid.SampledFrom([]string{"acme", "_other", "", "\xff", "=FF", "a\nb", `"`, strings.Repeat("x", 129), strings.Repeat("\xff", 100)}), rapid.String(),
		)).Draw(rt, "tenants")
		for _, tenant := range tenants {
			*p.Of(tenant)++
		}
		names, total := 0, 0
		for name, n := range p.All() {
			names++
			total += *n
			require.True(rt, strings.ToValidUTF8(name, "") == name && name != "" && len(name) <= 128, "%q", name)
		}
		require.Equal(rt, len(tenants), total)
		require.LessOrEqual(rt, names, limit+1)
		// The first ones keep their names.
		if len(tenants) > 0 && tenants[0] == "acme" {
			count := 0
			for _, tenant := range tenants {
				if tenant == "acme" {
					count++
				}
			}
			require.Equal(rt, count, *p.Of("acme"))
		}
	})
}

func TestATenantHasOneCounterForAllWhoAskAtOnce(t *testing.T) {
	p := bus.NewPerTenant[int](testBus(t, bus.StreamOptions{}))
	const each = 200
	var all sync.WaitGroup
	found := make([][each]*int, 8)
	for i := range found {
		all.Go(func() {
			for n := range each {
				found[i][n] = p.Of(fmt.Sprint(n))
			}
		})
	}
	all.Wait()
	for _, f := range found[1:] {
		for n := range each {
			require.Same(t, found[0][n], f[n])
		}
	}
	_, err := bus.Open(t.Context(), bus.Options{CountedTenants: -1})
	require.ErrorContains(t, err, "counted tenants -1: give at least 1")
}

func TestEveryPublishIsCountedByItsOutcome(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	p := newPublisher(t, b, bus.PublisherOptions{})
	waited := func(e bus.Event) error {
		q, err := p.Publish(t.Context(), e)
		if err == nil {
			_, err = q.Receipt()
		}
		return err
	}
	alone := func(e bus.Event) error {
		_, err := b.Publish(t.Context(), e)
		return err
	}
	large := event(t, "large", "c1")
	large.Body = append(large.Body, strings.Repeat(" ", 3<<20)...)
	invalid := event(t, "invalid", "c1")
	invalid.Tenant = ""
	for i, publish := range []func(bus.Event) error{alone, waited} {
		require.NoError(t, publish(event(t, fmt.Sprint("e", i), "c1")))
		require.NoError(t, publish(event(t, fmt.Sprint("e", i), "c1")))
		require.ErrorIs(t, publish(large), bus.ErrTooLarge)
		require.ErrorIs(t, publish(invalid), bus.ErrInvalidEvent)
	}
	counts := b.PublishCounts()
	require.Equal(t, map[string]bus.TenantPublishes{"acme": {Stored: 2, Duplicates: 2}}, counts.Tenants)
	require.Equal(t, map[string]uint64{
		"too-large": 2, "invalid": 2, "unknown-outcome": 0, "store-full": 0, "no-stream": 0, "unauthorized": 0, "unreachable": 0, "closed": 0, "refused": 0,
	}, counts.Errors)

	require.NoError(t, b.JetStream().DeleteStream(t.Context(), bus.StreamEvents))
	require.ErrorIs(t, alone(event(t, "late", "c1")), bus.ErrNoStream)
	require.NoError(t, b.Close(t.Context()))
	require.ErrorIs(t, alone(event(t, "late", "c1")), bus.ErrClosed)
	require.EqualValues(t, 1, b.PublishCounts().Errors["no-stream"])
	require.EqualValues(t, 1, b.PublishCounts().Errors["closed"])
}

func TestOnlyWhatWasLostOnItsWayIsCountedAsAGapThatWasRepaired(t *testing.T) {
	r := unrepublished(t, bus.StreamOptions{})
	c := &copies{r: r, last: map[string]uint64{}}
	for s := range uint64(3) {
		c.deliver("ada", "c", s+1)
	}
	o := bus.AgentOptions{After: &bus.Position{}, CheckEvery: time.Hour}
	remote := r.open(r.connect("ada"), o)
	o.Tenant, o.Agent = "acme", "ada"
	local, err := r.bus.Agent(t.Context(), o)
	require.NoError(t, err)
	defer func() { require.NoError(t, local.Close()) }()
	for _, a := range []*bus.Agent{remote, local} {
		require.Equal(t, upTo(3), r.next(a, 3))
		r.silent(a)
	}
	require.Zero(t, r.bus.GapsRepaired(), "they went on from where they were")

	c.deliver("ada", "c", 4) // lost
	live := c.deliver("ada", "c", 5)
	require.NoError(t, r.bus.Conn().PublishMsg(live))
	for _, a := range []*bus.Agent{remote, local} {
		require.Equal(t, []uint64{4, 5}, r.next(a, 2))
		r.silent(a)
	}
	require.EqualValues(t, 2, r.bus.GapsRepaired())
}

func TestAgentsWhoListenAndThoseWhoDoNotKeepUpAreCounted(t *testing.T) {
	s, err := tryOpen(t, bus.Options{Embedded: embedded.Options{
		StoreDir: t.TempDir(), Durability: embedded.Balanced, NATSAddr: "127.0.0.1:0", Logger: hclog.NewNullLogger(),
		Configure: func(o *server.Options) { o.MaxPending, o.WriteDeadline = 8<<20, 3*time.Second },
	}})
	require.NoError(t, err)
	seen := func() bus.LiveAgents {
		all, known, err := s.LiveAgents()
		require.NoError(t, err)
		require.True(t, known)
		return all
	}
	require.Empty(t, seen().Connected)
	nc, err := s.Server().Connect()
	require.NoError(t, err)
	defer nc.Close()
	for _, subject := range []string{
		"cim-live.acme.ann.>", "cim-live.acme.ann.onCimEvent.c1", "cim-live.acme.bob.>", "cim-live.j=C3=B6rg.ann.>",
		"cim-live.=zz.ann.>", "cim-agent.acme.eve.>", "cim-live.acme.eve",
	} {
		_, err := nc.SubscribeSync(subject)
		require.NoError(t, err)
	}
	require.NoError(t, nc.Flush())
	for _, subject := range []string{"cim-live.>", "cim-live.acme.>", "cim-live.acme.*.onCimEvent.*"} {
		operator, err := s.Conn().SubscribeSync(subject)
		require.NoError(t, err)
		require.NoError(t, s.Conn().Flush())
		require.Equal(t, map[string]int{"acme": 2, "jörg": 1}, seen().Connected, "an operator is no agent")
		require.NoError(t, operator.Unsubscribe())
	}
	require.Zero(t, seen().Slow)

	slow, err := net.Dial("tcp", strings.TrimPrefix(s.Server().NATSURL(), "nats://"))
	require.NoError(t, err)
	defer func() { require.NoError(t, slow.Close()) }()
	require.NoError(t, slow.(*net.TCPConn).SetReadBuffer(4096))
	_, err = slow.Write([]byte("CONNECT {\"verbose\":false}\r\nSUB cim-live.acme.snail.> 1\r\nPING\r\n"))
	require.NoError(t, err)
	reader := bufio.NewReaderSize(slow, 16)
	for line := ""; !strings.HasPrefix(line, "PONG"); {
		line, err = reader.ReadString('\n')
		require.NoError(t, err)
	}
	require.Equal(t, map[string]int{"acme": 3, "jörg": 1}, seen().Connected)
	live := &nats.Msg{Subject: "cim-live.acme.snail.onCimEvent.c1", Data: make([]byte, 512<<10)}
	bustest.Eventually(t, patience, func() error {
		require.NoError(t, s.Conn().PublishMsg(live))
		require.NoError(t, s.Conn().Flush())
		if seen().Slow == 0 {
			return errors.New("nobody is slow yet")
		}
		return nil
	})
	require.Equal(t, 1, seen().Slow)
	require.Equal(t, 3, seen().Connections, "the bus's, the one of those who listen, the slow one's")
	bustest.Eventually(t, patience, func() error {
		require.NoError(t, s.Conn().PublishMsg(live))
		require.NoError(t, s.Conn().Flush())
		if all := seen(); all.SlowConnections == 0 || all.Slow != 0 || all.Connected["acme"] != 2 {
			return fmt.Errorf("not ended: %+v", all)
		}
		return nil
	})

	external := testBus(t, bus.StreamOptions{})
	_, known, err := external.LiveAgents()
	require.NoError(t, err)
	require.False(t, known)
}
