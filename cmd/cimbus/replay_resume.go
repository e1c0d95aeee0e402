package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
)

func newReplayResumeCommand(a *app) *cobra.Command {
	c := &replayCommand{app: a}
	cmd := &cobra.Command{
		Use: "resume ID", Short: "Go on with a replay that was stopped, failed or was killed", Args: oneReplay,
		Long: `Go on with a replay that was stopped, failed or was killed. What is replayed, where to and how fast is as it was recorded: for anything
else start a new replay. Nothing is repeated; only of what went to stdout, or to a subject that nothing keeps, before a kill nobody
knows how far it came: that is repeated from the last record, unless --after says better.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return a.withBus(ctx, func(b *bus.Bus) error {
				return a.withoutBus(unknownReplay(c.resume(ctx, b, args[0], cmd.Flags().Changed("after"))))
			})
		},
	}
	cmd.Flags().Uint64Var(&c.after, "after", 0, "to stdout: the `sequence` of the last event that arrived")
	c.acting(cmd)
	return cmd
}

func (c *replayCommand) resume(ctx context.Context, b *bus.Bus, id string, after bool) error {
	record, err := b.Replay(ctx, id)
	if err != nil {
		return err
	}
	to, err := recordedTo(record.Target)
	if err != nil {
		return err
	}
	c.follow = record.Follow
	if after && !to.prints() {
		return usagef("--after: %s itself tells how far the replay came; leave it out", to)
	}
	target, err := to.open(ctx, b, c.app, record.Selection.Tenant)
	if err != nil {
		return err
	}
	if to.acts() && record.State != bus.ReplayDone && !b.ReplayRuns(ctx, id) {
		rest := bus.Span{Stream: bus.StreamEvents, First: record.Done + 1, Last: record.Last}
		if _, err := c.plan(ctx, b, record.Selection.Selects(), rest, to); err != nil {
			return err
		}
	}
	r, err := b.ResumeReplay(ctx, id, c.operator)
	if err != nil {
		return err
	}
	if after {
		if err := r.GoOnAfter(c.after); err != nil {
			return usagef("--after: %v", err)
		}
	}
	expired, err := r.Expired(ctx)
	if err != nil {
		return err
	}
	if expired != 0 {
		c.app.tell("events %d to %d have expired since: what was selected of them is missing", r.Record().Done+1, expired)
	}
	return c.carryOut(ctx, r, target, to)
}

func newReplayStopCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "stop ID", Short: "Stop a running replay, wherever it runs", Args: oneReplay,
		Long: "Stop a running replay, wherever it runs. It goes on with cimbus replay resume.",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return a.withBus(ctx, func(b *bus.Bus) error {
				record, err := b.StopReplay(ctx, args[0])
				if err != nil {
					return a.withoutBus(unknownReplay(err))
				}
				a.tell("replay %s: %s behind event %d after %s; go on with: cimbus replay resume %s",
					record.ID, record.State, record.Done, plural(int(record.Events), "event"), shellWord(record.ID))
				if a.json {
					return line(a.stdout, record)
				}
				return nil
			})
		},
	}
}
