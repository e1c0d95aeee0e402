package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/config"
)

func newStreamsSnapshotCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "snapshot DIR", Short: "Copy all streams into a new folder, while they are in use", Args: oneDir,
		Long: `Copy all streams, with their consumers, into a new folder, while they are in use. Nothing has to stop, and what is copied fits together:
restored, every handler goes on where it was when the snapshot was begun, and nothing is lost, or done twice, of what the snapshot holds.

The folder is there once all of it is whole, and not before: broken off, or with a full disk, nothing is left.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBus(cmd.Context(), func(b *bus.Bus) error {
				return a.withoutBus(a.snapshot(cmd.Context(), b, args[0]))
			})
		},
	}
}

func oneDir(_ *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return usagef("name one folder")
	}
	return nil
}

func (a *app) snapshot(ctx context.Context, b *bus.Bus, dir string) error {
	began := time.Now()
	s, err := b.TakeSnapshot(ctx, dir, bus.SnapshotOptions{Version: readBuild().Version, Progress: a.transfer("copying")})
	a.clear()
	if errors.Is(err, context.Canceled) {
		return errors.New("broken off: nothing is left of it")
	}
	if err != nil {
		return err
	}
	t := table{head: []string{"STREAM", "MESSAGES", "FIRST", "LAST", "FILE", "BYTES"}}
	for _, each := range s.Streams {
		if a.json {
			if err := line(a.stdout, each); err != nil {
				return err
			}
			continue
		}
		t.row(each.Stream, fmt.Sprint(each.Messages), fmt.Sprint(each.First), fmt.Sprint(each.Last), each.File, size(each.Bytes))
	}
	if !a.json {
		if err := t.write(a.stdout); err != nil {
			return err
		}
	}
	a.tell("snapshot of %s in %s: %s, in %s", s.Taken.Format(time.RFC3339), dir, size(s.Bytes()), age(time.Since(began)))
	return nil
}

// transfer is a line on a terminal that tells how far a transfer is; nil where there is none.
func (a *app) transfer(verb string) func(bus.SnapshotProgress) {
	if !isTerminal(a.stderr) {
		return nil
	}
	told := time.Time{}
	return func(p bus.SnapshotProgress) {
		if time.Since(told) > 100*time.Millisecond {
			told = time.Now()
			_, _ = fmt.Fprintf(a.stderr, "\r\x1b[K%s %s: %s of at most %s", verb, p.Stream, size(p.Bytes), size(max(p.Of, p.Bytes)))
		}
	}
}

// clear takes the line of a transfer away.
func (a *app) clear() {
	if isTerminal(a.stderr) {
		_, _ = fmt.Fprint(a.stderr, "\r\x1b[K")
	}
}

// restoreCommand is what a restoring is told.
type restoreCommand struct {
	app         *app
	store, file string
	yes, force  bool
}

func newStreamsRestoreCommand(a *app) *cobra.Command {
	c := &restoreCommand{app: a}
	cmd := &cobra.Command{
		Use: "restore DIR", Short: "Put all streams back as a snapshot has them", Args: oneDir,
		Long: `Put all streams back as a snapshot has them, and every handler where it was then. No process may run a handler meanwhile: stop the
daemons first. Into the store of a daemon's own server, which is stopped with it, restore with --store.

Verifies the snapshot, shows the plan, and carries it out with --yes, or after a question on a terminal. Streams that hold something are
replaced with --force only: take a snapshot of them first. Streams are restored as the configuration declares them.

The copy is known as one: the log, cimbus doctor and streams info tell of which snapshot it is. Agents resume from positions that lie within
the snapshot; the others are answered as expired (restored). What was published after the snapshot is not there: have it published again.

Broken off, nothing is left of it; killed, streams are left that no daemon opens until restore has run again.

` + streamsConfigHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			if c.store != "" && (a.server != "" || a.context != "") {
				return usagef("--store is a folder, --server and --context name a server: give one of them")
			}
			s, err := bus.OpenSnapshot(args[0])
			if err != nil {
				return err
			}
			return c.open(cmd.Context(), func(b *bus.Bus) error { return c.run(cmd.Context(), b, s) })
		},
	}
	configFlag(cmd, &c.file)
	cmd.Flags().StringVar(&c.store, "store", "", "store `folder` of a daemon that is stopped, instead of a server")
	cmd.Flags().BoolVar(&c.yes, "yes", false, "carry the plan out without asking")
	cmd.Flags().BoolVar(&c.force, "force", false, "delete streams that hold something")
	return cmd
}

// open runs do on the bus at a server, or on a server of its own on a store.
func (c *restoreCommand) open(ctx context.Context, do func(*bus.Bus) error) error {
	if c.store == "" {
		return c.app.withDeclared(ctx, c.file, do)
	}
	conf, err := config.Load(config.Sources{File: c.file, Environ: c.app.environ})
	if err != nil {
		return err
	}
	b, err := bus.Open(ctx, bus.Options{
		Embedded: embedded.Options{
			StoreDir: c.store, Durability: embedded.Balanced, MaxStore: conf.StoreLimits.MaxBytes, MaxMemory: conf.StoreLimits.MaxMemory,
		},
		NATS: []nats.Option{nats.Name("cimbus")}, Streams: streamOptions(conf), LeaveStreams: true, Logger: c.app.log(hclog.Warn),
	})
	if errors.Is(err, embedded.ErrStoreInUse) {
		return fmt.Errorf("%w: stop the daemon first", err)
	}
	if err != nil {
		return err
	}
	return errors.Join(do(b), b.Close(context.WithoutCancel(ctx)))
}

// restoreLine is a stream of a plan as --json prints it.
type restoreLine struct {
	Plan     string    `json:"plan"` // restore
	Stream   string    `json:"stream"`
	Taken    time.Time `json:"taken"`
	Messages uint64    `json:"messages"`
	Last     uint64    `json:"last"`
	Exists   bool      `json:"exists"`
	Holds    uint64    `json:"holds"` // messages that are there now and would be lost
	Aged     bool      `json:"aged"`  // all of it is older than the stream keeps, and goes at once
}

func (c *restoreCommand) run(ctx context.Context, b *bus.Bus, s *bus.Snapshot) error {
	plan, err := b.PlanRestore(ctx, s)
	if err != nil {
		return err
	}
	if !c.app.json || !c.yes {
		if err := c.show(plan); err != nil {
			return err
		}
	}
	holds := plan.Holds()
	switch {
	case len(plan.Running) > 0:
		c.app.tell("nothing was done: %v (%s); into a daemon's own store restore with --store once it is stopped", bus.ErrHandlersRun, strings.Join(plan.Running, ", "))
		return errReported
	case len(holds) > 0 && !c.force:
		c.app.tell("nothing was done: %v; take a snapshot of them, then add --force", bus.ErrStreamsHold)
		return errReported
	}
	if !c.yes {
		if err := c.app.ask(ctx, "restore the snapshot of "+s.Taken.Format(time.RFC3339)); err != nil {
			return err
		}
	}
	began := time.Now()
	err = b.Restore(ctx, plan, bus.RestoreOptions{Force: c.force, Progress: c.app.transfer("restoring")})
	c.app.clear()
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("broken off, nothing is left of it: %w", err)
	}
	if err != nil {
		return err
	}
	c.app.tell("restored %s from the snapshot of %s, in %s", plural(len(plan.Streams), "stream"), s.Taken.Format(time.RFC3339), age(time.Since(began)))
	return nil
}

func (c *restoreCommand) show(p bus.RestorePlan) error {
	t := table{head: []string{"STREAM", "MESSAGES", "LAST", "NOW THERE", "NOTE"}}
	for _, s := range p.Streams {
		if c.app.json {
			l := restoreLine{"restore", s.Stream, p.Snapshot.Taken, s.Messages, s.Last, s.Exists, s.Holds, s.Aged}
			if err := line(c.app.stdout, l); err != nil {
				return err
			}
			continue
		}
		now, note := "-", ""
		if s.Exists {
			now = fmt.Sprint(s.Holds)
		}
		if s.Aged {
			note = "older than the stream keeps: goes at once"
		}
		t.row(s.Stream, fmt.Sprint(s.Messages), fmt.Sprint(s.Last), now, note)
	}
	if c.app.json {
		return nil
	}
	if _, err := fmt.Fprintf(c.app.stdout, "snapshot of %s, cimbus %s\n", p.Snapshot.Taken.Format(time.RFC3339), orDash(p.Snapshot.Version)); err != nil {
		return err
	}
	return t.write(c.app.stdout)
}
