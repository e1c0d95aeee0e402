package cim

import (
	"cmp"
	"strconv"
	"time"
	"unicode/utf8"
)

// Membership is what [Subscribed] and [Unsubscribed] make an event of. Text that is not UTF-8 gets U+FFFD in its place.
type Membership struct {
	ID           string    // the event's id, the caller's duty: an empty one does not decode
	Time         time.Time // zero: timestamp is null
	Conversation string
	Agent        string // the agent's id, not empty
	Username     string // shown by desks as the agent's name; empty: Agent
	Realm        string // the tenant
	Role         string // such as PRIMARY
	Reason       string // empty: null
	RoomInfo     []byte // a JSON value; left out if it is none, or null
}

// Subscribed is a whole AGENT_SUBSCRIBED event in the shape of the platform's own, always valid JSON.
func Subscribed(m Membership) []byte { return m.event(AgentSubscribed) }

// Unsubscribed is a whole AGENT_UNSUBSCRIBED event. Its participant's state still says SUBSCRIBED, as in the platform's own:
// readers trust the event's name.
func Unsubscribed(m Membership) []byte { return m.event(AgentUnsubscribed) }

func (m *Membership) event(name string) []byte {
	b := make([]byte, 0, 1024)
	b = append(b, `{"id":`...)
	b = appendString(b, m.ID)
	b = append(b, `,"name":"`+name+`","type":"NOTIFICATION","timestamp":`...)
	if m.Time.IsZero() {
		b = append(b, "null"...)
	} else {
		b = strconv.AppendInt(b, m.Time.UnixMilli(), 10)
	}
	b = append(b, `,"conversationId":`...)
	b = appendString(b, m.Conversation)
	b = append(b, `,"eventEmitter":{"id":"cimbus","type":"SYSTEM","senderName":"CIMBUS","additionalDetail":null}`...)
	b = append(b, `,"channelSession":null,"data":{"agentParticipant":`...)
	b = m.appendParticipant(b)
	b = append(b, `,"reason":`...)
	b = appendStringOrNull(b, m.Reason)
	b = append(b, '}')
	if room := lookup(m.RoomInfo); utf8.Valid(room) && room != nil && room.kind() != 'n' {
		b = appendMember(b, `,"roomInfo":`, room)
	}
	return append(b, '}')
}

// appendParticipant uses the agent's id as the participant's too, so that joining and leaving speak of the same one.
func (m *Membership) appendParticipant(b []byte) []byte {
	shown := cmp.Or(m.Username, m.Agent)
	b = append(b, `{"id":`...)
	b = appendString(b, m.Agent)
	b = append(b, `,"type":"AGENT","role":`...)
	b = appendString(b, m.Role)
	b = append(b, `,"participant":{"id":`...)
	b = appendString(b, m.Agent)
	b = append(b, `,"participantType":"CCUser","keycloakUser":{"id":`...)
	b = appendString(b, m.Agent)
	b = append(b, `,"username":`...)
	b = appendString(b, shown)
	b = append(b, `,"firstName":`...)
	b = appendString(b, shown)
	b = append(b, `,"lastName":"","realm":`...)
	b = appendString(b, m.Realm)
	b = append(b, `,"roles":[]}},"conversationId":`...)
	b = appendString(b, m.Conversation)
	return append(b, `,"state":"SUBSCRIBED"}`...)
}
