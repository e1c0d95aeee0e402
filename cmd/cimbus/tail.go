package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/subjects"
)

// tailCommand prints what happens on the bus.
type tailCommand struct {
	app *app
	selection
	content
	deliveries  bool
	agent, kind string
}

func newTailCommand(a *app) *cobra.Command {
	c := &tailCommand{app: a}
	cmd := &cobra.Command{
		Use: "tail", Short: "Watch events as they are stored, or deliveries as agents get them", Args: noArgs,
		Long: `Watch events from now on as they are stored, or with --deliveries what agents get, until interrupted. Events are read from their
stream, none is missed; deliveries are the live copies, transient ones included. With --from, what is stored since then comes first.

` + pointHelp + `

` + contentHelp,
		Example: `  cimbus tail --tenant acme --event 'AGENT_*' --from 10m
  cimbus tail --deliveries --agent ada --json`,
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
				return usagef("--agent and --type: events have no receiver; add --deliveries to watch what an agent gets")
			}
			return c.run(cmd.Context(), sel, content)
		},
	}
	c.registerNames(cmd.Flags())
	c.content.register(cmd.Flags())
	cmd.Flags().BoolVar(&c.deliveries, "deliveries", false, "deliveries to agents instead of events; --event is then the event's name, or the type of what is none")
	cmd.Flags().StringVar(&c.agent, "agent", "", "only deliveries to this agent")
	cmd.Flags().StringVar(&c.kind, "type", "", "only deliveries of this type, such as onCimEvent")
	return cmd
}

func match(name string) subjects.Match {
	if name == "" {
		return subjects.Any
	}
	return subjects.Is(name)
}

func (c *tailCommand) run(ctx context.Context, sel bus.EventSelection, content bus.Content) error {
	w := &watch{app: c.app, began: time.Now(), one: "event", many: "events"}
	if !c.deliveries {
		if content.Asks() {
			sel.Where = func(e *bus.StoredEvent) bool { return content.In(e.Data) }
		}
		w.seen = c.app.seenEvents()
		return w.end(c.app.withBus(ctx, func(b *bus.Bus) error { return c.app.withoutBus(w.events(ctx, b, sel)) }))
	}
	d := deliverySelection(sel, c.agent, c.kind)
	if content.Asks() {
		d.Where = func(d *bus.StoredDelivery) bool { return content.In(d.Data) }
	}
	w.one, w.many, w.seen = "delivery", "deliveries", c.app.seenDeliveries()
	if !sel.From.IsZero() {
		return w.end(c.app.withBus(ctx, func(b *bus.Bus) error { return c.app.withoutBus(w.deliveries(ctx, b, b.Conn(), d, sel.From)) }))
	}
	// Who may only hear its own deliveries may watch them.
	nc, err := c.app.target().dial(c.app.log(hclog.Warn))
	if err != nil {
		return w.end(err)
	}
	defer nc.Close()
	return w.end(w.deliveries(ctx, nil, nc, d, bus.Point{}))
}

// watch is a tail under way.
type watch struct {
	*seen
	app   *app
	began time.Time
	count int

	one, many string // what is counted
}

// events begins behind the last event there is, by its number, or where it is told to: none is missed.
func (w *watch) events(ctx context.Context, b *bus.Bus, sel bus.EventSelection) error {
	span, err := b.Span(ctx, bus.StreamEvents, sel.From, bus.Point{})
	if err != nil {
		return err
	}
	filters, err := sel.Subjects()
	if err != nil {
		return err
	}
	from := span.Last + 1
	if !sel.From.IsZero() {
		from = span.First
	}
	if err := w.live(filters); err != nil {
		return err
	}
	for e, err := range b.FollowEvents(ctx, sel, from) {
		if err != nil {
			return unlessEnded(ctx, err)
		}
		w.count++
		if err := w.event(&e); err != nil {
			return err
		}
	}
	return nil
}

// deliveries hears the live copies before it reads what is stored, and of those leaves out what it has read.
func (w *watch) deliveries(ctx context.Context, b *bus.Bus, nc *nats.Conn, sel bus.DeliverySelection, from bus.Point) error {
	filter, err := sel.Live()
	if err != nil {
		return &usageError{err}
	}
	sub, err := nc.SubscribeSync(filter)
	if err != nil {
		return err
	}
	if err := nc.Flush(); err != nil {
		return err
	}
	span := bus.Span{First: 1} // nothing
	if b != nil {
		if span, err = b.Span(ctx, bus.StreamDeliveries, from, bus.Point{}); err != nil {
			return err
		}
	}
	if err := w.live([]string{filter}); err != nil {
		return err
	}
	if b != nil {
		for d, err := range b.DeliveriesIn(ctx, sel, span, false) {
			if err == nil {
				w.count++
				err = w.delivery(&d)
			}
			if err != nil {
				return unlessEnded(ctx, err)
			}
		}
	}
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if errors.Is(err, nats.ErrSlowConsumer) {
			w.app.tell("deliveries came faster than they were printed, some are missing here")
			continue
		}
		if err != nil {
			return unlessEnded(ctx, err)
		}
		d, err := bus.ReadLive(m)
		if err != nil {
			return err
		}
		if !d.Transient && d.Position.Sequence <= span.Last || !sel.Passes(&d) {
			continue
		}
		w.count++
		if err := w.delivery(&d); err != nil {
			return err
		}
	}
}

// live tells that nothing is missed from now on.
func (w *watch) live(filters []string) error {
	return line(w.app.stderr, struct {
		Live   bool   `json:"live"`
		Filter string `json:"filter"`
	}{true, strings.Join(filters, " ")})
}

// end tells how much was seen.
func (w *watch) end(err error) error {
	if closed := w.close(); err == nil {
		err = closed
	}
	if err == nil {
		what := w.many
		if w.count == 1 {
			what = w.one
		}
		w.app.tell("%d %s in %s", w.count, what, age(time.Since(w.began)))
	}
	return err
}
