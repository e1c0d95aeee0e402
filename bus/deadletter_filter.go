package bus

import (
	"time"

	"github.com/cimbus/cimbus/subjects"
)

// DeadLetterFilter selects dead letters; everything it says must hold. The zero value selects all.
type DeadLetterFilter struct {
	Handler      subjects.Match // that gave the event up
	Tenant       subjects.Match
	Channel      subjects.Match // of the source subject, in any case; subjects.None = events of no channel
	Event        subjects.Match // the event's name
	Conversation subjects.Match // subjects.None = events of no conversation

	Reason    string    // the reason's class, "" = any
	NewerThan time.Time // stored after this moment, zero = any
	OlderThan time.Time // stored before this moment, zero = any
	Sequences []uint64  // exactly these entries, by their sequence in CIM_DEAD_LETTERS; none = any
}

// names is what the server filters by.
func (f *DeadLetterFilter) names() subjects.DeadLetterFilter {
	return subjects.DeadLetterFilter{Handler: f.Handler, Tenant: f.Tenant, Channel: f.Channel, Event: f.Event}
}

// passes tells whether an entry is selected by what the server does not filter by.
func (f *DeadLetterFilter) passes(d *DeadLetter) bool {
	switch {
	case !f.Conversation.Matches(d.Conversation):
		return false
	case f.Reason != "" && f.Reason != d.Reason:
		return false
	case !f.NewerThan.IsZero() && !d.Time.After(f.NewerThan):
		return false
	}
	return f.OlderThan.IsZero() || d.Time.Before(f.OlderThan)
}
