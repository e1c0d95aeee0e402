package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cimbus/cimbus/bus"
)

// droppedLine is the record of a drop as --json prints it.
type droppedLine struct {
	Sequence       uint64    `json:"seq"`
	Time           time.Time `json:"time"` // when it was dropped
	Operator       string    `json:"operator"`
	Handler        string    `json:"handler"`
	Tenant         string    `json:"tenant"`
	Channel        string    `json:"channel"`
	Event          string    `json:"event"`
	Conversation   string    `json:"conversation"`
	Reason         string    `json:"reason"`
	SourceSequence uint64    `json:"source_seq"`
	Redriven       *uint64   `json:"redriven_as"` // the event it had been redriven as before
}

func (c *dlqCommand) listDropped(ctx context.Context, b *bus.Bus, f bus.DeadLetterFilter) error {
	t := table{head: []string{"SEQ", "DROPPED", "BY", "TENANT", "CHANNEL", "EVENT", "CONVERSATION", "HANDLER", "REASON", "REDRIVEN"}}
	for d, err := range b.DroppedDeadLetters(ctx, f) {
		if err != nil {
			return err
		}
		if c.app.json {
			l := droppedLine{
				Sequence: d.Sequence, Time: d.Time, Operator: d.Redrive.Operator, Handler: d.Handler, Tenant: d.Tenant, Channel: d.Channel,
				Event: d.Event, Conversation: d.Conversation, Reason: d.Reason, SourceSequence: d.SourceSequence, Redriven: orNull(d.Redrive.Event),
			}
			if err := line(c.app.stdout, l); err != nil {
				return err
			}
			continue
		}
		redriven := "-"
		if d.Redrive.Event != 0 {
			redriven = fmt.Sprintf("as event %d", d.Redrive.Event)
		}
		t.row(fmt.Sprint(d.Sequence), clock(d.Time), d.Redrive.Operator, d.Tenant, orDash(d.Channel), d.Event, orDash(cut(d.Conversation)),
			d.Handler, orDash(d.Reason), redriven)
	}
	if c.app.json {
		return nil
	}
	if len(t.rows) == 0 {
		c.app.tell("no dropped dead letters%s", c.among())
		return nil
	}
	return t.write(c.app.stdout)
}
