package bustest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cimbus/cimbus/bus/bustest"
)

// histories are right ones; without positions agents know of none.
func histories(positions bool) *rapid.Generator[bustest.History] {
	return rapid.Custom(func(t *rapid.T) bustest.History {
		w := newWorld(func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "chance") })
		w.play(rapid.IntRange(1, 40).Draw(t, "events"))
		for i := range w.deliveries {
			if !positions {
				w.deliveries[i].Position = 0
			}
		}
		return bustest.History{Events: w.events, Deliveries: w.deliveries}
	})
}

// historyAnd draws a right history of at least one delivery, and one of those.
func historyAnd(t *rapid.T) (h bustest.History, delivery int) {
	positions := rapid.Bool().Draw(t, "positions")
	h = histories(positions).Filter(func(h bustest.History) bool { return len(h.Deliveries) > 0 }).Draw(t, "history")
	return h, rapid.IntRange(0, len(h.Deliveries)-1).Draw(t, "delivery")
}

// ordered are the pairs of deliveries whose order was promised: an agent's of
// one conversation, and all of an agent's where their positions are known.
func ordered(h bustest.History, positions bool) (pairs [][2]int) {
	for j, b := range h.Deliveries {
		for i, a := range h.Deliveries[:j] {
			if a.Tenant == b.Tenant && a.Agent == b.Agent && (positions || a.Conversation == b.Conversation) {
				pairs = append(pairs, [2]int{i, j})
			}
		}
	}
	return pairs
}

func named(d bustest.Delivery) string {
	return fmt.Sprintf("cim-agent.%s.%s.%s.%s of event %d", d.Tenant, d.Agent, d.Type, d.Conversation, d.Sequence)
}

func TestRightHistoryIsNeverAccused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := histories(rapid.Bool().Draw(t, "positions")).Draw(t, "history")
		r := bustest.Check(h)
		require.NoError(t, r.Err())
		require.Equal(t, len(h.Events), r.Events)
		require.Equal(t, len(h.Deliveries), r.Expected["CIM_DELIVERIES"])
	})
}

func TestDeliveriesOfOtherTypesAreNotCounted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := histories(false).Draw(t, "history")
		for _, kind := range []string{"replay", "taskRequest"} {
			other := bustest.Delivery{Tenant: "acme", Agent: "ada", Type: kind, Conversation: "c1", Sequence: 1}
			h.Deliveries = slices.Insert(h.Deliveries, rapid.IntRange(0, len(h.Deliveries)).Draw(t, "at"), other)
		}
		require.NoError(t, bustest.Check(h).Err())
	})
}

func TestDroppedDeliveryIsLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, i := historyAnd(t)
		dropped := h.Deliveries[i]
		h.Deliveries = slices.Delete(h.Deliveries, i, i+1)

		r := bustest.Check(h)
		require.Len(t, r.Lost, 1)
		require.Equal(t, named(dropped), r.Lost[0].String())
		require.Empty(t, slices.Concat(r.Repeated, r.Misordered, r.Unexpected))
		require.ErrorContains(t, r.Err(), "1 lost")
	})
}

func TestRepeatedDeliveryIsRepeated(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, i := historyAnd(t)
		at := rapid.IntRange(i+1, len(h.Deliveries)).Draw(t, "again at")
		repeated := h.Deliveries[i]
		h.Deliveries = slices.Insert(h.Deliveries, at, repeated)

		r := bustest.Check(h)
		require.Len(t, r.Repeated, 1)
		require.Equal(t, named(repeated), r.Repeated[0].String())
		require.Empty(t, slices.Concat(r.Lost, r.Misordered, r.Unexpected))
		require.ErrorContains(t, r.Err(), "1 repeated")
	})
}

func TestSwappedDeliveriesAreOutOfOrder(t *testing.T) {
	for _, positions := range []bool{true, false} {
		t.Run(fmt.Sprintf("positions known %t", positions), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				h := histories(positions).Filter(func(h bustest.History) bool {
					return len(ordered(h, positions)) > 0
				}).Draw(t, "history")
				pair := rapid.SampledFrom(ordered(h, positions)).Draw(t, "pair")
				i, j := pair[0], pair[1]
				h.Deliveries[i], h.Deliveries[j] = h.Deliveries[j], h.Deliveries[i]

				r := bustest.Check(h)
				require.NotEmpty(t, r.Misordered)
				require.Empty(t, slices.Concat(r.Lost, r.Repeated, r.Unexpected))
				require.ErrorContains(t, r.Err(), fmt.Sprintf("%d out of order", len(r.Misordered)))
			})
		})
	}
}

func TestDeliveryToAStrangerIsUnexpected(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, i := historyAnd(t)
		right := h.Deliveries[i]
		wrong := right
		switch rapid.IntRange(0, 4).Draw(t, "wrong") {
		case 0:
			wrong.Agent = "eve"
		case 1:
			wrong.Tenant = "initech"
		case 2:
			wrong.Conversation = "c9"
		case 3:
			wrong.Sequence += 1000
		case 4:
			wrong.Agent = "no subject holds " + strings.Repeat("x", 200)
		}
		h.Deliveries[i] = wrong

		r := bustest.Check(h)
		require.Len(t, r.Lost, 1)
		require.Len(t, r.Unexpected, 1)
		require.Empty(t, slices.Concat(r.Repeated, r.Misordered))
		require.Error(t, r.Err())
	})
}

func TestEventAfterLeavingIsUnexpected(t *testing.T) {
	events := []bustest.Event{
		{Sequence: 1, Tenant: "acme", Conversation: "c1", Name: "AGENT_SUBSCRIBED", Agent: "ada"},
		{Sequence: 2, Tenant: "acme", Conversation: "c1", Name: "AGENT_UNSUBSCRIBED", Agent: "ada"},
		{Sequence: 3, Tenant: "acme", Conversation: "c1", Name: "CUSTOMER_MESSAGE"},
	}
	to := func(kind string, s uint64) bustest.Delivery {
		return bustest.Delivery{Tenant: "acme", Agent: "ada", Type: kind, Conversation: "c1", Sequence: s}
	}
	joined, notice := to("onCimEvent", 1), to("topicUnsubscription", 2)
	require.NoError(t, bustest.Check(bustest.History{Events: events, Deliveries: []bustest.Delivery{joined, notice}}).Err())

	for name, d := range map[string]bustest.Delivery{
		"the event by which it left": to("onCimEvent", 2), "one after that": to("onCimEvent", 3),
	} {
		r := bustest.Check(bustest.History{Events: events, Deliveries: []bustest.Delivery{joined, notice, d}})
		require.Len(t, r.Unexpected, 1, name)
	}
}

func TestNoticeBeforeTheCloseIsOutOfOrder(t *testing.T) {
	events := []bustest.Event{
		{Sequence: 1, Tenant: "acme", Conversation: "c1", Name: "AGENT_SUBSCRIBED", Agent: "ada"},
		{Sequence: 2, Tenant: "acme", Conversation: "c1", Name: "TOPIC_STATE_CHANGE_EVENT", Closed: true},
	}
	to := func(kind string, s uint64) bustest.Delivery {
		return bustest.Delivery{Tenant: "acme", Agent: "ada", Type: kind, Conversation: "c1", Sequence: s}
	}
	r := bustest.Check(bustest.History{Events: events, Deliveries: []bustest.Delivery{
		to("onCimEvent", 1), to("topicUnsubscription", 2), to("onCimEvent", 2),
	}})
	require.Len(t, r.Misordered, 1)
}

func TestReportSpellsOutTheFirstFewOfEveryKind(t *testing.T) {
	h := bustest.History{}
	for s := uint64(1); s <= 12; s++ {
		h.Deliveries = append(h.Deliveries, bustest.Delivery{
			Tenant: "acme", Agent: "ada", Type: "onCimEvent", Conversation: "c1", Sequence: s,
		})
	}
	report := bustest.Check(h).Err().Error()
	require.Contains(t, report, "CIM_DELIVERIES: 0 expected, 0 lost, 0 repeated, 0 out of order, 12 unexpected")
	require.Contains(t, report, "unexpected: cim-agent.acme.ada.onCimEvent.c1 of event 5\n")
	require.NotContains(t, report, "of event 6")
	require.Contains(t, report, "unexpected: and 7 more")
}
