package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
)

// importCommand stores the events of an export again.
type importCommand struct {
	app                    *app
	file                   string
	handle, yes, keepGoing bool
}

func newImportCommand(a *app) *cobra.Command {
	c := &importCommand{app: a, file: "-"}
	cmd := &cobra.Command{
		Use: "import [FILE|-]", Short: "Store the events of an export again, as history", Args: cobra.MaximumNArgs(1),
		Long: `Store the events of an export again, from a file or stdin: with their subjects, bodies and headers as they were. They get new
sequences and times, in the order of the file within each conversation. Only headers that an event is published with come back; other
Nats-* and Cim-* ones are left out, and counted.

They are stored as history: find, tail, trace, replay and export show them, and no handler acts on them, so that they reach no agent and change
no conversation. With --handle they are events as if published now: every handler handles them, and agents who are in their conversations
get them. Copies that were made to redrive or replay an event are left out then.

Every line is checked before anything is stored; a broken one is told with its number, and nothing is done, unless --keep-going: then the
others are stored, and the exit code is 1. The plan is shown first, and carried out with --yes, or after a question on a terminal.

What is stored already is not stored again, which is a success: an event is known by its message id, or the id in its body, and compared with
all that its tenant has in the stream. So an import that was broken off is repeated as it was.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				c.file = args[0]
			}
			return a.withBus(cmd.Context(), func(b *bus.Bus) error { return a.withoutBus(c.run(cmd.Context(), b)) })
		},
	}
	f := cmd.Flags()
	f.BoolVar(&c.handle, "handle", false, "have the events handled as if they were published now: agents get them")
	f.BoolVar(&c.yes, "yes", false, "carry the plan out without asking")
	f.BoolVar(&c.keepGoing, "keep-going", false, "leave broken lines out and import the others")
	return cmd
}

func (c *importCommand) mode() bus.ImportMode {
	if c.handle {
		return bus.ImportHandle
	}
	return bus.ImportHistory
}

func (c *importCommand) run(ctx context.Context, b *bus.Bus) error {
	file, done, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer done()
	plan, err := c.plan(ctx, b, file)
	if err != nil {
		return err
	}
	if plan.Broken > 0 && !c.keepGoing {
		c.app.tell("nothing was imported: %s, told above; mend the file, or leave them out with --keep-going", plural(plan.Broken, "broken line"))
		return errReported
	}
	if !c.app.json || !c.yes {
		if err := c.showPlan(plan); err != nil {
			return err
		}
	}
	if plan.Events > 0 && !c.yes {
		what := fmt.Sprintf("store %s as history", plural(plan.Events, "event"))
		if c.handle {
			what = fmt.Sprintf("have %s handled as if published now", plural(plan.Events, "event"))
		}
		if err := c.app.ask(ctx, what); err != nil {
			return err
		}
	}
	return c.carryOut(ctx, b, file, plan)
}

// open opens the input as a file that can be read twice: stdin is kept in one for that time.
func (c *importCommand) open(ctx context.Context) (f *os.File, done func(), err error) {
	if c.file != "-" {
		f, err := os.Open(c.file)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: give the path of a readable file", err)
		}
		info, err := f.Stat()
		if err == nil && info.Mode().IsRegular() {
			return f, func() { _ = f.Close() }, nil // nothing was written
		}
		defer func() { _ = f.Close() }()
		if err != nil {
			return nil, nil, err
		}
		return spool(ctx, f)
	}
	return spool(ctx, c.app.stdin)
}

// spool keeps what can be read once in a file of its own, until done.
func spool(ctx context.Context, in io.Reader) (f *os.File, done func(), err error) {
	if f, err = os.CreateTemp("", "cimbus-import-*"); err != nil {
		return nil, nil, fmt.Errorf("keep the input: %w", err)
	}
	done = func() {
		_ = f.Close() // it is of no more use
		_ = os.Remove(f.Name())
	}
	if _, err = io.Copy(f, &interruptible{ctx, in}); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		done()
		if ctx.Err() != nil {
			return nil, nil, errors.New("interrupted: nothing was imported")
		}
		return nil, nil, fmt.Errorf("keep the input in %s: %w", os.TempDir(), err)
	}
	return f, done, nil
}

// carryOut stores what the plan found.
func (c *importCommand) carryOut(ctx context.Context, b *bus.Bus, file *os.File, plan *importPlan) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read %s again: %w", c.file, err)
	}
	publisher, err := b.NewPublisher(bus.PublisherOptions{MaxPending: maxInFlight})
	if err != nil {
		return err
	}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	outcomes := make(chan outcome, maxInFlight)
	reported := make(chan importTally, 1)
	go func() { reported <- c.report(outcomes, stop) }()
	known := 0
	failed := c.send(reading, publisher, file, plan, outcomes, &known)
	close(outcomes)
	settle := context.WithoutCancel(ctx)
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		settle, cancel = context.WithTimeout(settle, lastReceipts)
		defer cancel()
	}
	closed := publisher.Close(settle)
	t := <-reported
	t.duplicates += known
	if reading.Err() != nil {
		failed = nil // told, or the operator's own wish
	}
	return c.sum(plan, t, ctx.Err() != nil, errors.Join(failed, closed))
}

// send sends the lines on their way that are not stored yet.
func (c *importCommand) send(ctx context.Context, p *bus.Publisher, file *os.File, plan *importPlan, outcomes chan<- outcome, known *int) error {
	for l, err := range importLines(file) {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		e, err := l.event(plan.limit)
		if err != nil || plan.leavesOut(e) {
			continue
		}
		if !plan.take(e) {
			*known++
			continue
		}
		o := outcome{where: fmt.Sprintf("%s: line %d", c.name(), l.number)}
		o.pending, o.err = p.Import(ctx, e, plan.mode)
		if o.err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		outcomes <- o
	}
	return nil
}

func (c *importCommand) name() string {
	if c.file == "-" {
		return "stdin"
	}
	return c.file
}

// importTally is what became of the events that were sent.
type importTally struct{ stored, duplicates, failed int }

// report takes the outcomes, and ends the import at the first event that could not be stored: those behind it would fare no better, or
// belong behind it.
func (c *importCommand) report(outcomes <-chan outcome, stop context.CancelFunc) importTally {
	var t importTally
	for o := range outcomes {
		var receipt bus.Receipt
		if o.err == nil {
			receipt, o.err = o.pending.Receipt()
		}
		switch {
		case o.err != nil:
			if t.failed == 0 {
				c.app.tell("%s: %v", o.where, advised(o.err))
			}
			t.failed++
			stop()
		case receipt.Duplicate:
			t.duplicates++
		default:
			t.stored++
		}
	}
	return t
}

// imported is what an import did, as --json prints it.
type imported struct {
	Import      string `json:"import"` // history or handle
	Events      int    `json:"events"` // that were to be imported
	Stored      int    `json:"stored"`
	Duplicates  int    `json:"duplicates"` // stored before
	Broken      int    `json:"broken"`     // lines left out
	Copies      int    `json:"copies"`     // redriven or replayed ones, left out
	HeadersLost int    `json:"headers_left_out"`
}

func (c *importCommand) sum(plan *importPlan, t importTally, interrupted bool, failed error) error {
	r := imported{string(plan.mode), plan.Events, t.stored, t.duplicates, plan.Broken, plan.Copies, plan.HeadersLost}
	if c.app.json {
		if err := line(c.app.stdout, r); err != nil {
			return err
		}
	} else {
		c.app.tell("imported %s as %s, %d were stored before; left out: %s, %s, %s", plural(r.Stored, "event"), r.Import, r.Duplicates,
			plural(r.Broken, "broken line"), plural(r.Copies, "redriven or replayed event"), plural(r.HeadersLost, "header"))
	}
	switch {
	case interrupted:
		return errors.New("interrupted: repeat the command, it stores what is missing")
	case failed != nil || t.failed > 0:
		return errors.Join(failed, errors.New("not whole: repeat the command, it stores what is missing"))
	case r.Broken > 0:
		return errReported
	}
	return nil
}
