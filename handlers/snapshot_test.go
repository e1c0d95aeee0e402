package handlers_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// restored is a new bus with what a snapshot holds.
func restored(t *testing.T, dir string, o bus.Options) (*bus.Bus, string) {
	t.Helper()
	s, err := bus.OpenSnapshot(dir)
	require.NoError(t, err)
	o.LeaveStreams = true
	b, err := bus.Open(t.Context(), o)
	require.NoError(t, err)
	plan, err := b.PlanRestore(t.Context(), s)
	require.NoError(t, err)
	require.NoError(t, b.Restore(t.Context(), plan, bus.RestoreOptions{}))
	require.NoError(t, b.Close(context.WithoutCancel(t.Context())))
	o.LeaveStreams = false
	log := &bustest.Buffer{}
	o.Logger = logTo(log)
	return openBusOn(t, o), log.String()
}

func snapshot(t *testing.T, b *bus.Bus) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "snapshot")
	_, err := b.TakeSnapshot(t.Context(), dir, bus.SnapshotOptions{Version: "test"})
	require.NoError(t, err)
	return dir
}

// The worker goes on where it was when the snapshot was begun; what the streams hold beyond that is done again and found done.
func TestASnapshotTakenUnderLoadIsRestoredWithNothingLostTwiceOrOutOfOrder(t *testing.T) {
	for name, place := range map[string]struct {
		from, to func(t *testing.T) bus.Options
	}{
		"in-process to in-process": {places["in-process"], places["in-process"]},
		"external to in-process":   {places["external server"], places["in-process with listeners, strict"]},
		"cluster to external":      {places["three-node cluster"], places["external server"]},
		"in-process to a cluster":  {places["in-process"], places["three-node cluster"]},
	} {
		t.Run(name, func(t *testing.T) {
			b := openBusOn(t, place.from(t))
			start(t, b, oncimevent.New(oncimevent.Options{}))
			tr := startTraffic(t, b, 5, 15, time.Millisecond)
			tr.retry.Store(true)
			var dirs []string
			for range 3 {
				tr.sentMore(t, 150)
				dirs = append(dirs, snapshot(t, b))
			}
			tr.end(t)
			drained(t, b)
			audit(t, b)
			copied, log := restored(t, dirs[2], place.to(t))
			require.Contains(t, log, "the streams are restored from a snapshot")
			events, err := copied.JetStream().Stream(t.Context(), bus.StreamEvents)
			require.NoError(t, err)
			require.Greater(t, events.CachedInfo().State.Msgs, uint64(300))
			start(t, copied, oncimevent.New(oncimevent.Options{}))
			more := startTraffic(t, copied, 6, 15, time.Millisecond)
			more.retry.Store(true)
			more.sentMore(t, 150)
			more.end(t)
			drained(t, copied)
			audit(t, copied)
			if name == "in-process to in-process" {
				for _, dir := range dirs[:2] {
					earlier, _ := restored(t, dir, place.to(t))
					start(t, earlier, oncimevent.New(oncimevent.Options{}))
					drained(t, earlier)
					audit(t, earlier)
				}
			}
		})
	}
}

func TestAWorkerDoesNotWriteAgainWhatASnapshotHolds(t *testing.T) {
	b := openStrict(t)
	converse(t, b, "m", "c1", "ada", 20)
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	log := &bustest.Buffer{}
	o := places["in-process"](t)
	copied, _ := restored(t, snapshot(t, b), o)
	before := entries(t, copied)
	require.NoError(t, copied.Close(t.Context()))
	o.Logger = logTo(log)
	copied = openBusOn(t, o)
	publish(t, copied, "cim.acme.web.AGENT_MESSAGE", message("n", "c2"))
	worked(t, copied, oncimevent.New(oncimevent.Options{}))
	require.Equal(t, before["cim-index.acme.c1"], entries(t, copied)["cim-index.acme.c1"])
	require.NotContains(t, log.String(), "deleted and made again")
	audit(t, copied)
}

func TestAPositionIsGoodInARestoredCopyAsFarAsThatGoes(t *testing.T) {
	b := openStrict(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	converse(t, b, "m", "c1", "ada", 9)
	drained(t, b)
	at := func(b *bus.Bus, n int) bus.Position {
		agent := openAgent(t, b, "ada", &bus.Position{})
		for range n {
			next(t, agent)
		}
		return agent.Position()
	}
	within, end := at(b, 5), at(b, 10)
	dir := snapshot(t, b)
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("lost", "c1"))
	drained(t, b)
	beyond := at(b, 11)

	copied, _ := restored(t, dir, places["in-process"](t))
	_, err := copied.Agent(t.Context(), bus.AgentOptions{Tenant: tenant, Agent: "ada", After: &beyond})
	var expired *bus.ExpiredError
	require.ErrorAs(t, err, &expired)
	require.Equal(t, bus.ExpiredRestored, expired.Reason)
	start(t, copied, oncimevent.New(oncimevent.Options{}))
	for _, id := range []string{"new-1", "new-2"} { // which take the sequences of what was lost
		publish(t, copied, "cim.acme.web.AGENT_MESSAGE", message(id, "c1"))
	}
	drained(t, copied)
	require.Equal(t, "m4", bus.LastHeader(next(t, openAgent(t, copied, "ada", &within)).Header, bus.HeaderEventID))
	require.Equal(t, "new-1", bus.LastHeader(next(t, openAgent(t, copied, "ada", &end)).Header, bus.HeaderEventID))
	_, err = copied.Agent(t.Context(), bus.AgentOptions{Tenant: tenant, Agent: "ada", After: &beyond})
	require.ErrorAs(t, err, &expired)
	require.Equal(t, bus.ExpiredRestored, expired.Reason)

	again, _ := restored(t, snapshot(t, copied), places["in-process"](t)) // a copy of the copy
	require.Equal(t, "m4", bus.LastHeader(next(t, openAgent(t, again, "ada", &within)).Header, bus.HeaderEventID))
	_, err = again.Agent(t.Context(), bus.AgentOptions{Tenant: tenant, Agent: "ada", After: &beyond})
	require.ErrorAs(t, err, &expired)

	found, err := again.Examine(t.Context(), bus.AlarmOptions{})
	require.NoError(t, err)
	told := ""
	for _, f := range found {
		if f.Check == "restored" {
			told = f.Found
		}
	}
	require.True(t, strings.HasPrefix(told, "from the snapshot of "), told)
	plan, err := again.PlanStreams(t.Context())
	require.NoError(t, err)
	require.False(t, plan.Changes(), plan.String())
}

func TestNothingIsRestoredOverWhatIsThereOrWhileAHandlerRuns(t *testing.T) {
	b := openStrict(t)
	converse(t, b, "m", "c1", "ada", 3)
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	dir := snapshot(t, b)
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("later", "c1"))
	s, err := bus.OpenSnapshot(dir)
	require.NoError(t, err)
	w := start(t, b, oncimevent.New(oncimevent.Options{}))
	drained(t, b)
	plan, err := b.PlanRestore(t.Context(), s)
	require.NoError(t, err)
	require.ErrorIs(t, b.Restore(t.Context(), plan, bus.RestoreOptions{Force: true}), bus.ErrHandlersRun)
	require.NoError(t, w.Close(t.Context()))
	bustest.Eventually(t, 10*time.Second, func() error {
		plan, err = b.PlanRestore(t.Context(), s)
		require.NoError(t, err)
		return b.Restore(t.Context(), bus.RestorePlan{Snapshot: &bus.Snapshot{}, Running: plan.Running}, bus.RestoreOptions{})
	})
	require.ErrorIs(t, b.Restore(t.Context(), plan, bus.RestoreOptions{}), bus.ErrStreamsHold)
	require.Len(t, stored(t, b, bus.StreamEvents, ">"), 5)
	require.NoError(t, b.Restore(t.Context(), plan, bus.RestoreOptions{Force: true}))
	require.Len(t, stored(t, b, bus.StreamEvents, ">"), 4)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	drained(t, b)
	audit(t, b)
}

func TestWhatCameAfterThePlanIsNotLostToIt(t *testing.T) {
	from := openStrict(t)
	converse(t, from, "m", "c1", "ada", 3)
	worked(t, from, oncimevent.New(oncimevent.Options{}))
	s, err := bus.OpenSnapshot(snapshot(t, from))
	require.NoError(t, err)

	b := openStrict(t)
	plan, err := b.PlanRestore(t.Context(), s)
	require.NoError(t, err)
	require.Empty(t, plan.Holds())
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("meanwhile", "c9"))
	require.ErrorIs(t, b.Restore(t.Context(), plan, bus.RestoreOptions{}), bus.ErrStreamsHold)
	require.Len(t, stored(t, b, bus.StreamEvents, ">"), 1)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	drained(t, b)
	require.ErrorIs(t, b.Restore(t.Context(), plan, bus.RestoreOptions{Force: true}), bus.ErrHandlersRun)
	require.Len(t, stored(t, b, bus.StreamEvents, ">"), 1)
}

// Whoever is broken off in the middle leaves streams that no bus opens.
func TestNoBusOpensStreamsThatWereNotRestoredToTheEnd(t *testing.T) {
	b := openStrict(t)
	converse(t, b, "m", "c1", "ada", 3)
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	dir := snapshot(t, b)
	stream, err := b.JetStream().Stream(t.Context(), bus.StreamDeliveries)
	require.NoError(t, err)
	config := stream.CachedInfo().Config
	config.Metadata = map[string]string{"cimbus-restoring": "2026-01-02T03:04:05Z"}
	_, err = b.JetStream().UpdateStream(t.Context(), config)
	require.NoError(t, err)
	_, err = bus.Open(t.Context(), bus.Options{Conn: b.Conn()})
	var refused *bus.PlanError
	require.ErrorAs(t, err, &refused)
	require.Contains(t, err.Error(), "cimbus streams restore it again")
	_, err = b.TakeSnapshot(t.Context(), filepath.Join(t.TempDir(), "s"), bus.SnapshotOptions{})
	require.ErrorContains(t, err, "was broken off")

	s, err := bus.OpenSnapshot(dir)
	require.NoError(t, err)
	plan, err := b.PlanRestore(t.Context(), s)
	require.NoError(t, err)
	for _, holds := range plan.Holds() {
		require.NotEqual(t, bus.StreamDeliveries, holds.Stream)
	}
	require.NoError(t, b.Restore(t.Context(), plan, bus.RestoreOptions{Force: true}))
	_, err = bus.Open(t.Context(), bus.Options{Conn: b.Conn()})
	require.NoError(t, err)
}

// logTo is a logger that writes to a buffer.
func logTo(log *bustest.Buffer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Info})
}

// What it was handed of before may be in the copy under other sequences, or not at all.
func TestAnAgentThatIsConnectedWhileACopyIsRestoredIsToldSo(t *testing.T) {
	b := openStrict(t)
	w := start(t, b, oncimevent.New(oncimevent.Options{}))
	converse(t, b, "m", "c1", "ada", 3)
	drained(t, b)
	// What this one is handed live is not verified by the time of the restoring.
	told, err := b.Agent(t.Context(), bus.AgentOptions{Tenant: tenant, Agent: "ada", After: &bus.Position{}, CheckEvery: 5 * time.Second})
	require.NoError(t, err)
	skips, err := b.Agent(t.Context(), bus.AgentOptions{Tenant: tenant, Agent: "ada", After: &bus.Position{}, CheckEvery: 50 * time.Millisecond, SkipExpired: true})
	require.NoError(t, err)
	for range 4 {
		next(t, told)
		next(t, skips)
	}
	s, err := bus.OpenSnapshot(snapshot(t, b))
	require.NoError(t, err)
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("lost", "c1"))
	require.Equal(t, "lost", bus.LastHeader(next(t, told).Header, bus.HeaderEventID))
	require.Equal(t, "lost", bus.LastHeader(next(t, skips).Header, bus.HeaderEventID))
	drained(t, b)
	require.NoError(t, w.Close(t.Context()))
	bustest.Eventually(t, 30*time.Second, func() error { // the pin of the worker lasts a little longer
		plan, err := b.PlanRestore(t.Context(), s)
		require.NoError(t, err)
		return b.Restore(t.Context(), plan, bus.RestoreOptions{Force: true})
	})
	start(t, b, oncimevent.New(oncimevent.Options{}))
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("new", "c1")) // under the sequences of the lost one
	drained(t, b)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = told.Next(ctx)
	var expired *bus.ExpiredError
	require.ErrorAs(t, err, &expired)
	require.Equal(t, bus.ExpiredRestored, expired.Reason)
	require.NoError(t, told.Close())
	for bus.LastHeader(next(t, skips).Header, bus.HeaderEventID) != "new" {
		continue // what was not verified yet comes again
	}
	require.NoError(t, skips.Close())
}

// The server gives a restoring up when it stores for more than five seconds what came at once: a block of a snapshot is thousands of entries.
func TestAServerThatSyncsEveryMessageHasTheTimeToRestoreThem(t *testing.T) {
	b := openBus(t)
	for i := range 10_000 {
		_, err := b.JetStream().PublishAsync(fmt.Sprintf("cim-index.acme.c%d", i), nil, jetstream.WithStallWait(time.Minute))
		require.NoError(t, err)
	}
	<-b.JetStream().PublishAsyncComplete()
	copied, _ := restored(t, snapshot(t, b), places["in-process with listeners, strict"](t))
	stream, err := copied.JetStream().Stream(t.Context(), bus.StreamIndex)
	require.NoError(t, err)
	require.Equal(t, uint64(10_000), stream.CachedInfo().State.Msgs)
}
