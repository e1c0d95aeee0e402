package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
)

func newDLQRedriveCommand(a *app) *cobra.Command {
	c := &dlqCommand{app: a}
	cmd := c.selecting(&cobra.Command{
		Use: "redrive [SEQ…]", Short: "Give dead letters to their handlers again",
		Long: `Give dead letters to their handlers again: each payload is appended to CIM_EVENTS as a new event, which its handler, as it is now,
takes like any other and the other handlers leave alone. Conversations keep their order.

Shows the plan, and carries it out with --yes, or after a question on a terminal. Who did it is recorded on every entry, and an entry
is not redriven twice without --force. Broken off and repeated, it goes on where it was: no event is appended twice.
Entries that were redriven already are left out; where they were named by number that counts as failed.

` + dlqFilterHelp,
	}, c.redrive)
	cmd.Flags().BoolVar(&c.force, "force", false, "redrive again what was redriven before, and what nobody handles now")
	return c.carrying(cmd)
}

func newDLQDropCommand(a *app) *cobra.Command {
	c := &dlqCommand{app: a}
	cmd := c.selecting(&cobra.Command{
		Use: "drop [SEQ…]", Short: "Delete dead letters for good",
		Long: "Delete dead letters for good. Shows the plan, and carries it out with --yes, or after a question on a terminal. Who did it is\n" +
			"recorded: cimbus dlq ls --dropped tells.\n\n" + dlqFilterHelp,
	}, c.drop)
	return c.carrying(cmd)
}

// carrying adds the flags of what is planned first.
func (c *dlqCommand) carrying(cmd *cobra.Command) *cobra.Command {
	host, _ := os.Hostname() // an operator without a host is still one
	name := c.app.operatorName(host)
	cmd.Flags().BoolVar(&c.yes, "yes", false, "carry the plan out without asking")
	cmd.Flags().StringVar(&c.operator, "operator", "", "who does it, recorded on the entries (default "+name+")")
	cmd.Flags().BoolVar(&c.all, "all", false, "every dead letter there is")
	c.mustSelect = true
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c.operator = cmp.Or(c.operator, name)
		return run(cmd, args)
	}
	return cmd
}

func (c *dlqCommand) redrive(ctx context.Context, b *bus.Bus, f bus.DeadLetterFilter) error {
	plan, err := b.PlanRedrive(ctx, f)
	if err != nil {
		return err
	}
	o := bus.RedriveOptions{Operator: c.operator, Force: c.force}
	return c.carryOut(ctx, "redrive", plan, plan.Redrivable(c.force), func() ([]bus.DeadLetterResult, error) { return b.Redrive(ctx, plan, o) })
}

func (c *dlqCommand) drop(ctx context.Context, b *bus.Bus, f bus.DeadLetterFilter) error {
	plan, err := b.PlanDrop(ctx, f)
	if err != nil {
		return err
	}
	return c.carryOut(ctx, "drop", plan, len(plan.Entries), func() ([]bus.DeadLetterResult, error) { return b.Drop(ctx, plan, bus.DroppedBy(c.operator)) })
}

// carryOut shows a plan, asks, does it and tells what became of it.
func (c *dlqCommand) carryOut(ctx context.Context, verb string, plan bus.DeadLetterPlan, entries int, do func() ([]bus.DeadLetterResult, error)) error {
	missing := c.missing(func(s uint64) bool {
		return slices.ContainsFunc(plan.Entries, func(e bus.PlannedDeadLetter) bool { return e.Sequence == s })
	})
	if len(plan.Entries) == 0 {
		c.app.tell("no dead letters%s: nothing to %s", c.among(), verb)
		return missing
	}
	// With --json and --yes, stdout is for the results alone.
	if !c.app.json || !c.yes {
		if err := c.showPlan(verb, plan, entries); err != nil {
			return err
		}
	}
	if entries > 0 && !c.yes {
		if err := c.app.ask(ctx, fmt.Sprintf("%s %s", verb, plural(entries, "dead letter"))); err != nil {
			return err
		}
	}
	results, err := do()
	if err := c.report(results, err); err != nil {
		return err
	}
	return missing
}

// resultLine is what became of an entry, as --json prints it.
type resultLine struct {
	Sequence     uint64           `json:"seq"`
	Outcome      bus.EntryOutcome `json:"outcome"`
	Refused      bus.Refusal      `json:"refused"` // why; "" where it was not
	Handler      string           `json:"handler"`
	Tenant       string           `json:"tenant"`
	Event        string           `json:"event"`
	Conversation string           `json:"conversation"`
	EventSeq     *uint64          `json:"event_seq"` // the new event in CIM_EVENTS
	Error        string           `json:"error"`
}

// report prints what became of the entries: with --json of all, else of those that need a look, by what became of them. The summary goes
// to stderr.
func (c *dlqCommand) report(results []bus.DeadLetterResult, failed error) error {
	left := leftovers{}
	counts := map[bus.EntryOutcome]int{}
	bad := failed != nil
	for _, r := range results {
		counts[r.Outcome]++
		done := r.Outcome == bus.EntryRedriven || r.Outcome == bus.EntryDropped
		bad = bad || !done && !c.leftOut(r)
		if c.app.json {
			if err := line(c.app.stdout, describeResult(r)); err != nil {
				return err
			}
		} else if !done {
			left.add(r, c.why(r))
		}
	}
	if len(left) > 0 {
		t := left.table()
		if err := t.write(c.app.stdout); err != nil {
			return err
		}
	}
	if len(results) > 0 {
		c.app.tell("%s", summary(len(results), counts))
	}
	switch {
	case errors.Is(failed, context.Canceled):
		return errors.New("broken off: repeat the command, it goes on where it was")
	case failed != nil:
		return fmt.Errorf("%w: once that is mended repeat the command, it goes on where it was", failed)
	case bad:
		return errReported
	}
	return nil
}

func describeResult(r bus.DeadLetterResult) resultLine {
	l := resultLine{
		Sequence: r.Sequence, Outcome: r.Outcome, Refused: r.Refused, Handler: r.Handler, Tenant: r.Tenant, Event: r.Event,
		Conversation: r.Conversation, EventSeq: orNull(r.NewEvent),
	}
	if r.Err != nil {
		l.Error = r.Err.Error()
	}
	return l
}

// leftovers are the entries that were not done, by outcome and why: of thousands all have mostly one reason.
type leftovers []leftover

type leftover struct {
	outcome bus.EntryOutcome
	why     string
	entries []uint64
}

func (l *leftovers) add(r bus.DeadLetterResult, why string) {
	i := slices.IndexFunc(*l, func(o leftover) bool { return o.outcome == r.Outcome && o.why == why })
	if i < 0 {
		i = len(*l)
		*l = append(*l, leftover{outcome: r.Outcome, why: why})
	}
	(*l)[i].entries = append((*l)[i].entries, r.Sequence)
}

// fewSequences is how many entries of a kind are named.
const fewSequences = 5

func (l leftovers) table() table {
	t := table{head: []string{"OUTCOME", "ENTRIES", "SEQ", "WHY"}}
	for _, o := range l {
		var names []string
		for _, s := range o.entries[:min(len(o.entries), fewSequences)] {
			names = append(names, fmt.Sprint(s))
		}
		if len(o.entries) > fewSequences {
			names = append(names, "…")
		}
		t.row(string(o.outcome), fmt.Sprint(len(o.entries)), strings.Join(names, " "), o.why)
	}
	return t
}

// why says what kept an entry from being done, and what can be done about it.
func (c *dlqCommand) why(r bus.DeadLetterResult) string {
	switch {
	case r.Err != nil:
		return r.Err.Error()
	case r.Outcome == bus.EntrySkipped:
		return "one before it in its conversation failed, or all was broken off: repeat it"
	case r.Refused == bus.RefusedGone:
		return "dropped, or expired"
	case r.Refused == bus.RefusedChanged:
		return "somebody else redrove it meanwhile; plan again"
	}
	return refusal(r.Refused, c.force)
}

// leftOut tells whether a refusal is what was to be expected: entries a filter selects may have been redriven or dropped before.
func (c *dlqCommand) leftOut(r bus.DeadLetterResult) bool {
	return len(c.names.Sequences) == 0 && (r.Refused == bus.RefusedRedriven || r.Refused == bus.RefusedGone)
}

// summary counts outcomes for people.
func summary(entries int, counts map[bus.EntryOutcome]int) string {
	var parts []string
	for _, o := range []bus.EntryOutcome{bus.EntryRedriven, bus.EntryDropped, bus.EntryRefused, bus.EntryFailed, bus.EntrySkipped} {
		if n := counts[o]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, o))
		}
	}
	return fmt.Sprintf("%s: %s", plural(entries, "dead letter"), strings.Join(parts, ", "))
}
