package handlers_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/handlers/oncimevent"
	"github.com/cimbus/cimbus/subjects"
)

// replay replays all of a tenant's events that are stored, which must succeed.
func replay(t testing.TB, b *bus.Bus, target bus.ReplayTarget) bus.ReplayRecord {
	t.Helper()
	span, err := b.Span(t.Context(), bus.StreamEvents, bus.Point{}, bus.Point{})
	require.NoError(t, err)
	r, err := b.StartReplay(t.Context(), bus.NewReplay{
		Operator: "eva@desk", Target: "test", Selection: bus.EventSelection{Tenant: subjects.Is(tenant)}, Span: span,
	})
	require.NoError(t, err)
	record, err := r.To(t.Context(), target)
	require.NoError(t, err)
	return record
}

func TestEventsReplayedForAHandlerAreHandledByItAloneAndOnce(t *testing.T) {
	b := openBus(t)
	var seen atomic.Pointer[[]string]
	start(t, b, oncimevent.New(oncimevent.Options{}))
	start(t, b, watcher(&seen))
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("m", "c1"))
	publish(t, b, "cim.acme._.AGENT_UNSUBSCRIBED", leave("l", "c1", "ada"))
	full := nats.Header{"X-Large": {strings.Repeat("x", 40<<10)}, "X-Larger": {strings.Repeat("y", 24_400)}}
	_, err := b.JetStream().PublishMsg(t.Context(), &nats.Msg{Subject: "cim.acme.web.AGENT_MESSAGE", Data: message("f", "c1"), Header: full})
	require.NoError(t, err)
	caughtUp(t, b, "watcher")
	caughtUp(t, b, "onCimEvent")

	for _, want := range []uint64{0, 4} { // the second time the copies of the first are there, and left out
		target, err := b.ReplayToHandler(t.Context(), "watcher")
		require.NoError(t, err)
		require.Equal(t, want, replay(t, b, target).LeftOut)
		caughtUp(t, b, "watcher")
		caughtUp(t, b, "onCimEvent")
	}
	require.Equal(t, strings.Fields("j m l f j m l f j m l f"), *seen.Load())
	require.Equal(t, []string{"j", "m"}, deliveredTo(t, b, "ada", "onCimEvent", "c1"))
	_, err = b.Member(t.Context(), tenant, "ada", "c1")
	require.ErrorIs(t, err, bus.ErrNotMember, "the join that was replayed was none of onCimEvent's business")
	audit(t, b)
}

func TestForgedReplayHeadersHideNoEvent(t *testing.T) {
	b := openBus(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	s := publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
	want := []string{"j"}
	for i, of := range []uint64{s, s + 1, s + 2, 1 << 40} {
		id := fmt.Sprint("m", i)
		_, err := b.JetStream().PublishMsg(t.Context(), &nats.Msg{
			Subject: "cim.acme.web.AGENT_MESSAGE", Data: message(id, "c1"),
			Header: nats.Header{bus.HeaderRedriveHandler: {"watcher"}, bus.HeaderReplayOf: {fmt.Sprint(of)}, bus.HeaderReplayID: {"made-up"}},
		})
		require.NoError(t, err)
		want = append(want, id)
	}
	caughtUp(t, b, "onCimEvent")
	require.Equal(t, want, deliveredTo(t, b, "ada", "onCimEvent", "c1"))
}

func TestReplaysAtFullSpeedDisturbNoWorkerAndLeaveNothingBehind(t *testing.T) {
	b := openBus(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	const conversations = 20
	for c := range conversations {
		publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join(fmt.Sprint("j", c), fmt.Sprint("c", c), "ada", "PRIMARY"))
	}
	caughtUp(t, b, "onCimEvent")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var live sync.WaitGroup
	published := 0
	live.Go(func() {
		for ; ctx.Err() == nil; published++ {
			_, err := b.JetStream().Publish(t.Context(), "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprint("m", published), fmt.Sprint("c", published%conversations)))
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	replays := uint64(0)
	for i := range 40 {
		target := bus.ReplayToWriter(io.Discard)
		if i%10 == 9 {
			var err error
			target, err = b.ReplayToAgents(bus.ReplayAgents{Tenant: tenant, Agents: []string{"ada"}})
			require.NoError(t, err)
			replays++
		}
		replay(t, b, target)
	}
	cancel()
	live.Wait()
	require.NotZero(t, published)
	caughtUp(t, b, "onCimEvent")
	streams, err := b.Streams(t.Context())
	require.NoError(t, err)
	for _, s := range streams {
		for _, c := range s.Consumers {
			require.True(t, c.Durable, "%s has consumer %s", s.Stream, c.Name)
		}
	}
	audit(t, b)
	all, err := b.Replays(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 40)
	for _, r := range all {
		require.Equal(t, bus.ReplayDone, r.State)
	}
	subject, err := subjects.DeliveryFilter{Tenant: subjects.Is(tenant), Agent: subjects.Is("ada"), Type: subjects.Is(bus.TypeReplay)}.Subject()
	require.NoError(t, err)
	by := map[string]uint64{}
	for _, m := range stored(t, b, bus.StreamDeliveries, subject) {
		by[bus.LastHeader(m.Header, bus.HeaderReplayID)]++
	}
	require.Len(t, by, int(replays))
	for _, r := range all {
		if n, ok := by[r.ID]; ok {
			require.Equal(t, r.Events, n)
		}
	}
}
