package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

const (
	// maxInFlight is how many events may be without their receipt, and so how many are held.
	maxInFlight = 256
	// lastReceipts is how long an interrupted publish waits for the receipts of what is on its way.
	lastReceipts = 2 * time.Second
)

// publishCommand publishes events from files.
type publishCommand struct {
	app     *app
	tenant  string
	channel string
	event   string
}

func newPublishCommand(a *app) *cobra.Command {
	c := &publishCommand{app: a}
	cmd := &cobra.Command{
		Use: "publish [FILE…|-]", Short: "Publish events from files or stdin",
		Long: `Publish CIM events from files, or from stdin: objects one after another, on a line each (NDJSON) or over several, and arrays of
them. Every event is published byte for byte as it stands there. For each one that is stored a receipt is printed, in the order
of the input:

  {"subject","stream","seq","duplicate"}

A duplicate, an event that was stored before, is a success. What cannot be published is told on stderr with its place and what to
do; the others are published, and the exit code is 1.`,
		RunE: func(cmd *cobra.Command, files []string) error {
			if _, err := (subjects.EventFilter{Tenant: subjects.Is(c.tenant), Channel: match(c.channel), Event: match(c.event)}).Subject(); err != nil {
				return &usageError{err}
			}
			if len(files) == 0 {
				files = []string{"-"}
			}
			return a.withBus(cmd.Context(), func(b *bus.Bus) error { return c.run(cmd.Context(), b, files) })
		},
	}
	cmd.Flags().StringVar(&c.tenant, "tenant", "", "tenant (required)")
	cmd.Flags().StringVar(&c.channel, "channel", "", "channel to publish on, such as web (default each event's own)")
	cmd.Flags().StringVar(&c.event, "event", "", "`name` that every event must have (default each event's own)")
	required(cmd, "tenant")
	return cmd
}

// outcome is what became, or will become, of one item.
type outcome struct {
	where   string
	pending *bus.Pending
	err     error
}

// run reads, publishes and reports side by side: the outcomes wait in a queue, in the order of the input.
func (c *publishCommand) run(ctx context.Context, b *bus.Bus, files []string) error {
	publisher, err := b.NewPublisher(bus.PublisherOptions{MaxPending: maxInFlight})
	if err != nil {
		return err
	}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	outcomes := make(chan outcome, maxInFlight)
	reported := make(chan tally, 1)
	go func() { reported <- c.report(outcomes, stop) }()

	for _, file := range files {
		if err := c.publishFile(reading, publisher, file, outcomes); err != nil && reading.Err() == nil {
			outcomes <- outcome{where: file, err: err}
		}
	}
	close(outcomes)
	settle := context.WithoutCancel(ctx)
	if ctx.Err() != nil {
		// No more waiting for receipts: closing the publisher settles all that have none, and they are reported.
		var cancel context.CancelFunc
		settle, cancel = context.WithTimeout(settle, lastReceipts)
		defer cancel()
	}
	closed := publisher.Close(settle)
	return c.sum(<-reported, ctx.Err() != nil, closed)
}

// tally is what became of all items.
type tally struct {
	stored, failed int
	gaveUp         bool  // the rest of the input was left unread
	err            error // stdout takes no more
}

// hopeless tells of an error that what is still to be read would meet too, each item after a long wait.
func hopeless(err error) bool {
	return errors.Is(err, bus.ErrUnreachable) || errors.Is(err, bus.ErrNoStream) || errors.Is(err, bus.ErrClosed)
}

// advised adds to an error what can be done about it here.
func advised(err error) error {
	switch {
	case errors.Is(err, bus.ErrNoStream):
		return fmt.Errorf("%w: start a daemon with cimbus serve, or make the streams with cimbus streams apply", err)
	case errors.Is(err, context.Canceled):
		return errors.New("not published: interrupted")
	}
	return err
}

// sum is the error of the whole.
func (c *publishCommand) sum(t tally, interrupted bool, closed error) error {
	switch {
	case interrupted:
		return fmt.Errorf("interrupted: %s stored", plural(t.stored, "event"))
	case t.err != nil || closed != nil:
		return errors.Join(t.err, closed)
	case t.gaveUp:
		return fmt.Errorf("gave up, the rest of the input was not read; %s stored", plural(t.stored, "event"))
	case t.failed > 0:
		return fmt.Errorf("%s, told above; %s stored", plural(t.failed, "problem"), plural(t.stored, "event"))
	case t.stored == 0:
		c.app.tell("cimbus publish: the input holds no events")
	}
	return nil
}

// publishFile sends the items of one file on their way. Its error is one of reading.
func (c *publishCommand) publishFile(ctx context.Context, p *bus.Publisher, file string, outcomes chan<- outcome) error {
	name, in := "stdin", io.Reader(&interruptible{ctx, c.app.stdin})
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("%w: give the path of a readable file", errors.Unwrap(err))
		}
		defer func() { _ = f.Close() }() // nothing was written
		name, in = file, f
	}
	for from := newItems(in); ctx.Err() == nil; {
		it, err := from.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		outcomes <- c.publish(ctx, p, name, it)
	}
	return ctx.Err()
}

func (c *publishCommand) publish(ctx context.Context, p *bus.Publisher, file string, it item) outcome {
	o := outcome{err: it.err}
	if o.err == nil {
		o.pending, o.err = c.send(ctx, p, it.body)
	}
	o.where = fmt.Sprintf("%s: item %d, line %d", file, it.number, it.line+lineOf(it.body, o.err))
	return o
}

func (c *publishCommand) send(ctx context.Context, p *bus.Publisher, body []byte) (*bus.Pending, error) {
	var opts []bus.EventOption
	if c.channel != "" {
		opts = append(opts, bus.OnChannel(c.channel))
	}
	if c.event != "" {
		opts = append(opts, bus.Named(c.event))
	}
	e, err := bus.NewEvent(c.tenant, body, opts...)
	if err != nil {
		return nil, err
	}
	return p.Publish(ctx, e)
}

// lineOf is how many lines below its first one an item is broken.
func lineOf(body []byte, err error) int {
	var broken *cim.Error
	if !errors.As(err, &broken) || broken.Field != "body" || broken.Offset < 0 || broken.Offset > int64(len(body)) {
		return 0
	}
	return bytes.Count(body[:broken.Offset], []byte("\n"))
}

// report prints what became of every item, in order. When stdout takes no more, or nothing can be published any more, it stops
// the reading, and goes on with what was read.
func (c *publishCommand) report(outcomes <-chan outcome, stop context.CancelFunc) tally {
	var t tally
	for o := range outcomes {
		var receipt bus.Receipt
		if o.err == nil {
			receipt, o.err = o.pending.Receipt()
		}
		if o.err != nil {
			t.failed++
			c.app.tell("%s: %v", o.where, advised(o.err))
			if t.gaveUp = t.gaveUp || hopeless(o.err); t.gaveUp {
				stop()
			}
			continue
		}
		t.stored++
		if t.err == nil {
			if t.err = line(c.app.stdout, receipt); t.err != nil {
				stop()
			}
		}
	}
	return t
}

// interruptible is a reader whose Read returns when ctx ends. What reads stdin cannot be stopped: it is left behind, and ends
// with the input or the process.
type interruptible struct {
	ctx context.Context
	in  io.Reader
}

func (r *interruptible) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	read := make(chan result, 1)
	buffer := make([]byte, len(p)) // p is the caller's again once this returns
	go func() {
		n, err := r.in.Read(buffer)
		read <- result{n, err}
	}()
	select {
	case got := <-read:
		return copy(p, buffer[:got.n]), got.err
	case <-r.ctx.Done():
		return 0, r.ctx.Err()
	}
}
