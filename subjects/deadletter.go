package subjects

import "strconv"

// DeadLetter names an event that a handler gave up:
// cim-dead.<handler>.<tenant>.<channel>.<event>.<s>, stored in CIM_DEAD_LETTERS,
// and beside it, at cim-redrive.<the same>, the records of its redrives.
type DeadLetter struct {
	Handler  string
	Tenant   string
	Channel  string // the channel type's name in any case, "" for none; parsed: lower case
	Event    string
	Sequence uint64 // the event's sequence in CIM_EVENTS, from 1
}

// Subject is where the dead letter is kept. A name that cannot be a token, and
// sequence 0, are refused with an *Error.
func (d DeadLetter) Subject() (string, error) { return d.subject(deadLetterPrefix) }

// Redrive is where the dead letter's redrives are recorded. It refuses what
// Subject refuses.
func (d DeadLetter) Redrive() (string, error) { return d.subject(redrivePrefix) }

func (d DeadLetter) subject(prefix string) (string, error) {
	sequence := strconv.FormatUint(d.Sequence, 10)
	if d.Sequence == 0 {
		return "", &Error{Field: fieldSequence, Name: sequence, Problem: validSequence}
	}
	return build(prefix, named(fieldHandler, d.Handler), named(fieldTenant, d.Tenant),
		channel(d.Channel), named(fieldEvent, d.Event), literal(sequence))
}

// ParseDeadLetter takes a dead letter's subject apart. What is not exactly a
// subject that Subject writes is refused with an *Error.
func ParseDeadLetter(subject string) (DeadLetter, error) {
	return parseDeadLetter(subject, deadLetterPrefix)
}

// ParseRedrive takes the subject of redrives apart. What is not exactly a
// subject that Redrive writes is refused with an *Error.
func ParseRedrive(subject string) (DeadLetter, error) {
	return parseDeadLetter(subject, redrivePrefix)
}

func parseDeadLetter(subject, prefix string) (DeadLetter, error) {
	p := parse("subject", subject, prefix, prefix+".<handler>.<tenant>.<channel>.<event>.<sequence>")
	d := DeadLetter{
		Handler:  p.name(fieldHandler),
		Tenant:   p.name(fieldTenant),
		Channel:  p.channel(),
		Event:    p.name(fieldEvent),
		Sequence: p.sequence(),
	}
	if p.err != nil {
		return DeadLetter{}, p.err
	}
	return d, nil
}
