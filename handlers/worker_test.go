package handlers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/oncimevent"
	"github.com/cimbus/cimbus/subjects"
)

// start runs a handler until the test ends.
func start(t testing.TB, b *bus.Bus, h handlers.Handler) *handlers.Worker {
	t.Helper()
	w, err := handlers.Start(t.Context(), b, h)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		require.NoError(t, w.Close(ctx))
	})
	return w
}

// stored returns what a stream keeps on a subject filter, oldest first.
func stored(t testing.TB, b *bus.Bus, stream, filter string) []*jetstream.RawStreamMsg {
	t.Helper()
	var out []*jetstream.RawStreamMsg
	for next := uint64(1); ; {
		m, err := b.NextMessage(t.Context(), stream, next, filter)
		if errors.Is(err, bus.ErrNoMessage) {
			return out
		}
		require.NoError(t, err)
		out = append(out, m)
		next = m.Sequence + 1
	}
}

func TestEveryInvalidEventIsADeadLetterWithReasonAndPayloadAndStopsNobody(t *testing.T) {
	b := openBus(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
	long := strings.Repeat("x", 200)
	cases := map[string]struct{ subject, body, conversation string }{
		cim.ReasonNotJSON:              {"cim.acme.web.A", `{"id":"1","name":"A"`, ""},
		cim.ReasonNotAnEvent:           {"cim.acme.web.B", `[{"id":"1","name":"B"}]`, ""},
		cim.ReasonNoName:               {"cim.acme.web.C", `{"id":"1","conversationId":"c1"}`, "c1"},
		cim.ReasonNoID:                 {"cim.acme.web.D", `{"name":"D","conversationId":"c1"}`, "c1"},
		handlers.ReasonNoConversation:  {"cim.acme.web.E", `{"id":"1","name":"E"}`, ""},
		handlers.ReasonBadConversation: {"cim.acme.web.F", `{"id":"1","name":"F","conversationId":"` + long + `"}`, ""},
		handlers.ReasonSubjectMismatch: {"cim.acme.web.G", `{"id":"1","name":"X","conversationId":"c1"}`, "c1"},
		handlers.ReasonBadSubject:      {"cim.acme.WEB.H", `{"id":"1","name":"H","conversationId":"c1"}`, ""},
		handlers.ReasonInvalidEvent:    {"cim.acme.web.AGENT_SUBSCRIBED", `{"id":"1","name":"AGENT_SUBSCRIBED","conversationId":"c1","data":{}}`, "c1"},
	}
	for reason, c := range cases {
		s := publish(t, b, c.subject, []byte(c.body))
		filter := fmt.Sprintf("cim-dead.onCimEvent.acme.*.*.%d", s)
		bustest.Eventually(t, 10*time.Second, func() error {
			if n := len(stored(t, b, bus.StreamDeadLetters, filter)); n != 1 {
				return fmt.Errorf("%s: %d dead letters on %s", reason, n, filter)
			}
			return nil
		})
		dead := stored(t, b, bus.StreamDeadLetters, filter)[0]
		require.Equal(t, reason, bus.LastHeader(dead.Header, bus.HeaderReason))
		require.Equal(t, c.body, string(dead.Data), "the payload is kept whole")
		require.NotEmpty(t, bus.LastHeader(dead.Header, bus.HeaderError))
		require.Equal(t, "1", bus.LastHeader(dead.Header, bus.HeaderAttempts))
		drained(t, b) // the index entry comes after the dead letter
		index, err := subjects.Index{Tenant: tenant, Conversation: c.conversation}.Subject()
		require.NoError(t, err)
		last, err := b.LastMessage(t.Context(), bus.StreamIndex, index)
		require.NoError(t, err)
		require.Equal(t, s, bus.SequenceOf(last.Header), reason)
		require.Equal(t, bus.OutcomeDeadLetter, bus.LastHeader(last.Header, bus.HeaderOutcome))
	}
	good := publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("good", "c1"))
	drained(t, b)
	last, err := b.LastMessage(t.Context(), bus.StreamDeliveries, "cim-agent.acme.ada.onCimEvent.c1")
	require.NoError(t, err)
	require.Equal(t, good, bus.SequenceOf(last.Header))
}

func TestHandlerThatFailsIsTriedAgainThenGivesUpWithoutDisturbingOthers(t *testing.T) {
	b := openBus(t)
	var mu sync.Mutex
	attempts := map[string]int{}
	seen := func(id string) int {
		mu.Lock()
		defer mu.Unlock()
		attempts[id]++
		return attempts[id]
	}
	w := start(t, b, handlers.Handler{
		Name: "moody", Types: []string{"moodSwing"}, FromStart: true,
		Retry: handlers.RetryPolicy{Attempts: 3, First: time.Millisecond, Longest: 5 * time.Millisecond},
		Handle: func(_ context.Context, e handlers.Event) ([]handlers.Delivery, error) {
			n := seen(e.ID)
			switch {
			case e.ID == "recovers" && n < 3:
				return nil, errors.New("not yet")
			case e.ID == "fails":
				return nil, errors.New("never")
			case e.ID == "refused":
				return nil, handlers.DeadLetter("unknown-customer", errors.New("who is this"))
			case e.ID == "panics":
				panic("boom")
			case e.ID == "dropped":
				return nil, handlers.Drop("of no interest")
			case e.ID == "thief":
				return []handlers.Delivery{{Agent: "ada", Type: "onCimEvent"}}, nil
			}
			return []handlers.Delivery{{Agent: "ada", Type: "moodSwing", Payload: []byte(e.ID)}}, nil
		},
	})
	want := map[string]struct {
		reason   string
		attempts int
	}{
		"recovers": {"", 3}, "fails": {handlers.ReasonFailed, 3}, "refused": {"unknown-customer", 1}, "panics": {handlers.ReasonPanic, 1},
		"dropped": {"", 1}, "thief": {handlers.ReasonBadDelivery, 1}, "good": {"", 1},
	}
	for id := range want {
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(id, "c-"+id))
	}
	bustest.Eventually(t, 20*time.Second, func() error {
		c, err := b.JetStream().Consumer(t.Context(), bus.StreamEvents, "handler-moody")
		if err != nil {
			return err
		}
		// While the consumer is being reset it has nothing pending: the floor tells.
		if info := c.CachedInfo(); info.AckFloor.Stream < uint64(len(want)) || info.NumAckPending > 0 {
			return fmt.Errorf("acknowledged up to %d of %d, %d on the way", info.AckFloor.Stream, len(want), info.NumAckPending)
		}
		return nil
	})
	dead := map[string]string{}
	for _, m := range stored(t, b, bus.StreamDeadLetters, "cim-dead.moody.>") {
		dead[bus.LastHeader(m.Header, bus.HeaderEventID)] = bus.LastHeader(m.Header, bus.HeaderReason)
		if bus.LastHeader(m.Header, bus.HeaderReason) == handlers.ReasonPanic {
			require.Contains(t, bus.LastHeader(m.Header, bus.HeaderError), "boom")
			require.Contains(t, bus.LastHeader(m.Header, bus.HeaderError), "worker_test.go", "the top of the stack says where")
		}
	}
	for id, w := range want {
		require.Equal(t, w.reason, dead[id], id)
		require.Equal(t, w.attempts, attempts[id], id)
	}
	var delivered []string
	for _, m := range stored(t, b, bus.StreamDeliveries, "cim-agent.acme.ada.moodSwing.*") {
		delivered = append(delivered, string(m.Data))
	}
	require.ElementsMatch(t, []string{"recovers", "good"}, delivered)

	bustest.Eventually(t, 10*time.Second, func() error {
		if n := w.Stats().Handled; n != uint64(len(want)) {
			return fmt.Errorf("%d counted of %d", n, len(want))
		}
		return nil
	})
	counts := w.Counts()
	require.Zero(t, counts.DeadLetters[handlers.ReasonStuck])
	require.Contains(t, counts.DeadLetters, handlers.ReasonStuck)
	maps.DeleteFunc(counts.DeadLetters, func(_ string, n uint64) bool { return n == 0 })
	require.Equal(t, map[string]uint64{handlers.ReasonFailed: 1, "unknown-customer": 1, handlers.ReasonPanic: 1, handlers.ReasonBadDelivery: 1}, counts.DeadLetters)
	require.Len(t, counts.Tenants, 1)
	acme := counts.Tenants["acme"]
	require.Equal(t, map[handlers.Outcome]uint64{
		handlers.Delivered: 2, handlers.Dropped: 1, handlers.DeadLettered: 4, handlers.Transient: 0, handlers.Imported: 0, handlers.Skipped: 0,
	}, acme.Outcomes)
	require.EqualValues(t, 4, acme.Retries, "two until it recovers, two until it is given up")
	timed := uint64(0)
	for _, n := range acme.Latency.Counts {
		timed += n
	}
	require.EqualValues(t, 2, timed)
	require.Positive(t, acme.Latency.Sum)
}

func TestStuckConversationDelaysNoOther(t *testing.T) {
	b := openBus(t)
	release := make(chan struct{})
	h := oncimevent.New(oncimevent.Options{})
	inner := h.Handle
	h.Handle = func(ctx context.Context, e handlers.Event) ([]handlers.Delivery, error) {
		if e.Conversation == "stuck" {
			select {
			case <-release:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return inner(ctx, e)
	}
	start(t, b, h)
	for _, c := range []string{"stuck", "free"} {
		publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j-"+c, c, "ada", "PRIMARY"))
	}
	// Far more than the events held of one conversation wait behind the stuck one.
	for i := range 400 {
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprintf("s%d", i), "stuck"))
	}
	free := publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("f", "free"))
	bustest.Eventually(t, 10*time.Second, func() error {
		m, err := b.LastMessage(t.Context(), bus.StreamDeliveries, "cim-agent.acme.ada.onCimEvent.free")
		if err != nil {
			return err
		}
		if s := bus.SequenceOf(m.Header); s != free {
			return fmt.Errorf("the free conversation is at %d, not %d", s, free)
		}
		return nil
	})
	close(release)
	drained(t, b)
	audit(t, b)
}

func TestEventThatHoldsUpTooManyBecomesADeadLetterAndTheOthersGoOn(t *testing.T) {
	b := openBus(t)
	h := oncimevent.New(oncimevent.Options{})
	inner := h.Handle
	h.Handle = func(ctx context.Context, e handlers.Event) ([]handlers.Delivery, error) {
		if e.ID == "stuck" {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return inner(ctx, e)
	}
	start(t, b, h)
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
	stuck := publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("stuck", "c1"))
	for i := range 4200 {
		_, err := b.JetStream().PublishAsync("cim.acme.web.AGENT_MESSAGE", message(fmt.Sprint(i), "c1"), jetstream.WithStallWait(time.Minute))
		require.NoError(t, err)
	}
	<-b.JetStream().PublishAsyncComplete()
	drained(t, b)
	dead := stored(t, b, bus.StreamDeadLetters, "cim-dead.>")
	require.Len(t, dead, 1)
	require.Equal(t, stuck, bus.SequenceOf(dead[0].Header))
	require.Equal(t, handlers.ReasonStuck, bus.LastHeader(dead[0].Header, bus.HeaderReason))
	deliveries, err := b.JetStream().Stream(t.Context(), bus.StreamDeliveries)
	require.NoError(t, err)
	require.EqualValues(t, 4201, deliveries.CachedInfo().State.Msgs)
}

func TestConversationWhoseCheckpointCannotBeWrittenGoesOn(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, b *bus.Bus){
		"bucket gone": func(t *testing.T, b *bus.Bus) {
			require.NoError(t, b.JetStream().DeleteStream(t.Context(), bus.StreamConversations))
		},
		"bucket full": func(t *testing.T, b *bus.Bus) {
			stream, err := b.JetStream().Stream(t.Context(), bus.StreamConversations)
			require.NoError(t, err)
			config := stream.CachedInfo().Config
			config.MaxBytes, config.Discard = 1, jetstream.DiscardNew
			_, err = b.JetStream().UpdateStream(t.Context(), config)
			require.NoError(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			// Strict: in balanced durability a checkpoint waits for its seconds first.
			b := openBusOn(t, bus.Options{Embedded: embedded.Options{StoreDir: t.TempDir()}})
			h := oncimevent.New(oncimevent.Options{})
			w, err := handlers.Start(t.Context(), b, h)
			require.NoError(t, err)
			publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
			drained(t, b)
			spoil(t, b)
			for i := range 200 {
				publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprint(i), "c1"))
			}
			drained(t, b)
			require.NoError(t, w.Close(t.Context()), "it stops in time, with the checkpoint left")
			require.Len(t, stored(t, b, bus.StreamDeliveries, "cim-agent.acme.ada.onCimEvent.c1"), 201)
		})
	}
}

func TestForgedRedriveHeadersHideNoEvent(t *testing.T) {
	b := openBus(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
	for i, of := range []string{"", "x", "1", "99"} {
		_, err := b.JetStream().PublishMsg(t.Context(), &nats.Msg{
			Subject: "cim.acme.web.AGENT_MESSAGE", Data: message(fmt.Sprint(i), "c1"),
			Header: nats.Header{bus.HeaderRedriveHandler: {"somebody-else"}, bus.HeaderRedriveOf: {of}},
		})
		require.NoError(t, err)
	}
	drained(t, b)
	require.Len(t, stored(t, b, bus.StreamDeliveries, "cim-agent.acme.ada.onCimEvent.c1"), 5)
}

func TestForgedHeadersOfAPublisherNeitherStopNorMisleadTheWorker(t *testing.T) {
	b := openBus(t)
	w := start(t, b, oncimevent.New(oncimevent.Options{}))
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
	forged := nats.Header{
		"Nats-Pin-Id": {"forged"}, "Nats-Sequence": {"1"}, "Cim-Sequence": {"999999"}, "Nats-Expected-Stream-X": {"x"},
		"Status": {"409"}, "Description": {"Consumer Deleted"}, "nats-expected-last-msg-id": {"y"}, "X-Mine": {"kept"},
	}
	for i := range 20 {
		_, err := b.JetStream().PublishMsg(t.Context(), &nats.Msg{
			Subject: "cim.acme.web.AGENT_MESSAGE", Header: forged, Data: message(fmt.Sprint(i), "c1"),
		})
		require.NoError(t, err)
	}
	drained(t, b)
	audit(t, b)
	// With an empty body it looks quite like a word of the server.
	for range 20 {
		_, err := b.JetStream().PublishMsg(t.Context(), &nats.Msg{Subject: "cim.acme.web.EMPTY", Header: forged})
		require.NoError(t, err)
	}
	drained(t, b)
	dead := stored(t, b, bus.StreamDeadLetters, "cim-dead.>")
	require.Len(t, dead, 20)
	require.Empty(t, dead[0].Header["Status"])
	last, err := b.LastMessage(t.Context(), bus.StreamDeliveries, "cim-agent.acme.ada.onCimEvent.c1")
	require.NoError(t, err)
	require.Equal(t, []string{"kept"}, last.Header["X-Mine"])
	require.Empty(t, last.Header["Nats-Pin-Id"])
	require.EqualValues(t, 1, w.Stats().Epochs, "nothing ended the epoch")
}

func TestDeliveryLargerThanItsEventIsStillDelivered(t *testing.T) {
	b := openBus(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
	// The channel session is nearly the whole event, so the delivery holds it twice.
	session := `{"id":"s","note":"` + strings.Repeat("n", 1<<20-300) + `"}`
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", []byte(`{"id":"big","name":"AGENT_MESSAGE","conversationId":"c1","channelSession":`+session+`}`))
	drained(t, b)
	last, err := b.LastMessage(t.Context(), bus.StreamDeliveries, "cim-agent.acme.ada.onCimEvent.c1")
	require.NoError(t, err)
	require.Greater(t, len(last.Data), 2<<20-1000)
	audit(t, b)
}

func TestTypingIndicatorIsLiveAndInNoStream(t *testing.T) {
	b := openBus(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	live, err := b.Conn().SubscribeSync("cim-live.acme.ada.>")
	require.NoError(t, err)
	require.NoError(t, b.Conn().Flush())
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
	publish(t, b, "cim.acme.web.TYPING_INDICATOR", []byte(`{"id":"t","name":"TYPING_INDICATOR","conversationId":"c1"}`))
	_, err = live.NextMsg(5 * time.Second)
	require.NoError(t, err)
	m, err := live.NextMsg(5 * time.Second)
	require.NoError(t, err)
	require.Equal(t, "cim-live.acme.ada.onCimEvent.c1", m.Subject)
	require.Equal(t, "true", m.Header.Get(bus.HeaderTransient))
	require.Empty(t, m.Header.Get(bus.HeaderSequence))
	drained(t, b)
	require.Len(t, stored(t, b, bus.StreamDeliveries, "cim-agent.acme.ada.>"), 1)
	audit(t, b)
}

func TestMemberRecordsFollowTheEvents(t *testing.T) {
	b := openBus(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	since := publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("again", "c1", "ada", "PRIMARY"))
	drained(t, b)
	m, err := b.Member(t.Context(), tenant, "ada", "c1")
	require.NoError(t, err)
	require.Equal(t, "PRIMARY", m.Role)
	require.Equal(t, since, m.Since)
	left := publish(t, b, "cim.acme._.AGENT_UNSUBSCRIBED", leave("l", "c1", "ada"))
	drained(t, b)
	m, err = b.Member(t.Context(), tenant, "ada", "c1")
	require.ErrorIs(t, err, bus.ErrNotMember)
	require.Equal(t, left, m.Left)
	audit(t, b)
}

func TestRestartedWorkerGoesOnFromTheCheckpoint(t *testing.T) {
	b := openBusOn(t, bus.Options{Embedded: embedded.Options{StoreDir: t.TempDir()}})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	h := oncimevent.New(oncimevent.Options{})
	for round := range 3 {
		w, err := handlers.Start(t.Context(), b, h)
		require.NoError(t, err)
		conversationEvents(t, b, "c1", 100, rand.New(rand.NewPCG(seed, uint64(round))))
		drained(t, b)
		require.NoError(t, w.Close(t.Context()))
		last, err := b.LastMessage(t.Context(), bus.StreamIndex, "cim-index.acme.c1")
		require.NoError(t, err)
		checkpoint, err := b.LastMessage(t.Context(), bus.StreamConversations, "$KV.CIM_CONVERSATIONS.acme.c1")
		require.NoError(t, err)
		require.Equal(t, bus.SequenceOf(last.Header), bus.SequenceOf(checkpoint.Header))
	}
	audit(t, b)
}

func TestUsersHandlerStartsWithNewEventsUnlessItSaysOtherwise(t *testing.T) {
	for _, fromStart := range []bool{false, true} {
		b := openBus(t)
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("old", "c1"))
		got := make(chan string, 4)
		start(t, b, handlers.Handler{
			Name: "watcher", Types: []string{"seen"}, FromStart: fromStart,
			Handle: func(_ context.Context, e handlers.Event) ([]handlers.Delivery, error) {
				got <- e.ID
				return nil, nil
			},
		})
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("new", "c1"))
		first := "new"
		if fromStart {
			first = "old"
		}
		require.Equal(t, first, <-got)
	}
}

func TestHandlerDeclarationReportsEveryProblemAtOnce(t *testing.T) {
	err := handlers.Handler{Name: "a b", Types: []string{"onCimEvent"}, PinnedTTL: time.Second, Retry: handlers.RetryPolicy{First: time.Minute}}.Validate()
	require.Error(t, err)
	for _, part := range []string{"name", "handle", "onCimEvent", "pull expiry", "retry"} {
		require.ErrorContains(t, err, part)
	}
}

func TestDeliveryBodyIsTheDocumentedOne(t *testing.T) {
	b := openBus(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("m", "c1"))
	drained(t, b)
	m, err := b.LastMessage(t.Context(), bus.StreamDeliveries, "cim-agent.acme.ada.>")
	require.NoError(t, err)
	var body map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(m.Data, &body))
	require.Equal(t, string(message("m", "c1")), string(body["cimEvent"]))
	require.Equal(t, `"c1"`, string(body["conversationId"]))
	require.Equal(t, `"2025-12-29T09:20:00.000Z"`, string(body["time"]))
}
