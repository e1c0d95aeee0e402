package bustest

import "github.com/cimbus/cimbus/subjects"

// Types of deliveries that the promise covers. Replays and what services send
// to agents are on types of their own.
const (
	typeEvent  = "onCimEvent"
	typeNotice = "topicUnsubscription"
)

// Event is a published and acknowledged event, as far as accounting goes.
type Event struct {
	Sequence     uint64 // in CIM_EVENTS
	Tenant       string
	Channel      string // of its subject; "" = none
	Name         string // of its subject
	ID           string
	Conversation string // "" only if Invalid: none that can be used

	// Agent and Role are the participant's, for the events of membership:
	// AGENT_SUBSCRIBED, AGENT_UNSUBSCRIBED, PARTICIPANT_ROLE_CHANGED.
	Agent, Role string
	// Closed marks the TOPIC_STATE_CHANGE_EVENT that closes the conversation.
	Closed bool
	// Invalid says why the event has to become a dead letter; "" = it is valid.
	Invalid string
}

// Delivery is a delivery as an agent received it.
type Delivery struct {
	Tenant, Agent, Type, Conversation string

	Sequence uint64 // its Cim-Sequence: the event's sequence in CIM_EVENTS
	Position uint64 // its sequence in CIM_DELIVERIES; 0 = not known
}

func (d Delivery) entry() Entry {
	subject := text(subjects.Delivery{Tenant: d.Tenant, Agent: d.Agent, Type: d.Type, Conversation: d.Conversation}.Subject())
	return Entry{Stream: streamDeliveries, Subject: subject, Sequence: d.Sequence}
}

// History is what was published, in the order of the sequences, and what
// agents received since the first of these events, each agent's deliveries in
// the order it received them.
type History struct {
	Events     []Event
	Deliveries []Delivery
}

// Check says whether a history keeps the promise: published and acknowledged
// means delivered, exactly once to each agent of the conversation at that time,
// in the conversation's order. Who is an agent of the conversation follows from
// the events themselves: an agent is one from its AGENT_SUBSCRIBED, which it
// receives, to its AGENT_UNSUBSCRIBED, instead of which it receives a notice,
// or to the close of the conversation, after which it does.
//
// Where positions are known an agent's have to grow, across conversations too.
// Deliveries of other types than onCimEvent and topicUnsubscription are not
// counted.
func Check(h History) Report {
	r := Report{Events: len(h.Events)}
	var there []Entry
	for _, d := range h.Deliveries {
		if d.Type == typeEvent || d.Type == typeNotice {
			there = append(there, d.entry())
		}
	}
	r.compare(demand(h.Events).deliveries, there, conversationOfAgent)
	r.positions(h.Deliveries)
	return r
}

// positions adds the deliveries that came to their agent behind one of a
// higher position and are not out of order in their conversation already. One
// that came twice is repeated, not out of order.
func (r *Report) positions(ds []Delivery) {
	type agent struct{ tenant, agent string }
	known := map[Entry]bool{}
	for _, e := range r.Misordered {
		known[e] = true
	}
	last := map[agent]uint64{}
	seen := map[Delivery]bool{}
	for _, d := range ds {
		if d.Position == 0 || seen[d] {
			continue
		}
		seen[d] = true
		a := agent{d.Tenant, d.Agent}
		if d.Position > last[a] {
			last[a] = d.Position
		} else if e := d.entry(); !known[e] {
			r.Misordered = append(r.Misordered, e)
		}
	}
}
