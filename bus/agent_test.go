package bus_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
)

// open opens ada's deliveries over ada's own connection.
func (r *road) open(nc *nats.Conn, o bus.AgentOptions) *bus.Agent {
	r.t.Helper()
	o.Tenant, o.Agent = "acme", "ada"
	a, err := bus.OpenAgent(r.within(30*time.Second), nc, o)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { require.NoError(r.t, a.Close()) })
	return a
}

// next takes n deliveries and returns their sequences in CIM_DELIVERIES.
func (r *road) next(a *bus.Agent, n int) []uint64 {
	r.t.Helper()
	ctx := r.within(30 * time.Second)
	out := make([]uint64, 0, n)
	for range n {
		d, err := a.Next(ctx)
		require.NoError(r.t, err, "after %v", out)
		out = append(out, d.Position.Sequence)
	}
	return out
}

// silent makes sure that nothing more comes.
func (r *road) silent(a *bus.Agent) {
	r.t.Helper()
	d, err := a.Next(r.within(150 * time.Millisecond))
	require.ErrorIs(r.t, err, context.DeadlineExceeded, "%+v", d)
}

func upTo(n uint64) []uint64 {
	out := make([]uint64, 0, n)
	for s := range n {
		out = append(out, s+1)
	}
	return out
}

func TestAnAgentGetsEveryDeliveryOnceInOrderWithAnAgentsPermissions(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.serve(bus.ControlOptions{})
	for s := range uint64(300) {
		r.deliver("ada", fmt.Sprint("c", s%3), s+1)
	}
	a := r.open(r.connect("ada"), bus.AgentOptions{After: &bus.Position{}})
	for s := range uint64(300) {
		r.deliver("ada", fmt.Sprint("c", s%3), s+301)
	}
	require.Equal(t, upTo(600), r.next(a, 600))
	r.silent(a)
}

func TestADeliveryTellsAllAboutItself(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.serve(bus.ControlOptions{})
	want := func(d bus.Delivery) {
		require.Equal(t, "cim-agent.acme.ada.onCimEvent.c=2E1", d.Subject)
		require.Equal(t, []string{"ada", "onCimEvent", "c.1"}, []string{d.Agent, d.Type, d.Conversation})
		require.Equal(t, uint64(42), d.Sequence)
		require.Equal(t, sequenceHeader(42), d.Header)
		require.JSONEq(t, `{"s":42}`, string(d.Body))
		require.False(t, d.Transient)
		parsed, err := bus.ParsePosition(d.Position.String())
		require.NoError(t, err)
		require.Equal(t, d.Position, parsed)
	}
	live := r.open(r.connect("ada"), bus.AgentOptions{})
	r.deliver("ada", "c.1", 42)
	d, err := live.Next(t.Context())
	require.NoError(t, err)
	want(d)
	stored, err := r.open(r.connect("ada"), bus.AgentOptions{After: &bus.Position{}}).Next(t.Context())
	require.NoError(t, err)
	want(stored)
	require.Equal(t, d.Position, stored.Position)
	direct, err := r.bus.Agent(t.Context(), bus.AgentOptions{Tenant: "acme", Agent: "ada", After: &bus.Position{}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, direct.Close()) })
	d, err = direct.Next(t.Context())
	require.NoError(t, err)
	want(d)
}

func TestResumingFromAPositionRepeatsNothingAndLosesNothing(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.serve(bus.ControlOptions{})
	nc := r.connect("ada")
	a := r.open(nc, bus.AgentOptions{})
	var s uint64
	publish := func(n int) {
		for range n {
			s++
			r.deliver("ada", fmt.Sprint("c", s%4), s)
			r.deliver("ben", fmt.Sprint("c", s%4), s)
		}
	}
	var got []uint64
	for range 10 {
		publish(7)
		got = append(got, r.next(a, 5)...)
		p := a.Position()
		require.NoError(t, a.Close())
		_, err := a.Next(t.Context())
		require.ErrorIs(t, err, bus.ErrAgentClosed)
		publish(6) // while it is away
		a = r.open(nc, bus.AgentOptions{After: &p})
		got = append(got, r.next(a, 8)...)
	}
	for i, seq := range got {
		require.Equal(t, uint64(2*i+1), seq)
	}
	require.Len(t, got, int(s))
	r.silent(a)
}

func TestAPositionOfTheEndIsThatOfTheStreamSoThatAQuietAgentDoesNotExpire(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.serve(bus.ControlOptions{})
	a := r.open(r.connect("ada"), bus.AgentOptions{CheckEvery: 20 * time.Millisecond})
	for s := range uint64(10) {
		r.deliver("ben", "c", s+1)
	}
	bustest.Eventually(t, 5*time.Second, func() error {
		r.silent(a)
		if p := a.Position(); p.Sequence != 10 || p != a.Verified() {
			return fmt.Errorf("position %s", p)
		}
		return nil
	})
}

func TestTransientDeliveriesAreLiveOnly(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.serve(bus.ControlOptions{})
	a := r.open(r.connect("ada"), bus.AgentOptions{})
	r.deliver("ada", "c", 1)
	typing := &nats.Msg{Subject: "cim-live.acme.ada.onCimEvent.c", Header: nats.Header{bus.HeaderTransient: {"true"}}, Data: []byte("typing")}
	require.NoError(t, r.bus.Conn().PublishMsg(typing))
	require.NoError(t, r.bus.Conn().Publish(typing.Subject, []byte("neither stored nor transient")))
	r.deliver("ada", "c", 2)
	ctx := r.within(10 * time.Second)
	first, err := a.Next(ctx)
	require.NoError(t, err)
	second, err := a.Next(ctx)
	require.NoError(t, err)
	require.True(t, second.Transient)
	require.Equal(t, first.Subject, second.Subject)
	require.Equal(t, first.Position, second.Position)
	require.Equal(t, []uint64{2}, r.next(a, 1))
}

func TestForgedHeadersOfAStoredDeliveryFoolNoAgent(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.serve(bus.ControlOptions{})
	a := r.open(r.connect("ada"), bus.AgentOptions{})
	for s := range uint64(5) {
		for _, h := range []nats.Header{
			{"Nats-Sequence": {"1000000"}, "Nats-Last-Sequence": {"99999"}, "Nats-Subject": {"cim-agent.acme.ben.x.y"}},
			{"Cim-Status": {"end"}, "Cim-Transient": {"true"}},
			{"Status": {"503"}},
		} {
			h[bus.HeaderSequence] = sequenceHeader(s)[bus.HeaderSequence]
			r.publish(&nats.Msg{Subject: deliverySubject("ada", "taskRequest", ""), Header: h})
		}
	}
	require.Equal(t, upTo(15), r.next(a, 15))
	require.Equal(t, upTo(15), r.next(r.open(r.connect("ada"), bus.AgentOptions{After: &bus.Position{}}), 15))
}

func TestWhatASlowReaderCannotHoldComesFromTheLog(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.serve(bus.ControlOptions{})
	a := r.open(r.connect("ada"), bus.AgentOptions{BufferMessages: 8})
	b := r.open(r.connect("ada"), bus.AgentOptions{BufferBytes: 500})
	const n = 900
	for s := range uint64(n) {
		r.deliver("ada", fmt.Sprint("c", s%5), s+1)
	}
	require.Equal(t, upTo(n), r.next(a, n))
	require.Equal(t, upTo(n), r.next(b, n))
	r.silent(a)
	r.silent(b)
}

func TestCutConnectionsCostNothing(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{}, func(o *embedded.Options) { o.NATSAddr = "127.0.0.1:0" })
	r.serve(bus.ControlOptions{})
	proxy := bustest.NewProxy(t, r.server.NATSURL())
	a := r.open(r.dial(proxy.URL(), "ada"), bus.AgentOptions{})
	const n = 2000
	done := make(chan error, 1)
	go func() {
		for s := range uint64(n) {
			ack, err := r.js.PublishMsg(context.Background(), &nats.Msg{Subject: deliverySubject("ada", "onCimEvent", fmt.Sprint("c", s%7)), Header: sequenceHeader(s + 1)})
			if err != nil || ack.Sequence != s+1 {
				done <- fmt.Errorf("publish %d: %w", s+1, err)
				return
			}
		}
		done <- nil
	}()
	var got []uint64
	for len(got) < n {
		got = append(got, r.next(a, 50)...)
		proxy.Cut()
	}
	require.NoError(t, <-done)
	require.Equal(t, upTo(n), got)
	r.silent(a)
}

func TestWhatWasMissedDuringABreakComesBeforeWhatFollowsIt(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{}, func(o *embedded.Options) { o.NATSAddr = "127.0.0.1:0" })
	r.serve(bus.ControlOptions{})
	proxy := bustest.NewProxy(t, r.server.NATSURL())
	nc := r.dial(proxy.URL(), "ada")
	a := r.open(nc, bus.AgentOptions{CheckEvery: time.Hour})
	for s := uint64(1); s < 20; s += 2 {
		breaks := nc.Stats().Reconnects
		proxy.Down()
		r.deliver("ada", fmt.Sprint("quiet", s), s) // no later copy on its subject tells of it
		proxy.Up()
		bustest.Eventually(t, 10*time.Second, func() error {
			if nc.Stats().Reconnects == breaks || !nc.IsConnected() {
				return errors.New("still away")
			}
			return nc.FlushTimeout(time.Second)
		})
		r.deliver("ada", "busy", s+1)
		require.Equal(t, []uint64{s, s + 1}, r.next(a, 2))
	}
}

func TestAnAgentOutlivesTheControlService(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	_, err := bus.OpenAgent(r.within(200*time.Millisecond), r.connect("ada"), bus.AgentOptions{Tenant: "acme", Agent: "ada"})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, nats.ErrNoResponders)

	control := r.serve(bus.ControlOptions{})
	a := r.open(r.connect("ada"), bus.AgentOptions{BufferMessages: 4, CheckEvery: 10 * time.Millisecond})
	r.deliver("ada", "c", 1)
	require.Equal(t, upTo(1), r.next(a, 1))
	require.NoError(t, control.Close())
	r.deliver("ada", "c", 2) // live needs no service
	require.Equal(t, []uint64{2}, r.next(a, 1))
	for s := range uint64(40) {
		r.deliver("ada", "c", s+3)
	}
	r.serve(bus.ControlOptions{})
	got := r.next(a, 40)
	require.Equal(t, upTo(42)[2:], got)
}

func TestAnExpiredPositionIsToldAndTheCallerDecides(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.serve(bus.ControlOptions{})
	for s := range uint64(10) {
		r.deliver("ada", "c", s+1)
	}
	old := r.open(r.connect("ada"), bus.AgentOptions{After: &bus.Position{}})
	d, err := old.Next(t.Context())
	require.NoError(t, err)
	stream, err := r.js.Stream(t.Context(), bus.StreamDeliveries)
	require.NoError(t, err)
	require.NoError(t, stream.Purge(t.Context(), jetstream.WithPurgeSequence(5)))

	_, err = bus.OpenAgent(r.within(10*time.Second), r.connect("ada"), bus.AgentOptions{Tenant: "acme", Agent: "ada", After: &d.Position})
	var expired *bus.ExpiredError
	require.ErrorAs(t, err, &expired)
	require.Equal(t, bus.ExpiredDeleted, expired.Reason)
	require.Equal(t, uint64(4), expired.From.Sequence)
	require.Equal(t, uint64(10), expired.To.Sequence)

	require.Equal(t, upTo(10)[4:], r.next(r.open(r.connect("ada"), bus.AgentOptions{After: &expired.From}), 6))
	require.Equal(t, upTo(10)[4:], r.next(r.open(r.connect("ada"), bus.AgentOptions{After: &d.Position, SkipExpired: true}), 6))
}

func TestARecreatedStreamIsNoticedWhileDeliveriesFlow(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.serve(bus.ControlOptions{})
	strict := r.open(r.connect("ada"), bus.AgentOptions{})
	lax := r.open(r.connect("ada"), bus.AgentOptions{SkipExpired: true})
	for s := range uint64(10) {
		r.deliver("ada", "c", s+1)
	}
	require.Equal(t, upTo(10), r.next(strict, 10))
	require.Equal(t, upTo(10), r.next(lax, 10))
	config := r.deliveries()
	require.NoError(t, r.js.DeleteStream(t.Context(), bus.StreamDeliveries))
	_, err := r.js.CreateStream(t.Context(), config)
	require.NoError(t, err)
	for s := range uint64(3) {
		r.deliver("ada", "c", s+11)
	}
	_, err = strict.Next(r.within(20 * time.Second))
	var expired *bus.ExpiredError
	require.ErrorAs(t, err, &expired)
	require.Equal(t, bus.ExpiredRecreated, expired.Reason)
	_, err = strict.Next(t.Context())
	require.ErrorAs(t, err, &expired, "the failure is final")
	require.Equal(t, upTo(3), r.next(lax, 3))
}

func TestAnAgentThatMayNotSubscribeIsTold(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.serve(bus.ControlOptions{})
	_, err := bus.OpenAgent(r.within(10*time.Second), r.connect("ben"), bus.AgentOptions{Tenant: "acme", Agent: "ada"})
	require.ErrorIs(t, err, nats.ErrPermissionViolation)
	_, err = bus.OpenAgent(t.Context(), r.connect("ben"), bus.AgentOptions{Tenant: "acme"})
	require.ErrorContains(t, err, "agent")
}

func TestAClosedConnectionEndsTheStreamAndIsNotClosedByIt(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.serve(bus.ControlOptions{})
	nc := r.connect("ada")
	a := r.open(nc, bus.AgentOptions{})
	require.NoError(t, a.Close())
	require.NoError(t, a.Close())
	require.True(t, nc.IsConnected())
	a = r.open(nc, bus.AgentOptions{})
	nc.Close()
	for d, err := range a.All(r.within(10 * time.Second)) {
		require.Zero(t, d)
		require.ErrorIs(t, err, nats.ErrConnectionClosed)
	}
}
