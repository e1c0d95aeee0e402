package handlers_test

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/conversation"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// committed publishes a conversation of 100 events of which the 90th makes cleo a member, and commits them.
func committed(t *testing.T, b *bus.Bus) []*jetstream.RawStreamMsg {
	t.Helper()
	hand := newHand(t, b)
	var events []*jetstream.RawStreamMsg
	for i := range 100 {
		var s uint64
		switch i {
		case 0:
			s = publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j0", "c1", "ada", "PRIMARY"))
		case 90:
			s = publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j90", "c1", "cleo", "PRIMARY"))
		default:
			s = publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprintf("m%d", i), "c1"))
		}
		m, err := b.MessageAt(t.Context(), bus.StreamEvents, s)
		require.NoError(t, err)
		require.NoError(t, hand.Process(t.Context(), m))
		events = append(events, m)
	}
	return events
}

func newHand(t *testing.T, b *bus.Bus) *handlers.Hand {
	t.Helper()
	hand, err := handlers.NewHand(b, oncimevent.New(oncimevent.Options{}), tenant, "c1")
	require.NoError(t, err)
	return hand
}

// A worker killed in the middle of doing events again must not leave a checkpoint that claims what it had not come to.
func TestACheckpointCoversOnlyWhatWasFoldedWhenEventsAreDoneAgain(t *testing.T) {
	b := openStrict(t)
	events := committed(t, b)
	stream, err := b.JetStream().Stream(t.Context(), bus.StreamConversations)
	require.NoError(t, err)
	require.NoError(t, stream.Purge(t.Context()))
	again := newHand(t, b)
	again.Redo(1, events[len(events)-1].Sequence)
	for _, m := range events[:80] {
		require.NoError(t, again.Process(t.Context(), m))
	}
	state, _, err := handlers.LoadState(t.Context(), b, conversation.New, tenant, "c1")
	require.NoError(t, err)
	_, member := state.Member("cleo")
	require.True(t, member)
}

// What is done again ends before what is committed where the worker has committed more since.
func TestStateIsWholeBehindTheEventsThatAreDoneAgain(t *testing.T) {
	b := openStrict(t)
	events := committed(t, b)
	again := newHand(t, b)
	again.Redo(1, events[49].Sequence)
	for _, m := range events {
		require.NoError(t, again.Process(t.Context(), m))
	}
	s := publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("last", "c1"))
	m, err := b.MessageAt(t.Context(), bus.StreamEvents, s)
	require.NoError(t, err)
	require.NoError(t, again.Process(t.Context(), m))
	audit(t, b)
}
