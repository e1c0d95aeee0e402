package subjects

// Delivery names one kind of delivery to one agent, in one conversation:
// cim-agent.<tenant>.<agent>.<type>.<conversation> where it is stored
// (CIM_DELIVERIES), cim-live.… where the agent hears it.
type Delivery struct {
	Tenant       string
	Agent        string
	Type         string // "onCimEvent", "topicUnsubscription", "replay", "taskRequest", …
	Conversation string // "" for a delivery that belongs to none
}

// Subject is the stored delivery's subject. A name that cannot be a token is
// refused with an *Error.
func (d Delivery) Subject() (string, error) { return d.subject(deliveryPrefix) }

// Live is the subject on which the agent hears the delivery. A name that cannot
// be a token is refused with an *Error.
func (d Delivery) Live() (string, error) { return d.subject(livePrefix) }

func (d Delivery) subject(prefix string) (string, error) {
	return build(prefix, named(fieldTenant, d.Tenant), named(fieldAgent, d.Agent),
		named(fieldType, d.Type), conversation(d.Conversation))
}

// ParseDelivery takes a stored delivery's subject apart. What is not exactly a
// subject that Subject writes is refused with an *Error.
func ParseDelivery(subject string) (Delivery, error) {
	return parseDelivery(subject, deliveryPrefix, "cim-agent.<tenant>.<agent>.<type>.<conversation>")
}

// ParseLive takes a live delivery's subject apart. What is not exactly a subject
// that Live writes is refused with an *Error.
func ParseLive(subject string) (Delivery, error) {
	return parseDelivery(subject, livePrefix, "cim-live.<tenant>.<agent>.<type>.<conversation>")
}

func parseDelivery(subject, prefix, shape string) (Delivery, error) {
	p := parse("subject", subject, prefix, shape)
	d := Delivery{
		Tenant:       p.name(fieldTenant),
		Agent:        p.name(fieldAgent),
		Type:         p.name(fieldType),
		Conversation: p.conversation(),
	}
	if p.err != nil {
		return Delivery{}, p.err
	}
	return d, nil
}
