package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
)

// findCommand looks for stored events or deliveries.
type findCommand struct {
	app *app
	selection
	content
	deliveries  bool
	agent, kind string
	newest      bool
	limit       int
}

func newFindCommand(a *app) *cobra.Command {
	c := &findCommand{app: a}
	cmd := &cobra.Command{
		Use: "find", Short: "Find stored events, or deliveries", Args: noArgs,
		Long: `Find stored events, or with --deliveries what was stored for agents. All that is asked for must hold. Tenant, channel, names and the
stretch are filters that the server reads by; what was handled of one conversation is had faster by cimbus history. Lines appear as
they are found. The exit code is 1 where nothing is found.

` + pointHelp + `

` + contentHelp,
		Example: `  cimbus find --tenant acme --event 'AGENT_*' --from 2h
  cimbus find --text 4711-0815 --newest --limit 1 --json
  cimbus find --tenant acme --json-path data.body.type=PLAIN --from today
  cimbus find --deliveries --tenant acme --agent ada --from 14:30 --until 14:45`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			sel, err := c.selects(time.Now())
			if err != nil {
				return err
			}
			content, err := c.holds()
			switch {
			case err != nil:
				return err
			case !c.deliveries && (c.agent != "" || c.kind != ""):
				return usagef("--agent and --type: events have no receiver; add --deliveries to find what an agent got")
			case c.limit < 0:
				return usagef("--limit %d: give at least 1, or 0 for all", c.limit)
			}
			return a.withBus(cmd.Context(), func(b *bus.Bus) error { return a.withoutBus(c.run(cmd.Context(), b, sel, content)) })
		},
	}
	c.selection.register(cmd.Flags())
	c.content.register(cmd.Flags())
	cmd.Flags().BoolVar(&c.deliveries, "deliveries", false, "stored deliveries to agents instead of events; --event is then the event's name, or the type of what is none")
	cmd.Flags().StringVar(&c.agent, "agent", "", "only deliveries to this agent")
	cmd.Flags().StringVar(&c.kind, "type", "", "only deliveries of this type, such as onCimEvent")
	cmd.Flags().BoolVar(&c.newest, "newest", false, "the newest first")
	cmd.Flags().IntVar(&c.limit, "limit", 0, "end after so many, 0 = all")
	return cmd
}

func (c *findCommand) run(ctx context.Context, b *bus.Bus, sel bus.EventSelection, content bus.Content) error {
	s := &search{app: c.app, began: time.Now(), stream: bus.StreamEvents, limit: c.limit}
	if c.deliveries {
		s.stream = bus.StreamDeliveries
	}
	var err error
	if s.span, err = b.Span(ctx, s.stream, sel.From, sel.Until); err != nil {
		return err
	}
	if c.deliveries {
		err = c.findDeliveries(ctx, b, sel, content, s)
	} else {
		err = c.findEvents(ctx, b, sel, content, s)
	}
	return s.end(ctx, b, err)
}

func (c *findCommand) findEvents(ctx context.Context, b *bus.Bus, sel bus.EventSelection, content bus.Content, s *search) error {
	sel.Looked = &s.looked
	if content.Asks() {
		sel.Where = func(e *bus.StoredEvent) bool { return content.In(e.Data) }
	}
	read := b.EventsIn
	if c.newest {
		read = b.EventsBackIn
	}
	out := c.app.seenEvents()
	return s.each(out, func(found func(error) bool) {
		for e, err := range read(ctx, sel, s.span) {
			if err == nil {
				err = out.event(&e)
			}
			if !found(err) {
				return
			}
		}
	})
}

func (c *findCommand) findDeliveries(ctx context.Context, b *bus.Bus, sel bus.EventSelection, content bus.Content, s *search) error {
	d := deliverySelection(sel, c.agent, c.kind)
	d.Looked = &s.looked
	if content.Asks() {
		d.Where = func(d *bus.StoredDelivery) bool { return content.In(d.Data) }
	}
	out := c.app.seenDeliveries()
	return s.each(out, func(found func(error) bool) {
		for e, err := range b.DeliveriesIn(ctx, d, s.span, c.newest) {
			if err == nil {
				err = out.delivery(&e)
			}
			if !found(err) {
				return
			}
		}
	})
}

// deliverySelection selects the deliveries to an agent that were made of the events a selection selects.
func deliverySelection(sel bus.EventSelection, agent, kind string) bus.DeliverySelection {
	return bus.DeliverySelection{
		Tenant: sel.Tenant, Agent: match(agent), Type: match(kind), Channel: sel.Channel, Events: sel.Events, Conversation: sel.Conversation, ID: sel.ID,
	}
}

// search is a search under way, and what it has to tell at its end.
type search struct {
	app    *app
	began  time.Time
	stream string
	span   bus.Span
	limit  int

	looked uint64
	found  int
}

// each runs a reading, which calls found for each of its pairs and breaks off where that says so.
func (s *search) each(out *seen, reading func(found func(error) bool)) error {
	var failed error
	reading(func(err error) bool {
		if failed = err; err != nil {
			return false
		}
		s.found++
		return s.limit == 0 || s.found < s.limit
	})
	if err := out.close(); failed == nil {
		failed = err
	}
	return failed
}

// end tells what was found where. Nothing found is a failure, which says what there is.
func (s *search) end(ctx context.Context, b *bus.Bus, err error) error {
	found := fmt.Sprintf("found %d of %d looked at in %s", s.found, s.looked, age(time.Since(s.began)))
	switch {
	case ctx.Err() != nil:
		s.app.tell("interrupted: %s so far", found)
		return errReported
	case err != nil:
		return err
	case s.limit != 0 && s.found == s.limit:
		found += "; there may be more than --limit"
	}
	s.app.tell("%s; searched %s", found, describeSpan(ctx, b, s.span))
	if s.found == 0 {
		return errReported
	}
	return nil
}

// describeSpan names a stretch with its times, as far as they can be had.
func describeSpan(ctx context.Context, b *bus.Bus, span bus.Span) string {
	if span.First > span.Last {
		return span.Stream + ", which has nothing there"
	}
	text := fmt.Sprintf("%s %d to %d", span.Stream, span.First, span.Last)
	first, err := b.NextMessage(ctx, span.Stream, span.First, ">")
	if err != nil {
		return text
	}
	text = fmt.Sprintf("%s %d (%s) to %d", span.Stream, span.First, clock(first.Time), span.Last)
	if last, err := b.MessageAt(ctx, span.Stream, span.Last); err == nil {
		text += fmt.Sprintf(" (%s)", clock(last.Time))
	}
	return text
}
