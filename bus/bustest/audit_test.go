package bustest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus/bustest"
)

const deliveryStream = "CIM_DELIVERIES"

// derivedStreams are the streams an audit compares, with their subjects.
var derivedStreams = map[string]string{
	deliveryStream:     "cim-agent.>",
	"CIM_INDEX":        "cim-index.>",
	"CIM_DEAD_LETTERS": "cim-dead.>",
	"KV_CIM_MEMBERS":   "$KV.CIM_MEMBERS.>",
}

// playedWorld is a right history long enough to have everything in it.
func playedWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(rand.New(rand.NewPCG(1, 2)).IntN)
	w.play(400)
	for stream := range derivedStreams {
		require.Greater(t, len(w.derived[stream]), 10, stream)
	}
	return w
}

// write puts a world into streams of a new server.
func write(t *testing.T, w *world) jetstream.JetStream {
	t.Helper()
	nc, err := bustest.Server(t).Connect()
	js := streams(t, nc, err)
	create := func(stream, subjects string) {
		_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: stream, Subjects: []string{subjects}})
		require.NoError(t, err)
	}
	create("CIM_EVENTS", "cim.*.*.*")
	for _, m := range w.published {
		publish(t, js, m)
	}
	for stream, subjects := range derivedStreams {
		create(stream, subjects)
		for _, m := range w.derived[stream] {
			publish(t, js, m)
		}
	}
	return js
}

func publish(t *testing.T, js jetstream.JetStream, m message) {
	t.Helper()
	msg := nats.NewMsg(m.subject)
	msg.Data = []byte(m.body)
	if m.sequence != 0 {
		msg.Header["Cim-Sequence"] = []string{strconv.FormatUint(m.sequence, 10)}
	}
	if m.outcome != "" {
		msg.Header["Cim-Outcome"] = []string{m.outcome}
	}
	_, err := js.PublishMsg(t.Context(), msg)
	require.NoError(t, err)
}

func audit(t *testing.T, js jetstream.JetStream) bustest.Report {
	t.Helper()
	r, err := bustest.Audit(t.Context(), js)
	require.NoError(t, err)
	return r
}

func TestAuditOfRightStreamsFindsNothing(t *testing.T) {
	w := playedWorld(t)
	r := audit(t, write(t, w))
	require.NoError(t, r.Err())
	require.Equal(t, len(w.published), r.Events)
	for _, stream := range []string{deliveryStream, "CIM_INDEX", "CIM_DEAD_LETTERS"} {
		require.Equal(t, len(w.derived[stream]), r.Expected[stream], stream)
	}
	require.Positive(t, r.Expected["KV_CIM_MEMBERS"])
}

func TestAuditLeavesAloneWhatIsNoBusinessOfTheEvents(t *testing.T) {
	js := write(t, playedWorld(t))
	for _, subject := range []string{
		"cim-agent.acme.ada.replay.c1", "cim-agent.acme.ada.taskRequest._",
		"cim-dead.billing.acme.web.BOT_MESSAGE.3",
	} {
		publish(t, js, message{subject: subject, sequence: 3})
	}
	require.NoError(t, audit(t, js).Err())
}

func TestAuditCatchesASingleMutationOfAnyStream(t *testing.T) {
	// The first message of a line that has a second one.
	first := func(ms []message) (int, int) {
		for i, a := range ms {
			for j, b := range ms[i+1:] {
				if a.subject == b.subject {
					return i, i + 1 + j
				}
			}
		}
		return 0, 0
	}
	for _, c := range []struct {
		stream, mutation          string
		mutate                    func(ms []message) []message
		lost, repeated, misplaced int
		unexpected                int
	}{
		{stream: deliveryStream, mutation: "drop", mutate: drop, lost: 1},
		{stream: deliveryStream, mutation: "drop the last", mutate: dropLast, lost: 1},
		{stream: deliveryStream, mutation: "repeat", mutate: repeat, repeated: 1},
		{stream: deliveryStream, mutation: "no sequence", mutate: withoutSequence, lost: 1, unexpected: 1},
		{stream: deliveryStream, mutation: "other bytes", mutate: otherBytes, lost: 1, unexpected: 1},
		{stream: "CIM_DEAD_LETTERS", mutation: "other bytes", mutate: otherBytes, lost: 1, unexpected: 1},
		{stream: "CIM_DEAD_LETTERS", mutation: "no payload", mutate: withoutPayload, lost: 1, unexpected: 1},
		{stream: "CIM_INDEX", mutation: "drop", mutate: drop, lost: 1},
		{stream: "CIM_INDEX", mutation: "drop the last", mutate: dropLast, lost: 1},
		{stream: "CIM_INDEX", mutation: "repeat", mutate: repeat, repeated: 1},
		{stream: "CIM_INDEX", mutation: "outcome", mutate: otherOutcome, lost: 1, unexpected: 1},
		{stream: "CIM_DEAD_LETTERS", mutation: "drop", mutate: drop, lost: 1},
		{stream: "CIM_DEAD_LETTERS", mutation: "drop the last", mutate: dropLast, lost: 1},
		{stream: "CIM_DEAD_LETTERS", mutation: "repeat", mutate: repeat, repeated: 1},
		{stream: "KV_CIM_MEMBERS", mutation: "drop a member", mutate: dropLastOfSubject, lost: 1},
		{stream: "KV_CIM_MEMBERS", mutation: "erase a member", mutate: eraseLast, lost: 1},
		{stream: "KV_CIM_MEMBERS", mutation: "stale record", mutate: staleRecord, lost: 1, unexpected: 1},
		{stream: "KV_CIM_MEMBERS", mutation: "other role", mutate: otherRole, lost: 1, unexpected: 1},
		{stream: "KV_CIM_MEMBERS", mutation: "stranger", mutate: stranger, unexpected: 1},
		{stream: deliveryStream, mutation: "swap", misplaced: 1, mutate: func(ms []message) []message {
			i, j := first(ms)
			ms[i], ms[j] = ms[j], ms[i]
			return ms
		}},
		{stream: "CIM_INDEX", mutation: "swap", misplaced: 1, mutate: func(ms []message) []message {
			i, j := first(ms)
			ms[i], ms[j] = ms[j], ms[i]
			return ms
		}},
	} {
		t.Run(c.stream+" "+c.mutation, func(t *testing.T) {
			w := playedWorld(t)
			w.derived[c.stream] = c.mutate(w.derived[c.stream])
			r := audit(t, write(t, w))
			require.Error(t, r.Err())
			require.Len(t, r.Lost, c.lost, "lost: %v", r)
			require.Len(t, r.Repeated, c.repeated, "repeated: %v", r)
			require.Len(t, r.Unexpected, c.unexpected, "unexpected: %v", r)
			require.GreaterOrEqual(t, len(r.Misordered), c.misplaced, "out of order: %v", r)
			require.Equal(t, c.misplaced > 0, len(r.Misordered) > 0, "out of order: %v", r)
			for _, e := range slices.Concat(r.Lost, r.Repeated, r.Misordered, r.Unexpected) {
				require.Equal(t, c.stream, e.Stream)
			}
		})
	}
}

func drop(ms []message) []message     { return slices.Delete(ms, 3, 4) }
func dropLast(ms []message) []message { return ms[:len(ms)-1] }
func repeat(ms []message) []message   { return append(ms, ms[3]) }

func withoutSequence(ms []message) []message {
	ms[3].sequence = 0
	return ms
}

func otherBytes(ms []message) []message {
	ms[3].body = strings.Replace(ms[3].body, `"name"`, ` "name"`, 1)
	return ms
}

func withoutPayload(ms []message) []message {
	ms[3].body = ""
	return ms
}

func otherOutcome(ms []message) []message {
	ms[3].outcome = "dead-letter"
	return ms
}

// dropLastOfSubject erases every record of the subject written last.
func dropLastOfSubject(ms []message) []message {
	subject := ms[len(ms)-1].subject
	return slices.DeleteFunc(ms, func(m message) bool { return m.subject == subject })
}

// eraseLast deletes a key as the bucket does, by an empty record.
func eraseLast(ms []message) []message {
	return append(ms, message{subject: ms[len(ms)-1].subject})
}

// staleRecord leaves the first record of a key as its last.
func staleRecord(ms []message) []message {
	return append(ms, ms[0])
}

func otherRole(ms []message) []message {
	m := &ms[len(ms)-1]
	m.body = strings.Replace(m.body, `"role":"`, `"role":"UNDER_`, 1)
	return ms
}

func stranger(ms []message) []message {
	m := ms[0]
	m.subject = strings.Replace(m.subject, ".acme.", ".initech.", 1)
	m.subject = strings.Replace(m.subject, ".globex.", ".initech.", 1)
	return append(ms, m)
}

func TestAuditSeesAnEventThatIsNotYetWorkedOn(t *testing.T) {
	w := playedWorld(t)
	js := write(t, w)
	publish(t, js, message{
		subject: "cim.acme._.AGENT_SUBSCRIBED",
		body:    `{"id":"late","name":"AGENT_SUBSCRIBED","conversationId":"c9","data":{"agentParticipant":{"participant":{"id":"zoe"}}}}`,
	})
	r := audit(t, js)
	require.Len(t, r.Lost, 3)
	require.Equal(t, []string{
		fmt.Sprintf("cim-agent.acme.zoe.onCimEvent.c9 of event %d", len(w.published)+1),
		fmt.Sprintf("cim-index.acme.c9 of event %d", len(w.published)+1),
		fmt.Sprintf("$KV.CIM_MEMBERS.acme.zoe.c9 role \"\" since %d left 0", len(w.published)+1),
	}, []string{r.Lost[0].String(), r.Lost[1].String(), r.Lost[2].String()})
}

func TestAuditRefusesStreamsThatCannotBeAudited(t *testing.T) {
	js := write(t, playedWorld(t))
	events, err := js.Stream(t.Context(), "CIM_EVENTS")
	require.NoError(t, err)
	require.NoError(t, events.DeleteMsg(t.Context(), 1))
	_, err = bustest.Audit(t.Context(), js)
	require.ErrorIs(t, err, bustest.ErrNotWhole)

	require.NoError(t, js.DeleteStream(t.Context(), "CIM_EVENTS"))
	_, err = bustest.Audit(t.Context(), js)
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
}

func TestAuditEndsWithItsContext(t *testing.T) {
	js := write(t, playedWorld(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := bustest.Audit(ctx, js)
	require.ErrorIs(t, err, context.Canceled)
}

func TestAuditReadsWhatAForgedEventMeans(t *testing.T) {
	nc, err := bustest.Server(t).Connect()
	js := streams(t, nc, err)
	for stream, subjects := range map[string]string{
		"CIM_EVENTS": "cim.*.*.*", deliveryStream: "cim-agent.>", "CIM_INDEX": "cim-index.>",
		"CIM_DEAD_LETTERS": "cim-dead.>", "KV_CIM_MEMBERS": "$KV.CIM_MEMBERS.>",
	} {
		_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: stream, Subjects: []string{subjects}})
		require.NoError(t, err)
	}
	long := strings.Repeat("x", 200)
	for _, subject := range []string{"cim.acme.WEB.BOT_MESSAGE", "cim.ac%me.web.BOT_MESSAGE", "cim." + long + ".web.BOT_MESSAGE"} {
		publish(t, js, message{subject: subject, body: `{"id":"i","name":"BOT_MESSAGE","conversationId":"c1"}`})
	}
	forOthers := nats.NewMsg("cim.acme.web.BOT_MESSAGE")
	forOthers.Header["Cim-Redrive-Handler"] = []string{"billing"}
	_, err = js.PublishMsg(t.Context(), forOthers)
	require.NoError(t, err)

	r := audit(t, js)
	require.Equal(t, 3, r.Events)
	var lost []string
	for _, e := range r.Lost {
		lost = append(lost, e.String())
	}
	require.Equal(t, []string{
		"cim-index.acme._ of event 1 dead-letter",
		"cim-index.ac=25me._ of event 2 dead-letter",
		"cim-index.unreadable-" + hashOf(long) + "._ of event 3 dead-letter",
		"cim-dead.onCimEvent.acme.web.BOT_MESSAGE.1 of event 1",
		"cim-dead.onCimEvent.ac=25me.web.BOT_MESSAGE.2 of event 2",
		"cim-dead.onCimEvent.unreadable-" + hashOf(long) + ".web.BOT_MESSAGE.3 of event 3",
	}, lost)
}

func TestAuditOfAgentHoldsWhatItReceivedAgainstTheEvents(t *testing.T) {
	w := playedWorld(t)
	js := write(t, w)
	const tenant, agent = "acme", "ada"
	var all []bustest.Received
	var positions []uint64
	for _, d := range w.deliveries {
		if d.Tenant == tenant && d.Agent == agent {
			all = append(all, bustest.Received{
				Subject:  fmt.Sprintf("cim-live.%s.%s.%s.%s", d.Tenant, d.Agent, d.Type, d.Conversation),
				Sequence: d.Sequence,
			})
			positions = append(positions, d.Position)
		}
	}
	require.Greater(t, len(all), 20)
	check := func(after uint64, received []bustest.Received) bustest.Report {
		r, err := bustest.AuditAgent(t.Context(), js, tenant, agent, after, received)
		require.NoError(t, err)
		return r
	}
	const had = 10
	require.NoError(t, check(0, all).Err())
	require.NoError(t, check(positions[had-1], all[had:]).Err())

	require.Len(t, check(0, all[had:]).Lost, had, "never received")
	require.Len(t, check(positions[had-1], all).Unexpected, had, "received before already")
	require.Len(t, check(0, slices.Delete(slices.Clone(all), had, had+1)).Lost, 1)
	require.Len(t, check(0, append(slices.Clone(all), all[had])).Repeated, 1)
	swapped := slices.Clone(all)
	slices.Reverse(swapped)
	require.NotEmpty(t, check(0, swapped).Misordered)

	others := append(slices.Clone(all), bustest.Received{Subject: "cim-agent.acme.ada.replay.c1", Sequence: 1})
	require.NoError(t, check(0, others).Err())
	others = append(others, bustest.Received{Subject: "cim-live.acme.ben.onCimEvent.c1", Sequence: all[0].Sequence})
	require.Len(t, check(0, others).Unexpected, 1, "another agent's")
}

func TestAuditDemandsADeadLetterOfAnEventTheHandlerRefused(t *testing.T) {
	w := newWorld(rand.New(rand.NewPCG(3, 4)).IntN)
	w.play(50)
	i := slices.IndexFunc(w.events, func(e bustest.Event) bool { return e.Name == "CUSTOMER_MESSAGE" && e.Invalid == "" })
	refused := w.events[i]
	js := write(t, w)
	r, err := bustest.Audit(t.Context(), js, refused.ID)
	require.NoError(t, err)
	require.Len(t, r.Lost, 2, "dead letter, and its entry")
	for _, e := range slices.Concat(r.Lost, r.Unexpected) {
		require.Equal(t, refused.Sequence, e.Sequence)
	}
	require.NotEmpty(t, r.Unexpected, "it was delivered, or at least committed")
}
