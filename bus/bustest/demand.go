package bustest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/cimbus/cimbus/subjects"
)

// The names and words of the design that accounting turns on. They are written
// down here once more on purpose: the checker shares nothing with the code it
// checks but the grammar of subjects.
const (
	streamEvents      = "CIM_EVENTS"
	streamDeliveries  = "CIM_DELIVERIES"
	streamIndex       = "CIM_INDEX"
	streamDeadLetters = "CIM_DEAD_LETTERS"
	streamMembers     = "KV_CIM_MEMBERS"

	handlerEvents = "onCimEvent"

	eventJoin      = "AGENT_SUBSCRIBED"
	eventLeave     = "AGENT_UNSUBSCRIBED"
	eventRole      = "PARTICIPANT_ROLE_CHANGED"
	eventState     = "TOPIC_STATE_CHANGE_EVENT"
	eventTransient = "TYPING_INDICATOR"

	stateClosed       = "CLOSED"
	outcomeDeadLetter = "dead-letter"
)

// demands is everything that a list of events demands of the streams, each
// list in order.
type demands struct {
	deliveries  []Entry
	index       []Entry
	deadLetters []Entry
	members     []Entry // the last record of every membership there was
}

// demand folds the events.
func demand(events []Event) demands {
	f := fold{rooms: map[room]map[string]member{}, records: map[string]member{}}
	for i := range events {
		f.take(&events[i])
	}
	for _, subject := range slices.Sorted(maps.Keys(f.records)) {
		f.members = append(f.members, f.records[subject].entry(subject))
	}
	return f.demands
}

// room is a conversation of a tenant.
type room struct{ tenant, conversation string }

// member is a record of CIM_MEMBERS.
type member struct {
	Role  string `json:"role"`
	Since uint64 `json:"since"`
	Left  uint64 `json:"left"`
}

func (m member) entry(subject string) Entry {
	record := fmt.Sprintf("role %q since %d left %d", m.Role, m.Since, m.Left)
	return Entry{Stream: streamMembers, Subject: subject, Record: record}
}

// fold is the state of every conversation while the events are gone through.
type fold struct {
	demands
	rooms   map[room]map[string]member // by agent
	records map[string]member          // by subject
}

func (f *fold) take(e *Event) {
	switch {
	case e.Invalid != "":
		f.bury(e)
		return
	case e.Name == eventTransient:
		return
	}
	r := room{e.Tenant, e.Conversation}
	if f.rooms[r] == nil {
		f.rooms[r] = map[string]member{}
	}
	members := f.rooms[r]
	m, isMember := members[e.Agent]
	switch e.Name {
	case eventJoin:
		if !isMember {
			m = member{Since: e.Sequence}
		}
		f.change(r, e, m)
	case eventRole:
		if isMember {
			f.change(r, e, m)
		}
	case eventLeave:
		if isMember {
			f.leave(r, e.Agent, e.Sequence)
			f.deliver(r, e.Agent, typeNotice, e.Sequence)
		}
	}
	for _, agent := range slices.Sorted(maps.Keys(members)) {
		f.deliver(r, agent, typeEvent, e.Sequence)
		if e.Name == eventState && e.Closed {
			f.leave(r, agent, e.Sequence)
			f.deliver(r, agent, typeNotice, e.Sequence)
		}
	}
	f.index = append(f.index, indexEntry(r, e.Sequence, ""))
}

// bury demands the dead letter of an invalid event.
func (f *fold) bury(e *Event) {
	subject := text(subjects.DeadLetter{
		Handler: handlerEvents, Tenant: e.Tenant, Channel: e.Channel, Event: e.Name, Sequence: e.Sequence,
	}.Subject())
	f.deadLetters = append(f.deadLetters, Entry{Stream: streamDeadLetters, Subject: subject, Sequence: e.Sequence})
	f.index = append(f.index, indexEntry(room{e.Tenant, e.Conversation}, e.Sequence, outcomeDeadLetter))
}

// change gives a member the role that the event names, if it names one.
func (f *fold) change(r room, e *Event, m member) {
	m.Role = cmp.Or(e.Role, m.Role)
	f.rooms[r][e.Agent] = m
	f.records[r.memberSubject(e.Agent)] = m
}

func (f *fold) leave(r room, agent string, sequence uint64) {
	m := f.rooms[r][agent]
	m.Left = sequence
	delete(f.rooms[r], agent)
	f.records[r.memberSubject(agent)] = m
}

func (f *fold) deliver(r room, agent, kind string, sequence uint64) {
	d := Delivery{Tenant: r.tenant, Agent: agent, Type: kind, Conversation: r.conversation, Sequence: sequence}
	f.deliveries = append(f.deliveries, d.entry())
}

func (r room) memberSubject(agent string) string {
	return text(subjects.MemberKey{Tenant: r.tenant, Agent: agent, Conversation: r.conversation}.Subject())
}

func indexEntry(r room, sequence uint64, outcome string) Entry {
	subject := text(subjects.Index{Tenant: r.tenant, Conversation: r.conversation}.Subject())
	return Entry{Stream: streamIndex, Subject: subject, Sequence: sequence, Record: outcome}
}

// text is the subject, or why there is none: a history made by hand may hold
// names that no subject can, and nothing will then match.
func text(subject string, err error) string {
	if err != nil {
		return fmt.Sprintf("no subject (%v)", err)
	}
	return subject
}

// conversationOfAgent is the line in which deliveries are ordered: one agent's
// of one conversation, notices among the events.
func conversationOfAgent(e Entry) string {
	d, err := subjects.ParseDelivery(e.Subject)
	if err != nil {
		return e.Subject
	}
	d.Type = typeEvent
	return text(d.Subject())
}

// bySubject is the line of the streams that order each subject by itself.
func bySubject(e Entry) string { return e.Subject }
