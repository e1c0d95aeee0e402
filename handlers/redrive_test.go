package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/oncimevent"
	"github.com/cimbus/cimbus/subjects"
)

// broken is the onCimEvent handler with a fault in it that gives up every AGENT_MESSAGE until it is mended.
func broken(mended *atomic.Bool) handlers.Handler {
	h := oncimevent.New(oncimevent.Options{})
	inner := h.Handle
	h.Handle = func(ctx context.Context, e handlers.Event) ([]handlers.Delivery, error) {
		if e.Name == "AGENT_MESSAGE" && !mended.Load() {
			return nil, handlers.DeadLetter("broken", errors.New("the mould is cracked"))
		}
		return inner(ctx, e)
	}
	return h
}

// watcher is a handler of its own that notes which events it got.
func watcher(got *atomic.Pointer[[]string]) handlers.Handler {
	var ids []string
	return handlers.Handler{
		Name: "watcher", Types: []string{"seen"}, FromStart: true, Parallel: 1,
		Handle: func(_ context.Context, e handlers.Event) ([]handlers.Delivery, error) {
			ids = append(ids, e.ID)
			all := append([]string(nil), ids...)
			got.Store(&all)
			return []handlers.Delivery{{Agent: "ada", Type: "seen", Payload: []byte(e.ID)}}, nil
		},
	}
}

// redrive redrives everything the filter selects, which must succeed.
func redrive(t testing.TB, b *bus.Bus, f bus.DeadLetterFilter, o bus.RedriveOptions) []bus.DeadLetterResult {
	t.Helper()
	plan, err := b.PlanRedrive(t.Context(), f)
	require.NoError(t, err)
	o.Operator = "ann@desk"
	results, err := b.Redrive(t.Context(), plan, o)
	require.NoError(t, err)
	for _, r := range results {
		require.Equal(t, bus.EntryRedriven, r.Outcome, "%d: %s %v", r.Sequence, r.Refused, r.Err)
	}
	return results
}

func deadLetters(t testing.TB, b *bus.Bus, f bus.DeadLetterFilter) []bus.DeadLetter {
	t.Helper()
	var all []bus.DeadLetter
	for d, err := range b.DeadLetters(t.Context(), f) {
		require.NoError(t, err)
		all = append(all, d)
	}
	return all
}

func deliveredTo(t testing.TB, b *bus.Bus, agent, kind, conversation string) []string {
	t.Helper()
	subject, err := subjects.Delivery{Tenant: tenant, Agent: agent, Type: kind, Conversation: conversation}.Subject()
	require.NoError(t, err)
	var ids []string
	for _, m := range stored(t, b, bus.StreamDeliveries, subject) {
		ids = append(ids, bus.LastHeader(m.Header, bus.HeaderEventID))
	}
	return ids
}

// caughtUp waits until a handler has finished every event stored so far. A consumer hears of an event a moment after it is stored, so
// that nothing is pending means little by itself.
func caughtUp(t testing.TB, b *bus.Bus, handler string) {
	t.Helper()
	events, err := b.JetStream().Stream(t.Context(), bus.StreamEvents)
	require.NoError(t, err)
	last := events.CachedInfo().State.LastSeq
	bustest.Eventually(t, 30*time.Second, func() error {
		c, err := b.JetStream().Consumer(t.Context(), bus.StreamEvents, bus.HandlerConsumer(handler))
		if err != nil {
			return err
		}
		if floor := c.CachedInfo().AckFloor.Stream; floor < last {
			return fmt.Errorf("finished up to %d of %d", floor, last)
		}
		return nil
	})
}

func TestRedrivenEventsReachTheirAgentsOnceInOrderThroughTheMendedHandlerAndNoOtherHandler(t *testing.T) {
	for name, place := range places {
		t.Run(name, func(t *testing.T) {
			b := openBusOn(t, place(t))
			var mended atomic.Bool
			var seen atomic.Pointer[[]string]
			start(t, b, broken(&mended))
			start(t, b, watcher(&seen))
			conversations := []string{"c1", "c2", "c.3"}
			for _, c := range conversations {
				publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j-"+c, c, "ada", "PRIMARY"))
			}
			var want []string
			for i := range 5 {
				id := fmt.Sprint("m", i)
				want = append(want, id)
				for _, c := range conversations {
					publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(id, c))
				}
			}
			caughtUp(t, b, "onCimEvent")
			caughtUp(t, b, "watcher")
			before := len(*seen.Load())
			require.Len(t, deadLetters(t, b, bus.DeadLetterFilter{Reason: "broken"}), 15)

			mended.Store(true)
			results := redrive(t, b, bus.DeadLetterFilter{Handler: subjects.Is("onCimEvent")}, bus.RedriveOptions{})
			require.Len(t, results, 15)
			caughtUp(t, b, "onCimEvent")
			caughtUp(t, b, "watcher")
			for _, c := range conversations {
				require.Equal(t, append([]string{"j-" + c}, want...), deliveredTo(t, b, "ada", "onCimEvent", c))
			}
			require.Len(t, *seen.Load(), before, "the other handler does nothing")

			// Who looks at the streams alone finds exactly the deliveries missing that the fault cost, and nothing out of order or unasked for.
			r, err := bustest.Audit(t.Context(), b.JetStream())
			require.NoError(t, err)
			require.Empty(t, r.Repeated)
			require.Empty(t, r.Misordered)
			lost := map[uint64]bool{}
			for _, e := range r.Lost {
				lost[e.Sequence] = true
			}
			for _, res := range results {
				require.True(t, lost[res.SourceSequence], "the first try was a dead letter")
				require.False(t, lost[res.NewEvent], "the redriven event was delivered")
			}
			require.Len(t, lost, 15)
		})
	}
}

func TestRedriveForAnotherHandlerChangesNothingForAgents(t *testing.T) {
	b := openBus(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	var mended atomic.Bool
	start(t, b, moodyHandler(&mended))
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("m", "c1"))
	publish(t, b, "cim.acme._.AGENT_UNSUBSCRIBED", leave("l", "c1", "ada"))
	caughtUp(t, b, "moody")
	caughtUp(t, b, "onCimEvent")
	mended.Store(true)
	require.Len(t, redrive(t, b, bus.DeadLetterFilter{}, bus.RedriveOptions{}), 3)
	caughtUp(t, b, "moody")
	caughtUp(t, b, "onCimEvent")
	audit(t, b)
	require.Equal(t, []string{"j", "m", "l"}, deliveredTo(t, b, "ada", "moodSwing", "c1"))
	_, err := b.Member(t.Context(), tenant, "ada", "c1")
	require.ErrorIs(t, err, bus.ErrNotMember, "the redriven join was none of onCimEvent's business")
}

func TestRedriveForAnotherHandlerIsLeftAloneEvenAfterItsDeadLetterWasDropped(t *testing.T) {
	b := openBus(t)
	var mended atomic.Bool
	moody := start(t, b, moodyHandler(&mended))
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
	caughtUp(t, b, "moody")
	mended.Store(true)
	redrive(t, b, bus.DeadLetterFilter{}, bus.RedriveOptions{})
	caughtUp(t, b, "moody")
	plan, err := b.PlanDrop(t.Context(), bus.DeadLetterFilter{})
	require.NoError(t, err)
	_, err = b.Drop(t.Context(), plan)
	require.NoError(t, err)
	require.NoError(t, moody.Close(t.Context()))

	start(t, b, oncimevent.New(oncimevent.Options{}))
	caughtUp(t, b, "onCimEvent")
	audit(t, b)
	require.Equal(t, []string{"j"}, deliveredTo(t, b, "ada", "onCimEvent", "c1"))
}

// moodyHandler gives up every event until it is mended.
func moodyHandler(mended *atomic.Bool) handlers.Handler {
	return handlers.Handler{
		Name: "moody", Types: []string{"moodSwing"}, FromStart: true,
		Handle: func(_ context.Context, e handlers.Event) ([]handlers.Delivery, error) {
			if !mended.Load() {
				return nil, handlers.DeadLetter("mood", errors.New("not today"))
			}
			return []handlers.Delivery{{Agent: "ada", Type: "moodSwing", Payload: []byte(e.ID)}}, nil
		},
	}
}

func TestRedrivenEventThatFailsAgainIsADeadLetterOfItsOwnThatNamesTheFirst(t *testing.T) {
	b := openBus(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	_, err := b.JetStream().PublishMsg(t.Context(), &nats.Msg{
		Subject: "cim.acme.web.AGENT_MESSAGE", Data: []byte(`{"id":"x","name":"AGENT_MESSAGE"`),
		Header: nats.Header{bus.HeaderConversation: {"c1"}, "Cim-Redrive-Of": {"77"}, "traceparent": {"00-1-2-01"}},
	})
	require.NoError(t, err)
	caughtUp(t, b, "onCimEvent")
	first := deadLetters(t, b, bus.DeadLetterFilter{})
	require.Len(t, first, 1)
	require.Zero(t, first[0].RedriveOf, "whoever publishes cannot say so")
	require.Equal(t, "c1", first[0].Conversation)

	results := redrive(t, b, bus.DeadLetterFilter{}, bus.RedriveOptions{})
	caughtUp(t, b, "onCimEvent")
	all := deadLetters(t, b, bus.DeadLetterFilter{})
	require.Len(t, all, 2)
	require.Equal(t, first[0].Sequence, all[1].RedriveOf)
	require.Equal(t, results[0].NewEvent, all[1].SourceSequence)
	require.Equal(t, first[0].Payload, all[1].Payload)
	require.Equal(t, []string{"00-1-2-01"}, all[1].Header["traceparent"])
	require.Equal(t, "c1", all[1].Conversation)
	require.Equal(t, bus.RedriveDone, all[0].Redrive.State)
	require.Nil(t, all[1].Redrive)
	audit(t, b)

	// The new one may be redriven, the first one not again.
	plan, err := b.PlanRedrive(t.Context(), bus.DeadLetterFilter{})
	require.NoError(t, err)
	require.Equal(t, bus.RefusedRedriven, plan.Entries[0].Refused)
	require.Empty(t, plan.Entries[1].Refused)
}

func TestConversationThatNoHeaderCanCarryIsKeptByARedrive(t *testing.T) {
	b := openBus(t)
	var mended atomic.Bool
	start(t, b, broken(&mended))
	long := strings.Repeat("x", 600)
	for _, id := range []string{`two\nlines`, ` blanks around `, long} {
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", []byte(`{"id":"m","name":"AGENT_MESSAGE","conversationId":"`+id+`"}`))
	}
	caughtUp(t, b, "onCimEvent")
	mended.Store(true)
	require.Len(t, deadLetters(t, b, bus.DeadLetterFilter{}), 3)
	results := redrive(t, b, bus.DeadLetterFilter{}, bus.RedriveOptions{})
	caughtUp(t, b, "onCimEvent")
	redriven := map[string]uint64{}
	for _, r := range results {
		redriven[r.Conversation] = r.NewEvent
	}
	for c, index := range map[string]subjects.Index{
		"two\nlines":      {Tenant: tenant, Conversation: "two\nlines"},
		" blanks around ": {Tenant: tenant, Conversation: " blanks around "},
		long:              {Tenant: tenant}, // it cannot be used
	} {
		subject, err := index.Subject()
		require.NoError(t, err)
		last, err := b.LastMessage(t.Context(), bus.StreamIndex, subject)
		require.NoError(t, err)
		require.Equal(t, redriven[c], bus.SequenceOf(last.Header), "%.20q", c)
	}
}

func TestEventTerminatedWithoutADeadLetterRaisesTheAlarmAndOneWithItDoesNot(t *testing.T) {
	b := openBus(t)
	h := oncimevent.New(oncimevent.Options{})
	inner := h.Handle
	held := make(chan struct{}, 1)
	release := make(chan struct{})
	h.Handle = func(ctx context.Context, e handlers.Event) ([]handlers.Delivery, error) {
		if e.ID == "held" {
			held <- struct{}{}
			<-release
		}
		return inner(ctx, e)
	}
	w := start(t, b, h)
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", []byte("poison"))
	caughtUp(t, b, "onCimEvent")
	s := publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("held", "c1"))
	<-held
	// Somebody terminates what a worker has in its hands.
	ack := "$JS.ACK." + bus.StreamEvents + "." + bus.HandlerConsumer("onCimEvent") + ".1." + strconv.FormatUint(s, 10) + ".2.0.0"
	require.NoError(t, b.Conn().Publish(ack, []byte("+TERM somebody's doing")))
	bustest.Eventually(t, 10*time.Second, func() error {
		if w.Stats().Lost == 0 {
			return errors.New("no alarm")
		}
		return nil
	})
	close(release)
	require.EqualValues(t, 1, w.Stats().Lost, "the dead letter of the poison was there")
	require.EqualValues(t, 1, w.Stats().DeadLetters)
}

func TestEventWithAllTheHeadersTheServerTakesStopsNobodyAsDeliveryNorAsDeadLetterNorRedriven(t *testing.T) {
	b := openBus(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
	full := nats.Header{"X-Large": {strings.Repeat("x", 40<<10)}, "X-Larger": {strings.Repeat("y", 24_400)}, "traceparent": {"00-1-2-01"}}
	for _, body := range []string{string(message("m", "c1")), "poison"} {
		_, err := b.JetStream().PublishMsg(t.Context(), &nats.Msg{Subject: "cim.acme.web.AGENT_MESSAGE", Data: []byte(body), Header: full})
		require.NoError(t, err)
	}
	caughtUp(t, b, "onCimEvent")
	redrive(t, b, bus.DeadLetterFilter{}, bus.RedriveOptions{})
	caughtUp(t, b, "onCimEvent")
	audit(t, b)
	for _, d := range deadLetters(t, b, bus.DeadLetterFilter{}) {
		require.Equal(t, "poison", string(d.Payload))
		require.Equal(t, full["X-Larger"], d.Header["X-Larger"], "what fits is taken over")
		require.Equal(t, full["traceparent"], d.Header["traceparent"])
		require.Empty(t, d.Header["X-Large"])
	}
}
