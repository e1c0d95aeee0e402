package subjects

// Control names a request of an agent to the bus: cim-ctl.<tenant>.<agent>.<verb>,
// which no stream stores.
type Control struct {
	Tenant string
	Agent  string
	Verb   string // "resume", "check", "join", "leave", "publish", "history"
}

// Subject is where the request is sent. A name that cannot be a token is refused
// with an *Error.
func (c Control) Subject() (string, error) {
	return build(controlPrefix, named(fieldTenant, c.Tenant), named(fieldAgent, c.Agent), named(fieldVerb, c.Verb))
}

// ParseControl takes a control request's subject apart. What is not exactly a
// subject that Subject writes is refused with an *Error; which verbs there are
// is for the responder to know.
func ParseControl(subject string) (Control, error) {
	p := parse("subject", subject, controlPrefix, "cim-ctl.<tenant>.<agent>.<verb>")
	c := Control{Tenant: p.name(fieldTenant), Agent: p.name(fieldAgent), Verb: p.name(fieldVerb)}
	if p.err != nil {
		return Control{}, p.err
	}
	return c, nil
}
