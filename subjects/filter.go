package subjects

import "strconv"

// Match is what a filter wants of one name: Any (its zero value), None, or Is.
type Match struct {
	name  string
	fixed bool
}

// The two matches that name nothing.
var (
	Any  = Match{}            // whatever is there, none included
	None = Match{fixed: true} // no channel, no conversation; refused for every other name
)

// Is matches exactly one name. As in the structs, "" is none for a channel or a
// conversation and refused for every other name; a name is never a wildcard.
func Is(name string) Match { return Match{name: name, fixed: true} }

// Matches tells whether it wants this name. Channels are in lower case in a
// subject, and have to be here.
func (m Match) Matches(name string) bool { return !m.fixed || m.name == name }

// Name is the name that Is was given, "" for Any and None.
func (m Match) Name() string { return m.name }

// EventFilter selects events. The zero value selects all.
type EventFilter struct{ Tenant, Channel, Event Match }

// Subject is the filter's subject. A name that cannot be a token is refused with
// an *Error. Two or more trailing Any are written ">", here as in all filters.
func (f EventFilter) Subject() (string, error) {
	return pattern(eventPrefix, f.Tenant.part(fieldTenant), f.Channel.part(fieldChannel), f.Event.part(fieldEvent))
}

// DeliveryFilter selects deliveries. The zero value selects all.
type DeliveryFilter struct{ Tenant, Agent, Type, Conversation Match }

// Subject is the filter's subject over stored deliveries. A name that cannot be
// a token is refused with an *Error.
func (f DeliveryFilter) Subject() (string, error) { return f.subject(deliveryPrefix) }

// Live is the filter's subject over live deliveries. A name that cannot be a
// token is refused with an *Error.
func (f DeliveryFilter) Live() (string, error) { return f.subject(livePrefix) }

func (f DeliveryFilter) subject(prefix string) (string, error) {
	return pattern(prefix, f.Tenant.part(fieldTenant), f.Agent.part(fieldAgent),
		f.Type.part(fieldType), f.Conversation.part(fieldConversation))
}

// IndexFilter selects index entries. The zero value selects all.
type IndexFilter struct{ Tenant, Conversation Match }

// Subject is the filter's subject. A name that cannot be a token is refused with
// an *Error.
func (f IndexFilter) Subject() (string, error) {
	return pattern(indexPrefix, f.Tenant.part(fieldTenant), f.Conversation.part(fieldConversation))
}

// DeadLetterFilter selects dead letters. The zero value selects all.
type DeadLetterFilter struct {
	Handler, Tenant, Channel, Event Match
	Sequence                        uint64 // the event's in CIM_EVENTS, 0 = any
}

// Subject is the filter's subject. A name that cannot be a token is refused with
// an *Error.
func (f DeadLetterFilter) Subject() (string, error) { return f.subject(deadLetterPrefix) }

// Redrive is the filter's subject over the records of redrives. It refuses what
// Subject refuses.
func (f DeadLetterFilter) Redrive() (string, error) { return f.subject(redrivePrefix) }

func (f DeadLetterFilter) subject(prefix string) (string, error) {
	sequence := literal("*")
	if f.Sequence != 0 {
		sequence = literal(strconv.FormatUint(f.Sequence, 10))
	}
	return pattern(prefix, f.Handler.part(fieldHandler), f.Tenant.part(fieldTenant),
		f.Channel.part(fieldChannel), f.Event.part(fieldEvent), sequence)
}

// ControlFilter selects control requests: what a responder serves, or an agent
// may send. The zero value selects all.
type ControlFilter struct{ Tenant, Agent, Verb Match }

// Subject is the filter's subject. A name that cannot be a token is refused with
// an *Error.
func (f ControlFilter) Subject() (string, error) {
	return pattern(controlPrefix, f.Tenant.part(fieldTenant), f.Agent.part(fieldAgent), f.Verb.part(fieldVerb))
}

// MemberFilter selects memberships. The zero value selects all.
type MemberFilter struct{ Tenant, Agent, Conversation Match }

// Key is the filter as a pattern over the keys of CIM_MEMBERS. A name that
// cannot be a token is refused with an *Error.
func (f MemberFilter) Key() (string, error) { return f.subject("") }

// Subject is the filter over the subjects the bucket stores, with $KV prefix. A
// name that cannot be a token is refused with an *Error.
func (f MemberFilter) Subject() (string, error) { return f.subject(memberPrefix) }

func (f MemberFilter) subject(prefix string) (string, error) {
	return pattern(prefix, f.Tenant.part(fieldTenant), f.Agent.part(fieldAgent),
		f.Conversation.part(fieldConversation))
}

// part is the match as a token of a filter.
func (m Match) part(field string) part {
	switch {
	case !m.fixed:
		return literal("*")
	case field == fieldChannel:
		return channel(m.name)
	case field == fieldConversation:
		return conversation(m.name)
	default:
		return named(field, m.name)
	}
}

// pattern writes a filter's subject.
func pattern(prefix string, parts ...part) (string, error) {
	fixed := len(parts)
	for fixed > 0 && parts[fixed-1] == literal("*") {
		fixed--
	}
	if len(parts)-fixed >= 2 {
		parts[fixed] = literal(">")
		parts = parts[:fixed+1]
	}
	return build(prefix, parts...)
}
