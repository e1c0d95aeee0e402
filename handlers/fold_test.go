package handlers_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/conversation"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// brittle is a state that one event breaks.
type brittle struct{ handlers.State }

func (b brittle) Fold(e *handlers.Event) ([]handlers.MemberChange, error) {
	if e.ID == "breaks" {
		panic("boom")
	}
	return b.State.Fold(e)
}

func TestAPanicOfTheStateIsADeadLetterAndStopsNobody(t *testing.T) {
	b := openBus(t)
	h := oncimevent.New(oncimevent.Options{})
	h.NewState = func(tenant, id string) handlers.State { return brittle{conversation.New(tenant, id)} }
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j1", "c1", "ada", "PRIMARY"))
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("breaks", "c1"))
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("m1", "c1"))
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("m2", "c2"))
	worked(t, b, h)
	dead := stored(t, b, bus.StreamDeadLetters, "cim-dead.>")
	require.Len(t, dead, 1)
	require.Equal(t, handlers.ReasonPanic, bus.LastHeader(dead[0].Header, bus.HeaderReason))
	require.Contains(t, bus.LastHeader(dead[0].Header, bus.HeaderError), "boom")
	require.Len(t, stored(t, b, bus.StreamDeliveries, "cim-agent.acme.ada.onCimEvent.c1"), 2)
	require.Len(t, stored(t, b, bus.StreamIndex, ">"), 4)
}
