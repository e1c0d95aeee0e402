package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
)

// replayCommand is what a replay is told.
type replayCommand struct {
	app       *app
	selection selection
	follow    bool
	to        []string
	diff      bool
	pace      string
	id        string
	operator  string
	yes       bool
	planOnly  bool
	after     uint64
}

func newReplayCommand(a *app) *cobra.Command {
	c := &replayCommand{app: a}
	cmd := &cobra.Command{
		Use: "replay", Short: "Replay stored events, to look at, to a file, a subject, a handler or agents",
		Long: `Replay stored events: all, or those that pass the filters, from one place to another, up to what is there when it begins, or with
--follow to what comes later, too. They go to

  stdout                 as NDJSON, the default
  file:PATH              as NDJSON into a new file
  subject:SUBJECT        of your own, bodies as they are; one that ends with .> has the event's own subject in place of it
  rehearsal:HANDLER      what the handler makes of them is shown, with --diff how that differs from what was delivered; nothing is sent
  handler:HANDLER        the handler takes them again, for real
  agent:NAME[,NAME…]     these agents get them again, as deliveries of the type replay, never among their live onCimEvents

Nothing reaches an agent unless agent: is said. What goes to handlers and agents is planned first, and done with --yes or after a
question on a terminal. Workers and live agents are not disturbed.

A replay has an id. It is recorded who replayed what and how far: cimbus replay ls. Stopped by Ctrl-C, by cimbus replay stop or by a
failure it goes on with cimbus replay resume and repeats nothing. After a kill a file, handlers, agents and subjects that a stream keeps
still get each event once; what goes to stdout, or to a subject that nothing keeps, is repeated from the last record, a second or less
before.

` + pointHelp,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return c.start(cmd) },
	}
	f := cmd.Flags()
	c.selection.register(f)
	f.BoolVar(&c.follow, "follow", false, "go on with what is stored later, until interrupted")
	f.StringArrayVar(&c.to, "to", nil, "`target`, see above; agent: may be repeated")
	f.BoolVar(&c.diff, "diff", false, "with rehearsal: only what differs from what was delivered")
	f.StringVar(&c.pace, "pace", "max", "how fast: max, a multiple of the original `pace` as 1x or 2.5x, or a number a second as 50/s")
	f.StringVar(&c.id, "replay-id", "", "`name` of the replay (default a new one)")
	f.BoolVar(&c.planOnly, "plan", false, "show what would be replayed, and do nothing")
	c.acting(cmd)
	cmd.AddCommand(newReplayListCommand(a), newReplayShowCommand(a), newReplayResumeCommand(a), newReplayStopCommand(a))
	return cmd
}

// acting adds the flags of who carries out what is asked about first.
func (c *replayCommand) acting(cmd *cobra.Command) {
	host, _ := os.Hostname() // an operator without a host is still one
	name := c.app.operatorName(host)
	cmd.Flags().StringVar(&c.operator, "operator", "", "who does it, recorded (default "+name+")")
	cmd.Flags().BoolVar(&c.yes, "yes", false, "carry the plan out without asking")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c.operator = cmp.Or(c.operator, name)
		return run(cmd, args)
	}
}

func (c *replayCommand) start(cmd *cobra.Command) error {
	sel, err := c.selection.selects(time.Now())
	if err != nil {
		return err
	}
	pace, err := bus.ParsePace(c.pace)
	if err != nil {
		return usagef("--%v", err)
	}
	to, err := parseReplayTo(c.to, c.diff)
	if err != nil {
		return err
	}
	switch {
	case c.follow && c.selection.until != "":
		return usagef("--follow goes on for ever: leave out --until")
	case c.follow && to.acts():
		return usagef("--follow: %s gets what is new anyway", to)
	case len(to.agents) > 0 && sel.Tenant.Name() == "":
		return usagef("--to %s: agents belong to a tenant: add --tenant", to)
	}
	ctx := cmd.Context()
	return c.app.withBus(ctx, func(b *bus.Bus) error { return c.app.withoutBus(c.replay(ctx, b, sel, to, pace)) })
}

// replay plans where that is asked for, and replays.
func (c *replayCommand) replay(ctx context.Context, b *bus.Bus, sel bus.EventSelection, to replayTo, pace bus.Pace) error {
	span, err := b.Span(ctx, bus.StreamEvents, sel.From, sel.Until)
	if err != nil {
		return err
	}
	target, err := to.open(ctx, b, c.app, sel.Tenant.Name())
	if err != nil {
		return err
	}
	if to.acts() || c.planOnly {
		if done, err := c.plan(ctx, b, sel, span, to); err != nil || done {
			return err
		}
	}
	n := bus.NewReplay{
		ID: c.id, Operator: c.operator, Target: to.String(), Selection: sel, Span: span, Follow: c.follow, Pace: pace,
	}
	r, err := b.StartReplay(ctx, n)
	if errors.Is(err, bus.ErrReplayUnrecorded) && !to.acts() && ctx.Err() == nil {
		c.app.tell("%v; replaying without: nobody can go on with it", err)
		n.Unrecorded = true
		r, err = b.StartReplay(ctx, n)
	}
	if errors.Is(err, bus.ErrReplayExists) {
		return fmt.Errorf("%w: cimbus replay show %s tells of it, cimbus replay resume %s goes on with it", err, shellWord(c.id), shellWord(c.id))
	}
	if err != nil {
		return err
	}
	return c.carryOut(ctx, r, target, to)
}

// carryOut replays, and tells how that ended.
func (c *replayCommand) carryOut(ctx context.Context, r *bus.Replay, target bus.ReplayTarget, to replayTo) error {
	if c.app.env("GOGC") == "" {
		// What is held is a few MiB, what passes by hundreds a second: at the default a fifth of the time went into collecting it.
		defer debug.SetGCPercent(debug.SetGCPercent(400))
	}
	if to.prints() {
		// Where nobody reads on, as behind head, it is to end as any that failed: recorded, and with a way to go on.
		end := outliveReader()
		defer end()
	}
	began, before := time.Now(), r.Record().Events
	bar := c.progress(r, to)
	record, err := r.To(ctx, target)
	bar.end()
	if c.app.json && !to.prints() {
		if err := line(c.app.stdout, record); err != nil {
			return err
		}
	}
	took := time.Since(began)
	events := record.Events - before
	what := fmt.Sprintf("%s to %s in %s (%.0f/s)", plural(int(events), "event"), to, age(took), float64(events)/max(took.Seconds(), 1e-3))
	if record.LeftOut > 0 {
		what += fmt.Sprintf(", %d of them left out", record.LeftOut)
	}
	if closing, ok := target.(interface{ summary() string }); ok && err == nil {
		what += "; " + closing.summary()
	}
	again := "cimbus replay resume " + shellWord(record.ID)
	switch {
	case err == nil:
		c.app.tell("replay %s: %s", record.ID, what)
		return nil
	case errors.Is(err, bus.ErrReplayTaken):
		return err
	case errors.Is(err, bus.ErrReplayStopped) && !errors.Is(err, bus.ErrReplayUnrecorded):
		c.app.tell("replay %s: stopped behind event %d after %s; go on with: %s", record.ID, record.Done, what, again)
		if c.follow {
			return nil
		}
		return errReported
	}
	return fmt.Errorf("replay %s: failed behind event %d after %s: %w; once that is mended go on with: %s", record.ID, record.Done, what, err, again)
}
