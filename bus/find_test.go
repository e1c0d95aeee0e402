package bus_test

import (
	"fmt"
	"iter"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/subjects"
)

func eventSequences(t require.TestingT, events iter.Seq2[bus.StoredEvent, error]) []uint64 {
	out := []uint64{}
	for e, err := range events {
		require.NoError(t, err)
		out = append(out, e.Sequence)
	}
	return out
}

// Hostile names are names like others.
var findNames = struct{ tenants, channels, events, conversations []string }{
	[]string{"acme", "a.b *>", "ünïcode\x1b[31m"}, []string{"", "web", "cx voice"}, []string{"AGENT_MESSAGE", "AGENT_>", "BOT*", "日本"}, []string{"", "c1", "c.*", "c 3"},
}

func TestASelectionFindsWhatAModelOfItFindsInEitherOrder(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	type stored struct {
		name             subjects.Event
		conversation, id string
		body             string
	}
	var model []stored
	draw := func(i int, of []string) string { return of[i%len(of)] }
	for i := range 150 {
		s := stored{
			name:         subjects.Event{Tenant: draw(i, findNames.tenants), Channel: draw(i/3, findNames.channels), Event: draw(i/2, findNames.events)},
			conversation: draw(i/5, findNames.conversations), id: fmt.Sprintf("m%d", i/2),
		}
		subject, err := s.name.Subject()
		require.NoError(t, err)
		s.body = fmt.Sprintf(`{"id":%q,"conversationId":%q,"n":%d,"text":"colour %d"}`, s.id, s.conversation, i, i%7)
		r.publish(&nats.Msg{Subject: subject, Data: []byte(s.body)})
		model = append(model, s)
		if i < 100 {
			index, err := subjects.Index{Tenant: s.name.Tenant, Conversation: s.conversation}.Subject()
			require.NoError(t, err)
			r.publish(&nats.Msg{Subject: index, Header: sequenceHeader(uint64(i + 1))})
		}
	}
	all, err := r.bus.Span(t.Context(), bus.StreamEvents, bus.Point{}, bus.Point{})
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		one := func(label string, of []string) subjects.Match {
			if rapid.Bool().Draw(t, label+"?") {
				return subjects.Any
			}
			return subjects.Is(rapid.SampledFrom(of).Draw(t, label))
		}
		text := fmt.Sprintf("colour %d", rapid.IntRange(0, 9).Draw(t, "text"))
		s := bus.EventSelection{
			Tenant: one("tenant", findNames.tenants), Channel: one("channel", findNames.channels), Conversation: one("conversation", findNames.conversations),
			Events: rapid.SampledFrom([][]string{nil, {"BOT[*]"}, {"AGENT_*"}, {"AGENT_MESSAGE", "日本"}, {"*"}, {"AGENT_[>]", "?本"}}).Draw(t, "events"),
			ID:     rapid.SampledFrom([]string{"", "", "m3", "m70", "none"}).Draw(t, "id"),
		}
		if rapid.Bool().Draw(t, "by text") {
			s.Where = func(e *bus.StoredEvent) bool { return bus.Content{Text: text}.In(e.Data) }
		}
		span := bus.Span{Stream: bus.StreamEvents, First: rapid.Uint64Range(1, 150).Draw(t, "first")}
		span.Last = rapid.Uint64Range(span.First, 150).Draw(t, "last")
		if rapid.Bool().Draw(t, "all") {
			span = all
		}
		want := []uint64{}
		for i, m := range model {
			name := len(s.Events) == 0
			for _, pattern := range s.Events {
				ok, err := path.Match(pattern, m.name.Event)
				require.NoError(t, err)
				name = name || ok
			}
			if n := uint64(i + 1); n < span.First || n > span.Last || !name {
				continue
			}
			if s.Tenant.Matches(m.name.Tenant) && s.Channel.Matches(m.name.Channel) && s.Conversation.Matches(m.conversation) &&
				(s.ID == "" || s.ID == m.id) && (s.Where == nil || strings.Contains(m.body, text)) {
				want = append(want, uint64(i+1))
			}
		}
		require.Equal(t, want, eventSequences(t, r.bus.EventsIn(r.t.Context(), s, span)), "%+v %+v", s, span)
		slices.Reverse(want)
		require.Equal(t, want, eventSequences(t, r.bus.EventsBackIn(r.t.Context(), s, span)), "%+v %+v", s, span)
	})
}

func TestTheNewestComeFirstHoweverMuchThereIs(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	body := make([]byte, 900<<10) // more than what is kept of one part, many times
	small := 0
	for i := range 5000 {
		m := &nats.Msg{Subject: "cim.acme.web.X", Data: body[:i%3]}
		if i > 4000 && i%20 == 0 {
			m.Data = body
		}
		if small++; small%7 == 0 {
			m.Subject = "cim.other.web.X"
		}
		_, err := r.js.PublishMsgAsync(m)
		require.NoError(t, err)
	}
	<-r.js.PublishAsyncComplete()
	last := uint64(5001)
	for e, err := range r.bus.EventsBackIn(t.Context(), bus.EventSelection{}, bus.Span{Stream: bus.StreamEvents, First: 1, Last: 5000}) {
		require.NoError(t, err)
		require.Equal(t, last-1, e.Sequence)
		last = e.Sequence
	}
	require.Equal(t, uint64(1), last)
}

func TestContentIsFoundAsItIsMeant(t *testing.T) {
	const event = `{"id":"m1","name":"X","big":9007199254740993,"pi":3.140,"yes":true,"none":null,"a.b":"dot",` +
		`"list":[{"k":"colour","v":"blue"},{"k":"size","v":"7=8"}],"esc":"caf\u00e9 \"q\"","data":{"body":{"text":"hello","n":12}}}`
	wrapped := `{"cimEvent":` + event + `,"conversationId":"c1"}`
	text := fmt.Sprintf(`{"cimEvent":%q,"conversationId":"c1"}`, `{"id":"m1","name":"X","data":{"n":12}}`)
	for _, c := range []struct {
		path string
		body string
		in   bool
	}{
		{"id=m1", event, true}, {"id=m2", event, false}, {"id=m1", wrapped, true}, {"cimEvent.id=m1", wrapped, true}, {"conversationId=c1", wrapped, true},
		{"data.n=12", text, true}, {"data.n=13", text, false},
		{"big=9007199254740993", event, true}, {"big=9007199254740992", event, false}, {"pi=3.14", event, true}, {"pi=314e-2", event, true}, {"data.body.n=12.0", event, true},
		{"yes=true", event, true}, {"yes=false", event, false}, {"none=null", event, true}, {"gone=null", event, false}, {"gone=", event, false}, {`a\.b=dot`, event, true},
		{"list.#.v=blue", event, true}, {"list.#.v=7=8", event, true}, {"list.#.v=red", event, false}, {`list.#(k=="size").v=7=8`, event, true}, {"list.#=2", event, true},
		{"list.1.k=size", event, true}, {"esc=café \"q\"", event, true}, {"data.body={\"text\":\"hello\",\"n\":12}", event, true}, {"d*.body.text=hello", event, true},
		{"id=m1", `{"id":"m1"`, false}, {"id=m1", "", false}, {"id=m1", "[]", false}, {"0=1", "[1]", true},
	} {
		v, err := bus.ParseJSONValue(c.path)
		require.NoError(t, err)
		require.Equal(t, c.in, bus.Content{Values: []bus.JSONValue{v}}.In([]byte(c.body)), "%s in %s", c.path, c.body)
	}
	for text, in := range map[string]bool{"": true, "hello": true, "café": true, `"q"`: true, `\"q\"`: true, "esc": true, "hullo": false, "cafe": false} {
		require.Equal(t, in, bus.Content{Text: text}.In([]byte(event)), text)
	}
	require.False(t, bus.Content{Text: "x"}.In([]byte(`{"\u`)), "what is no JSON is bytes")
	for _, bad := range []string{"", "id", "=x", `list.#(k=="size").v`} {
		_, err := bus.ParseJSONValue(bad)
		require.ErrorContains(t, err, "write PATH=VALUE", bad)
	}
}

func FuzzContentTakesAnyBodyAndPath(f *testing.F) {
	f.Add(`a.#(b=="c").d=1`, `{"a":[{"b":"c","d":1}]}`)
	f.Add(`@flatten.0="x"`, `[[1,`)
	f.Add(`..#=1`, "{}\n{}")
	f.Fuzz(func(t *testing.T, path, body string) {
		v, err := bus.ParseJSONValue(path)
		if err == nil {
			bus.Content{Text: v.Value, Values: []bus.JSONValue{v}}.In([]byte(body))
		}
	})
}

func TestDeliveriesAreFoundByWhatIsAskedOfThemInEitherOrder(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	for i := range uint64(40) {
		h := sequenceHeader(i + 1)
		h.Set(bus.HeaderEventName, []string{"AGENT_MESSAGE", "BOT_MESSAGE"}[i%2])
		h.Set(bus.HeaderEventID, fmt.Sprintf("m%d", i+1))
		h.Set(bus.HeaderChannel, []string{"WEB", "FACEBOOK"}[i/2%2])
		r.publish(&nats.Msg{Subject: deliverySubject([]string{"ada", "ben"}[i/4%2], "onCimEvent", "c1"), Header: h})
	}
	r.publish(&nats.Msg{Subject: deliverySubject("ada", "taskRequest", ""), Data: []byte("{\n}")})
	span, err := r.bus.Span(t.Context(), bus.StreamDeliveries, bus.Point{}, bus.Point{})
	require.NoError(t, err)
	for name, c := range map[string]struct {
		s    bus.DeliverySelection
		want []uint64
	}{
		"agent, name, channel": {bus.DeliverySelection{Agent: subjects.Is("ben"), Events: []string{"BOT_*"}, Channel: subjects.Is("web")}, []uint64{6, 14, 22, 30, 38}},
		"id":                   {bus.DeliverySelection{ID: "m7"}, []uint64{7}},
		"type":                 {bus.DeliverySelection{Type: subjects.Is("taskRequest")}, []uint64{41}},
		"type as a name":       {bus.DeliverySelection{Events: []string{"task*"}}, []uint64{41}},
		"no channel":           {bus.DeliverySelection{Channel: subjects.None}, []uint64{41}},
		"no conversation":      {bus.DeliverySelection{Conversation: subjects.None}, []uint64{41}},
		"nobody":               {bus.DeliverySelection{Agent: subjects.Is("cyd")}, []uint64{}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, back := range []bool{false, true} {
				got := []uint64{}
				for d, err := range r.bus.DeliveriesIn(t.Context(), c.s, span, back) {
					require.NoError(t, err)
					require.Equal(t, d.Sequence, d.Position.Sequence)
					point, err := r.bus.Span(t.Context(), bus.StreamDeliveries, bus.Point{Position: d.Position}, bus.Point{})
					require.NoError(t, err, "its position is one")
					require.Equal(t, d.Sequence, point.First)
					got = append(got, d.Sequence)
				}
				if back {
					slices.Reverse(got)
				}
				require.Equal(t, c.want, got)
			}
		})
	}
}
