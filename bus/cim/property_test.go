package cim

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// routing is what a desk's JSON.parse would find in an event.
type routing struct{ ID, Name, Type, Conversation, Channel, Session, Status, ListID, Room string }

func routed(e *Event) routing {
	return routing{e.ID, e.Name, e.Type, e.Conversation, e.Channel, canonical(e.Session), e.Status(), e.ListID(), canonical(e.RoomInfo)}
}

// route finds the same by decoding everything with encoding/json, where the last of a repeated key wins.
func route(t require.TestingT, body []byte, conversation string) routing {
	var all any
	require.NoError(t, json.Unmarshal(body, &all))
	wrapper, event := map[string]any(nil), all
	if inner, ok := at(all, "cimEvent"); ok {
		wrapper, event = all.(map[string]any), inner
		if text, ok := inner.(string); ok {
			require.NoError(t, json.Unmarshal([]byte(text), &event))
		}
	}
	own, _ := at(event, "channelSession")
	ofData, _ := at(event, "data", "channelSession")
	ofHeader, _ := at(event, "data", "header", "channelSession")
	r := routing{ID: text(event, "id"), Name: text(event, "name"), Type: text(event, "type"), Conversation: conversation}
	for _, in := range []any{wrapper, event, own, ofData, ofHeader} {
		for _, key := range []string{"conversationId", "topicId"} {
			if r.Conversation == "" {
				r.Conversation = text(in, key)
			}
		}
	}
	for _, session := range []any{own, ofData, ofHeader} {
		if r.Channel == "" {
			r.Channel = text(session, "channel", "channelType", "name")
		}
		if _, ok := session.(map[string]any); ok && r.Session == "" {
			r.Session = marshal(session)
			r.Status = text(session, "state") + text(session, "state", "name")
			if text(session, "channel", "channelConfig", "routingPolicy", "routingMode") == "PULL" {
				r.ListID = text(session, "channel", "channelConfig", "routingPolicy", "routingObjectId")
			}
		}
	}
	if room, _ := at(event, "roomInfo"); room != nil {
		r.Room = marshal(room)
	}
	return r
}

func at(in any, path ...string) (any, bool) {
	for _, key := range path {
		object, _ := in.(map[string]any) // of nil, nothing is found
		found, ok := object[key]
		if !ok {
			return nil, false
		}
		in = found
	}
	return in, true
}

func text(in any, path ...string) string {
	found, _ := at(in, path...)
	text, _ := found.(string)
	return text
}

// canonical brings JSON into one form for all spellings of the same value.
func canonical(raw []byte) string {
	if raw == nil {
		return ""
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return err.Error()
	}
	return marshal(v)
}

func marshal(v any) string {
	out, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// jsonText draws the text of a JSON value, rich in the routing keys, in repeated and in escaped ones.
func jsonText(t *rapid.T, depth int) string {
	kinds := []string{"string", "string", "number", "literal", "object", "array"}
	if depth == 0 {
		kinds = kinds[:4]
	}
	switch rapid.SampledFrom(kinds).Draw(t, "kind") {
	case "string":
		return stringText(t, rapid.SampledFrom([]string{"", "PULL", "a", "ä\"\\\n\u2028", "😀"}).Draw(t, "string"))
	case "number":
		return rapid.SampledFrom([]string{"0", "-0", "1.5e3", "9007199254740993", "-1E-2", "1700000000123"}).Draw(t, "number")
	case "literal":
		return rapid.SampledFrom([]string{"true", "false", "null", " null\n"}).Draw(t, "literal")
	case "array":
		items := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string { return jsonText(t, depth-1) }), 0, 3).Draw(t, "items")
		return "[" + strings.Join(items, ",") + "]"
	}
	return objectText(t, depth, nil)
}

// objectText draws an object of ordinary members and those given, in any order, each of them never, once or several times.
func objectText(t *rapid.T, depth int, members map[string]func(*rapid.T) string) string {
	keys := rapid.SliceOfN(rapid.SampledFrom([]string{"id", "name", "state", "conversationId", "topicId", "", "noise"}), 0, 4).Draw(t, "keys")
	for _, key := range slices.Sorted(maps.Keys(members)) {
		keys = append(keys, slices.Repeat([]string{key}, rapid.SampledFrom([]int{1, 1, 2, 3, 0}).Draw(t, "times"))...)
	}
	keys = rapid.Permutation(keys).Draw(t, "order")
	for i, key := range keys {
		text := stringText(t, key) + rapid.SampledFrom([]string{":", " : ", ":\t"}).Draw(t, "colon")
		if draw := members[key]; draw != nil && rapid.IntRange(0, 5).Draw(t, "expected") < 5 {
			keys[i] = text + draw(t)
		} else {
			keys[i] = text + jsonText(t, max(depth-1, 0))
		}
	}
	return "{" + strings.Join(keys, " ,") + "}"
}

// stringText draws one of the spellings of a string.
func stringText(t *rapid.T, s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r < 0x10000 && rapid.IntRange(0, 9).Draw(t, "escape") == 0:
			fmt.Fprintf(&b, rapid.SampledFrom([]string{`\u%04x`, `\u%04X`}).Draw(t, "case"), r)
		case r == '"' || r == '\\' || r == '/':
			b.WriteString(`\` + string(r))
		case r == '\n':
			b.WriteString(`\n`)
		case r == '😀' && rapid.Bool().Draw(t, "pair"):
			b.WriteString(`\ud83d\uDE00`)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func objectOf(depth int, members map[string]func(*rapid.T) string) func(*rapid.T) string {
	return func(t *rapid.T) string { return objectText(t, depth, members) }
}

// eventText draws an event, or a wrapper around one.
func eventText(t *rapid.T) string {
	type of = map[string]func(*rapid.T) string
	anything := func(t *rapid.T) string { return jsonText(t, 2) }
	mode := func(t *rapid.T) string { return stringText(t, "PULL") }
	session := objectOf(2, of{"channel": objectOf(1, of{
		"channelType":   objectOf(1, nil),
		"channelConfig": objectOf(1, of{"routingPolicy": objectOf(1, of{"routingMode": mode, "routingObjectId": mode})}),
	})})
	data := objectOf(1, of{"channelSession": session, "header": objectOf(1, of{"channelSession": session})})
	event := objectOf(1, of{"channelSession": session, "data": data, "roomInfo": anything, "type": anything})
	switch rapid.IntRange(0, 3).Draw(t, "form") {
	case 0:
		return objectText(t, 1, of{"cimEvent": event})
	case 1:
		return `{"cimEvent":` + marshal(event(t)) + `}`
	}
	return event(t)
}

// A check made here must see what a desk's JSON.parse will see.
func TestRoutingEqualsAFullDecodeWhereTheLastKeyWins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body := eventText(t)
		conversation := rapid.SampledFrom([]string{"", "", "header"}).Draw(t, "conversation")
		require.True(t, json.Valid([]byte(body)), body)
		e, err := Decode([]byte(body), conversation)
		var invalid *Error
		if err != nil {
			require.ErrorAs(t, err, &invalid)
			require.Contains(t, []string{ReasonNoName, ReasonNoID, ReasonNotAnEvent, ReasonNotJSON}, invalid.Reason)
			if invalid.Reason == ReasonNotJSON || invalid.Reason == ReasonNotAnEvent {
				require.Equal(t, "cimEvent", invalid.Field)
				return
			}
		}
		require.Equal(t, route(t, []byte(body), conversation), routed(&e), body)
	})
}

func TestADeliveryIsValidWhateverTheIdsContain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hostile := rapid.OneOf(rapid.String(), rapid.StringMatching(`["\\{},:\x00-\x1f]*`),
			rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
		id, conversation := hostile.Draw(t, "id"), hostile.Draw(t, "conversation")
		body := `{"name":"X","id":` + marshal(id+"-") + `,"channelSession":{"state":` + marshal(id) + `}}`
		e, err := Decode([]byte(body), conversation)
		require.NoError(t, err)
		delivery := AppendDelivery(nil, &e, conversation, true)
		require.True(t, json.Valid(delivery), "%s", delivery)
		require.Equal(t, body, string(field(t, delivery, "cimEvent")))
		require.Equal(t, string([]rune(conversation)), unmarshalText(t, field(t, delivery, "conversationId")))
		require.Equal(t, e.ID, unmarshalText(t, field(t, delivery, "id")))
	})
}
