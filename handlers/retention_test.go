package handlers_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/conversation"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// retain keeps beta's messages for a second.
func retain(t *testing.T, b *bus.Bus, cover bool) *bus.Retention {
	t.Helper()
	o := bus.RetentionOptions{Tenants: map[string]time.Duration{"beta": time.Second}, Every: 50 * time.Millisecond}
	if cover {
		o.Cover = func(ctx context.Context, tenant, id string) error {
			return handlers.Checkpoint(ctx, b, conversation.New, tenant, id)
		}
	}
	r, err := b.WatchRetention(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

// speakInBeta makes ada a member of a conversation of beta and publishes n messages to it.
func speakInBeta(t *testing.T, b *bus.Bus, conversation string, n int) {
	t.Helper()
	publish(t, b, "cim.beta._.AGENT_SUBSCRIBED", join(conversation+"-j", conversation, "ada", "PRIMARY"))
	for i := range n {
		publish(t, b, "cim.beta.web.AGENT_MESSAGE", message(fmt.Sprintf("%s-%d", conversation, i), conversation))
	}
	publish(t, b, "cim.beta.web.AGENT_MESSAGE", []byte(`{"broken`))
}

// ofBeta is how much there is of beta in the streams whose messages go.
func ofBeta(t *testing.T, b *bus.Bus) int {
	t.Helper()
	n := 0
	for stream, filter := range map[string]string{
		bus.StreamEvents: "cim.beta.>", bus.StreamDeliveries: "cim-agent.beta.>", bus.StreamIndex: "cim-index.beta.>", bus.StreamDeadLetters: "cim-dead.*.beta.>",
	} {
		n += len(stored(t, b, stream, filter))
	}
	return n
}

func gone(t *testing.T, b *bus.Bus) {
	t.Helper()
	bustest.Eventually(t, 60*time.Second, func() error {
		if n := ofBeta(t, b); n > 0 {
			return fmt.Errorf("%d messages are there", n)
		}
		return nil
	})
}

func TestOnlyTheTenantsMessagesGoThatAreKeptForAShorterTime(t *testing.T) {
	b := openBus(t)
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("first", "c0", "ada", "PRIMARY"))
	start(t, b, oncimevent.New(oncimevent.Options{}))
	tr := startTraffic(t, b, 21, 10, 2*time.Millisecond)
	retain(t, b, true)
	for i := range 5 {
		speakInBeta(t, b, fmt.Sprintf("b%d", i), 20)
		tr.sentMore(t, 100)
	}
	tr.end(t)
	drained(t, b)
	gone(t, b)
	require.Len(t, stored(t, b, bus.StreamMembers, "$KV.CIM_MEMBERS.beta.>"), 5)
	for _, agent := range []string{"ada", "ben", "cleo", "dan"} {
		var received []bustest.Received
		for _, m := range stored(t, b, bus.StreamDeliveries, "cim-agent.acme."+agent+".>") {
			received = append(received, bustest.Received{Subject: m.Subject, Sequence: bus.SequenceOf(m.Header)})
		}
		report, err := bustest.AuditAgent(t.Context(), b.JetStream(), tenant, agent, 0, received)
		require.NoError(t, err)
		require.NoError(t, report.Err())
		require.NotEmpty(t, received)
	}
}

func TestNoEventGoesBeforeItsHandlerHasFinishedIt(t *testing.T) {
	b := openStrict(t)
	speakInBeta(t, b, "b1", 1)
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	speakInBeta(t, b, "b2", 10) // which nobody handles yet
	elapse(1500 * time.Millisecond)
	retain(t, b, true)
	bustest.Eventually(t, 30*time.Second, func() error {
		if n := len(stored(t, b, bus.StreamEvents, "cim.beta.>")); n != 12 {
			return fmt.Errorf("%d events are there", n)
		}
		return nil
	})
	elapse(500 * time.Millisecond)
	require.Len(t, stored(t, b, bus.StreamEvents, "cim.beta.>"), 12)
	agent, err := b.Agent(t.Context(), bus.AgentOptions{Tenant: "beta", Agent: "ada"})
	require.NoError(t, err)
	defer func() { require.NoError(t, agent.Close()) }()
	start(t, b, oncimevent.New(oncimevent.Options{}))
	for range 11 {
		next(t, agent)
	}
	gone(t, b)
}

func TestMembersOfAConversationStayMembersWhenAllItsEventsAreGone(t *testing.T) {
	for name, lost := range map[string]bool{"with its checkpoint": false, "though its checkpoint was never written": true} {
		t.Run(name, func(t *testing.T) {
			b := openStrict(t)
			speakInBeta(t, b, "b1", 3)
			worked(t, b, oncimevent.New(oncimevent.Options{}))
			if lost {
				stream, err := b.JetStream().Stream(t.Context(), bus.StreamConversations)
				require.NoError(t, err)
				require.NoError(t, stream.Purge(t.Context()))
				uncovered := retain(t, b, false)
				elapse(1500 * time.Millisecond)
				require.NoError(t, uncovered.Close())
				require.Len(t, stored(t, b, bus.StreamIndex, "cim-index.beta.b1"), 4, "its state could not be loaded without")
				require.Len(t, stored(t, b, bus.StreamEvents, "cim.beta.>"), 5)
			}
			retain(t, b, true)
			gone(t, b)
			start(t, b, oncimevent.New(oncimevent.Options{}))
			agent, err := b.Agent(t.Context(), bus.AgentOptions{Tenant: "beta", Agent: "ada"})
			require.NoError(t, err)
			defer func() { require.NoError(t, agent.Close()) }()
			publish(t, b, "cim.beta.web.AGENT_MESSAGE", message("later", "b1"))
			require.Equal(t, "later", bus.LastHeader(next(t, agent).Header, bus.HeaderEventID))
		})
	}
}

func TestNoCheckpointIsWrittenOfWhatAPowerCutCanStillTake(t *testing.T) {
	b := openBus(t) // balanced
	speakInBeta(t, b, "b1", 3)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	drained(t, b)
	entries := stored(t, b, bus.StreamIndex, "cim-index.beta.b1")
	require.Len(t, entries, 4)
	covered := func(want uint64) error {
		if err := handlers.Checkpoint(t.Context(), b, conversation.New, "beta", "b1"); err != nil {
			return err
		}
		for _, m := range stored(t, b, bus.StreamConversations, ">") {
			sequence := bus.SequenceOf(m.Header)
			if young := time.Since(entries[sequence-1].Time); young < 5*time.Second {
				t.Errorf("event %d is covered %v after it was committed", sequence, young)
			}
			if sequence == want {
				return nil
			}
		}
		return fmt.Errorf("event %d is not covered yet", want)
	}
	bustest.Eventually(t, 60*time.Second, func() error { return covered(4) })
}

func TestAPositionBeforeWhatATenantsAgeTookHasExpiredForItsAgentsAlone(t *testing.T) {
	b := openStrict(t)
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("f", "c1", "ada", "PRIMARY"))
	speakInBeta(t, b, "b1", 3)
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("m", "c1"))
	start(t, b, oncimevent.New(oncimevent.Options{}))
	drained(t, b)
	at := func(tenant string) bus.Position {
		agent, err := b.Agent(t.Context(), bus.AgentOptions{Tenant: tenant, Agent: "ada", After: &bus.Position{}})
		require.NoError(t, err)
		defer func() { require.NoError(t, agent.Close()) }()
		next(t, agent)
		return agent.Position()
	}
	acme, beta := at("acme"), at("beta")
	retain(t, b, true)
	gone(t, b)
	_, err := b.Agent(t.Context(), bus.AgentOptions{Tenant: "beta", Agent: "ada", After: &beta})
	var expired *bus.ExpiredError
	require.ErrorAs(t, err, &expired)
	require.Equal(t, bus.ExpiredDeleted, expired.Reason)
	left, err := b.Agent(t.Context(), bus.AgentOptions{Tenant: "beta", Agent: "ada", After: &expired.From})
	require.NoError(t, err)
	require.NoError(t, left.Close())
	require.Equal(t, "m", bus.LastHeader(next(t, openAgent(t, b, "ada", &acme)).Header, bus.HeaderEventID))

	copied, _ := restored(t, snapshot(t, b), places["in-process"](t))
	_, err = copied.Agent(t.Context(), bus.AgentOptions{Tenant: "beta", Agent: "ada", After: &beta})
	require.ErrorAs(t, err, &expired)
	require.Equal(t, bus.ExpiredDeleted, expired.Reason, "a copy knows it, too")
}
