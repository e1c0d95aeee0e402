package handlers_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/conversation"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// deleted makes streams new and empty, as after `nats stream rm` and the start of a daemon.
func deleted(t *testing.T, b *bus.Bus, streams ...string) {
	t.Helper()
	for _, name := range streams {
		require.NoError(t, b.JetStream().DeleteStream(t.Context(), name))
	}
	bustest.Eventually(t, 30*time.Second, func() error { // a worker does it, too
		_, err := b.MendStreams(t.Context())
		return err
	})
}

// openStrict opens a bus on which checkpoints need not wait for the disk.
func openStrict(t *testing.T) *bus.Bus {
	t.Helper()
	return openBusOn(t, bus.Options{Embedded: embedded.Options{StoreDir: t.TempDir(), Durability: embedded.Strict}})
}

// worked lets a worker handle all there is.
func worked(t testing.TB, b *bus.Bus, h handlers.Handler) {
	t.Helper()
	w, err := handlers.Start(t.Context(), b, h)
	require.NoError(t, err)
	drained(t, b)
	require.NoError(t, w.Close(context.WithoutCancel(t.Context())))
}

// entries are what the index says of each conversation, without what its writer expected of the stream.
func entries(t *testing.T, b *bus.Bus) map[string][]nats.Header {
	t.Helper()
	by := map[string][]nats.Header{}
	for _, m := range stored(t, b, bus.StreamIndex, ">") {
		delete(m.Header, "Nats-Expected-Last-Subject-Sequence")
		delete(m.Header, "Nats-Expected-Last-Sequence")
		by[m.Subject] = append(by[m.Subject], m.Header)
	}
	return by
}

func TestWhatWasDerivedIsWrittenAgainWhenItsStreamWasDeletedWhileNobodyWorked(t *testing.T) {
	for _, lost := range [][]string{
		{bus.StreamIndex},
		{bus.StreamMembers},
		{bus.StreamConversations},
		{bus.StreamIndex, bus.StreamMembers},
		{bus.StreamIndex, bus.StreamMembers, bus.StreamConversations},
	} {
		t.Run(fmt.Sprint(lost), func(t *testing.T) {
			b := openStrict(t)
			rng := rand.New(rand.NewPCG(3, 4))
			for i := range 5 {
				conversationEvents(t, b, fmt.Sprintf("c%d", i), 40, rng)
			}
			publish(t, b, "cim.acme.web.AGENT_MESSAGE", []byte(`{`))
			worked(t, b, oncimevent.New(oncimevent.Options{}))
			audit(t, b)
			before := entries(t, b)

			deleted(t, b, lost...)
			conversationEvents(t, b, "c1", 20, rng)
			worked(t, b, oncimevent.New(oncimevent.Options{}))
			audit(t, b)
			for subject, after := range entries(t, b) {
				require.Equal(t, before[subject], after[:len(before[subject])])
			}
		})
	}
}

// putBack writes checkpoints again, as they stand where there was no time for later ones.
func putBack(t *testing.T, b *bus.Bus, checkpoints []*jetstream.RawStreamMsg) {
	t.Helper()
	for _, m := range checkpoints {
		m.Header.Del("Nats-Expected-Last-Subject-Sequence")
		_, err := b.JetStream().PublishMsg(t.Context(), &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data})
		require.NoError(t, err)
	}
}

// A checkpoint says where in the index its successors begin. In an index that was written again they must not lie below that.
func TestNothingBehindACheckpointIsMissedInAnIndexThatWasWrittenAgain(t *testing.T) {
	b := openStrict(t)
	for i := range 100 { // what lies in front in the old index, and not in the new one
		_, err := b.JetStream().Publish(t.Context(), fmt.Sprintf("cim-index.other.c%d", i), nil)
		require.NoError(t, err)
	}
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j1", "c1", "ada", "PRIMARY"))
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	checkpoints := stored(t, b, bus.StreamConversations, ">")
	require.Len(t, checkpoints, 1)
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j2", "c1", "ben", "ASSISTANT"))
	for i := range 150 {
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprintf("m%d", i), "c2"))
	}
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("n1", "c1"))
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	putBack(t, b, checkpoints)
	deleted(t, b, bus.StreamIndex)
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("n2", "c1"))
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	audit(t, b)
}

func TestASilentIndexThatWasMadeAnewDoesNotPassForANewConversation(t *testing.T) {
	b := openBus(t)
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j1", "c1", "ada", "PRIMARY"))
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	require.Empty(t, stored(t, b, bus.StreamConversations, ">"), "a checkpoint would know ada")

	start(t, b, oncimevent.New(oncimevent.Options{})) // knows nothing of c1 yet
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("m1", "c2"))
	drained(t, b)
	deleted(t, b, bus.StreamIndex)
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("m2", "c1"))
	drained(t, b)
	audit(t, b)
}

func TestARebuildOfTheIndexThatWasBrokenOffIsGoneOnWith(t *testing.T) {
	b := openBus(t)
	rng := rand.New(rand.NewPCG(5, 6))
	for i := range 3 {
		conversationEvents(t, b, fmt.Sprintf("c%d", i), 30, rng)
	}
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	before := stored(t, b, bus.StreamIndex, ">")
	deleted(t, b, bus.StreamIndex)
	for _, m := range before[:len(before)/2] {
		m.Header.Del("Nats-Expected-Last-Subject-Sequence")
		_, err := b.JetStream().PublishMsg(t.Context(), &nats.Msg{Subject: m.Subject, Header: m.Header})
		require.NoError(t, err)
	}
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("last", "c1")) // nobody has the work before the first event
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	audit(t, b)
}

// A CIM_EVENTS that began at 1 again would lose its events: each would pass for one that was delivered long ago.
func TestEventsReachTheMembersOfBeforeWhenCIM_EVENTSWasDeleted(t *testing.T) {
	b := openBus(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j1", "c1", "ada", "PRIMARY"))
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j2", "c1", "ben", "ASSISTANT"))
	publish(t, b, "cim.acme._.AGENT_UNSUBSCRIBED", leave("l1", "c1", "ben"))
	for i := range 20 {
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprintf("m%d", i), "c1"))
	}
	drained(t, b)
	require.NoError(t, b.JetStream().DeleteStream(t.Context(), bus.StreamEvents))
	bustest.Eventually(t, 30*time.Second, func() error { // the worker makes both again by itself
		_, err := b.JetStream().Consumer(t.Context(), bus.StreamEvents, "handler-"+oncimevent.Name)
		return err
	})
	var after []uint64
	for i := range 5 {
		after = append(after, publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprintf("n%d", i), "c1")))
	}
	require.Greater(t, after[0], uint64(1<<20))
	drained(t, b)
	var got []uint64
	for _, m := range stored(t, b, bus.StreamDeliveries, "cim-agent.acme.ada.onCimEvent.c1") {
		if s := bus.SequenceOf(m.Header); s >= after[0] {
			got = append(got, s)
		}
	}
	require.Equal(t, after, got, "ada is a member though the event that made her one is gone")
	for _, m := range stored(t, b, bus.StreamDeliveries, "cim-agent.acme.ben.onCimEvent.c1") {
		require.Less(t, bus.SequenceOf(m.Header), after[0], "ben had left")
	}
	state, _, err := handlers.LoadState(t.Context(), b, conversation.New, tenant, "c1")
	require.NoError(t, err)
	_, member := state.Member("ada")
	require.True(t, member)
}

func TestEventsOfAnOldCopyOfCIM_EVENTSAreNotTakenForCommitted(t *testing.T) {
	b, log := watched(t)
	converse(t, b, "m", "c1", "ada", 10)
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	oldCopy(t, b)
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("new", "c1"))
	before := stored(t, b, bus.StreamDeliveries, ">")

	w := start(t, b, oncimevent.New(oncimevent.Options{}))
	require.NoError(t, w.Stats().Trouble)
	told(t, log, "CIM_EVENTS gives out sequences again")
	require.ErrorContains(t, w.Stats().Trouble, "no event is handled until")
	require.Zero(t, consumer(t, b).AckFloor.Stream, "acknowledged though it was never delivered")
	require.Len(t, stored(t, b, bus.StreamDeliveries, ">"), len(before))
}
