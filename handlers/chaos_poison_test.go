package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// poison is a kind of event of which only a dead letter can come. Its body takes the event's id and its conversation.
type poison struct{ reason, name, body string }

// poisons are what a publisher can send through the library.
var poisons = []poison{
	{cim.ReasonNotJSON, "AGENT_MESSAGE", `{"id":%[1]q,"name":`},
	{cim.ReasonTooDeep, "AGENT_MESSAGE", `{"id":%[1]q,"name":"AGENT_MESSAGE","conversationId":%[2]q,"data":` + strings.Repeat("[", 600) + strings.Repeat("]", 600) + `}`},
	{cim.ReasonNotAnEvent, "AGENT_MESSAGE", `[{"id":%[1]q}]`},
	{cim.ReasonNoName, "AGENT_MESSAGE", `{"id":%[1]q,"conversationId":%[2]q}`},
	{cim.ReasonNoID, "AGENT_MESSAGE", `{"name":"AGENT_MESSAGE","conversationId":%[2]q}`},
	{handlers.ReasonSubjectMismatch, "AGENT_MESSAGE", `{"id":%[1]q,"name":"CUSTOMER_MESSAGE","conversationId":%[2]q}`},
	{handlers.ReasonInvalidEvent, cim.AgentSubscribed, `{"id":%[1]q,"name":"AGENT_SUBSCRIBED","conversationId":%[2]q,"data":{}}`},
}

func (p poison) of(id, conversation string) []byte { return fmt.Appendf(nil, p.body, id, conversation) }

// Every kind of poison there is comes once, among the crowd's, while workers come and go: what its event alone brings about, and what
// the handler says of a good one.
func TestChaosPoisonOfEveryKindIsADeadLetterOnceAndStopsNobody(t *testing.T) {
	rng, seed := chaos(t)
	b := whole(t)
	h := oncimevent.New(oncimevent.Options{})
	works := h.Handle
	h.Retry = handlers.RetryPolicy{Attempts: 3, First: time.Millisecond, Longest: 5 * time.Millisecond}
	refused := map[string]string{
		"refused": "unknown-customer", "fails": handlers.ReasonFailed, "panics": handlers.ReasonPanic,
		"thief": handlers.ReasonBadDelivery, "twice": handlers.ReasonBadDelivery, "giant": handlers.ReasonTooLarge,
	}
	h.Handle = func(ctx context.Context, e handlers.Event) ([]handlers.Delivery, error) {
		switch e.ID {
		case "refused":
			return nil, handlers.DeadLetter("unknown-customer", errors.New("who is this"))
		case "fails":
			return nil, errors.New("never")
		case "panics":
			panic("boom")
		case "thief":
			return []handlers.Delivery{{Agent: "ada", Type: "taskRequest"}}, nil
		case "twice":
			return []handlers.Delivery{{Agent: "ada", Type: "onCimEvent"}, {Agent: "ada", Type: "onCimEvent"}}, nil
		case "giant":
			return []handlers.Delivery{{Agent: "ada", Type: "onCimEvent", Payload: make([]byte, 5<<20)}}, nil
		}
		return works(ctx, e)
	}
	c := startCrowd(t, crowdOptions{url: b.Server().NATSURL(), seed: seed, every: 3 * time.Millisecond})
	want := map[uint64]string{} // reasons, by the event's sequence
	var send []func()
	put := func(reason, subject, body string) {
		send = append(send, func() { want[publish(t, b, subject, []byte(body))] = reason })
	}
	for i, p := range poisons {
		put(p.reason, "cim.acme.web."+p.name, string(p.of(fmt.Sprint("poison-", i), "k0-0")))
	}
	put(handlers.ReasonNoConversation, "cim.acme.web.AGENT_MESSAGE", `{"id":"poison-lost","name":"AGENT_MESSAGE"}`)
	put(handlers.ReasonBadConversation, "cim.acme.web.AGENT_MESSAGE", string(message("poison-long", strings.Repeat("x", 200))))
	put(handlers.ReasonBadSubject, "cim.acme.WEB.AGENT_MESSAGE", string(message("poison-subject", "k0-0")))
	for _, id := range slices.Sorted(maps.Keys(refused)) {
		c.refused = append(c.refused, id)
		put(refused[id], "cim.acme.web.AGENT_MESSAGE", string(message(id, "k0-0")))
	}
	rng.Shuffle(len(send), func(i, j int) { send[i], send[j] = send[j], send[i] })
	for len(send) > 0 {
		w, err := handlers.Start(t.Context(), b, h)
		require.NoError(t, err)
		n := min(1+rng.IntN(4), len(send))
		for _, s := range send[:n] {
			s()
		}
		send = send[n:]
		c.more(t, rng.Int64N(40))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		_ = w.Close(ctx) // that events were left for the next worker is what is wanted
		cancel()
	}
	start(t, b, h)
	c.more(t, shortOrLong[int64](50, 5000))
	c.end(t)
	c.account(t, b, 0)
	for _, m := range stored(t, b, bus.StreamDeadLetters, ">") {
		s := bus.SequenceOf(m.Header)
		if reason, ours := want[s]; ours {
			require.Equal(t, reason, bus.LastHeader(m.Header, bus.HeaderReason), "event %d", s)
			delete(want, s)
		}
	}
	require.Empty(t, want, "no dead letter")
}
