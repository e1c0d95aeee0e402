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
func (e *Event) Status() string { return stateName(lookup(e.Session, "state")) }

// ListID is the id of the pull list the conversation waits in: routingObjectId of the channel's routing policy where its
// routingMode is PULL; empty otherwise.
func (e *Event) ListID() string {
	policy := lookup(e.Session, "channel", "channelConfig", "routingPolicy")
	if lookup(policy, "routingMode").text() != "PULL" {
		return ""
	}
	return lookup(policy, "routingObjectId").text()
}

// stateName reads a state in both forms of the platform: a string, or an object with a name.
func stateName(state value) string {
	if state.kind() == '{' {
		return lookup(state, "name").text()
	}
	return state.text()
}

// fields are the routing fields of an event object, or of a wrapper, as they stand in the bytes.
type fields struct {
	raw                           []byte
	id, name, kind, timestamp     value
	conversation, topic, roomInfo value
	own, ofData, ofHeader         session
	cimEvent                      value
}

// session is what routing needs of a channel session.
type session struct {
	raw                          []byte
	conversation, topic, channel value
}

// document reads a whole document, which must be one object. The field is what it is called in errors.
func (f *fields) document(text []byte, field string, inner *fields) error {
	s := scanner{data: text}
	kind := s.peek()
	if kind == '{' {
		f.scan(&s, inner)
	} else {
		s.skip()
	}
	if err := s.end(field); err != nil {
		return err
	}
	if kind != '{' {
		return notAnEvent(field, kind)
	}
	return nil
}

// scan reads the object at s. If inner is given, an object under the key cimEvent is read into it; the value is kept in
// f.cimEvent in any case.
func (f *fields) scan(s *scanner, inner *fields) {
	start := s.pos
	for more := s.open('}'); more; more = s.more('}') {
		switch string(s.key()) {
		case "id":
			f.id = s.value()
		case "name":
			f.name = s.value()
		case "type":
			f.kind = s.value()
		case "timestamp":
			f.timestamp = s.value()
		case "conversationId":
			f.conversation = s.value()
		case "topicId":
			f.topic = s.value()
		case "roomInfo":
			f.roomInfo = s.value()
		case "channelSession":
			f.own = s.session()
		case "data":
			f.scanData(s)
		case "cimEvent":
			f.scanWrapped(s, inner)
		default:
			s.skip()
		}
	}
	f.raw = s.data[start:s.pos]
}

func (f *fields) scanWrapped(s *scanner, inner *fields) {
	if inner == nil || s.peek() != '{' {
		f.cimEvent = s.value()
		return
	}
	*inner = fields{}
	inner.scan(s, nil)
	f.cimEvent = inner.raw
}

func (f *fields) scanData(s *scanner) {
	f.ofData, f.ofHeader = session{}, session{}
	if s.peek() != '{' {
		s.skip()
		return
	}
	for more := s.open('}'); more; more = s.more('}') {
		switch string(s.key()) {
		case "channelSession":
			f.ofData = s.session()
		case "header":
			f.ofHeader = s.header()
		default:
			s.skip()
		}
	}
}

func (s *scanner) header() (of session) {
	if s.peek() != '{' {
		s.skip()
		return of
	}
	for more := s.open('}'); more; more = s.more('}') {
		if string(s.key()) == "channelSession" {
			of = s.session()
		} else {
			s.skip()
		}
	}
	return of
}

// session reads a channel session. Anything but an object, null for one, is none.
func (s *scanner) session() (of session) {
	if s.peek() != '{' {
		s.skip()
		return of
	}
	start := s.pos
	for more := s.open('}'); more; more = s.more('}') {
		switch string(s.key()) {
		case "conversationId":
			of.conversation = s.value()
		case "topicId":
			of.topic = s.value()
		case "channel":
			of.channel = s.find("channelType", "name")
		default:
			s.skip()
		}
	}
	of.raw = s.data[start:s.pos]
	return of
}

// fill completes e, whose Conversation may be known already, from an event's fields.
func (f *fields) fill(e *Event) error {
	e.ID = f.id.text()
	e.Name = f.name.text()
	e.Type = f.kind.text()
	e.Time = timestamp(f.timestamp)
	e.Conversation = first(e.Conversation, f.conversation, f.topic,
		f.own.conversation, f.own.topic,
		f.ofData.conversation, f.ofData.topic,
		f.ofHeader.conversation, f.ofHeader.topic)
	e.Channel = first("", f.own.channel, f.ofData.channel, f.ofHeader.channel)
	e.Body = f.raw
	for _, of := range []*session{&f.own, &f.ofData, &f.ofHeader} {
		if of.raw != nil {
			e.Session = of.raw
			break
		}
	}
	if f.roomInfo.kind() != 'n' {
		e.RoomInfo = f.roomInfo
	}
	if e.Name == "" {
		return missing(ReasonNoName, "name", f.name, "set it to the event's name, such as CUSTOMER_MESSAGE")
	}
	if e.ID == "" {
		return missing(ReasonNoID, "id", f.id, "give every event an id of its own, such as a UUID")
	}
	return nil
}

// first is the first text that is not empty.
func first(text string, candidates ...value) string {
	for _, candidate := range candidates {
		if text != "" {
			break
		}
		text = candidate.text()
	}
	return text
}
