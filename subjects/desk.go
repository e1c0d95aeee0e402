package subjects

// Desk names what an agent's desk emitted and other services answer:
// cim-desk.<tenant>.<agent>.<desk event>, a request that no stream stores.
type Desk struct {
	Tenant string
	Agent  string
	Event  string // the desk's own name for it, as spelled
}

// Subject is where the request is sent. A name that cannot be a token is refused
// with an *Error.
func (d Desk) Subject() (string, error) {
	return build(deskPrefix, named(fieldTenant, d.Tenant), named(fieldAgent, d.Agent), named(fieldDeskEvent, d.Event))
}

// ParseDesk takes a desk request's subject apart. What is not exactly a subject
// that Subject writes is refused with an *Error.
func ParseDesk(subject string) (Desk, error) {
	p := parse("subject", subject, deskPrefix, "cim-desk.<tenant>.<agent>.<desk event>")
	d := Desk{Tenant: p.name(fieldTenant), Agent: p.name(fieldAgent), Event: p.name(fieldDeskEvent)}
	if p.err != nil {
		return Desk{}, p.err
	}
	return d, nil
}
