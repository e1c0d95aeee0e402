package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// replayRehearsal shows what a handler would make of events.
type replayRehearsal struct {
	app       *app
	rehearsal *handlers.Rehearsal
	diff      bool
	out       *bufio.Writer

	events, deliveries, differ int
}

func newReplayRehearsal(b *bus.Bus, a *app, to replayTo) (*replayRehearsal, error) {
	if to.name != oncimevent.Name {
		return nil, fmt.Errorf("handler %s: this binary has only %s to rehearse; others are rehearsed by the program they are part of, with handlers.NewRehearsal", to.name, oncimevent.Name)
	}
	r, err := handlers.NewRehearsal(b, oncimevent.New(oncimevent.Options{}))
	if err != nil {
		return nil, err
	}
	return &replayRehearsal{app: a, rehearsal: r, diff: to.diff, out: bufio.NewWriterSize(a.stdout, 64<<10)}, nil
}

// rehearsedLine is what a handler makes of an event, as --json prints it.
type rehearsedLine struct {
	Sequence     uint64                `json:"sequence"`
	Event        string                `json:"event"`
	ID           string                `json:"id"`
	Tenant       string                `json:"tenant"`
	Conversation string                `json:"conversation"`
	Outcome      string                `json:"outcome"` // delivered, dropped, dead-letter, retry, unhandled
	Reason       string                `json:"reason"`
	Error        string                `json:"error"`
	Deliveries   []rehearsedDelivery   `json:"deliveries"`
	Differences  []handlers.Difference `json:"differences"` // from what was delivered, with --diff
}

type rehearsedDelivery struct {
	Agent     string          `json:"agent"`
	Type      string          `json:"type"`
	Transient bool            `json:"transient"`
	Payload   json.RawMessage `json:"payload"`
}

func (r *replayRehearsal) Open(context.Context, bus.OpenReplay) (bus.Ahead, error) {
	return bus.Ahead{}, nil
}

func (r *replayRehearsal) Put(ctx context.Context, e bus.StoredEvent) (bool, error) {
	made, err := r.rehearsal.Handle(ctx, e)
	if err != nil {
		return false, err
	}
	r.events++
	r.deliveries += len(made.Deliveries)
	l := rehearsedLine{
		Sequence: e.Sequence, Event: e.Name.Event, ID: e.ID, Tenant: e.Name.Tenant, Conversation: e.Conversation,
		Outcome: made.Outcome, Reason: made.Reason, Deliveries: []rehearsedDelivery{}, Differences: []handlers.Difference{},
	}
	if made.Err != nil {
		l.Error = made.Err.Error()
	}
	for _, d := range made.Deliveries {
		l.Deliveries = append(l.Deliveries, rehearsedDelivery{d.Agent, d.Type, d.Transient, payload(d.Payload)})
	}
	if r.diff {
		delivered, err := r.rehearsal.Delivered(ctx, e)
		if err != nil {
			return false, err
		}
		l.Differences = append(l.Differences, handlers.Diff(delivered, made)...)
		if len(l.Differences) == 0 {
			return true, nil
		}
		r.differ++
	}
	return true, r.print(l)
}

func (r *replayRehearsal) print(l rehearsedLine) error {
	if r.app.json {
		return line(r.out, l)
	}
	_, err := fmt.Fprintf(r.out, "%d  %s  %s  %s  %s", l.Sequence, printable(l.Event), orDash(printable(l.ID)), orDash(printable(l.Conversation)), l.Outcome)
	if err == nil && l.Reason+l.Error != "" {
		_, err = fmt.Fprintf(r.out, " %s: %s", l.Reason, printable(l.Error))
	}
	if err == nil {
		_, err = fmt.Fprintln(r.out)
	}
	if err != nil {
		return err
	}
	if r.diff {
		return r.printDifferences(l.Differences)
	}
	for _, d := range l.Deliveries {
		mark := ""
		if d.Transient {
			mark = "  transient"
		}
		if _, err := fmt.Fprintf(r.out, "  %s  %s  %s%s\n", printable(d.Agent), d.Type, d.Payload, mark); err != nil {
			return err
		}
	}
	return nil
}

func (r *replayRehearsal) printDifferences(differences []handlers.Difference) error {
	for _, d := range differences {
		of := ""
		if d.Agent != "" {
			of = fmt.Sprintf("  %s  %s", printable(d.Agent), d.Type)
		}
		if _, err := fmt.Fprintf(r.out, "  %s%s\n", d.Kind, of); err != nil {
			return err
		}
		for _, c := range d.Changes {
			if _, err := fmt.Fprintf(r.out, "    %s: delivered %s, rehearsed %s\n", printable(c.Path), orDash(printable(c.Delivered)), orDash(printable(c.Rehearsed))); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *replayRehearsal) Flush(context.Context) (uint64, error) { return 0, r.out.Flush() }
func (r *replayRehearsal) Close() error                          { return nil }

// summary counts what was shown.
func (r *replayRehearsal) summary() string {
	s := plural(r.deliveries, "delivery")
	if r.deliveries != 1 {
		s = fmt.Sprintf("%d deliveries", r.deliveries)
	}
	if r.diff {
		s += fmt.Sprintf(", %s from what was delivered", map[bool]string{true: "no event differs", false: plural(r.differ, "event") + " differ"}[r.differ == 0])
	}
	return s + ", nothing was sent"
}
