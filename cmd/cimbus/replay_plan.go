package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cimbus/cimbus/bus"
)

// replayPlanLine is a plan as --json prints it.
type replayPlanLine struct {
	Plan          string              `json:"plan"` // replay
	Target        string              `json:"target"`
	Events        int                 `json:"events"` // that are selected
	ToDo          int                 `json:"to_do"`  // of them go to the target
	Bytes         int64               `json:"bytes"`
	First         uint64              `json:"first"`
	Last          uint64              `json:"last"`
	Agents        []string            `json:"agents"`
	Conversations []conversationCount `json:"conversations"`
	LeftOut       []countLine         `json:"left_out"`
	NotMembers    map[string][]string `json:"not_members"` // conversations by agent; with any of them nothing is done
}

// plan shows what would be replayed, and asks. done: that was all.
func (c *replayCommand) plan(ctx context.Context, b *bus.Bus, sel bus.EventSelection, span bus.Span, to replayTo) (done bool, err error) {
	handler := ""
	if to.kind == toHandler {
		handler = to.name
	}
	plan, err := b.PlanReplay(ctx, sel, span, to.agents, handler)
	if err != nil {
		return false, err
	}
	// With --json and --yes, stdout is for the result alone.
	if !c.app.json || !c.yes || c.planOnly {
		if err := c.showPlan(plan, to); err != nil {
			return false, err
		}
	}
	if err := c.refuseStrangers(plan); err != nil {
		return false, err
	}
	switch {
	case c.planOnly:
		return true, nil
	case plan.ToReplay() == 0:
		c.app.tell("no events to replay")
		return true, nil
	case c.yes:
		return false, nil
	}
	return false, c.app.ask(ctx, fmt.Sprintf("replay %s to %s", plural(plan.ToReplay(), "event"), to))
}

// refuseStrangers ends a replay to agents that were no members of what is selected.
func (c *replayCommand) refuseStrangers(plan bus.ReplayPlan) error {
	for _, agent := range slices.Sorted(maps.Keys(plan.NotMembers)) {
		of := plan.NotMembers[agent]
		names := make([]string, 0, fewSequences+1)
		for _, name := range of[:min(len(of), fewSequences)] {
			names = append(names, orDash(printable(cut(name))))
		}
		if len(of) > fewSequences {
			names = append(names, fmt.Sprintf("and %d more", len(of)-fewSequences))
		}
		c.app.tell("nothing was done: agent %q is and was no member of %s: %s; select conversations it was a member of with --conversation",
			agent, plural(len(of), "conversation"), strings.Join(names, ", "))
	}
	if len(plan.NotMembers) > 0 {
		return errReported
	}
	return nil
}

func (c *replayCommand) showPlan(plan bus.ReplayPlan, to replayTo) error {
	l := replayPlanLine{
		Plan: "replay", Target: to.String(), Events: plan.Events, ToDo: plan.ToReplay(), Bytes: plan.Bytes, First: plan.First, Last: plan.Last,
		Agents: append([]string{}, to.agents...), Conversations: []conversationCount{}, LeftOut: []countLine{}, NotMembers: plan.NotMembers,
	}
	for _, n := range plan.Conversations {
		l.Conversations = append(l.Conversations, conversationCount{Tenant: n.Tenant, Conversation: n.Conversation, Entries: n.Events})
	}
	slices.SortStableFunc(l.Conversations, func(x, y conversationCount) int { return cmp.Compare(y.Entries, x.Entries) })
	for _, n := range plan.LeftOut {
		l.LeftOut = append(l.LeftOut, countLine(n))
	}
	if c.app.json {
		return line(c.app.stdout, l)
	}
	if len(l.Conversations) > 0 {
		t := table{head: []string{"TENANT", "CONVERSATION", "EVENTS"}}
		t.busiest(l.Conversations)
		if err := t.write(c.app.stdout); err != nil {
			return err
		}
	}
	for _, n := range l.LeftOut {
		if _, err := fmt.Fprintf(c.app.stdout, "left out: %d %s\n", n.Entries, n.Name); err != nil {
			return err
		}
	}
	between := ""
	if plan.Events > 0 {
		between = fmt.Sprintf(", %d (%s) to %d (%s)", plan.First, clock(plan.FirstTime), plan.Last, clock(plan.LastTime))
	}
	_, err := fmt.Fprintf(c.app.stdout, "%d of %s of %s, %s%s, to %s\n", l.ToDo, plural(l.Events, "event"),
		plural(len(l.Conversations), "conversation"), size(l.Bytes), between, to)
	return err
}

// busiest adds rows for the conversations that have most, and one for the others.
func (t *table) busiest(conversations []conversationCount) {
	rest := 0
	for i, n := range conversations {
		if i < busiest {
			t.row(n.Tenant, orDash(cut(n.Conversation)), fmt.Sprint(n.Entries))
		} else {
			rest += n.Entries
		}
	}
	if others := len(conversations) - busiest; others > 0 {
		t.row("", fmt.Sprintf("and %s more", plural(others, "conversation")), fmt.Sprint(rest))
	}
}
