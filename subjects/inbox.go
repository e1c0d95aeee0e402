package subjects

// Inbox names where an agent gets its replies: every subject below
// cim-inbox.<tenant>.<agent>.
type Inbox struct {
	Tenant string
	Agent  string
}

// Prefix is the agent's inbox prefix, cim-inbox.<tenant>.<agent>, as
// nats.CustomInboxPrefix takes it. A name that cannot be a token is refused with
// an *Error.
func (i Inbox) Prefix() (string, error) {
	return build(inboxPrefix, named(fieldTenant, i.Tenant), named(fieldAgent, i.Agent))
}

// Filter holds every reply to the agent, cim-inbox.<tenant>.<agent>.>: what its
// connection may subscribe to. A name that cannot be a token is refused with an
// *Error.
func (i Inbox) Filter() (string, error) {
	return build(inboxPrefix, named(fieldTenant, i.Tenant), named(fieldAgent, i.Agent), literal(">"))
}

// Contains reports whether a reply may go to reply: a literal subject strictly
// below the agent's prefix, of printable ASCII, without empty tokens or any
// wildcard character. A reply subject is chosen by the caller, and the bus may
// publish where no agent may: one that answers unchecked sends messages
// anywhere in the caller's stead. False for every reply if a name of the inbox
// cannot be a token.
func (i Inbox) Contains(reply string) bool {
	var space [room]byte
	prefix, err := appendParts(space[:0], inboxPrefix, named(fieldTenant, i.Tenant), named(fieldAgent, i.Agent), literal(""))
	if err != nil || len(reply) < len(prefix) || reply[:len(prefix)] != string(prefix) {
		return false
	}
	last := byte('.')
	for j := len(prefix); j < len(reply); j++ {
		c := reply[j]
		if c <= ' ' || c >= 0x7F || c == '*' || c == '>' || c == '.' && last == '.' {
			return false
		}
		last = c
	}
	return last != '.'
}
