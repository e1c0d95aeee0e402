package cim

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// The classes of [Error], stable: dead letters and control replies carry them.
const (
	ReasonNotJSON        = "not-json"        // the bytes are not one JSON document in UTF-8
	ReasonTooDeep        = "too-deep"        // nested deeper than MaxDepth
	ReasonNotAnEvent     = "not-an-event"    // JSON, but no object where the event is due
	ReasonNoName         = "no-name"         // name is no non-empty string
	ReasonNoID           = "no-id"           // id is no non-empty string
	ReasonNoConversation = "no-conversation" // found nowhere, see Event.RequireConversation
	ReasonNoParticipant  = "no-participant"  // see Event.Participant
)

// Error says what is wrong with an event and what to do about it.
type Error struct {
	Reason  string // class, one of the Reason constants
	Field   string // what is wrong: "body", or the field's path, such as "name" or "data.agentParticipant"
	Offset  int64  // bytes into Field's text, for ReasonNotJSON and ReasonTooDeep
	Problem string // "is missing"
	Remedy  string // "set it to …"
}

// Error names the field, the problem and the remedy. That it is about an event is for the caller to say.
func (e *Error) Error() string {
	at := ""
	if e.Reason == ReasonNotJSON || e.Reason == ReasonTooDeep {
		at = fmt.Sprintf(" at byte %d", e.Offset)
	}
	return e.Field + " " + e.Problem + at + ": " + e.Remedy
}

// byteOrderMark is what some editors write before UTF-8 text. JSON.parse refuses it, so do we.
const byteOrderMark = "\ufeff"

const (
	remedyBody     = "send one JSON object in UTF-8, the event or {\"cimEvent\":{…},\"conversationId\":\"…\"}"
	remedyCimEvent = "send the event as an object, or as a string that holds one JSON object"
)

func remedyFor(field string) string {
	if field == "cimEvent" {
		return remedyCimEvent
	}
	return remedyBody
}

// end makes sure that the document ends where its value did, and reports what went wrong before.
func (s *scanner) end(field string) error {
	if s.fault == "" {
		if s.peek(); s.pos == len(s.data) {
			return nil
		}
		s.fail("is not JSON (something follows its value)")
	}
	e := &Error{Reason: ReasonNotJSON, Field: field, Offset: int64(s.pos), Problem: s.fault, Remedy: remedyFor(field)}
	switch {
	case s.fault == faultDepth:
		e.Reason = ReasonTooDeep
		e.Remedy = fmt.Sprintf("nest objects and arrays at most %d deep", MaxDepth)
	case len(bytes.TrimLeft(s.data, " \t\r\n")) == 0:
		e.Problem = "is empty"
	case bytes.HasPrefix(s.data, []byte(byteOrderMark)):
		e.Problem, e.Remedy = "starts with a byte order mark", "send UTF-8 without one"
	}
	return e
}

func notUTF8(body []byte) error {
	at := 0
	for at < len(body) {
		r, size := utf8.DecodeRune(body[at:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		at += size
	}
	return &Error{
		Reason: ReasonNotJSON, Field: "body", Offset: int64(at),
		Problem: fmt.Sprintf("is not UTF-8 (byte 0x%02X)", body[at]), Remedy: remedyBody,
	}
}

func notAnEvent(field string, kind byte) error {
	e := &Error{Reason: ReasonNotAnEvent, Field: field, Problem: "is " + kindName(kind) + ", not an event", Remedy: remedyFor(field)}
	if kind == '[' && field == "body" {
		e.Remedy = "publish the items of an array one by one, a message for each event"
	}
	return e
}

func missing(reason, field string, got value, remedy string) error {
	problem := "is " + kindName(got.kind()) + ", not a string"
	switch got.kind() {
	case 0:
		problem = "is missing"
	case '"':
		problem = "is empty"
	}
	return &Error{Reason: reason, Field: field, Problem: problem, Remedy: remedy}
}

func kindName(kind byte) string {
	switch kind {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}
