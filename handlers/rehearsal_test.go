package handlers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/conversation"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// storedEvents are all the events a bus has.
func storedEvents(t testing.TB, b *bus.Bus) []bus.StoredEvent {
	t.Helper()
	var all []bus.StoredEvent
	for e, err := range b.Events(t.Context(), bus.EventSelection{}) {
		require.NoError(t, err)
		all = append(all, e)
	}
	return all
}

// lastSequences tells where every stream ends and how much it has.
func lastSequences(t testing.TB, b *bus.Bus) map[string][2]uint64 {
	t.Helper()
	out := map[string][2]uint64{}
	for _, name := range allStreams() {
		s, err := b.JetStream().Stream(t.Context(), name)
		require.NoError(t, err)
		out[name] = [2]uint64{s.CachedInfo().State.LastSeq, s.CachedInfo().State.Msgs}
	}
	return out
}

func newRehearsal(t testing.TB, b *bus.Bus, h handlers.Handler) *handlers.Rehearsal {
	t.Helper()
	r, err := handlers.NewRehearsal(b, h)
	require.NoError(t, err)
	return r
}

// rehearse compares what a handler makes of an event with what was delivered for it.
func rehearse(t testing.TB, r *handlers.Rehearsal, e bus.StoredEvent) []handlers.Difference {
	t.Helper()
	made, err := r.Handle(t.Context(), e)
	require.NoError(t, err)
	delivered, err := r.Delivered(t.Context(), e)
	require.NoError(t, err)
	return handlers.Diff(delivered, made)
}

// variedTraffic publishes conversations side by side with everything in them that an event can come to.
func variedTraffic(t testing.TB, b *bus.Bus, round string, n int, rng *rand.Rand) {
	t.Helper()
	agents := []string{"ada", "ben", "cleo"}
	for i := range n {
		id, c, agent := fmt.Sprint(round, i), fmt.Sprint("c", rng.IntN(3)), agents[rng.IntN(3)]
		switch rng.IntN(10) {
		case 0, 1:
			publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join(id, c, agent, "PRIMARY"))
		case 2:
			publish(t, b, "cim.acme._.AGENT_UNSUBSCRIBED", leave(id, c, agent))
		case 3:
			publish(t, b, "cim.acme.web.TYPING_INDICATOR", fmt.Appendf(nil, `{"id":%q,"name":"TYPING_INDICATOR","conversationId":%q}`, id, c))
		case 4:
			publish(t, b, "cim.acme.web.AGENT_MESSAGE", []byte("no JSON "+id))
		case 5:
			publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", fmt.Appendf(nil, `{"id":%q,"name":"AGENT_SUBSCRIBED","conversationId":%q,"data":{}}`, id, c))
		case 6:
			if i%3 == 0 {
				publish(t, b, "cim.acme._.TOPIC_STATE_CHANGE_EVENT",
					fmt.Appendf(nil, `{"id":%q,"name":"TOPIC_STATE_CHANGE_EVENT","conversationId":%q,"data":{"state":"CLOSED"}}`, id, c))
			}
		default:
			m := &nats.Msg{Subject: "cim.acme.web.AGENT_MESSAGE", Data: message(id, c), Header: nats.Header{
				"X-Mine": {"a", "b"}, "traceparent": {"00-1-2-01"}, "Cim-Sequence": {"7"}, "Nats-Sequence": {"9"},
			}}
			_, err := b.JetStream().PublishMsg(t.Context(), m)
			require.NoError(t, err)
		}
	}
}

func TestRehearsingWhatAWorkerDeliveredShowsNoDifferenceAndLeavesNoTrace(t *testing.T) {
	b := openBus(t)
	rng := rand.New(rand.NewPCG(4, 20))
	h := oncimevent.New(oncimevent.Options{})
	// Several workers one after the other, so that there are checkpoints in the middle.
	for round := range 3 {
		variedTraffic(t, b, fmt.Sprint("r", round, "-"), 150, rng)
		worked(t, b, h)
	}
	events := storedEvents(t, b)
	before := lastSequences(t, b)

	inOrder := newRehearsal(t, b, h)
	outcomes := map[string]int{}
	deliveries := 0
	for _, e := range events {
		made, err := inOrder.Handle(t.Context(), e)
		require.NoError(t, err)
		outcomes[made.Outcome]++
		deliveries += len(made.Deliveries)
		delivered, err := inOrder.Delivered(t.Context(), e)
		require.NoError(t, err)
		require.Empty(t, handlers.Diff(delivered, made), "event %d %s", e.Sequence, e.Data)
	}
	require.Greater(t, deliveries, 100)
	require.Positive(t, outcomes[bus.OutcomeDeadLetter])

	jumping := newRehearsal(t, b, h)
	for _, i := range rng.Perm(len(events))[:100] {
		require.Empty(t, rehearse(t, jumping, events[i]), "event %d, out of order", events[i].Sequence)
	}
	for range 20 {
		e := events[rng.IntN(len(events))]
		require.Empty(t, rehearse(t, newRehearsal(t, b, h), e), "event %d alone", e.Sequence)
	}
	require.Equal(t, before, lastSequences(t, b))
	s, err := b.JetStream().Stream(t.Context(), bus.StreamEvents)
	require.NoError(t, err)
	for name := range s.ConsumerNames(t.Context()).Name() {
		require.Equal(t, bus.HandlerConsumer(h.Name), name, "no consumer is left behind")
	}
}

func TestRehearsalOfAChangedHandlerShowsExactlyWhatChanged(t *testing.T) {
	b := openBus(t)
	variedTraffic(t, b, "e", 200, rand.New(rand.NewPCG(1, 2)))
	h := oncimevent.New(oncimevent.Options{})
	worked(t, b, h)
	inner := h.Handle
	changes := 0
	h.Handle = func(ctx context.Context, e handlers.Event) ([]handlers.Delivery, error) {
		out, err := inner(ctx, e)
		if e.Name != "AGENT_MESSAGE" || e.Sequence%3 != 0 {
			return out, err
		}
		for i := range out {
			changes++
			out[i].Payload = bytes.Replace(out[i].Payload, []byte("hello"), []byte("good day"), 1)
		}
		return out, err
	}
	r := newRehearsal(t, b, h)
	for _, e := range storedEvents(t, b) {
		wanted := changes
		made, err := r.Handle(t.Context(), e)
		require.NoError(t, err)
		wanted = changes - wanted
		delivered, err := r.Delivered(t.Context(), e)
		require.NoError(t, err)
		differences := handlers.Diff(delivered, made)
		require.Len(t, differences, wanted, "event %d", e.Sequence)
		for _, d := range differences {
			require.Equal(t, handlers.DifferenceChanged, d.Kind)
			require.Equal(t, []handlers.Change{{Path: "body.cimEvent.data.text", Delivered: `"hello"`, Rehearsed: `"good day"`}}, d.Changes)
		}
	}
	require.Positive(t, changes)
}

func TestRehearsalMakesAResultOfWhateverTheHandlerDoes(t *testing.T) {
	b := openBus(t)
	for _, id := range []string{"good", "retries", "refused", "panics", "dropped", "hangs", "thief", "twice", "huge", "transient"} {
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(id, "c1"))
	}
	h := handlers.Handler{
		Name: "moody", Types: []string{"moodSwing"}, AttemptTimeout: 50 * time.Millisecond,
		Handle: func(ctx context.Context, e handlers.Event) ([]handlers.Delivery, error) {
			good := handlers.Delivery{Agent: "ada", Type: "moodSwing", Payload: []byte(e.ID)}
			switch e.ID {
			case "retries":
				return nil, errors.New("not yet")
			case "refused":
				return nil, handlers.DeadLetter("unknown-customer", errors.New("who is this"))
			case "panics":
				panic("boom")
			case "dropped":
				return nil, handlers.Drop("of no interest")
			case "hangs":
				<-ctx.Done()
				return nil, ctx.Err()
			case "thief":
				return []handlers.Delivery{{Agent: "ada", Type: "onCimEvent"}}, nil
			case "twice":
				return []handlers.Delivery{good, good}, nil
			case "huge":
				good.Payload = make([]byte, 8<<20)
			case "transient":
				good.Transient = true
			}
			return []handlers.Delivery{good}, nil
		},
	}
	r := newRehearsal(t, b, h)
	want := map[string]struct{ outcome, reason string }{
		"good": {bus.OutcomeDelivered, ""}, "retries": {handlers.OutcomeRetry, ""}, "refused": {bus.OutcomeDeadLetter, "unknown-customer"},
		"panics": {bus.OutcomeDeadLetter, handlers.ReasonPanic}, "dropped": {bus.OutcomeDropped, "of no interest"}, "hangs": {handlers.OutcomeRetry, ""},
		"thief": {bus.OutcomeDeadLetter, handlers.ReasonBadDelivery}, "twice": {bus.OutcomeDeadLetter, handlers.ReasonBadDelivery},
		"huge": {bus.OutcomeDeadLetter, handlers.ReasonTooLarge}, "transient": {bus.OutcomeDelivered, ""},
	}
	for _, e := range storedEvents(t, b) {
		made, err := r.Handle(t.Context(), e)
		require.NoError(t, err)
		require.Equal(t, want[e.ID].outcome, made.Outcome, e.ID)
		require.Equal(t, want[e.ID].reason, made.Reason, e.ID)
		failed := made.Outcome == bus.OutcomeDeadLetter || made.Outcome == handlers.OutcomeRetry
		require.Equal(t, failed, made.Err != nil, e.ID)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.Handle(ctx, storedEvents(t, b)[0])
	require.ErrorIs(t, err, context.Canceled, "an end that was asked for is no result")
}

func TestAStateThatPanicsInRehearsalIsReadAnew(t *testing.T) {
	b := openBus(t)
	h := oncimevent.New(oncimevent.Options{})
	h.NewState = func(tenant, id string) handlers.State { return brittle{conversation.New(tenant, id)} }
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j1", "c1", "ada", "PRIMARY"))
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("breaks", "c1"))
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("m1", "c1"))
	worked(t, b, h)
	r := newRehearsal(t, b, h)
	for _, e := range storedEvents(t, b) {
		require.Empty(t, rehearse(t, r, e), e.ID)
	}
}

func TestEventsNoWorkerHasComeToAreRehearsedWithTheAudienceTheyWillHave(t *testing.T) {
	b := openBus(t)
	h := oncimevent.New(oncimevent.Options{})
	rng := rand.New(rand.NewPCG(7, 7))
	variedTraffic(t, b, "before", 100, rng)
	worked(t, b, h)
	variedTraffic(t, b, "behind", 100, rng)
	early := newRehearsal(t, b, h)
	made := map[uint64]handlers.Rehearsed{}
	events := storedEvents(t, b)
	for i, e := range events {
		// Some alone: what lies between has to be found.
		if i%7 == 0 || e.Sequence > 150 {
			m, err := early.Handle(t.Context(), e)
			require.NoError(t, err)
			made[e.Sequence] = m
		}
	}
	worked(t, b, h)
	for _, e := range events {
		m, ok := made[e.Sequence]
		if !ok {
			continue
		}
		delivered, err := early.Delivered(t.Context(), e)
		require.NoError(t, err)
		require.Empty(t, handlers.Diff(delivered, m), "event %d", e.Sequence)
	}
}

func TestRehearsalBesideAWorkerDisturbsNeither(t *testing.T) {
	b := openBus(t)
	h := oncimevent.New(oncimevent.Options{})
	start(t, b, h)
	var traffic sync.WaitGroup
	traffic.Go(func() { variedTraffic(t, b, "live", 300, rand.New(rand.NewPCG(3, 9))) })
	r := newRehearsal(t, b, h)
	var made []handlers.Rehearsed
	var events []bus.StoredEvent
	for m, err := range b.Scan(t.Context(), bus.Scan{Stream: bus.StreamEvents, Follow: true}) {
		require.NoError(t, err)
		selection := bus.EventSelection{}
		e, _ := selection.Read(m)
		one, err := r.Handle(t.Context(), e)
		require.NoError(t, err)
		made, events = append(made, one), append(events, e)
		if len(events) == 200 {
			break
		}
	}
	traffic.Wait()
	drained(t, b)
	audit(t, b)
	for i, e := range events {
		delivered, err := r.Delivered(t.Context(), e)
		require.NoError(t, err)
		require.Empty(t, handlers.Diff(delivered, made[i]), "event %d", e.Sequence)
	}
}

func TestRehearsalLeavesAloneWhatWasRedrivenForAnotherHandler(t *testing.T) {
	b := openBus(t)
	h := oncimevent.New(oncimevent.Options{})
	start(t, b, h)
	var mended atomic.Bool
	moody := moodyHandler(&mended)
	start(t, b, moody)
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
	publish(t, b, "cim.acme._.AGENT_UNSUBSCRIBED", leave("l", "c1", "ada"))
	caughtUp(t, b, "moody")
	mended.Store(true)
	require.Len(t, redrive(t, b, bus.DeadLetterFilter{}, bus.RedriveOptions{}), 2)
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("m", "c1"))
	caughtUp(t, b, "moody")
	caughtUp(t, b, "onCimEvent")
	ours, theirs := newRehearsal(t, b, h), newRehearsal(t, b, moody)
	events := storedEvents(t, b)
	require.Len(t, events, 5)
	for i, e := range events {
		made, err := ours.Handle(t.Context(), e)
		require.NoError(t, err)
		require.Equal(t, i == 2 || i == 3, made.Outcome == handlers.OutcomeUnhandled, e.ID)
		require.Empty(t, rehearse(t, newRehearsal(t, b, h), e), e.ID)
		if i > 1 {
			require.Empty(t, rehearse(t, theirs, e), e.ID)
			continue
		}
		differences := rehearse(t, theirs, e)
		require.Len(t, differences, 2, "what was a dead letter would be delivered now")
		require.Equal(t, handlers.DifferenceOutcome, differences[0].Kind)
		require.Equal(t, handlers.DifferenceExtra, differences[1].Kind)
	}
}
