package bustest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"hash/fnv"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"github.com/cimbus/cimbus/subjects"
)

// maxDepth is how deep a body may be nested.
const maxDepth = 512

// decodeEvent reads a message of CIM_EVENTS as the design says, in its own way.
func decodeEvent(subject string, header nats.Header, body []byte, sequence uint64) Event {
	e := Event{Sequence: sequence}
	named, err := subjects.ParseEvent(subject)
	if err != nil {
		tokens := strings.Split(subject, ".")
		e.Tenant, e.Channel, e.Name = readable(tokens[1]), readable(tokens[2]), readable(tokens[3])
		e.Invalid = "subject"
		return e
	}
	e.Tenant, e.Channel, e.Name = named.Tenant, named.Channel, named.Event
	var name string
	var data json.RawMessage
	e.Conversation = last(header, "Cim-Conversation-Id")
	e.Invalid = e.read(body, &name, &data)
	if _, err := subjects.Encode(e.Conversation); err != nil {
		e.Conversation = ""
		e.Invalid = cmp.Or(e.Invalid, "conversation")
	}
	if e.Invalid == "" && name != e.Name {
		e.Invalid = "subject of another event"
	}
	if e.Invalid == "" {
		e.Invalid = e.readEffect(data)
	}
	return e
}

// read fills id and conversation and returns name and data, or why there is no
// event in the body; the conversation is looked for as long as there is JSON.
func (e *Event) read(body []byte, name *string, data *json.RawMessage) (invalid string) {
	event, ok := document(body)
	if !ok {
		return "not a JSON object"
	}
	if wrapped, is := event["cimEvent"]; is {
		e.Conversation = cmp.Or(e.Conversation, str(event["conversationId"]), str(event["topicId"]))
		if s := str(wrapped); s != "" {
			event, ok = document([]byte(s))
		} else {
			event = object(wrapped)
		}
		if !ok || event == nil {
			return "no JSON object in cimEvent"
		}
	}
	*name, e.ID, *data = str(event["name"]), str(event["id"]), event["data"]
	e.Conversation = cmp.Or(e.Conversation, str(event["conversationId"]), str(event["topicId"]))
	for _, path := range [][]string{{"channelSession"}, {"data", "channelSession"}, {"data", "header", "channelSession"}} {
		if e.Conversation == "" {
			session := object(at(event, path...))
			e.Conversation = cmp.Or(str(session["conversationId"]), str(session["topicId"]))
		}
	}
	switch {
	case *name == "":
		return "no name"
	case e.ID == "":
		return "no id"
	case e.Conversation == "":
		return "no conversation"
	}
	return ""
}

// readEffect reads what an event does to memberships.
func (e *Event) readEffect(raw json.RawMessage) (invalid string) {
	data := object(raw)
	var participant map[string]json.RawMessage
	switch e.Name {
	case eventJoin, eventLeave:
		participant = object(data["agentParticipant"])
	case eventRole:
		participant = object(data["conversationParticipant"])
	case eventState:
		e.Closed = cmp.Or(str(data["state"]), str(object(data["state"])["name"])) == stateClosed
		return ""
	default:
		return ""
	}
	e.Agent = cmp.Or(str(at(participant, "participant", "keycloakUser", "id")), str(at(participant, "participant", "id")))
	e.Role = str(participant["role"])
	if _, err := subjects.Encode(e.Agent); err != nil {
		return "no participant"
	}
	return ""
}

// eventIn is the event's own bytes in a body.
func eventIn(body []byte) []byte {
	event, _ := document(body)
	wrapped, is := event["cimEvent"]
	if !is {
		return bytes.TrimSpace(body)
	}
	if s := str(wrapped); s != "" {
		wrapped = []byte(s)
	}
	return bytes.TrimSpace(wrapped)
}

// document reads a whole body or a cimEvent string; a body that is no UTF-8 or
// nested too deep is as little JSON as one that breaks off.
func document(raw []byte) (map[string]json.RawMessage, bool) {
	if !utf8.Valid(raw) || depth(raw) > maxDepth {
		return nil, false
	}
	o := object(raw)
	return o, o != nil
}

// object is nil for whatever is no object. Keys are exact, which structs would
// not make them, and the last of a repeated key wins.
func object(raw json.RawMessage) map[string]json.RawMessage {
	var o map[string]json.RawMessage
	if json.Unmarshal(raw, &o) != nil {
		return nil
	}
	return o
}

// str is "" for whatever is no string.
func str(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

func at(o map[string]json.RawMessage, path ...string) json.RawMessage {
	for _, key := range path[:len(path)-1] {
		o = object(o[key])
	}
	return o[path[len(path)-1]]
}

// depth is how deep brackets are nested outside of strings.
func depth(raw []byte) int {
	deepest, now, inString := 0, 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

// readable names a token of a subject that is not of the grammar: by itself,
// or by a hash where it is too long for a name.
func readable(token string) string {
	if _, err := subjects.Encode(token); err == nil {
		return token
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(token)) // a hash takes everything
	return "unreadable-" + strconv.FormatUint(h.Sum64(), 36)
}

// last is a header's last value: the server adds its own behind a forged one.
func last(header nats.Header, key string) string {
	if v := header[key]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}
