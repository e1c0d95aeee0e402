package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
)

// eraseCommand is what an erasure is told.
type eraseCommand struct {
	app        *app
	filter     bus.EraseFilter
	yes, force bool
	operator   string
	wait       time.Duration
}

func newEraseCommand(a *app) *cobra.Command {
	c := &eraseCommand{app: a}
	host, _ := os.Hostname() // an operator without a host is still one
	name := a.operatorName(host)
	cmd := &cobra.Command{
		Use: "erase", Short: "Erase a conversation, or all of a customer's, for a data-protection request", Args: noArgs,
		Long: `Erase a conversation, or all of a customer's, for a data-protection request: its events, deliveries, history, dead letters and their
records, member records and checkpoints, and what agents were sent outside of all conversations that names it, as task requests do.

Shows the plan, and carries it out with --yes, or after a question on a terminal. Then everything is searched again, and deleted again
until a search finds nothing: that is the proof, and exit code 0 says that there is one. The report names who asked, when and how many;
keep it. Broken off or not proven, repeat the command.

A conversation that has members, or events that wait for a handler, is refused without --force. Events that are published into it
meanwhile are erased too; later ones begin the conversation anew, without members.

How far it reaches: a customer's conversations are found by the events still stored and by the checkpoints that name its id. Messages
are overwritten in the files of every server that keeps them. Not reached are: earlier versions of checkpoints and member records, which
the server had replaced and drops when it compacts their block (cimbus streams snapshot and restore leaves them behind); on a cluster
the Raft log, until it is compacted; snapshots and exports; what agents and services kept. Events that name no conversation, and events of
other conversations that mention the id, stay; the plan counts them.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.operator = cmp.Or(c.operator, name)
			if err := c.filter.Validate(); err != nil {
				return &usageError{err}
			}
			return a.withBus(cmd.Context(), func(b *bus.Bus) error { return a.withoutBus(c.run(cmd.Context(), b)) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.filter.Tenant, "tenant", "", "tenant (required)")
	f.StringVar(&c.filter.Conversation, "conversation", "", "conversation `id`")
	f.StringVar(&c.filter.Customer, "customer", "", "customer `id`, instead of --conversation: all conversations of the customer")
	f.BoolVar(&c.yes, "yes", false, "carry the plan out without asking")
	f.BoolVar(&c.force, "force", false, "erase conversations too that are still worked on")
	f.StringVar(&c.operator, "operator", "", "who does it, for the report (default "+name+")")
	f.DurationVar(&c.wait, "wait", 30*time.Second, "how long handlers may take to finish events of the conversation")
	required(cmd, "tenant")
	return cmd
}

func (c *eraseCommand) run(ctx context.Context, b *bus.Bus) error {
	plan, err := b.PlanErase(ctx, c.filter)
	if err != nil {
		return err
	}
	if !c.app.json || !c.yes {
		if err := c.showPlan(plan); err != nil {
			return err
		}
	}
	if c.filter.Customer != "" && len(plan.Conversations) == 0 {
		c.app.tell("no event and no checkpoint of tenant %q names a customer %q: check the id, unless it was erased before", c.filter.Tenant, c.filter.Customer)
	}
	if live := plan.Live(); len(live) > 0 && !c.force {
		c.app.tell("nothing was done: conversation %q %v: have it closed first, or add --force", live[0].Conversation, bus.ErrLive)
		return errReported
	}
	// Where there is nothing, that is what is to be proven.
	if plan.Messages() > 0 && !c.yes {
		if err := c.app.ask(ctx, fmt.Sprintf("erase %s of %s", plural(plan.Messages(), "message"), plural(len(plan.Conversations), "conversation"))); err != nil {
			return err
		}
	}
	report, err := b.Erase(ctx, plan, bus.EraseOptions{Operator: c.operator, Force: c.force, Wait: c.wait})
	if shown := c.showReport(plan, report); shown != nil {
		return errors.Join(err, shown)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("broken off: repeat the command, it goes on where it was")
	case err != nil:
		return fmt.Errorf("%w: repeat the command, it goes on where it was", err)
	case !report.Proven:
		c.app.tell("not proven: %s", report.Problem)
		return errReported
	}
	return nil
}

// erasePlanLine is a plan as --json prints it.
type erasePlanLine struct {
	Plan          string                  `json:"plan"` // erase
	Tenant        string                  `json:"tenant"`
	Customer      string                  `json:"customer"` // "" = a conversation was named
	Conversations []eraseConversationLine `json:"conversations"`
	Agents        []string                `json:"agents"`
	Streams       []bus.EraseCount        `json:"streams"`
	Messages      int                     `json:"messages"`
	Unattributed  int                     `json:"unattributed"` // events of the tenant that name no conversation, and stay
	Mentions      []uint64                `json:"mentions"`     // events of other conversations that mention the id, and stay
}

type eraseConversationLine struct {
	Conversation string   `json:"conversation"`
	Events       int      `json:"events"`
	Members      []string `json:"members"`
	Waiting      int      `json:"waiting"`
}

func (c *eraseCommand) showPlan(p bus.ErasePlan) error {
	l := erasePlanLine{
		Plan: "erase", Tenant: p.Tenant, Customer: p.Customer, Conversations: []eraseConversationLine{}, Agents: notNil(p.Agents),
		Streams: p.Streams, Messages: p.Messages(), Unattributed: p.Unattributed, Mentions: notNil(p.Mentions),
	}
	conversations := table{head: []string{"CONVERSATION", "EVENTS", "WAITING", "MEMBERS"}}
	for _, each := range p.Conversations {
		l.Conversations = append(l.Conversations, eraseConversationLine{each.Conversation, each.Events, notNil(each.Members), each.Waiting})
		conversations.row(cut(each.Conversation), fmt.Sprint(each.Events), fmt.Sprint(each.Waiting), orDash(strings.Join(each.Members, ", ")))
	}
	if c.app.json {
		return line(c.app.stdout, l)
	}
	for _, t := range []table{conversations, countTable(p.Streams)} {
		if p.Messages() == 0 {
			break // no table of nothing
		}
		if err := t.write(c.app.stdout); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(c.app.stdout); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(c.app.stdout, "%s of %s to erase; agents: %s\n",
		plural(p.Messages(), "message"), plural(len(p.Conversations), "conversation"), orDash(strings.Join(p.Agents, ", "))); err != nil {
		return err
	}
	if p.Unattributed > 0 {
		c.app.tell("%s of the tenant name no conversation, and stay: cimbus dlq ls --tenant %s shows them", plural(p.Unattributed, "event"), p.Tenant)
	}
	if len(p.Mentions) > 0 {
		c.app.tell("%s of other conversations mention the id, and stay; the first is %d", plural(len(p.Mentions), "event"), p.Mentions[0])
	}
	return nil
}

func countTable(counts []bus.EraseCount) table {
	t := table{head: []string{"STREAM", "MESSAGES", "BYTES"}}
	for _, n := range counts {
		t.row(n.Stream, fmt.Sprint(n.Messages), size(n.Bytes))
	}
	return t
}

// notNil is a list that JSON shows as one.
func notNil[T any](list []T) []T { return append([]T{}, list...) }

// eraseReportLine is what an erasure did, as --json prints it.
type eraseReportLine struct {
	Report        string           `json:"report"` // erase
	Tenant        string           `json:"tenant"`
	Conversation  string           `json:"conversation"`
	Customer      string           `json:"customer"`
	Operator      string           `json:"operator"`
	Began         time.Time        `json:"began"`
	Ended         time.Time        `json:"ended"`
	Conversations int              `json:"conversations"`
	Deleted       []bus.EraseCount `json:"deleted"`
	Plain         []string         `json:"not_overwritten"` // streams whose server only deletes
	Left          []bus.EraseCount `json:"left"`            // what the last search found
	Upto          uint64           `json:"upto"`            // end of CIM_EVENTS when that search began
	Proven        bool             `json:"proven"`
	Problem       string           `json:"problem"`
}

func (c *eraseCommand) showReport(p bus.ErasePlan, r bus.EraseReport) error {
	l := eraseReportLine{
		Report: "erase", Tenant: p.Tenant, Conversation: p.Conversation, Customer: p.Customer, Operator: r.Operator,
		Began: r.Began.UTC(), Ended: r.Ended.UTC(), Conversations: r.Conversations, Deleted: notNil(r.Deleted), Plain: notNil(r.Plain),
		Left: notNil(r.Left), Upto: r.Upto, Proven: r.Proven, Problem: r.Problem,
	}
	if c.app.json {
		return line(c.app.stdout, l)
	}
	deleted := 0
	for _, n := range r.Deleted {
		deleted += n.Messages
	}
	left := 0
	for _, n := range r.Left {
		left += n.Messages
	}
	if _, err := fmt.Fprintf(c.app.stdout, "\nerased by %s, %s to %s: %s\n", r.Operator, r.Began.UTC().Format(time.RFC3339), r.Ended.UTC().Format(time.RFC3339),
		plural(deleted, "message")); err != nil {
		return err
	}
	if t := countTable(r.Deleted); len(t.rows) > 0 {
		if err := t.write(c.app.stdout); err != nil {
			return err
		}
	}
	if len(r.Plain) > 0 {
		c.app.tell("deleted but not overwritten on disk, as these streams were made to deny it: %s", strings.Join(r.Plain, ", "))
	}
	_, err := fmt.Fprintf(c.app.stdout, "searched again up to event %d: %d found\n", r.Upto, left)
	return err
}
