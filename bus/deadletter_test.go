package bus_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/subjects"
)

// graves is a bus on which handlers give up events: the test writes what a worker writes.
type graves struct {
	t testing.TB
	*bus.Bus
}

// newGraves opens a bus on which the named handlers have their consumers. Message ids are forgotten nearly at once: nothing may hang on
// them being remembered.
func newGraves(t testing.TB, b *bus.Bus, handlers ...string) graves {
	t.Helper()
	for _, h := range handlers {
		_, err := b.JetStream().CreateConsumer(t.Context(), bus.StreamEvents, jetstream.ConsumerConfig{Durable: bus.HandlerConsumer(h)})
		require.NoError(t, err)
	}
	return graves{t, b}
}

func forgetful(t testing.TB, handlers ...string) graves {
	t.Helper()
	return newGraves(t, testBus(t, bus.StreamOptions{DuplicateWindow: bus.MinDuplicateWindow}), handlers...)
}

// dead is a dead letter to be stored.
type dead struct {
	handler, tenant, channel, event, conversation, reason string
	header                                                nats.Header
	leftOut                                               bool
}

// event stores an event and returns where it is.
func (g graves) event(d dead) *jetstream.RawStreamMsg {
	g.t.Helper()
	subject, err := subjects.Event{Tenant: d.tenant, Channel: d.channel, Event: d.event}.Subject()
	require.NoError(g.t, err)
	ack, err := g.JetStream().Publish(g.t.Context(), subject, fmt.Appendf(nil, `{"id":"e","name":%q,"conversationId":%q}`, d.event, d.conversation))
	require.NoError(g.t, err)
	m, err := g.MessageAt(g.t.Context(), bus.StreamEvents, ack.Sequence)
	require.NoError(g.t, err)
	return m
}

// bury makes a dead letter of a stored event and returns its sequence.
func (g graves) bury(d dead, e *jetstream.RawStreamMsg) uint64 {
	g.t.Helper()
	subject, err := subjects.DeadLetter{Handler: d.handler, Tenant: d.tenant, Channel: d.channel, Event: d.event, Sequence: e.Sequence}.Subject()
	require.NoError(g.t, err)
	m := &nats.Msg{Subject: subject, Data: e.Data, Header: nats.Header{
		"Cim-Handler": {d.handler}, "Cim-Reason": {d.reason}, "Cim-Error": {"it " + d.reason}, "Cim-Attempts": {"3"},
		"Cim-First-Attempt": {"2026-03-01T10:00:00.5Z"}, "Cim-Last-Attempt": {"2026-03-01T10:00:07Z"},
		"Cim-Sequence": {strconv.FormatUint(e.Sequence, 10)}, "Cim-Source-Subject": {e.Subject}, "Cim-Source-Time": {e.Time.Format(time.RFC3339Nano)},
		"Cim-Event-Id": {"e"}, "Cim-Event-Name": {d.event}, "Cim-Conversation-Id": {d.conversation},
	}}
	maps.Copy(m.Header, d.header)
	if d.leftOut {
		m.Data = nil
		m.Header["Cim-Payload-Left-Out"] = []string{strconv.Itoa(len(e.Data))}
	}
	ack, err := g.JetStream().PublishMsg(g.t.Context(), m)
	require.NoError(g.t, err)
	return ack.Sequence
}

// give stores an event of conversation c that handler h gave up, and returns the dead letter's sequence.
func (g graves) give(c string) uint64 {
	g.t.Helper()
	d := dead{handler: "h", tenant: "acme", channel: "web", event: "CUSTOMER_MESSAGE", conversation: c, reason: "broken"}
	return g.bury(d, g.event(d))
}

func (g graves) list(f bus.DeadLetterFilter) []bus.DeadLetter {
	g.t.Helper()
	var all []bus.DeadLetter
	for d, err := range g.DeadLetters(g.t.Context(), f) {
		require.NoError(g.t, err)
		all = append(all, d)
	}
	return all
}

func (g graves) sequences(f bus.DeadLetterFilter) []uint64 {
	g.t.Helper()
	all := []uint64{}
	for _, d := range g.list(f) {
		all = append(all, d.Sequence)
	}
	return all
}

func (g graves) plan(f bus.DeadLetterFilter) bus.DeadLetterPlan {
	g.t.Helper()
	plan, err := g.PlanRedrive(g.t.Context(), f)
	require.NoError(g.t, err)
	return plan
}

func (g graves) redrive(plan bus.DeadLetterPlan, force bool) []bus.DeadLetterResult {
	g.t.Helper()
	results, err := g.Redrive(g.t.Context(), plan, bus.RedriveOptions{Operator: "ann", Force: force})
	require.NoError(g.t, err)
	return results
}

// redriven are the redriven events, in their order: of which dead letter each is.
func (g graves) redriven() []uint64 {
	g.t.Helper()
	all := []uint64{}
	for m, err := range g.Read(g.t.Context(), bus.Range{Stream: bus.StreamEvents, Filter: subjects.AllEvents}) {
		require.NoError(g.t, err)
		if of := bus.LastHeader(m.Header, bus.HeaderRedriveOf); of != "" {
			n, err := strconv.ParseUint(of, 10, 64)
			require.NoError(g.t, err)
			all = append(all, n)
		}
	}
	return all
}

// onceInOrder makes sure that every entry was redriven once, those of a conversation in the order of their events.
func (g graves) onceInOrder() {
	g.t.Helper()
	all := g.list(bus.DeadLetterFilter{})
	conversation := map[uint64]string{}
	want := map[string][]uint64{}
	for _, d := range all {
		conversation[d.Sequence] = d.Conversation
		want[d.Conversation] = append(want[d.Conversation], d.Sequence)
		require.NotNil(g.t, d.Redrive, "entry %d", d.Sequence)
		require.Equal(g.t, bus.RedriveDone, d.Redrive.State)
		m, err := g.MessageAt(g.t.Context(), bus.StreamEvents, d.Redrive.Event)
		require.NoError(g.t, err)
		require.Equal(g.t, strconv.FormatUint(d.Sequence, 10), bus.LastHeader(m.Header, bus.HeaderRedriveOf))
	}
	got := map[string][]uint64{}
	for _, s := range g.redriven() {
		got[conversation[s]] = append(got[conversation[s]], s)
	}
	require.Equal(g.t, want, got)
}

func TestADeadLetterTellsWhatWhereWhyAndWhen(t *testing.T) {
	g := forgetful(t)
	d := dead{handler: "h", tenant: "acme", channel: "web", event: "CUSTOMER_MESSAGE", conversation: "c1", reason: "broken", header: nats.Header{
		"traceparent": {"00-1-2-01"}, "Cim-Redrive-Of": {"7"},
	}}
	e := g.event(d)
	s := g.bury(d, e)
	got, err := g.DeadLetter(t.Context(), s)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), got.Time, time.Minute)
	require.Equal(t, []string{"00-1-2-01"}, got.Header["traceparent"])
	got.Time, got.Header = time.Time{}, nil
	require.Equal(t, bus.DeadLetter{
		Sequence: s, Handler: "h", Tenant: "acme", Channel: "web", Event: "CUSTOMER_MESSAGE", Conversation: "c1", EventID: "e",
		Reason: "broken", Error: "it broken", Attempts: 3,
		First: time.Date(2026, 3, 1, 10, 0, 0, 5e8, time.UTC), Last: time.Date(2026, 3, 1, 10, 0, 7, 0, time.UTC),
		SourceSubject: e.Subject, SourceSequence: e.Sequence, SourceTime: e.Time, RedriveOf: 7, Payload: e.Data, Size: len(e.Data),
	}, got)

	_, err = g.DeadLetter(t.Context(), s+1)
	require.ErrorIs(t, err, bus.ErrNoMessage)
}

func TestWhatIsNoDeadLetterHidesNone(t *testing.T) {
	g := forgetful(t, "h")
	for _, subject := range []string{"cim-dead.h", "cim-dead.h.acme.WEB.X.1", "cim-redrive.h.acme.web.CUSTOMER_MESSAGE.2"} {
		_, err := g.JetStream().Publish(t.Context(), subject, []byte("somebody's"))
		require.NoError(t, err)
	}
	g.event(dead{tenant: "acme", event: "X"})
	s := g.give("c1")
	require.Equal(t, []uint64{s}, g.sequences(bus.DeadLetterFilter{}))
	require.Equal(t, []uint64{s}, g.sequences(bus.DeadLetterFilter{Sequences: []uint64{s + 9, s, 3, 2, 1, s}}))
	_, err := g.DeadLetter(t.Context(), 3)
	require.ErrorIs(t, err, bus.ErrNoMessage)
	require.Equal(t, bus.EntryRedriven, g.redrive(g.plan(bus.DeadLetterFilter{}), false)[0].Outcome)
	g.onceInOrder()
}

// naive is the filter said once more, of the fields alone.
func naive(f bus.DeadLetterFilter, d bus.DeadLetter) bool {
	is := func(m subjects.Match, name string) bool {
		return m == subjects.Any || m == subjects.Is(name) || name == "" && m == subjects.None
	}
	channel := is(f.Channel, d.Channel) || is(f.Channel, strings.ToUpper(d.Channel))
	return is(f.Handler, d.Handler) && is(f.Tenant, d.Tenant) && channel && is(f.Event, d.Event) && is(f.Conversation, d.Conversation) &&
		(f.Reason == "" || f.Reason == d.Reason) && (f.NewerThan.IsZero() || d.Time.After(f.NewerThan)) && (f.OlderThan.IsZero() || d.Time.Before(f.OlderThan)) &&
		(len(f.Sequences) == 0 || slices.Contains(f.Sequences, d.Sequence))
}

func TestAFilterSelectsExactlyWhatAgreesWithAllItSays(t *testing.T) {
	g := forgetful(t)
	names := []string{"a", "b", "a.b", "*", "_"}
	optional := append([]string{""}, names...)
	one := func(rt *rapid.T, from []string, what string) string { return rapid.SampledFrom(from).Draw(rt, what) }
	var all []bus.DeadLetter
	rapid.Check(t, func(rt *rapid.T) {
		if len(all) < 60 {
			d := dead{
				handler: one(rt, names[:2], "handler"), tenant: one(rt, names, "tenant"), channel: one(rt, optional, "channel"),
				event: one(rt, names, "event"), conversation: one(rt, optional, "conversation"), reason: one(rt, names, "reason"),
			}
			g.bury(d, g.event(d))
			all = g.list(bus.DeadLetterFilter{})
		}
		match := func(from []string, what string) subjects.Match {
			if rapid.IntRange(0, 2).Draw(rt, "any "+what) > 0 {
				return subjects.Any
			}
			return subjects.Is(one(rt, from, "filter "+what))
		}
		f := bus.DeadLetterFilter{
			Handler: match(names[:2], "handler"), Tenant: match(names, "tenant"), Channel: match(append([]string{"A"}, optional...), "channel"),
			Event: match(names, "event"), Conversation: match(optional, "conversation"), Reason: one(rt, []string{"", "", "a", "b"}, "reason"),
		}
		at := func(what string) time.Time {
			if rapid.IntRange(0, 2).Draw(rt, what) > 0 {
				return time.Time{}
			}
			return rapid.SampledFrom(all).Draw(rt, what+" than").Time
		}
		f.NewerThan, f.OlderThan = at("newer"), at("older")
		if rapid.IntRange(0, 3).Draw(rt, "by sequence") == 0 {
			f.Sequences = rapid.SliceOfN(rapid.Uint64Range(1, uint64(len(all)+1)), 1, 8).Draw(rt, "sequences")
		}
		want := []uint64{}
		for _, d := range all {
			if naive(f, d) {
				want = append(want, d.Sequence)
			}
		}
		require.Equal(rt, want, g.sequences(f), "%+v", f)
	})
}

func TestAFilterRefusesANameThatCannotBe(t *testing.T) {
	g := forgetful(t)
	for _, f := range []bus.DeadLetterFilter{{Tenant: subjects.Is("")}, {Handler: subjects.None, Sequences: []uint64{1}}} {
		for _, err := range g.DeadLetters(t.Context(), f) {
			require.ErrorIs(t, err, subjects.ErrInvalid)
		}
		_, err := g.PlanRedrive(t.Context(), f)
		require.ErrorIs(t, err, subjects.ErrInvalid)
	}
}

func TestAListingEndsWithWhatWasThereWhenItBegan(t *testing.T) {
	g := forgetful(t)
	g.give("c1")
	n := 0
	for _, err := range g.DeadLetters(t.Context(), bus.DeadLetterFilter{}) {
		require.NoError(t, err)
		n++
		g.give("c1")
	}
	require.Equal(t, 1, n)
}

func TestDropRemovesExactlyThePlannedEntries(t *testing.T) {
	g := forgetful(t, "h")
	first, second, third := g.give("c1"), g.give("c1"), g.give("c2")
	g.redrive(g.plan(bus.DeadLetterFilter{}), false)
	plan, err := g.PlanDrop(t.Context(), bus.DeadLetterFilter{Conversation: subjects.Is("c1")})
	require.NoError(t, err)
	late := g.give("c1")
	for i, want := range []bus.EntryOutcome{bus.EntryDropped, bus.EntryRefused} {
		results, err := g.Drop(t.Context(), plan)
		require.NoError(t, err)
		require.Len(t, results, 2)
		for n, r := range results {
			require.Equal(t, []uint64{first, second}[n], r.Sequence)
			require.Equal(t, want, r.Outcome, "carried out %d times", i+1)
			require.Equal(t, i == 1, r.Refused == bus.RefusedGone)
		}
	}
	require.Equal(t, []uint64{third, late}, g.sequences(bus.DeadLetterFilter{}))
	require.Len(t, g.redriven(), 3, "the redriven events stay")
}

// dropped are the records of drops that pass the filter.
func (g graves) dropped(f bus.DeadLetterFilter) []bus.DeadLetter {
	g.t.Helper()
	all := []bus.DeadLetter{}
	for d, err := range g.DroppedDeadLetters(g.t.Context(), f) {
		require.NoError(g.t, err)
		all = append(all, d)
	}
	return all
}

func TestADropLeavesARecordOfWhoDroppedWhatAndWhen(t *testing.T) {
	g := forgetful(t, "h")
	first, second, kept := g.give("c1"), g.give("c2"), g.give("c3")
	g.redrive(g.plan(bus.DeadLetterFilter{Sequences: []uint64{first}}), false)
	plan, err := g.PlanDrop(t.Context(), bus.DeadLetterFilter{Sequences: []uint64{first, second}})
	require.NoError(t, err)
	_, err = g.Drop(t.Context(), plan, bus.DroppedBy("bob"))
	require.NoError(t, err)
	_, err = g.Drop(t.Context(), plan, bus.DroppedBy("eve"))
	require.NoError(t, err)

	all := g.dropped(bus.DeadLetterFilter{})
	slices.SortFunc(all, func(x, y bus.DeadLetter) int { return cmp.Compare(x.Sequence, y.Sequence) })
	require.Len(t, all, 2, "who came late dropped nothing")
	for i, d := range all {
		require.WithinDuration(t, time.Now(), d.Time, time.Minute)
		require.Equal(t, d.Time, d.Redrive.Time)
		require.Equal(t, bus.RedriveDropped, d.Redrive.State)
		require.Equal(t, "bob", d.Redrive.Operator)
		require.Equal(t, plan.Entries[i].SourceSequence, d.SourceSequence)
		d.Time, d.Redrive, d.SourceSequence = time.Time{}, nil, 0
		require.Equal(t, bus.DeadLetter{
			Sequence: []uint64{first, second}[i], Handler: "h", Tenant: "acme", Channel: "web", Event: "CUSTOMER_MESSAGE", Reason: "broken",
			Conversation: fmt.Sprint("c", i+1),
		}, d)
	}
	require.EqualValues(t, 4, all[0].Redrive.Event, "as which event it had been redriven before")
	require.Equal(t, 1, all[0].Redrive.Attempt)
	require.Len(t, g.dropped(bus.DeadLetterFilter{Conversation: subjects.Is("c2"), Reason: "broken", NewerThan: all[0].Time.Add(-time.Hour)}), 1)
	for _, f := range []bus.DeadLetterFilter{{Tenant: subjects.Is("globex")}, {Reason: "other"}, {Sequences: []uint64{kept}}, {NewerThan: time.Now().Add(time.Hour)}} {
		require.Empty(t, g.dropped(f), "%+v", f)
	}
	records, err := g.Redrives(t.Context(), all[0])
	require.NoError(t, err)
	require.Len(t, records, 3, "what was recorded of its redrives stays as long")
}

func TestAnEntryWhoseDropWasBrokenOffIsNotRedrivenButDropped(t *testing.T) {
	g := forgetful(t, "h")
	s := g.give("c1")
	before := g.plan(bus.DeadLetterFilter{})
	body, err := json.Marshal(bus.Redrive{State: bus.RedriveDropped, Operator: "bob", DeadLetter: s, Reason: "broken"})
	require.NoError(t, err)
	_, err = g.JetStream().Publish(t.Context(), "cim-redrive.h.acme.web.CUSTOMER_MESSAGE.1", body)
	require.NoError(t, err)

	plan := g.plan(bus.DeadLetterFilter{})
	require.Equal(t, bus.RefusedGone, plan.Entries[0].Refused)
	for _, p := range []bus.DeadLetterPlan{before, plan} {
		require.Equal(t, bus.RefusedGone, g.redrive(p, true)[0].Refused)
	}
	require.Empty(t, g.redriven())
	results, err := g.Drop(t.Context(), plan, bus.DroppedBy("eve"))
	require.NoError(t, err)
	require.Equal(t, bus.EntryDropped, results[0].Outcome)
	require.Empty(t, g.sequences(bus.DeadLetterFilter{}))
	require.Equal(t, "bob", g.dropped(bus.DeadLetterFilter{})[0].Redrive.Operator, "he decided it")
}

func TestADropBrokenOffAndRepeatedDropsTheRestAndRecordsEachOnce(t *testing.T) {
	g := forgetful(t, "h")
	for range 60 {
		g.give("c1")
	}
	g.redrive(g.plan(bus.DeadLetterFilter{}), false)
	plan, err := g.PlanDrop(t.Context(), bus.DeadLetterFilter{})
	require.NoError(t, err)
	for n := 0; ; n++ {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond<<min(n, 12))
		_, err := g.Drop(ctx, plan)
		cancel()
		if err == nil {
			break
		}
	}
	require.Empty(t, g.sequences(bus.DeadLetterFilter{}))
	require.Len(t, g.dropped(bus.DeadLetterFilter{}), 60)
}

func TestAFilterReachesEveryEntryHoweverManyThereAreAndNotAPage(t *testing.T) {
	g := forgetful(t, "h")
	const entries = 1200
	mine := []uint64{}
	for i := range entries {
		if s := g.give(fmt.Sprint("c", i%3)); i%3 == 1 {
			mine = append(mine, s)
		}
	}
	f := bus.DeadLetterFilter{Conversation: subjects.Is("c1")}
	require.Equal(t, mine, g.sequences(f))
	plan := g.plan(f)
	require.Equal(t, entries/3, plan.Redrivable(false))
	g.redrive(plan, false)
	require.Equal(t, mine, g.redriven(), "all of the conversation, in its order")
	drop, err := g.PlanDrop(t.Context(), f)
	require.NoError(t, err)
	_, err = g.Drop(t.Context(), drop)
	require.NoError(t, err)
	require.Empty(t, g.sequences(f))
	require.Len(t, g.dropped(f), entries/3)
	require.Len(t, g.sequences(bus.DeadLetterFilter{}), entries-entries/3)
}
