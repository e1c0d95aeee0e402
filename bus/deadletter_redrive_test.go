package bus_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/subjects"
)

func TestARedriveInsideTheDuplicateWindowIsANewEventThatNamesTheFirst(t *testing.T) {
	g := newGraves(t, testBus(t, bus.StreamOptions{}), "h")
	original, err := g.Publish(t.Context(), event(t, "e1", "c1"))
	require.NoError(t, err)
	e, err := g.MessageAt(t.Context(), bus.StreamEvents, original.Sequence)
	require.NoError(t, err)
	s := g.bury(dead{handler: "h", tenant: "acme", channel: "web", event: "CUSTOMER_MESSAGE", conversation: "c1", reason: "broken", header: nats.Header{
		"traceparent": {"00-1-2-01"}, "X-Mine": {"a", "b"}, "Cim-Channel": {"WEB"},
	}}, e)

	results := g.redrive(g.plan(bus.DeadLetterFilter{}), false)
	require.Len(t, results, 1)
	require.NoError(t, results[0].Err)
	require.Equal(t, bus.EntryRedriven, results[0].Outcome)
	require.Equal(t, original.Sequence+1, results[0].NewEvent)
	m, err := g.MessageAt(t.Context(), bus.StreamEvents, results[0].NewEvent)
	require.NoError(t, err)
	require.Equal(t, e.Subject, m.Subject)
	require.Equal(t, e.Data, m.Data)
	require.Regexp(t, `^redrive:h:1:1:1:\w+$`, m.Header.Get("Nats-Msg-Id"))
	m.Header.Del("Nats-Msg-Id")
	require.Equal(t, nats.Header{
		"traceparent": {"00-1-2-01"}, "X-Mine": {"a", "b"}, "Nats-Expected-Stream": {"CIM_EVENTS"},
		"Cim-Conversation-Id": {"c1"}, "Cim-Channel": {"WEB"}, "Cim-Event-Id": {"e"}, "Cim-Event-Name": {"CUSTOMER_MESSAGE"},
		"Cim-Redrive-Of": {"1"}, "Cim-Redrive-Handler": {"h"},
	}, m.Header)

	d := g.list(bus.DeadLetterFilter{})[0]
	require.Equal(t, s, d.Sequence, "the entry itself is not touched")
	require.Equal(t, bus.RedriveDone, d.Redrive.State)
	require.Equal(t, "ann", d.Redrive.Operator)
	require.Equal(t, results[0].NewEvent, d.Redrive.Event)
	require.WithinDuration(t, time.Now(), d.Redrive.Time, time.Minute)
	records, err := g.Redrives(t.Context(), d)
	require.NoError(t, err)
	require.Len(t, records, 2)
	require.Equal(t, bus.RedriveStarted, records[0].State)
	require.Equal(t, *d.Redrive, records[1])
}

func TestASecondRedriveIsRefusedUnlessForced(t *testing.T) {
	g := forgetful(t, "h")
	first, second := g.give("c1"), g.give("c1")
	before := g.plan(bus.DeadLetterFilter{})
	g.redrive(g.plan(bus.DeadLetterFilter{Sequences: []uint64{first}}), false)

	// By a plan made before and by one made after.
	results := g.redrive(before, false)
	require.Equal(t, bus.RefusedRedriven, results[0].Refused)
	require.Equal(t, uint64(3), results[0].NewEvent)
	require.Equal(t, bus.EntryRedriven, results[1].Outcome)
	plan := g.plan(bus.DeadLetterFilter{})
	require.Equal(t, []bus.Count{{Name: string(bus.RefusedRedriven), Entries: 2}}, plan.Count(func(e bus.PlannedDeadLetter) string { return string(e.Refused) }))
	require.Zero(t, plan.Redrivable(false))
	require.Equal(t, 2, plan.Redrivable(true))
	for _, r := range g.redrive(plan, false) {
		require.Equal(t, bus.EntryRefused, r.Outcome)
	}
	require.Equal(t, []uint64{first, second}, g.redriven())

	// Forced it goes once more, and that once: the plan is of the entry as it was.
	for _, r := range g.redrive(plan, true) {
		require.Equal(t, bus.EntryRedriven, r.Outcome)
		require.Equal(t, 2, r.Redrive.Attempt)
	}
	for _, r := range g.redrive(plan, true) {
		require.Equal(t, bus.RefusedChanged, r.Refused)
	}
	require.Equal(t, []uint64{first, second, first, second}, g.redriven())
}

func TestWhatCannotBeRedrivenIsRefusedWithItsReasonAndTheOthersGo(t *testing.T) {
	g := forgetful(t, "h")
	message := dead{handler: "h", tenant: "acme", channel: "web", event: "CUSTOMER_MESSAGE", conversation: "c1", reason: "too-large", leftOut: true}
	expired, kept := g.event(message), g.event(message)
	noPayload, fromSource := g.bury(message, expired), g.bury(message, kept)
	events, err := g.JetStream().Stream(t.Context(), bus.StreamEvents)
	require.NoError(t, err)
	require.NoError(t, events.DeleteMsg(t.Context(), expired.Sequence))
	shouted := message
	shouted.leftOut, shouted.header = false, nats.Header{"Cim-Source-Subject": {"cim.acme.WEB.CUSTOMER_MESSAGE"}}
	badSubject := g.bury(shouted, g.event(shouted))
	orphan := message
	orphan.handler, orphan.leftOut = "gone-away", false
	noHandler := g.bury(orphan, g.event(orphan))
	dropped, good := g.give("c1"), g.give("c1")

	want := map[uint64]bus.Refusal{noPayload: bus.RefusedPayload, badSubject: bus.RefusedSubject, noHandler: bus.RefusedHandler}
	plan := g.plan(bus.DeadLetterFilter{})
	for _, e := range plan.Entries {
		require.Equal(t, want[e.Sequence], e.Refused, "entry %d", e.Sequence)
	}
	require.Equal(t, 3, plan.Redrivable(false))
	drop, err := g.PlanDrop(t.Context(), bus.DeadLetterFilter{Sequences: []uint64{dropped}})
	require.NoError(t, err)
	_, err = g.Drop(t.Context(), drop)
	require.NoError(t, err)
	want[dropped] = bus.RefusedGone
	for _, r := range g.redrive(plan, false) {
		require.Equal(t, want[r.Sequence], r.Refused, "entry %d", r.Sequence)
		require.NoError(t, r.Err)
		if r.Sequence == fromSource {
			m, err := g.MessageAt(t.Context(), bus.StreamEvents, r.NewEvent)
			require.NoError(t, err)
			require.Equal(t, kept.Data, m.Data, "the payload that was left out came from the event")
		}
	}
	require.Equal(t, []uint64{fromSource, good}, g.redriven())
	require.Equal(t, 3, g.plan(bus.DeadLetterFilter{}).Redrivable(true), "force overcomes what was redriven and who is not there, not what cannot be")
	g.redrive(g.plan(bus.DeadLetterFilter{Handler: subjects.Is("gone-away")}), true)
	require.Equal(t, []uint64{fromSource, good, noHandler}, g.redriven())
}

func TestARedriveBrokenOffAnywhereAndRepeatedAppendsNothingTwice(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	g := forgetful(t, "h")
	begun := time.Now()
	for round := range 5 {
		for range 10 {
			for c := range 4 {
				g.give(fmt.Sprint("c", c))
			}
		}
		mine := bus.DeadLetterFilter{NewerThan: begun}
		begun = g.list(bus.DeadLetterFilter{})[40*(round+1)-1].Time
		plan := g.plan(mine)
		for n := 1; ; n++ {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.Int64N(int64(time.Millisecond)<<min(n, 12))))
			results, err := g.Redrive(ctx, plan, bus.RedriveOptions{Operator: fmt.Sprint("operator-", n)})
			cancel()
			if err == nil {
				require.False(t, slices.ContainsFunc(results, func(r bus.DeadLetterResult) bool { return r.Outcome == bus.EntrySkipped }))
				break
			}
			if rng.IntN(2) == 0 {
				plan = g.plan(mine)
			}
		}
		require.Len(t, g.redriven(), 40*(round+1))
	}
	g.onceInOrder()
}

func TestARedriveOverAConnectionThatIsCutAppendsNothingTwice(t *testing.T) {
	b, proxy := proxied(t, bus.StreamOptions{DuplicateWindow: bus.MinDuplicateWindow})
	g := newGraves(t, b, "h")
	for range 60 {
		for c := range 5 {
			g.give(fmt.Sprint("c", c))
		}
	}
	stop, cutter := make(chan struct{}), sync.WaitGroup{}
	cutter.Go(func() {
		tick := time.NewTicker(40 * time.Millisecond)
		defer tick.Stop()
		for range 20 {
			select {
			case <-stop:
				return
			case <-tick.C:
				proxy.Cut()
			}
		}
	})
	repeated := 0
	for ; repeated < 10; repeated++ {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		plan, err := g.PlanRedrive(ctx, bus.DeadLetterFilter{})
		if err == nil {
			_, err = g.Redrive(ctx, plan, bus.RedriveOptions{Operator: "ann"})
		}
		cancel()
		if err == nil {
			break
		}
	}
	close(stop)
	cutter.Wait()
	bustest.Eventually(t, patience, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		plan, err := g.PlanRedrive(ctx, bus.DeadLetterFilter{})
		if err == nil {
			_, err = g.Redrive(ctx, plan, bus.RedriveOptions{Operator: "ann"})
		}
		return err
	})
	t.Logf("repeated %d times", repeated)
	g.onceInOrder()
}

func TestSeveralOperatorsAtOnceRedriveEachEntryOnceInOrder(t *testing.T) {
	g := forgetful(t, "h")
	for range 10 {
		for c := range 5 {
			g.give(fmt.Sprint("c", c))
		}
	}
	plan := g.plan(bus.DeadLetterFilter{})
	for _, force := range []bool{false, true} {
		before := len(g.redriven())
		var operators sync.WaitGroup
		for i := range 4 {
			operators.Go(func() {
				_, err := g.Redrive(t.Context(), plan, bus.RedriveOptions{Operator: fmt.Sprint("operator-", i), Force: force})
				if err != nil {
					t.Error(err)
				}
			})
		}
		operators.Wait()
		require.Len(t, g.redriven(), before+50)
		plan = g.plan(bus.DeadLetterFilter{})
		if !force {
			g.onceInOrder()
		}
	}
}

// begun records by hand that a redrive of an entry was started, as one that died there left it.
func (g graves) begun(s, after uint64, id string) {
	g.t.Helper()
	d, err := g.DeadLetter(g.t.Context(), s)
	require.NoError(g.t, err)
	subject, err := subjects.DeadLetter{Handler: d.Handler, Tenant: d.Tenant, Channel: d.Channel, Event: d.Event, Sequence: d.SourceSequence}.Redrive()
	require.NoError(g.t, err)
	body, err := json.Marshal(bus.Redrive{Attempt: 1, State: bus.RedriveStarted, Operator: "bob", DeadLetter: s, MessageID: id, After: after})
	require.NoError(g.t, err)
	_, err = g.JetStream().Publish(g.t.Context(), subject, body)
	require.NoError(g.t, err)
}

func TestAnAttemptThatSomebodyStartedIsFinishedByWhatIsThere(t *testing.T) {
	g := forgetful(t, "h")
	died, stored := g.give("c1"), g.give("c1")
	g.begun(died, 2, "redrive-1")
	g.begun(stored, 2, "redrive-2")
	ack, err := g.JetStream().PublishMsg(t.Context(), &nats.Msg{
		Subject: "cim.acme.web.CUSTOMER_MESSAGE", Header: nats.Header{"Nats-Msg-Id": {"redrive-2"}, bus.HeaderRedriveOf: {fmt.Sprint(stored)}},
	})
	require.NoError(t, err)
	m, err := g.MessageAt(t.Context(), bus.StreamEvents, ack.Sequence)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return time.Since(m.Time) > 5*bus.MinDuplicateWindow }, patience, 10*time.Millisecond, "its id is forgotten")

	results := g.redrive(g.plan(bus.DeadLetterFilter{}), false)
	require.Equal(t, ack.Sequence, results[1].NewEvent)
	require.Equal(t, []uint64{stored, died}, g.redriven(), "one was stored before its operator died, the other one was not")
	m, err = g.MessageAt(t.Context(), bus.StreamEvents, results[0].NewEvent)
	require.NoError(t, err)
	require.Equal(t, "redrive-1", m.Header.Get("Nats-Msg-Id"), "the attempt is the same, and so is its id")
	for _, r := range results {
		require.Equal(t, "ann", r.Redrive.Operator)
		require.Equal(t, 1, r.Redrive.Attempt)
	}
}

func TestAnAttemptOfWhichNobodyKnowsWhetherItStoredItsEventIsRefusedUnlessForced(t *testing.T) {
	g := forgetful(t, "h")
	s := g.give("c1")
	g.begun(s, 1, "redrive-1")
	g.event(dead{tenant: "acme", event: "X"})
	g.event(dead{tenant: "acme", event: "X"})
	events, err := g.JetStream().Stream(t.Context(), bus.StreamEvents)
	require.NoError(t, err)
	stale := g.plan(bus.DeadLetterFilter{})
	require.Empty(t, stale.Entries[0].Refused)
	// What was stored after the start is gone.
	require.NoError(t, events.Purge(t.Context(), jetstream.WithPurgeSequence(3)))
	plan := g.plan(bus.DeadLetterFilter{})
	for _, p := range []bus.DeadLetterPlan{stale, plan} {
		require.Equal(t, bus.RefusedUnclear, g.redrive(p, false)[0].Refused)
	}
	require.Equal(t, bus.RefusedUnclear, plan.Entries[0].Refused)
	require.Empty(t, g.redriven())
	r := g.redrive(plan, true)[0]
	require.Equal(t, bus.EntryRedriven, r.Outcome)
	require.Equal(t, 2, r.Redrive.Attempt)
	require.Equal(t, []uint64{s}, g.redriven())
}

func TestAFullStoreBreaksTheRedriveOffAndItGoesOnOnceThereIsRoom(t *testing.T) {
	g := forgetful(t, "h")
	for range 3 {
		g.give("c1")
		g.give("c2")
	}
	limit := func(n int64) {
		c := streamConfig(t, g.Bus, bus.StreamEvents)
		c.MaxMsgs = n
		_, err := g.JetStream().UpdateStream(t.Context(), c)
		require.NoError(t, err)
	}
	limit(8)
	results, err := g.Redrive(t.Context(), g.plan(bus.DeadLetterFilter{}), bus.RedriveOptions{Operator: "ann"})
	require.ErrorIs(t, err, bus.ErrStoreFull)
	outcomes := map[bus.EntryOutcome]int{}
	for _, r := range results {
		outcomes[r.Outcome]++
	}
	require.Equal(t, 2, outcomes[bus.EntryRedriven])
	require.Positive(t, outcomes[bus.EntryFailed])
	require.Equal(t, 4, outcomes[bus.EntryFailed]+outcomes[bus.EntrySkipped])
	failed := 0
	for _, d := range g.list(bus.DeadLetterFilter{}) {
		if d.Redrive != nil && d.Redrive.State == bus.RedriveFailed {
			failed++
			require.Contains(t, d.Redrive.Error, "event store is full")
		}
	}
	require.Equal(t, outcomes[bus.EntryFailed], failed)
	limit(-1)
	g.redrive(g.plan(bus.DeadLetterFilter{}), false)
	g.onceInOrder()
	for _, d := range g.list(bus.DeadLetterFilter{}) {
		require.Equal(t, 1, d.Redrive.Attempt)
	}
}

func TestAnEntryThatFailsHoldsBackThoseBehindItInItsConversationAndNoOthers(t *testing.T) {
	g := forgetful(t, "h")
	first, other := g.give("c1"), g.give("c2")
	large := dead{handler: "h", tenant: "acme", channel: "web", event: "CUSTOMER_MESSAGE", conversation: "c1", reason: "broken", header: nats.Header{
		"X-Large": {strings.Repeat("x", 40<<10)},
	}}
	tooLarge := g.bury(large, g.event(large))
	behind, last := g.give("c1"), g.give("c2")
	c := streamConfig(t, g.Bus, bus.StreamEvents)
	c.MaxMsgSize = 32 << 10
	_, err := g.JetStream().UpdateStream(t.Context(), c)
	require.NoError(t, err)
	got := map[uint64]bus.EntryOutcome{}
	for _, r := range g.redrive(g.plan(bus.DeadLetterFilter{}), false) {
		got[r.Sequence] = r.Outcome
		if r.Sequence == tooLarge {
			require.ErrorIs(t, r.Err, bus.ErrTooLarge)
		}
	}
	require.Equal(t, map[uint64]bus.EntryOutcome{
		first: bus.EntryRedriven, other: bus.EntryRedriven, tooLarge: bus.EntryFailed, behind: bus.EntrySkipped, last: bus.EntryRedriven,
	}, got)
}

func TestNobodyRedrivesWithoutANameNorIntoAStreamThatIsNotThere(t *testing.T) {
	g := forgetful(t, "h")
	g.give("c1")
	plan := g.plan(bus.DeadLetterFilter{})
	_, err := g.Redrive(t.Context(), plan, bus.RedriveOptions{})
	require.ErrorContains(t, err, "operator is empty")
	require.NoError(t, g.JetStream().DeleteStream(t.Context(), bus.StreamEvents))
	_, err = g.Redrive(t.Context(), plan, bus.RedriveOptions{Operator: "ann"})
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
	require.Nil(t, g.list(bus.DeadLetterFilter{})[0].Redrive)
}

func TestAStreamWithoutRoomForRecordsSaysHowToMakeIt(t *testing.T) {
	g := forgetful(t, "h")
	g.give("c1")
	c := streamConfig(t, g.Bus, bus.StreamDeadLetters)
	c.Subjects = []string{subjects.AllDeadLetters}
	_, err := g.JetStream().UpdateStream(t.Context(), c)
	require.NoError(t, err)
	_, err = g.Redrive(t.Context(), g.plan(bus.DeadLetterFilter{}), bus.RedriveOptions{Operator: "ann"})
	require.ErrorContains(t, err, "run cimbus streams apply")
	require.Empty(t, g.redriven())
}

func TestWhoMayNotRecordHearsItAndNothingIsRedrivenNorDropped(t *testing.T) {
	s := bustest.Server(t, func(o *embedded.Options) {
		o.Configure = func(so *server.Options) {
			so.Users = []*server.User{{Username: "all", Password: "pw"}, {Username: "some", Password: "pw", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Deny: []string{subjects.AllRedrives}},
			}}}
			so.NoAuthUser = "all"
		}
	})
	g := newGraves(t, openOn(t, testConn(t, s), bus.StreamOptions{}), "h")
	g.give("c1")
	nc, err := s.Connect(nats.UserInfo("some", "pw"))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	b, err := tryOpen(t, bus.Options{Conn: nc, LeaveStreams: true})
	require.NoError(t, err)
	_, err = b.Redrive(t.Context(), g.plan(bus.DeadLetterFilter{}), bus.RedriveOptions{Operator: "ann"})
	require.ErrorIs(t, err, bus.ErrUnauthorized)
	_, err = b.Drop(t.Context(), g.plan(bus.DeadLetterFilter{}))
	require.ErrorIs(t, err, bus.ErrUnauthorized)
	require.Empty(t, g.redriven())
	require.Len(t, g.list(bus.DeadLetterFilter{}), 1)
}
