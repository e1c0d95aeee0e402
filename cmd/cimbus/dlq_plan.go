package main

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/cimbus/cimbus/bus"
)

// busiest is how many conversations a plan names; the others are one row.
const busiest = 10

// planLine is a plan as --json prints it.
type planLine struct {
	Plan          string              `json:"plan"`    // redrive or drop
	Entries       int                 `json:"entries"` // that were selected
	ToDo          int                 `json:"to_do"`   // of them are redriven or dropped
	Handlers      []countLine         `json:"handlers"`
	Reasons       []countLine         `json:"reasons"`
	Conversations []conversationCount `json:"conversations"`
	Refused       []countLine         `json:"refused"` // and why, --force not heeded
}

type countLine struct {
	Name    string `json:"name"`
	Entries int    `json:"entries"`
}

type conversationCount struct {
	Tenant       string `json:"tenant"`
	Conversation string `json:"conversation"` // "" = events of no conversation
	Entries      int    `json:"entries"`
}

// planned sums a plan up.
func planned(verb string, plan bus.DeadLetterPlan, entries int) planLine {
	count := func(name func(bus.PlannedDeadLetter) string) []countLine {
		all := []countLine{}
		for _, c := range plan.Count(name) {
			if c.Name != "" {
				all = append(all, countLine(c))
			}
		}
		return all
	}
	l := planLine{
		Plan: verb, Entries: len(plan.Entries), ToDo: entries, Conversations: []conversationCount{},
		Handlers: count(func(e bus.PlannedDeadLetter) string { return e.Handler }),
		Reasons:  count(func(e bus.PlannedDeadLetter) string { return orDash(e.Reason) }),
		Refused:  count(func(e bus.PlannedDeadLetter) string { return string(e.Refused) }),
	}
	at := map[conversationCount]int{}
	for _, e := range plan.Entries {
		name := conversationCount{Tenant: e.Tenant, Conversation: e.Conversation}
		i, known := at[name]
		if !known {
			i = len(l.Conversations)
			at[name] = i
			l.Conversations = append(l.Conversations, name)
		}
		l.Conversations[i].Entries++
	}
	slices.SortStableFunc(l.Conversations, func(x, y conversationCount) int { return cmp.Compare(y.Entries, x.Entries) })
	return l
}

func (c *dlqCommand) showPlan(verb string, plan bus.DeadLetterPlan, entries int) error {
	l := planned(verb, plan, entries)
	if c.app.json {
		return line(c.app.stdout, l)
	}
	for _, t := range l.tables(c.force) {
		if err := t.write(c.app.stdout); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(c.app.stdout); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(c.app.stdout, "%d of %s to %s\n", entries, plural(l.Entries, "dead letter"), verb)
	return err
}

func (l planLine) tables(force bool) []table {
	var tables []table
	for _, counts := range []struct {
		head string
		of   []countLine
	}{{"HANDLER", l.Handlers}, {"REASON", l.Reasons}} {
		t := table{head: []string{counts.head, "ENTRIES"}}
		for _, n := range counts.of {
			t.row(n.Name, fmt.Sprint(n.Entries))
		}
		tables = append(tables, t)
	}
	t := table{head: []string{"TENANT", "CONVERSATION", "ENTRIES"}}
	t.busiest(l.Conversations)
	tables = append(tables, t)
	if len(l.Refused) > 0 {
		t := table{head: []string{"REFUSED", "ENTRIES", "WHY"}}
		for _, n := range l.Refused {
			t.row(n.Name, fmt.Sprint(n.Entries), refusal(bus.Refusal(n.Name), force))
		}
		tables = append(tables, t)
	}
	return tables
}

// refusal says why an entry is refused and what can be done.
func refusal(r bus.Refusal, force bool) string {
	why := map[bus.Refusal]string{
		bus.RefusedRedriven: "redriven before",
		bus.RefusedUnclear:  "a redrive was broken off, and the events no longer reach back to tell how far it came",
		bus.RefusedHandler:  "no handler of that name runs on this bus",
		bus.RefusedSubject:  "the subject it was published on is none: publish its payload on a proper one, cimbus dlq show has it",
		bus.RefusedGone:     "somebody dropped it and was broken off: drop it again",
		bus.RefusedPayload:  "its payload was too large to be kept, and the event has expired",
	}[r]
	switch {
	case !r.Forcible():
		return why
	case force:
		return why + "; forced"
	}
	return why + "; --force does it all the same"
}
