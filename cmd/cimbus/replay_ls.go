package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
)

// brokenOff is a replay that is recorded as running, and nobody carries out.
const brokenOff bus.ReplayState = "broken-off"

// replayList is what replays are listed by.
type replayList struct {
	app                         *app
	state, operator, target     string
	olderThan, newerThan        string
	olderThanTime, newerThanAge time.Time
}

func newReplayListCommand(a *app) *cobra.Command {
	c := &replayList{app: a}
	cmd := &cobra.Command{
		Use: "ls", Short: "List replays: who replayed what, where to, and how far", Args: noArgs,
		Long: "List replays, the one that began last at the end: who replayed what, where to, and how far that is. Records are kept for 90 days.\n" +
			"A replay is running, stopped, failed, done, or broken-off: then it was killed. Ages are as 90m, 24h or 7d.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.read(time.Now()); err != nil {
				return err
			}
			return a.withBus(cmd.Context(), func(b *bus.Bus) error { return a.withoutBus(c.list(cmd.Context(), b)) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.state, "state", "", "only those that are `running`, stopped, failed, done or broken-off")
	f.StringVar(&c.operator, "operator", "", "only this operator's")
	f.StringVar(&c.target, "to", "", "only those whose target begins so, as agent: or file:")
	f.StringVar(&c.olderThan, "older-than", "", "only those begun at least this `age` ago")
	f.StringVar(&c.newerThan, "newer-than", "", "only those begun at most this `age` ago")
	return cmd
}

func (c *replayList) read(now time.Time) error {
	switch bus.ReplayState(c.state) {
	case "", bus.ReplayRunning, bus.ReplayStopped, bus.ReplayFailed, bus.ReplayDone, brokenOff:
	default:
		return usagef("--state %q: give running, stopped, failed, done or broken-off", c.state)
	}
	for _, age := range []struct {
		flag, text string
		at         *time.Time
	}{{"older-than", c.olderThan, &c.olderThanTime}, {"newer-than", c.newerThan, &c.newerThanAge}} {
		if age.text == "" {
			continue
		}
		d, err := parseAge(age.text)
		if err != nil {
			return usagef("--%s %q: %v", age.flag, age.text, err)
		}
		*age.at = now.Add(-d)
	}
	return nil
}

func (c *replayList) list(ctx context.Context, b *bus.Bus) error {
	all, err := b.Replays(ctx)
	if err != nil {
		return err
	}
	t := table{head: []string{"ID", "STATE", "STARTED", "OPERATOR", "EVENTS", "FROM", "UPTO", "OF", "WHAT", "TO"}}
	for _, r := range all {
		standing(ctx, b, &r)
		if !c.passes(r) {
			continue
		}
		if c.app.json {
			if err := line(c.app.stdout, r); err != nil {
				return err
			}
			continue
		}
		of := fmt.Sprint(r.Last)
		if r.Follow {
			of = "-"
		}
		t.row(r.ID, string(r.State), clock(r.Started), cut(r.Operator), fmt.Sprint(r.Events), fmt.Sprint(r.First), fmt.Sprint(r.Done), of, cut(selectionWords(r)), cut(r.Target))
	}
	switch {
	case c.app.json:
	case len(t.rows) == 0:
		c.app.tell("no replays")
	default:
		return t.write(c.app.stdout)
	}
	return nil
}

// standing asks a replay that is recorded as running whether it does.
func standing(ctx context.Context, b *bus.Bus, r *bus.ReplayRecord) {
	if r.State == bus.ReplayRunning && !b.ReplayRuns(ctx, r.ID) {
		r.State = brokenOff
	}
}

func (c *replayList) passes(r bus.ReplayRecord) bool {
	return (c.state == "" || r.State == bus.ReplayState(c.state)) && (c.operator == "" || r.Operator == c.operator) &&
		strings.HasPrefix(r.Target, c.target) &&
		(c.olderThanTime.IsZero() || !r.Started.After(c.olderThanTime)) && (c.newerThanAge.IsZero() || !r.Started.Before(c.newerThanAge))
}

// selectionWords says what is replayed.
func selectionWords(r bus.ReplayRecord) string {
	var words []string
	add := func(name, value string) { words = append(words, name+" "+value) }
	s := r.Selection
	if s.Tenant != "" {
		add("tenant", s.Tenant)
	}
	if s.Channel != nil {
		add("channel", orDash(*s.Channel))
	}
	if len(s.Events) > 0 {
		add("event", strings.Join(s.Events, " "))
	}
	if s.Conversation != nil {
		add("conversation", orDash(*s.Conversation))
	}
	if s.ID != "" {
		add("id", s.ID)
	}
	if len(words) == 0 {
		return "all events"
	}
	return strings.Join(words, ", ")
}

func newReplayShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a replay: what, by whom, where to, how far", Args: oneReplay,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBus(cmd.Context(), func(b *bus.Bus) error { return a.withoutBus(a.showReplay(cmd.Context(), b, args[0])) })
		},
	}
}

// oneReplay is for commands that take the id of a replay.
func oneReplay(_ *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return usagef("give the id of one replay, as cimbus replay ls prints it")
	}
	return nil
}

// unknownReplay says where ids come from.
func unknownReplay(err error) error {
	if errors.Is(err, bus.ErrNoReplay) {
		return fmt.Errorf("%w: cimbus replay ls lists them", err)
	}
	return err
}

func (a *app) showReplay(ctx context.Context, b *bus.Bus, id string) error {
	r, err := b.Replay(ctx, id)
	if err != nil {
		return unknownReplay(err)
	}
	standing(ctx, b, &r)
	if a.json {
		return line(a.stdout, r)
	}
	upto := fmt.Sprintf("%d of %d to %d", r.Done, r.First, r.Last)
	if r.Follow {
		upto = fmt.Sprintf("%d, from %d, following", r.Done, r.First)
	}
	t := table{head: []string{"REPLAY", r.ID}}
	for _, row := range [][2]string{
		{"state", string(r.State)}, {"operator", r.Operator}, {"what", selectionWords(r)},
		{"from", orDash(r.Selection.From)}, {"until", orDash(r.Selection.Until)}, {"to", r.Target}, {"pace", r.Pace},
		{"started", clock(r.Started)}, {"updated", clock(r.Updated)}, {"upto", upto},
		{"events", fmt.Sprint(r.Events)}, {"left out", fmt.Sprint(r.LeftOut)}, {"error", orDash(r.Error)},
	} {
		t.row(row[0], row[1])
	}
	if err := t.write(a.stdout); err != nil {
		return err
	}
	runs := table{head: []string{"RUN", "OPERATOR", "BEGAN", "ENDED", "AFTER", "EVENTS"}}
	for i, run := range r.Runs {
		ended := "-"
		if run.Ended != nil {
			ended = clock(*run.Ended)
		}
		runs.row(fmt.Sprint(i+1), run.Operator, clock(run.Began), ended, fmt.Sprint(run.After), fmt.Sprint(run.Events))
	}
	if _, err := fmt.Fprintln(a.stdout); err != nil {
		return err
	}
	return runs.write(a.stdout)
}
