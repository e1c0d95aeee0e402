package bus_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// answer is every answer's end in one.
type answer struct {
	Last, Upto, From, To, Reason string
	More, Expired                bool
	Count                        uint64
	Error                        *bus.ControlError
}

func (c *caller) page(verb, body string) ([]*nats.Msg, answer) {
	c.t.Helper()
	messages, end := c.ask(verb, body)
	var a answer
	require.NoError(c.t, json.Unmarshal([]byte(end), &a), end)
	return messages, a
}

func streamSequence(t testing.TB, m *nats.Msg) uint64 {
	t.Helper()
	require.Len(t, m.Header["Nats-Sequence"], 1)
	s, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
	require.NoError(t, err)
	return s
}

func TestPagesOfAResumeMakeUpTheWhole(t *testing.T) {
	for _, limits := range []string{`"max":1`, `"max":7`, `"max":256`, `"max_bytes":1`, `"max_bytes":300,"max":100`, `"max":3,"max_bytes":4194304`} {
		t.Run(limits, func(t *testing.T) {
			r := newRoad(t, bus.StreamOptions{})
			var want []uint64
			for s := range uint64(40) {
				if q := r.deliver([]string{"ada", "ben", "ada"}[s%3], fmt.Sprint("c", s%4), s+1); s%3 != 1 {
					want = append(want, q)
				}
			}
			r.serve(bus.ControlOptions{})
			ada := r.caller("ada")
			var got []uint64
			after, more := "0", true
			for more {
				messages, end := ada.page(bus.VerbResume, fmt.Sprintf(`{"after":%q,%s}`, after, limits))
				require.Nil(t, end.Error)
				require.Equal(t, uint64(len(messages)), end.Count)
				if end.More {
					require.NotEmpty(t, messages, "a page must get on")
				} else {
					require.Equal(t, end.Upto, end.Last)
				}
				for _, m := range messages {
					got = append(got, streamSequence(t, m))
				}
				after, more = end.Last, end.More
			}
			require.Equal(t, want, got)
			_, check := ada.page(bus.VerbCheck, fmt.Sprintf(`{"after":%q}`, after))
			require.Zero(t, check.Count)
		})
	}
}

func TestAResumedDeliveryLooksLikeItsLiveCopy(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.serve(bus.ControlOptions{})
	ada := r.caller("ada")
	live, err := ada.nc.SubscribeSync("cim-live.acme.ada.>")
	require.NoError(t, err)
	require.NoError(t, ada.nc.Flush())
	subject := deliverySubject("ada", "taskRequest", "")
	r.publish(&nats.Msg{Subject: subject, Data: []byte(`{"x":1}`), Header: nats.Header{
		"traceparent": {"00-1"}, "Nats-Sequence": {"77"}, "Nats-Subject": {"forged"}, "Cim-Status": {"end"}, "Cim-Event-Id": {"a", "b"},
	}})
	want, err := live.NextMsg(5 * time.Second)
	require.NoError(t, err)
	messages, _ := ada.page(bus.VerbResume, `{"after":0}`)
	require.Len(t, messages, 1)
	got := messages[0]
	require.Equal(t, want.Data, got.Data)
	for key, values := range want.Header {
		switch key {
		case "Cim-Status", "Nats-Last-Sequence": // of answers alone; of the live copy alone
			require.NotContains(t, got.Header, key)
		case "Nats-Sequence", "Nats-Subject":
			require.Equal(t, values[len(values)-1:], got.Header[key])
		case "Nats-Time-Stamp":
			a, err := time.Parse(time.RFC3339Nano, values[0])
			require.NoError(t, err)
			b, err := time.Parse(time.RFC3339Nano, got.Header.Get(key))
			require.NoError(t, err)
			require.True(t, a.Equal(b))
		default:
			require.Equal(t, values, got.Header[key], key)
		}
	}
	require.Equal(t, subject, got.Header.Get("Nats-Subject"))
}

func TestCheckCountsWhatLiesBetween(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.serve(bus.ControlOptions{})
	ada := r.caller("ada")
	_, a := ada.page(bus.VerbCheck, "")
	require.Zero(t, a.Count)
	empty := a.Upto
	for s := range uint64(30) {
		r.deliver([]string{"ada", "ben", "cleo"}[s%3], "c", s+1)
	}
	for after, want := range map[string]uint64{`"` + empty + `"`: 10, `0`: 10, `1`: 9, `"1"`: 9, `28`: 0, `27`: 1, `30`: 0} {
		_, a := ada.page(bus.VerbCheck, `{"after":`+after+`}`)
		require.Equal(t, want, a.Count, "after %s", after)
		upto, err := bus.ParsePosition(a.Upto)
		require.NoError(t, err)
		require.Equal(t, uint64(30), upto.Sequence)
	}
	_, a = ada.page(bus.VerbCheck, "{}")
	require.Zero(t, a.Count)
}

// deliveries is the configuration of CIM_DELIVERIES as opened.
func (r *road) deliveries() jetstream.StreamConfig {
	r.t.Helper()
	s, err := r.js.Stream(r.within(time.Minute), bus.StreamDeliveries)
	require.NoError(r.t, err)
	return s.CachedInfo().Config
}

func TestAPositionThatMayHideALossHasExpired(t *testing.T) {
	first := func(r *road, n int) {
		s, err := r.js.Stream(r.within(time.Minute), bus.StreamDeliveries)
		require.NoError(r.t, err)
		require.NoError(r.t, s.Purge(r.within(time.Minute), jetstream.WithPurgeSequence(uint64(n))))
	}
	recreate := func(r *road) {
		config := r.deliveries()
		require.NoError(r.t, r.js.DeleteStream(r.within(time.Minute), bus.StreamDeliveries))
		_, err := r.js.CreateStream(r.within(time.Minute), config)
		require.NoError(r.t, err)
	}
	for name, c := range map[string]struct {
		perSubject int64
		after      func(p bus.Position) string // of the position after the third of ten messages
		do         func(r *road)
		reason     string
		from       uint64 // sequence to resume after
		left       int    // messages after it
	}{
		"recreated":                  {do: recreate, reason: bus.ExpiredRecreated},
		"ahead of a recreated one":   {do: recreate, after: func(bus.Position) string { return "3" }, reason: bus.ExpiredAhead},
		"ahead":                      {after: func(p bus.Position) string { p.Sequence = 11; return p.String() }, reason: bus.ExpiredAhead, left: 10},
		"another message there":      {after: func(p bus.Position) string { p.Stored = p.Stored.Add(1); return p.String() }, reason: bus.ExpiredRestored, left: 10},
		"deleted behind it":          {do: func(r *road) { first(r, 6) }, reason: bus.ExpiredDeleted, from: 5, left: 5},
		"deleted behind a number":    {do: func(r *road) { first(r, 6) }, after: func(bus.Position) string { return "3" }, reason: bus.ExpiredDeleted, from: 5, left: 5},
		"all deleted":                {do: func(r *road) { first(r, 11) }, reason: bus.ExpiredDeleted, from: 10},
		"limit of one subject":       {perSubject: 5, reason: bus.ExpiredLimit, from: 3, left: 5},
		"deleted up to it":           {do: func(r *road) { first(r, 4) }},
		"the message itself deleted": {do: func(r *road) { first(r, 4) }, after: func(p bus.Position) string { return p.String() }},
		"number 0":                   {do: func(r *road) { first(r, 6) }, after: func(bus.Position) string { return "0" }},
		"number, limit of a subject": {perSubject: 5, after: func(bus.Position) string { return "6" }},
		"limit reached, who knows":   {perSubject: 7, reason: bus.ExpiredLimit, from: 3, left: 7},
		"limit not reached":          {perSubject: 8},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoad(t, bus.StreamOptions{DeliveriesPerSubject: c.perSubject})
			var stored time.Time
			for s := range uint64(10) {
				if conversation := "busy"; s > 2 {
					r.deliver("ada", conversation, s+1)
				} else {
					r.deliver("ada", "quiet", s+1)
				}
			}
			m, err := r.bus.MessageAt(t.Context(), bus.StreamDeliveries, 3)
			require.NoError(t, err)
			stored = m.Time
			r.serve(bus.ControlOptions{})
			ada := r.caller("ada")
			_, end := ada.page(bus.VerbCheck, "")
			p, err := bus.ParsePosition(end.Upto)
			require.NoError(t, err)
			p.Sequence, p.Stored = 3, stored
			after := p.String()
			if c.after != nil {
				after = c.after(p)
			}
			if c.do != nil {
				c.do(r)
			}
			_, got := ada.page(bus.VerbResume, fmt.Sprintf(`{"after":%q}`, after))
			require.Nil(t, got.Error)
			require.Equal(t, c.reason, got.Reason)
			require.Equal(t, c.reason != "", got.Expired)
			if c.reason == "" {
				return
			}
			from, err := bus.ParsePosition(got.From)
			require.NoError(t, err)
			require.Equal(t, c.from, from.Sequence)
			// Going on from there is not expired.
			messages, rest := ada.page(bus.VerbResume, fmt.Sprintf(`{"after":%q}`, got.From))
			require.False(t, rest.Expired)
			require.Len(t, messages, c.left)
		})
	}
}

func TestResumeOnAClusterIsCompleteWhatTheReplicasMayHaveSeen(t *testing.T) {
	nodes := bustest.Cluster(t, 3)
	nc, err := nodes.Connect()
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	b, err := bus.Open(t.Context(), bus.Options{Conn: nc})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close(t.Context())) })
	control, err := b.ServeControl(t.Context(), bus.ControlOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, control.Close()) })
	sub, err := nc.SubscribeSync("cim-inbox.acme.ada.*")
	require.NoError(t, err)
	ada := &caller{t: t, nc: nc, agent: "ada", inbox: "cim-inbox.acme.ada.", sub: sub}
	after := "0"
	for s := range uint64(60) {
		_, err := b.JetStream().PublishMsg(t.Context(), &nats.Msg{Subject: deliverySubject("ada", "onCimEvent", "c"), Header: sequenceHeader(s + 1)})
		require.NoError(t, err)
		_, check := ada.page(bus.VerbCheck, fmt.Sprintf(`{"after":%q}`, after))
		require.Equal(t, uint64(1), check.Count)
		messages, end := ada.page(bus.VerbResume, fmt.Sprintf(`{"after":%q}`, after))
		require.Len(t, messages, 1)
		require.Equal(t, s+1, streamSequence(t, messages[0]))
		after = end.Last
	}
}

// FuzzRequests sends bodies to every verb: each is answered exactly once, with an end that is JSON, and nothing is stored that the
// caller may not store.
func FuzzRequests(f *testing.F) {
	for _, body := range []string{
		``, `{}`, `null`, `[]`, `{"after":"0","max":3}`, `{"after":1e3}`, `{"after":"a-1-0"}`, `{"after":18446744073709551616}`, `{"conversation":"c","role":7}`,
		`{"event":{"id":"1","name":"X","conversationId":"c"}}`, `{"event":{"id":"1","name":"AGENT_SUBSCRIBED","conversationId":"mine"}}`,
		`{"event":{"cimEvent":"{\"id\":\"1\",\"name\":\"X\"}","conversationId":"theirs"}}`, `{"event":{"id":"1","name":"a.b.*","conversationId":"mine"}}`,
	} {
		for verb := range verbs {
			f.Add(verb, body)
		}
	}
	r := newRoad(f, bus.StreamOptions{})
	r.member("ada", "mine", 1, 0)
	r.deliver("ada", "mine", r.event("mine", "first"))
	r.index("mine", 1)
	r.serve(bus.ControlOptions{})
	ada := r.caller("ada")
	f.Fuzz(func(t *testing.T, verb int, body string) {
		if verb < 0 || verb >= len(verbs) {
			return
		}
		r.t, ada.t = t, t
		before := r.last(bus.StreamEvents)
		_, end := ada.ask(verbs[verb], body)
		require.True(t, json.Valid([]byte(end)), end)
		require.NotContains(t, end, bus.CodeInternal)
		if r.last(bus.StreamEvents) == before {
			return
		}
		m, err := r.bus.MessageAt(t.Context(), bus.StreamEvents, before+1)
		require.NoError(t, err)
		switch verbs[verb] {
		case bus.VerbPublish:
			require.Equal(t, "mine", bus.LastHeader(m.Header, bus.HeaderConversation))
			name, err := subjects.ParseEvent(m.Subject)
			require.NoError(t, err)
			require.False(t, cim.IsMembership(name.Event))
		case bus.VerbJoin:
			require.True(t, strings.HasSuffix(m.Subject, ".AGENT_SUBSCRIBED"))
		default:
			require.Equal(t, bus.VerbLeave, verbs[verb])
		}
	})
}
