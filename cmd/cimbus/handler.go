package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/handlers"
)

func newHandlerCommand(a *app) *cobra.Command {
	return noun("handler", "Look at the handlers, pause and resume them",
		newHandlerListCommand(a), newHandlerPauseCommand(a), newHandlerResumeCommand(a))
}

func newHandlerListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "Show how far the handlers are", Args: noArgs,
		Long: `Show how far the handlers are, those that were ever started on this bus.

WORKER is acts where a process has the work, waits where at least one is there and the next event decides which, none where no process
runs the handler. WAITING are events it was not given yet, OLDEST is for how long the oldest one not done has waited, IN WORK are those
given and not done, REDELIVERED those of them that were given more than once.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withBus(cmd.Context(), func(b *bus.Bus) error { return a.listHandlers(cmd.Context(), b) })
		},
	}
}

// handlerLine is a handler as --json prints it.
type handlerLine struct {
	Handler     string          `json:"handler"`
	Worker      bus.WorkerState `json:"worker"` // acts, waits or none
	Waiting     uint64          `json:"waiting"`
	OldestTime  *time.Time      `json:"oldest_time"` // when the oldest event not done was stored; null = all are done
	InWork      int             `json:"in_work"`
	Redelivered int             `json:"redelivered"`
	AckFloor    uint64          `json:"ack_floor"` // every event up to this sequence is done
	Paused      bool            `json:"paused"`
	PausedUntil *time.Time      `json:"paused_until"` // null = not paused, or until it is resumed
	DeadLetters uint64          `json:"dead_letters"`
}

func describeHandler(h bus.HandlerStatus) handlerLine {
	l := handlerLine{
		Handler: h.Handler, Worker: h.Worker, Waiting: h.Pending, InWork: h.AckPending, Redelivered: h.Redelivered, AckFloor: h.AckFloor,
		Paused: h.PausedUntil != nil, DeadLetters: h.DeadLetters,
	}
	if !h.Oldest.IsZero() {
		l.OldestTime = &h.Oldest
	}
	if l.Paused && h.PausedUntil.Before(bus.UntilResumed()) {
		l.PausedUntil = h.PausedUntil
	}
	return l
}

func handlerTable() table {
	return table{head: []string{"HANDLER", "WORKER", "WAITING", "OLDEST", "IN WORK", "REDELIVERED", "PAUSED", "DEAD LETTERS"}}
}

func (l handlerLine) cells() []string {
	oldest, paused := "-", "-"
	if l.OldestTime != nil {
		oldest = age(max(time.Since(*l.OldestTime), 0))
	}
	switch {
	case l.PausedUntil != nil:
		paused = "until " + minute(*l.PausedUntil)
	case l.Paused:
		paused = "until resumed"
	}
	return []string{
		l.Handler, string(l.Worker), fmt.Sprint(l.Waiting), oldest, fmt.Sprint(l.InWork), fmt.Sprint(l.Redelivered), paused, fmt.Sprint(l.DeadLetters),
	}
}

// minute is a time of day that somebody chose.
func minute(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

func (a *app) listHandlers(ctx context.Context, b *bus.Bus) error {
	all, err := b.Handlers(ctx)
	if err != nil {
		return a.withoutBus(err)
	}
	t := handlerTable()
	for _, h := range all {
		l := describeHandler(h)
		if !a.json {
			t.row(l.cells()...)
		} else if err := line(a.stdout, l); err != nil {
			return err
		}
	}
	switch {
	case a.json:
		return nil
	case len(all) == 0:
		a.tell("no handler has ever run here: start one with cimbus serve")
		return nil
	}
	return t.write(a.stdout)
}

func newHandlerPauseCommand(a *app) *cobra.Command {
	var span, until string
	cmd := &cobra.Command{
		Use: "pause NAME", Short: "Give a handler no more events for a while",
		Long: `Give a handler no more events, in whatever process it runs, for a time, until a time, or until it is resumed. Events it has already
are finished. What is published meanwhile is stored and waits, as long as CIM_EVENTS keeps it; nothing is lost and nothing overtakes.
The pause outlives restarts. /readyz, the metrics, the log and cimbus doctor tell of it until it is over. Pausing again sets the time anew.`,
		Args: handlerName,
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := pauseEnd(time.Now(), span, until)
			if err != nil {
				return err
			}
			return a.withBus(cmd.Context(), func(b *bus.Bus) error { return a.pause(cmd.Context(), b, args[0], at) })
		},
	}
	cmd.Flags().StringVar(&span, "for", "", "pause it for this `time`, as 90m, 24h or 7d")
	cmd.Flags().StringVar(&until, "until", "", "pause it until this `time`, as 2026-03-01T06:00:00Z, or 2026-03-01 06:00 in this machine's zone")
	return cmd
}

func newHandlerResumeCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "resume NAME", Short: "Let a paused handler go on",
		Long: "Let a paused handler go on where it stopped. Resuming one that is not paused is harmless.",
		Args: handlerName,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBus(cmd.Context(), func(b *bus.Bus) error { return a.resume(cmd.Context(), b, args[0]) })
		},
	}
}

func handlerName(_ *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return usagef("give the name of one handler, as cimbus handler ls prints it")
	}
	return nil
}

// pauseEnd is when a pause ends that begins now.
func pauseEnd(now time.Time, span, until string) (time.Time, error) {
	switch {
	case span != "" && until != "":
		return time.Time{}, usagef("--for and --until both say when the pause ends: give one of them")
	case span != "":
		d, err := parseAge(span)
		if err != nil || d == 0 {
			return time.Time{}, usagef("--for %q: give a time as 90m, 24h or 7d", span)
		}
		return now.Add(d), nil
	case until != "":
		at, err := parseTime(until)
		if err != nil {
			return time.Time{}, usagef("--until %q: give a time as 2026-03-01T06:00:00Z or 2026-03-01 06:00", until)
		}
		if !at.After(now) {
			return time.Time{}, usagef("--until %s is over: it is %s now", minute(at), minute(now))
		}
		return at, nil
	}
	return bus.UntilResumed(), nil
}

// parseTime reads a moment; without a zone it is one of this machine's.
func parseTime(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, text)
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04"} {
		if err == nil {
			break
		}
		at, err = time.ParseInLocation(layout, text, time.Local)
	}
	return at, err
}

func (a *app) pause(ctx context.Context, b *bus.Bus, name string, until time.Time) error {
	if _, err := a.handler(ctx, b, "pause", name); err != nil {
		return err
	}
	if err := handlers.Pause(ctx, b, name, until); err != nil {
		return err
	}
	h, err := a.handler(ctx, b, "pause", name)
	if err != nil {
		return err
	}
	end := "until " + minute(until)
	if !until.Before(bus.UntilResumed()) {
		end = "until it is resumed"
	}
	return a.showHandler(h, fmt.Sprintf("%s is paused %s: events are stored and wait. cimbus handler resume %s lets them go on", name, end, name))
}

func (a *app) resume(ctx context.Context, b *bus.Bus, name string) error {
	before, err := a.handler(ctx, b, "resume", name)
	if err != nil {
		return err
	}
	if err := handlers.Resume(ctx, b, name); err != nil {
		return err
	}
	h, err := a.handler(ctx, b, "resume", name)
	if err != nil {
		return err
	}
	told := fmt.Sprintf("%s goes on: %s waited", name, plural(int(before.Pending), "event"))
	if before.PausedUntil == nil {
		told = name + " was not paused"
	}
	if h.Worker == bus.WorkerNone {
		told += ". No process runs it: start cimbus serve"
	}
	return a.showHandler(h, told)
}

// handler looks a handler up. Where there is none of that name it says which there are.
func (a *app) handler(ctx context.Context, b *bus.Bus, verb, name string) (bus.HandlerStatus, error) {
	all, err := b.Handlers(ctx)
	if err != nil {
		return bus.HandlerStatus{}, a.withoutBus(err)
	}
	var names []string
	for _, h := range all {
		if h.Handler == name {
			return h, nil
		}
		names = append(names, h.Handler)
	}
	there := "none has ever run here: start cimbus serve"
	if len(names) > 0 {
		there = "there are " + strings.Join(names, ", ")
	}
	return bus.HandlerStatus{}, fmt.Errorf("%s handler %q: %w on this bus; %s", verb, name, handlers.ErrNoHandler, there)
}

// showHandler prints a handler after something was done with it.
func (a *app) showHandler(h bus.HandlerStatus, told string) error {
	if a.json {
		return line(a.stdout, describeHandler(h))
	}
	if _, err := fmt.Fprintln(a.stdout, told); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}
