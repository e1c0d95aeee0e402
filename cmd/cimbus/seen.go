package main

import (
	"fmt"

	"github.com/cimbus/cimbus/bus"
)

// seen writes events and deliveries, one a line, as find, tail and history do.
type seen struct {
	*flow
	asJSON bool
}

func (a *app) seenEvents() *seen {
	return &seen{flowTo(a.stdout,
		column{"TIME", 23}, column{"SEQUENCE", -8}, column{"SUBJECT", 36}, column{"ID", 20}, column{"CONVERSATION", 20}, column{"SIZE", -8}), a.json}
}

// seenDeliveries has two numbers: POSITION is that in CIM_DELIVERIES, SEQUENCE that of the event.
func (a *app) seenDeliveries() *seen {
	return &seen{flowTo(a.stdout,
		column{"TIME", 23}, column{"POSITION", -8}, column{"SEQUENCE", -8}, column{"SUBJECT", 44}, column{"EVENT", 20}, column{"ID", 20}, column{"SIZE", -8}), a.json}
}

func (s *seen) event(e *bus.StoredEvent) error {
	if s.asJSON {
		return s.json(e.AppendJSON)
	}
	return s.row(clock(e.Time), fmt.Sprint(e.Sequence), e.Subject, orDash(cut(e.ID)), orDash(cut(e.Conversation)), size(len(e.Data)))
}

func (s *seen) delivery(d *bus.StoredDelivery) error {
	if s.asJSON {
		return s.json(d.AppendJSON)
	}
	position := "-" // a transient one is in no stream
	if d.Position.Sequence != 0 {
		position = fmt.Sprint(d.Position.Sequence)
	}
	return s.row(clock(d.Time), position, cell(orNull(d.Source)), d.Subject, orDash(d.Event), orDash(cut(d.ID)), size(len(d.Data)))
}
