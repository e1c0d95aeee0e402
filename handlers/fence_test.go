package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

const tenant = "acme"

// openBus opens a bus on a server of the test's own, with the duplicate window set to nothing: the fences alone must do.
func openBus(t testing.TB) *bus.Bus {
	t.Helper()
	return openBusOn(t, bus.Options{Embedded: embedded.Options{StoreDir: t.TempDir(), Durability: embedded.Balanced}})
}

func openBusOn(t testing.TB, o bus.Options) *bus.Bus {
	t.Helper()
	o.Streams.DuplicateWindow = bus.MinDuplicateWindow
	b, err := bus.Open(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close(context.WithoutCancel(t.Context()))) })
	return b
}

// publish stores one event as a service does, through plain JetStream.
func publish(t testing.TB, b *bus.Bus, subject string, body []byte) uint64 {
	t.Helper()
	ack, err := b.JetStream().Publish(t.Context(), subject, body)
	require.NoError(t, err)
	return ack.Sequence
}

func message(id, conversation string) []byte {
	return fmt.Appendf(nil, `{"id":%q,"name":"AGENT_MESSAGE","type":"MESSAGE","timestamp":1767000000000,"conversationId":%q,"data":{"text":"hello"}}`, id, conversation)
}

func join(id, conversation, agent, role string) []byte {
	return cim.Subscribed(cim.Membership{ID: id, Time: time.Now(), Conversation: conversation, Agent: agent, Role: role})
}

func leave(id, conversation, agent string) []byte {
	return cim.Unsubscribed(cim.Membership{ID: id, Time: time.Now(), Conversation: conversation, Agent: agent})
}

// audit holds everything derived against an independent fold of CIM_EVENTS.
func audit(t testing.TB, b *bus.Bus) {
	t.Helper()
	report, err := bustest.Audit(context.WithoutCancel(t.Context()), b.JetStream())
	require.NoError(t, err)
	require.NoError(t, report.Err())
}

// conversationEvents publishes a conversation in which three agents come, talk and go, and returns the stored messages.
func conversationEvents(t testing.TB, b *bus.Bus, conversation string, n int, rng *rand.Rand) []*jetstream.RawStreamMsg {
	t.Helper()
	agents := []string{"ada", "ben", "cleo"}
	var stored []*jetstream.RawStreamMsg
	for i := range n {
		id, agent := fmt.Sprintf("%s-%d", conversation, i), agents[rng.IntN(len(agents))]
		var s uint64
		switch k := rng.IntN(10); {
		case i == 0 || k == 0:
			s = publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join(id, conversation, agent, "PRIMARY"))
		case k == 1:
			s = publish(t, b, "cim.acme._.AGENT_UNSUBSCRIBED", leave(id, conversation, agent))
		case k == 2:
			s = publish(t, b, "cim.acme.web.CUSTOMER_MESSAGE", message(id, conversation)) // not the subject's name
		default:
			s = publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(id, conversation))
		}
		m, err := b.MessageAt(t.Context(), bus.StreamEvents, s)
		require.NoError(t, err)
		stored = append(stored, m)
	}
	return stored
}

func TestWorkersThatOverlapStoreEveryDeliveryOnce(t *testing.T) {
	b := openBus(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	events := conversationEvents(t, b, "c1", 150, rand.New(rand.NewPCG(seed, 0)))

	// Four workers go over the same events at once. Each is where it is: one has just begun, one forgets, one comes late.
	var wg sync.WaitGroup
	failed := make(chan error, 4)
	for worker := range uint64(4) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, worker+1))
			hand, err := handlers.NewHand(b, oncimevent.New(oncimevent.Options{}), tenant, "c1")
			if err != nil {
				failed <- err
				return
			}
			for i := 0; i < len(events); i++ {
				if err := hand.Process(t.Context(), events[i]); err != nil {
					failed <- fmt.Errorf("worker %d, event %d: %w", worker, i, err)
					return
				}
				switch rng.IntN(20) {
				case 0:
					hand.Forget()
				case 1:
					i = max(-1, i-rng.IntN(12)) // redelivered, long finished
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	var errs []error
	for err := range failed {
		errs = append(errs, err)
	}
	require.NoError(t, errors.Join(errs...))
	audit(t, b)
}

func TestEventFinishedLongAgoIsNotDeliveredAgain(t *testing.T) {
	b := openBus(t)
	events := conversationEvents(t, b, "c1", 80, rand.New(rand.NewPCG(1, 1)))
	first, err := handlers.NewHand(b, oncimevent.New(oncimevent.Options{}), tenant, "c1")
	require.NoError(t, err)
	for _, m := range events {
		require.NoError(t, first.Process(t.Context(), m))
	}
	// A kill brings hundreds of finished events back; here all of them, to a worker that knows nothing, index or no index.
	for _, redo := range []bool{false, true} {
		again, err := handlers.NewHand(b, oncimevent.New(oncimevent.Options{}), tenant, "c1")
		require.NoError(t, err)
		if redo {
			again.Redo(1, events[len(events)-1].Sequence)
		}
		for _, m := range events {
			require.NoError(t, again.Process(t.Context(), m))
		}
	}
	audit(t, b)
}

func TestWorkerThatWakesAfterItsSuccessorDoesNotDeliverInTheirMidst(t *testing.T) {
	b := openBus(t)
	events := conversationEvents(t, b, "c1", 60, rand.New(rand.NewPCG(2, 2)))
	frozen, err := handlers.NewHand(b, oncimevent.New(oncimevent.Options{}), tenant, "c1")
	require.NoError(t, err)
	for _, m := range events[:20] {
		require.NoError(t, frozen.Process(t.Context(), m))
	}
	successor, err := handlers.NewHand(b, oncimevent.New(oncimevent.Options{}), tenant, "c1")
	require.NoError(t, err)
	for _, m := range events[:45] {
		require.NoError(t, successor.Process(t.Context(), m))
	}
	// It goes on where it was, with what it knew then.
	for _, m := range events[20:] {
		require.NoError(t, frozen.Process(t.Context(), m))
	}
	for _, m := range events[45:] {
		require.NoError(t, successor.Process(t.Context(), m))
	}
	audit(t, b)
}

func TestFenceHoldsWhenTheEarlierMessagesOfASubjectAreGone(t *testing.T) {
	b := openBus(t)
	events := conversationEvents(t, b, "c1", 60, rand.New(rand.NewPCG(3, 3)))
	hand, err := handlers.NewHand(b, oncimevent.New(oncimevent.Options{}), tenant, "c1")
	require.NoError(t, err)
	for _, m := range events[:30] {
		require.NoError(t, hand.Process(t.Context(), m))
	}
	stream, err := b.JetStream().Stream(t.Context(), bus.StreamDeliveries)
	require.NoError(t, err)
	gone := stream.CachedInfo().State.Msgs
	if info, err := stream.Info(t.Context()); err == nil {
		gone = info.State.Msgs
	}
	require.Positive(t, gone)
	require.NoError(t, stream.Purge(t.Context()))
	// One goes on with what it knew, and one that knows nothing has all of it come back.
	again, err := handlers.NewHand(b, oncimevent.New(oncimevent.Options{}), tenant, "c1")
	require.NoError(t, err)
	for _, m := range events[30:] {
		require.NoError(t, hand.Process(t.Context(), m))
	}
	for _, m := range events {
		require.NoError(t, again.Process(t.Context(), m))
	}
	report, err := bustest.Audit(t.Context(), b.JetStream())
	require.NoError(t, err)
	require.Empty(t, report.Repeated)
	require.Empty(t, report.Misordered)
	require.Empty(t, report.Unexpected)
	require.Len(t, report.Lost, int(gone), "what is gone, and nothing else")
	for _, e := range report.Lost {
		require.Equal(t, bus.StreamDeliveries, e.Stream)
		require.LessOrEqual(t, e.Sequence, events[29].Sequence)
	}
}

func TestConversationGoesOnFromACheckpointWhoseEventsHaveExpired(t *testing.T) {
	b := openBusOn(t, bus.Options{Embedded: embedded.Options{StoreDir: t.TempDir()}})
	h := oncimevent.New(oncimevent.Options{})
	work := func(publishAll func()) {
		w, err := handlers.Start(t.Context(), b, h)
		require.NoError(t, err)
		publishAll()
		drained(t, b)
		require.NoError(t, w.Close(t.Context()))
	}
	number := 0
	talk := func(n int) {
		for range n {
			number++
			publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprint(number), "c1"))
		}
	}
	work(func() {
		for _, agent := range []string{"ada", "ben", "cleo"} {
			publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j-"+agent, "c1", agent, "PRIMARY"))
		}
		publish(t, b, "cim.acme._.AGENT_UNSUBSCRIBED", leave("l-ben", "c1", "ben"))
		talk(100)
	})
	for _, name := range []string{bus.StreamEvents, bus.StreamIndex, bus.StreamDeliveries} {
		stream, err := b.JetStream().Stream(t.Context(), name)
		require.NoError(t, err)
		require.NoError(t, stream.Purge(t.Context()))
	}
	work(func() {
		talk(10)
		publish(t, b, "cim.acme._.AGENT_UNSUBSCRIBED", leave("l-cleo", "c1", "cleo"))
		talk(5)
	})
	events := stored(t, b, bus.StreamEvents, ">")
	require.Len(t, events, 16)
	require.Len(t, stored(t, b, bus.StreamIndex, ">"), 16)
	for agent, want := range map[string]int{"ada": 16, "ben": 0, "cleo": 10} {
		deliveries := stored(t, b, bus.StreamDeliveries, "cim-agent.acme."+agent+".onCimEvent.c1")
		require.Len(t, deliveries, want, agent)
		for i, m := range deliveries {
			require.Equal(t, events[i].Sequence, bus.SequenceOf(m.Header), agent)
		}
	}
	require.Len(t, stored(t, b, bus.StreamDeliveries, "cim-agent.acme.*.topicUnsubscription.c1"), 1)
}
