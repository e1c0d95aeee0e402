package bus_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/subjects"
)

// storeEvents stores events as services publish them: those with an odd number without any header.
// The first of them are committed as they come, but for those that get no entry, as what is transient.
func storeEvents(r *road, n, committed int) {
	for i := range n {
		m := &nats.Msg{
			Subject: []string{"cim.acme.web.CUSTOMER_MESSAGE", "cim.acme.cx_voice.AGENT_MESSAGE", "cim.other.web.CUSTOMER_MESSAGE"}[i%3],
			Data:    fmt.Appendf(nil, `{"id":"m%d","conversationId":"c%d","note":"m%d"}`, i+1, i%5, i),
		}
		if i%2 == 0 {
			m.Header = nats.Header{bus.HeaderConversation: {fmt.Sprintf("c%d", i%5)}, bus.HeaderEventID: {fmt.Sprintf("m%d", i+1)}}
		}
		r.publish(m)
		if i < committed && i%3 != 2 && i%7 != 6 {
			r.index(fmt.Sprintf("c%d", i%5), uint64(i+1))
		}
	}
}

func selected(t *testing.T, b *bus.Bus, s bus.EventSelection) []uint64 {
	t.Helper()
	var out []uint64
	for e, err := range b.Events(t.Context(), s) {
		require.NoError(t, err)
		out = append(out, e.Sequence)
	}
	return out
}

func TestEventsAreExactlyThoseSelectedWhicheverWayTheyAreRead(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	const n = 60
	storeEvents(r, n, 40)
	// An index that lost its beginning is no reason to leave out what it would have named.
	index, err := r.bus.JetStream().Stream(t.Context(), bus.StreamIndex)
	require.NoError(t, err)
	require.NoError(t, index.Purge(t.Context(), jetstream.WithPurgeSequence(8)))
	for name, s := range map[string]bus.EventSelection{
		"all":                  {},
		"tenant":               {Tenant: subjects.Is("acme")},
		"channel":              {Channel: subjects.Is("WEB")},
		"name":                 {Events: []string{"AGENT_MESSAGE"}},
		"names":                {Events: []string{"AGENT_MESSAGE", "CUSTOMER_MESSAGE"}},
		"pattern":              {Events: []string{"AGENT_*"}},
		"conversation":         {Conversation: subjects.Is("c3")},
		"its tenant's":         {Conversation: subjects.Is("c3"), Tenant: subjects.Is("acme")},
		"its tenant's, a name": {Conversation: subjects.Is("c3"), Tenant: subjects.Is("acme"), Events: []string{"AGENT_*"}, Channel: subjects.Is("cx_voice")},
		"id":                   {ID: "m17"},
		"id and conversation":  {ID: "m17", Conversation: subjects.Is("c1"), Tenant: subjects.Is("acme")},
		"stretch":              {From: bus.Point{Sequence: 10}, Until: bus.Point{Sequence: 50}, Conversation: subjects.Is("c2"), Tenant: subjects.Is("acme")},
		"nothing":              {Tenant: subjects.Is("nobody")},
	} {
		t.Run(name, func(t *testing.T) {
			var want []uint64
			for i := range n {
				e := subjects.Event{Tenant: []string{"acme", "acme", "other"}[i%3], Channel: []string{"web", "cx_voice", "web"}[i%3], Event: []string{"CUSTOMER_MESSAGE", "AGENT_MESSAGE", "CUSTOMER_MESSAGE"}[i%3]}
				ok := s.Tenant.Matches(e.Tenant) && s.Conversation.Matches(fmt.Sprintf("c%d", i%5)) && (s.ID == "" || s.ID == fmt.Sprintf("m%d", i+1))
				ok = ok && (s.Channel == subjects.Any || e.Channel == map[string]string{"WEB": "web", "cx_voice": "cx_voice"}[s.Channel.Name()])
				if len(s.Events) == 1 {
					ok = ok && e.Event == "AGENT_MESSAGE"
				}
				if s.From.Sequence != 0 {
					ok = ok && i >= 9 && i < 50
				}
				if ok {
					want = append(want, uint64(i+1))
				}
			}
			require.Equal(t, want, selected(t, r.bus, s))
		})
	}
}

func TestSpanFindsTheSequencesOfMomentsAndRefusesWhatIsNotThere(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	storeEvents(r, 20, 0)
	stream, err := r.bus.JetStream().Stream(t.Context(), bus.StreamEvents)
	require.NoError(t, err)
	require.NoError(t, stream.DeleteMsg(t.Context(), 1))
	require.NoError(t, stream.DeleteMsg(t.Context(), 7))
	at := func(s uint64) bus.Point {
		m, err := r.bus.MessageAt(t.Context(), bus.StreamEvents, s)
		require.NoError(t, err)
		return bus.Point{Time: m.Time}
	}
	between := at(10)
	between.Time = between.Time.Add(1)
	seq := func(s uint64) bus.Point { return bus.Point{Sequence: s} }
	for name, c := range map[string]struct {
		from, until bus.Point
		first, last uint64
		problem     string
	}{
		"all":              {first: 2, last: 20},
		"sequences":        {from: seq(5), until: seq(9), first: 5, last: 9},
		"a gap":            {from: seq(7), until: seq(7), first: 7, last: 7},
		"moments":          {from: at(5), until: at(9), first: 5, last: 9},
		"between messages": {from: between, until: between, first: 11, last: 10},
		"long ago":         {from: bus.Point{Time: time.Unix(0, 0)}, first: 2, last: 20},
		"all long ago":     {until: bus.Point{Time: time.Unix(0, 0)}, first: 2, last: 1},
		"beyond the end":   {from: seq(21), problem: "sequence 21 is beyond the end: CIM_EVENTS holds 2 ("},
		"until beyond it":  {until: seq(99), problem: "sequence 99 is beyond the end"},
		"expired":          {from: seq(1), problem: "sequence 1 has expired: CIM_EVENTS holds 2 ("},
		"the future":       {from: bus.Point{Time: time.Now().Add(time.Hour)}, problem: "is in the future"},
	} {
		t.Run(name, func(t *testing.T) {
			span, err := r.bus.Span(t.Context(), bus.StreamEvents, c.from, c.until)
			if c.problem != "" {
				var ranged *bus.RangeError
				require.ErrorAs(t, err, &ranged)
				require.ErrorContains(t, err, c.problem)
				return
			}
			require.NoError(t, err)
			require.Equal(t, bus.Span{Stream: bus.StreamEvents, First: c.first, Last: c.last}, span)
		})
	}
}

func TestScanReadsEveryMessageOnceWhateverItsHeadersSay(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	forged := []nats.Header{
		{"Status": {"408"}, "Description": {"Request Timeout"}}, {"Status": {"409"}, "Description": {"Consumer Deleted"}},
		{"Status": {"100"}, "Description": {"Idle Heartbeat"}}, {"Nats-Pending-Messages": {"7"}, "Status": {"404"}}, {"Nats-Sequence": {"1"}}, nil,
	}
	const n = 9000 // more than the requests under way can bring
	for i := range n {
		r.publish(&nats.Msg{Subject: "cim.acme.web.X", Header: forged[i%len(forged)]})
	}
	next := uint64(1)
	for m, err := range r.bus.Scan(t.Context(), bus.Scan{Stream: bus.StreamEvents}) {
		require.NoError(t, err)
		require.Equal(t, next, m.Sequence)
		next++
	}
	require.Equal(t, uint64(n+1), next)
	left, err := r.bus.JetStream().Stream(t.Context(), bus.StreamEvents)
	require.NoError(t, err)
	require.Zero(t, left.CachedInfo().State.Consumers, "it leaves no consumer behind")
}

func TestStoredEventSurvivesItsLine(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	bodies := []string{
		`{"id":"m1","conversationId":"c1","n":12345678901234567890, "u":"\u00e9"}`, "{\n  \"id\": \"m2\"\n}", "", "not JSON", "\xff\xfe", "null", `"text"`, "[1,2]", "{}\r\n",
	}
	for i, body := range bodies {
		r.publish(&nats.Msg{Subject: "cim.acme._.ODD=20NAME", Data: []byte(body), Header: nats.Header{"a": {"1", "2"}, "Nats-Msg-Id": {fmt.Sprintf("ü%d", i)}}})
	}
	n := 0
	for e, err := range r.bus.Events(t.Context(), bus.EventSelection{}) {
		require.NoError(t, err)
		line := e.AppendJSON(nil)
		require.NotContains(t, string(line), "\n")
		back, err := bus.ReadStoredEvent(line)
		require.NoError(t, err, string(line))
		require.Equal(t, bodies[n], string(back.Data))
		require.Equal(t, e.Header, back.Header)
		require.Equal(t, []any{e.Subject, e.Sequence, e.Time, e.Name, e.ID, e.Conversation}, []any{back.Subject, back.Sequence, back.Time, back.Name, back.ID, back.Conversation})
		n++
	}
	require.Equal(t, len(bodies), n)
}

func TestScanEndsThoughWhatWasStillToComeIsGone(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	const n = 9000
	for range n {
		r.publish(&nats.Msg{Subject: "cim.acme.web.X"})
	}
	stream, err := r.bus.JetStream().Stream(t.Context(), bus.StreamEvents)
	require.NoError(t, err)
	read := 0
	for _, err := range r.bus.Scan(r.within(time.Minute), bus.Scan{Stream: bus.StreamEvents}) {
		require.NoError(t, err)
		if read++; read == 1 {
			require.NoError(t, stream.Purge(t.Context()))
		}
	}
	require.Less(t, read, n, "some were gone before they were asked for")
}
