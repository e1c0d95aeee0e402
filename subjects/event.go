package subjects

// Event names a published CIM event: cim.<tenant>.<channel>.<event>, stored in
// CIM_EVENTS.
type Event struct {
	Tenant  string
	Channel string // the channel type's name in any case, "" for none; parsed: lower case
	Event   string // the event's name, as spelled
}

// Subject is where the event is published. A name that cannot be a token is
// refused with an *Error.
func (e Event) Subject() (string, error) {
	return build(eventPrefix, named(fieldTenant, e.Tenant), channel(e.Channel), named(fieldEvent, e.Event))
}

// ParseEvent takes an event's subject apart. What is not exactly a subject that
// Subject writes is refused with an *Error.
func ParseEvent(subject string) (Event, error) {
	p := parse("subject", subject, eventPrefix, "cim.<tenant>.<channel>.<event>")
	e := Event{Tenant: p.name(fieldTenant), Channel: p.channel(), Event: p.name(fieldEvent)}
	if p.err != nil {
		return Event{}, p.err
	}
	return e, nil
}
