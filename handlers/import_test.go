package handlers_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/oncimevent"
	"github.com/cimbus/cimbus/subjects"
)

// importHistory imports an event of conversation c1.
func importHistory(t testing.TB, b *bus.Bus, p *bus.Publisher, subject string, body []byte) {
	t.Helper()
	e, err := bus.ReadStoredEvent(append(append([]byte(`{"subject":"`+subject+`","conversation":"c1","payload":`), body...), '}'))
	require.NoError(t, err)
	pending, err := p.Import(t.Context(), e, bus.ImportHistory)
	require.NoError(t, err)
	_, err = pending.Receipt()
	require.NoError(t, err)
}

// historyAsked asks for a conversation's history as an agent does, and returns the ids of its events.
func historyAsked(t testing.TB, b *bus.Bus, agent, conversation string) []string {
	t.Helper()
	control, err := b.ServeControl(t.Context(), bus.ControlOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, control.Close()) }()
	inbox := "cim-inbox." + tenant + "." + agent + ".1"
	answers, err := b.Conn().SubscribeSync(inbox)
	require.NoError(t, err)
	subject, err := subjects.Control{Tenant: tenant, Agent: agent, Verb: "history"}.Subject()
	require.NoError(t, err)
	require.NoError(t, b.Conn().PublishRequest(subject, inbox, []byte(`{"conversation":"`+conversation+`"}`)))
	var ids []string
	for {
		m, err := answers.NextMsg(10 * time.Second)
		require.NoError(t, err)
		if m.Header.Get(bus.HeaderStatus) == "end" {
			require.NotContains(t, string(m.Data), "error")
			return ids
		}
		ids = append(ids, bus.LastHeader(m.Header, bus.HeaderEventID))
	}
}

func TestImportedHistoryIsInTheIndexAndNowhereElse(t *testing.T) {
	b := openBus(t)
	p, err := b.NewPublisher(bus.PublisherOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, p.Close(context.WithoutCancel(t.Context()))) }()
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
	importHistory(t, b, p, "cim.acme._.AGENT_SUBSCRIBED", join("old", "c1", "ben", "PRIMARY"))
	importHistory(t, b, p, "cim.acme._.AGENT_UNSUBSCRIBED", leave("older", "c1", "ada"))
	importHistory(t, b, p, "cim.acme.web.AGENT_MESSAGE", []byte(`"no event"`))
	importHistory(t, b, p, "cim.acme.web.AGENT_MESSAGE", message("oldest", "c1"))
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("m", "c1"))
	h := oncimevent.New(oncimevent.Options{})
	worked(t, b, h)

	check := func(after string, more ...string) {
		t.Helper()
		var outcomes []string
		for e, err := range b.History(t.Context(), tenant, "c1", 0, 0) {
			require.NoError(t, err)
			outcomes = append(outcomes, e.EventID+" "+e.Outcome)
		}
		want := []string{"j delivered", "old imported", "older imported", "oldest imported", "m delivered"}
		for _, id := range more {
			want = append(want, id+" delivered")
		}
		require.Equal(t, want, outcomes, after)
		require.Empty(t, stored(t, b, bus.StreamDeadLetters, ">"), after)
		require.Equal(t, append([]string{"j", "m"}, more...), deliveredTo(t, b, "ada", "onCimEvent", "c1"), after)
		members, err := b.Members(t.Context(), tenant, "c1")
		require.NoError(t, err)
		require.Len(t, members, 1, after)
		require.Equal(t, "ada", members[0].Agent, after)
	}
	check("handled")
	f, err := b.Follow(t.Context(), tenant, "ada", "c1")
	require.NoError(t, err)
	var snapshot []string
	for _, e := range f.Snapshot {
		snapshot = append(snapshot, e.EventID)
	}
	require.Equal(t, []string{"j", "m"}, snapshot, "what an agent that joins is shown")
	require.NoError(t, f.Close())
	require.Equal(t, []string{"j", "m"}, historyAsked(t, b, "ada", "c1"))
	deleted(t, b, bus.StreamIndex, bus.StreamMembers, bus.StreamConversations)
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("new", "c1"))
	worked(t, b, h)
	check("written again", "new")

	r := newRehearsal(t, b, h)
	for _, e := range storedEvents(t, b) {
		made, err := r.Handle(t.Context(), e)
		require.NoError(t, err)
		require.Equal(t, bus.IsImportedHistory(e.Header), made.Outcome == handlers.OutcomeUnhandled)
		require.Empty(t, rehearse(t, r, e))
	}
	key, err := subjects.Index{Tenant: tenant}.Subject()
	require.NoError(t, err)
	require.Len(t, stored(t, b, bus.StreamIndex, key), 1, "what is no event has its entry with those of no conversation")
}
