// Package cim reads and writes CIM events, the JSON documents a contact centre's services exchange about a conversation.
//
// Only what routing needs is decoded, in one pass over the bytes; everything else stays as it was published, so unknown
// fields, key order, escapes and numbers above 2^53 survive. Where a key is repeated the last one wins, as with
// JavaScript's JSON.parse: a check made here must see what an agent's desk will see.
//
// Nothing in the package keeps state; all of it is safe for concurrent use, an [Event] as long as nobody writes to it.
package cim

import (
	"time"
	"unicode/utf8"
)

// Event is what routing needs of a CIM event. The strings are copies; Session and RoomInfo alias Body, and Body the
// decoded message unless the event came as a JSON string.
type Event struct {
	// ID is the event's id: 24 hex digits, a UUID or anything else that is not empty.
	ID string
	// Name is the event's name, an open set; see the constants for the known ones.
	Name string
	// Type is carried and never routed on; empty if it is no string.
	Type string
	// Time is the event's timestamp in UTC, zero if it has none that can be read.
	Time time.Time
	// Conversation is the id of the conversation, empty if none was found.
	Conversation string
	// Channel is the channel type's name as spelled, empty if none was found.
	Channel string
	// Body is the event object's own bytes.
	Body []byte
	// Session is the channel session object, nil if the event has none.
	Session []byte
	// RoomInfo is the value of roomInfo, nil if the event has none.
	RoomInfo []byte
}

// Decode reads a published body: the bare event object, or the wrapper {"cimEvent":{…},"conversationId":"…"}, in which
// cimEvent may also be a JSON string and topicId may stand for conversationId. The argument conversation is the value of
// the Cim-Conversation-Id header, empty if there is none.
//
// The conversation is the first non-empty string of: the argument; the wrapper's conversationId and topicId; the
// event's; those of the channel session of the event, of its data, of data.header. That none is found is no error here,
// see [Event.RequireConversation].
//
// Every error is an [*Error]. The event is returned with it as far as it could be read: a body that is not JSON gives
// only the argument's conversation, one without an id gives everything else.
func Decode(body []byte, conversation string) (Event, error) {
	e := Event{Conversation: conversation}
	err := e.decode(body)
	return e, err
}

func (e *Event) decode(body []byte) error {
	if !utf8.Valid(body) {
		return notUTF8(body)
	}
	var top, inner fields
	if err := top.document(body, "body", &inner); err != nil {
		return err
	}
	if top.cimEvent == nil {
		return top.fill(e)
	}
	e.Conversation = first(e.Conversation, top.conversation, top.topic)
	switch kind := top.cimEvent.kind(); kind {
	case '{':
		return inner.fill(e)
	case '"':
		var published fields
		if err := published.document(top.cimEvent.unquote(), "cimEvent", nil); err != nil {
			return err
		}
		return published.fill(e)
	default:
		return notAnEvent("cimEvent", kind)
	}
}

// RequireConversation returns an [*Error] with [ReasonNoConversation] if the event belongs to no conversation.
func (e *Event) RequireConversation() error {
	if e.Conversation != "" {
		return nil
	}
	return &Error{
		Reason: ReasonNoConversation, Field: "conversationId", Problem: "is missing",
		Remedy: "set it in the event, in the wrapper, in the channel session, or in the header Cim-Conversation-Id",
	}
}

// Status is the state of the channel session: a string, or the name in an object; empty if there is none.
func (e *Event) Status() string {
	status, _ := e.sessionProperties()
	return status
}

// ListID is the id of the pull list the conversation waits in: routingObjectId of the channel's routing policy where its
// routingMode is PULL; empty otherwise.
func (e *Event) ListID() string {
	_, listID := e.sessionProperties()
	return listID
}

// sessionProperties reads both in one pass; a delivery needs both.
func (e *Event) sessionProperties() (status, listID string) {
	s := scanner{data: e.Session}
	if s.peek() != '{' {
		return "", ""
	}
	var state, policy value
	for more := s.open('}'); more; more = s.more('}') {
		switch string(s.key()) {
		case "state":
			state = s.value()
		case "channel":
			policy = s.find("channelConfig", "routingPolicy")
		default:
			s.skip()
		}
	}
	if lookup(policy, "routingMode").text() == "PULL" {
		listID = lookup(policy, "routingObjectId").text()
	}
	return stateName(state), listID
}

// stateName reads a state in both forms of the platform: a string, or an object with a name.
func stateName(state value) string {
	if state.kind() == '{' {
		return lookup(state, "name").text()
	}
	return state.text()
}
