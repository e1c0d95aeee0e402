package bus_test

import (
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/subjects"
)

func gathered(t *testing.T, journeys iter.Seq2[bus.Journey, error]) (all []bus.Journey) {
	t.Helper()
	for j, err := range journeys {
		require.NoError(t, err)
		all = append(all, j)
	}
	return all
}

func (r *road) journeysOf(t *testing.T, s bus.EventSelection) []bus.Journey {
	t.Helper()
	span, err := r.bus.Span(t.Context(), bus.StreamEvents, s.From, s.Until)
	require.NoError(t, err)
	return gathered(t, r.bus.JourneysOf(t.Context(), s, span))
}

func told(journeys []bus.Journey) (sequences []uint64) {
	for _, j := range journeys {
		sequences = append(sequences, j.Event.Sequence)
	}
	return sequences
}

func steps(j bus.Journey) string {
	var all []string
	for _, s := range j.Steps {
		all = append(all, string(s.Kind)+" "+s.Agent)
	}
	return strings.Join(all, ", ")
}

// committed stores an event and commits it, as its worker would.
func (r *road) committed(conversation, id string) uint64 {
	s := r.event(conversation, id)
	r.index(conversation, s, bus.HeaderEventID, id)
	return s
}

func TestAnIDIsFoundWhereverItsEventIs(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	const long = 600 // longer than a header carries
	for i := range 20 {
		r.committed([]string{"c1", "c2"}[i%2], "filler")
	}
	first := r.committed("c1", "m1")
	other := r.publish(&nats.Msg{Subject: "cim.globex.web.X", Data: []byte(`{"id":"m1","name":"X","conversationId":"c1"}`)})
	r.publish(&nats.Msg{Subject: "cim-index.globex.c1", Header: nats.Header{bus.HeaderSequence: {"22"}, bus.HeaderEventID: {"m1"}}})
	require.Equal(t, uint64(22), other)
	again := r.committed("c2", "m1")
	same, different := strings.Repeat("x", long)+"1", strings.Repeat("x", long)+"2"
	longest := r.event("c1", same)
	r.index("c1", longest, bus.HeaderEventID, same[:512])
	alike := r.event("c1", different)
	r.index("c1", alike, bus.HeaderEventID, different[:512])
	transient := r.event("c1", "typing") // handled, and without an entry
	lines := r.committed("c2", "two")
	// The worker's consumer is behind what it has acknowledged.
	_, err := r.js.CreateConsumer(t.Context(), bus.StreamEvents, jetstream.ConsumerConfig{
		Durable: bus.HandlerConsumer(bus.TypeEvent), DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: lines + 1, AckPolicy: jetstream.AckExplicitPolicy,
	})
	require.NoError(t, err)
	waiting := r.event("c3", "m1")

	acme := subjects.Is("acme")
	for name, c := range map[string]struct {
		s    bus.EventSelection
		want []uint64
	}{
		"every one of it":                {bus.EventSelection{ID: "m1"}, []uint64{first, other, again, waiting}},
		"its tenant's":                   {bus.EventSelection{ID: "m1", Tenant: acme}, []uint64{first, again, waiting}},
		"its conversation's":             {bus.EventSelection{ID: "m1", Tenant: acme, Conversation: subjects.Is("c2")}, []uint64{again}},
		"in a stretch":                   {bus.EventSelection{ID: "m1", Tenant: acme, From: bus.Point{Sequence: again}, Until: bus.Point{Sequence: lines}}, []uint64{again}},
		"of which a header has the head": {bus.EventSelection{ID: same}, []uint64{longest}},
		"what has no entry":              {bus.EventSelection{ID: "typing"}, []uint64{transient}},
		"nowhere":                        {bus.EventSelection{ID: "m9"}, nil},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, told(r.journeysOf(t, c.s))) })
	}
	all := r.journeysOf(t, bus.EventSelection{ID: "m1", Tenant: acme})
	require.False(t, all[0].Waiting)
	require.Equal(t, "published , stored , committed ", steps(all[0]))
	require.True(t, all[2].Waiting, "it is stored and not handled")
	require.Equal(t, "published , stored ", steps(all[2]))

	// The index may have lost its beginning, or all of it, and the stream its.
	index, err := r.js.Stream(t.Context(), bus.StreamIndex)
	require.NoError(t, err)
	events, err := r.js.Stream(t.Context(), bus.StreamEvents)
	require.NoError(t, err)
	require.NoError(t, events.Purge(t.Context(), jetstream.WithPurgeSequence(other)))
	expired := r.journeysOf(t, bus.EventSelection{ID: "m1", Tenant: acme})
	require.Equal(t, []uint64{first, again, waiting}, told(expired))
	require.True(t, expired[0].Expired)
	require.Equal(t, "stored , committed ", steps(expired[0]))
	require.Equal(t, "c1", expired[0].Event.Conversation)
	require.NoError(t, index.Purge(t.Context(), jetstream.WithPurgeSequence(24)))
	require.Equal(t, []uint64{again, waiting}, told(r.journeysOf(t, bus.EventSelection{ID: "m1", Tenant: acme})))
	require.NoError(t, index.Purge(t.Context()))
	require.Equal(t, []uint64{again, waiting}, told(r.journeysOf(t, bus.EventSelection{ID: "m1", Tenant: acme})))
}

func TestAJourneyHasTheDeliveriesOfItsEventAndNoOthers(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	before := r.committed("c1", "m0")
	r.deliver("ada", "c1", before)
	s := r.event("c1", "m1")
	r.member("ben", "c1", s, 0)
	r.publish(&nats.Msg{Subject: "$KV.CIM_MEMBERS.acme.cyd.c1", Header: sequenceHeader(s), Data: []byte(`{"role":"PRIMARY","since":1,"left":2}`)})
	first := r.deliver("ada", "c1", s)
	r.deliver("ben", "c1", s)
	r.deliver("ada", "c2", s) // of another conversation: no delivery of this event
	r.index("c1", s, bus.HeaderEventID, "m1")
	r.deliver("ada", "c1", s+1)
	replayed := sequenceHeader(s)
	replayed.Set(bus.HeaderReplayID, "r1")
	r.publish(&nats.Msg{Subject: deliverySubject("ada", "replay", "c1"), Header: replayed})
	r.publish(&nats.Msg{Subject: deliverySubject("ada", "lookup", "c1"), Header: sequenceHeader(s)}) // a handler of its own is later

	all := gathered(t, r.bus.Journeys(t.Context(), s))
	require.Len(t, all, 1)
	require.Equal(t, "published , stored , left cyd, delivered ada, delivered ben, committed , replayed ada, delivered ada", steps(all[0]))
	require.Equal(t, bus.OutcomeDelivered, all[0].Entry.Outcome)
	var delivery *bus.StoredDelivery
	for _, step := range all[0].Steps {
		require.False(t, step.Kind != bus.StepPublished && step.Time.IsZero())
		if step.Kind == bus.StepDelivered && delivery == nil {
			delivery = step.Delivery
		}
		if step.Kind == bus.StepReplayed {
			require.Equal(t, "r1", step.Replay)
		}
	}
	require.Equal(t, first, delivery.Sequence)
	require.Zero(t, all[0].DeliveriesSince)

	// What is gone is told of.
	deliveries, err := r.js.Stream(t.Context(), bus.StreamDeliveries)
	require.NoError(t, err)
	require.NoError(t, deliveries.Purge(t.Context(), jetstream.WithPurgeSequence(first+1)))
	after := gathered(t, r.bus.Journeys(t.Context(), s))[0]
	require.WithinDuration(t, time.Now(), after.DeliveriesSince, time.Minute)
	require.Equal(t, "published , stored , left cyd, delivered ben, committed , replayed ada, delivered ada", steps(after))

	var ranged *bus.RangeError
	for _, err := range r.bus.Journeys(t.Context(), 99) {
		require.ErrorAs(t, err, &ranged)
	}
}
