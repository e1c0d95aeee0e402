package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/subjects"
)

func newDLQCommand(a *app) *cobra.Command {
	return noun("dlq", "Look at dead letters, redrive and drop them",
		newDLQListCommand(a), newDLQShowCommand(a), newDLQRedriveCommand(a), newDLQDropCommand(a))
}

// dlqCommand is what the verbs of dlq have in common: which entries they are about.
type dlqCommand struct {
	app                  *app
	names                bus.DeadLetterFilter // by sequence, once the arguments are read
	tenant, channel      string
	event, conversation  string
	handler, reason      string
	olderThan, newerThan string
	yes, force, dropped  bool
	all, mustSelect      bool
	operator             string
}

const dlqFilterHelp = `Entries are selected by their numbers, by filters, or both: those that agree with all of it. Ages are as 90m, 24h or 7d.`

// selecting adds the filters to a command and makes it read them.
func (c *dlqCommand) selecting(cmd *cobra.Command, run func(context.Context, *bus.Bus, bus.DeadLetterFilter) error) *cobra.Command {
	flags := cmd.Flags()
	flags.StringVar(&c.tenant, "tenant", "", "only this tenant's")
	flags.StringVar(&c.channel, "channel", "", "only events of this channel, such as web; - for those of none")
	flags.StringVar(&c.event, "event", "", "only events of this name")
	flags.StringVar(&c.conversation, "conversation", "", "only this conversation's; - for events of none")
	flags.StringVar(&c.handler, "handler", "", "only those this handler gave up")
	flags.StringVar(&c.reason, "reason", "", "only those given up for this reason")
	flags.StringVar(&c.olderThan, "older-than", "", "only entries of at least this `age`")
	flags.StringVar(&c.newerThan, "newer-than", "", "only entries of at most this `age`")
	cmd.Args = func(_ *cobra.Command, args []string) error {
		var err error
		c.names.Sequences, err = entryNumbers(args)
		return err
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := c.selected(cmd); err != nil {
			return err
		}
		f, err := c.filter(time.Now())
		if err != nil {
			return err
		}
		return c.app.withBus(cmd.Context(), func(b *bus.Bus) error { return c.app.withoutBus(run(cmd.Context(), b, f)) })
	}
	return cmd
}

// selected refuses what would select everything by mistake, as a script does whose variable is not set or whose list is empty.
func (c *dlqCommand) selected(cmd *cobra.Command) error {
	for _, name := range []string{"tenant", "channel", "event", "conversation", "handler", "reason", "older-than", "newer-than"} {
		if flag := cmd.Flags().Lookup(name); flag.Changed && flag.Value.String() == "" {
			return usagef("--%s is empty: say which, or leave it out for any", name)
		}
	}
	some := len(c.names.Sequences) > 0 || c.filters()
	switch {
	case c.all && some:
		return usagef("--all is every dead letter there is: leave it out, or the numbers and filters")
	case c.mustSelect && !c.all && !some:
		return usagef("nothing is selected: give numbers, a filter, or --all for every dead letter there is")
	}
	return nil
}

// entryNumbers reads the numbers of entries, sequences in CIM_DEAD_LETTERS.
func entryNumbers(args []string) ([]uint64, error) {
	var all []uint64
	for _, arg := range args {
		n, err := strconv.ParseUint(arg, 10, 64)
		if err != nil || n == 0 {
			return nil, usagef("%q is not the number of an entry: give those that cimbus dlq ls prints as SEQ", arg)
		}
		all = append(all, n)
	}
	return all, nil
}

// filter is what the flags say, ages counted from now.
func (c *dlqCommand) filter(now time.Time) (bus.DeadLetterFilter, error) {
	f := c.names
	f.Tenant, f.Event, f.Handler = match(c.tenant), match(c.event), match(c.handler)
	f.Channel, f.Conversation = matchOrNone(c.channel), matchOrNone(c.conversation)
	f.Reason = c.reason
	for _, age := range []struct {
		flag, text string
		at         *time.Time
	}{{"older-than", c.olderThan, &f.OlderThan}, {"newer-than", c.newerThan, &f.NewerThan}} {
		if age.text == "" {
			continue
		}
		d, err := parseAge(age.text)
		if err != nil {
			return f, usagef("--%s %q: %v", age.flag, age.text, err)
		}
		*age.at = now.Add(-d)
	}
	if !f.OlderThan.IsZero() && !f.NewerThan.IsZero() && !f.NewerThan.Before(f.OlderThan) {
		return f, usagef("--older-than %s and --newer-than %s: no entry is both", c.olderThan, c.newerThan)
	}
	names := subjects.DeadLetterFilter{Handler: f.Handler, Tenant: f.Tenant, Channel: f.Channel, Event: f.Event}
	if _, err := names.Subject(); err != nil {
		return f, &usageError{err}
	}
	return f, nil
}

// matchOrNone takes the dash that stands in tables where there is none.
func matchOrNone(name string) subjects.Match {
	if name == "-" {
		return subjects.None
	}
	return match(name)
}

// parseAge reads a duration, which may be in days.
func parseAge(text string) (time.Duration, error) {
	days, inDays := strings.CutSuffix(text, "d")
	n, err := strconv.ParseUint(days, 10, 16)
	if inDays && err == nil {
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, errors.New("give an age as 90m, 24h or 7d")
	}
	return d, nil
}

// missing tells of the entries that were named and are not among those found.
func (c *dlqCommand) missing(found func(uint64) bool) error {
	var err error
	for _, n := range c.names.Sequences {
		if !found(n) {
			c.app.tell("dead letter %d is not there: it was dropped (cimbus dlq ls --dropped says by whom), has expired, or does not pass the filter", n)
			err = errReported
		}
	}
	return err
}

func newDLQListCommand(a *app) *cobra.Command {
	c := &dlqCommand{app: a}
	cmd := c.selecting(&cobra.Command{
		Use: "ls [SEQ…]", Short: "List dead letters",
		Long: "List dead letters, oldest first, all of them unless some are selected. With --dropped those that were dropped instead: who did\n" +
			"it, and when; ages count from then.\n\n" + dlqFilterHelp,
	}, c.list)
	cmd.Flags().BoolVar(&c.dropped, "dropped", false, "list what was dropped, and by whom")
	return cmd
}

func (c *dlqCommand) list(ctx context.Context, b *bus.Bus, f bus.DeadLetterFilter) error {
	if c.dropped {
		return c.listDropped(ctx, b, f)
	}
	t := dlqTable()
	found := map[uint64]bool{}
	n := 0
	for d, err := range b.DeadLetters(ctx, f) {
		if err != nil {
			return err
		}
		n++
		if len(f.Sequences) > 0 {
			found[d.Sequence] = true
		}
		if !c.app.json {
			dlqRow(&t, d)
			continue
		}
		if err := line(c.app.stdout, describeDeadLetter(d)); err != nil {
			return err
		}
	}
	switch {
	case c.app.json:
	case n > 0:
		if err := t.write(c.app.stdout); err != nil {
			return err
		}
	case len(f.Sequences) == 0:
		c.app.tell("no dead letters%s", c.among())
	}
	return c.missing(func(s uint64) bool { return found[s] })
}

// among says that there may be others than those looked for.
func (c *dlqCommand) among() string {
	if c.filters() {
		return " pass this filter"
	}
	return ""
}

func (c *dlqCommand) filters() bool {
	return c.tenant+c.channel+c.event+c.conversation+c.handler+c.reason+c.olderThan+c.newerThan != ""
}

func dlqTable() table {
	return table{head: []string{"SEQ", "TIME", "TENANT", "CHANNEL", "EVENT", "CONVERSATION", "HANDLER", "REASON", "ATTEMPTS", "REDRIVEN"}}
}

func dlqRow(t *table, d bus.DeadLetter) {
	t.row(fmt.Sprint(d.Sequence), clock(d.Time), d.Tenant, orDash(d.Channel), d.Event, orDash(cut(d.Conversation)), d.Handler, orDash(d.Reason),
		fmt.Sprint(d.Attempts), redrivenCell(d.Redrive))
}

// redrivenCell says in few words whether an entry was redriven.
func redrivenCell(r *bus.Redrive) string {
	switch {
	case r == nil:
		return "-"
	case r.State == bus.RedriveDone:
		return fmt.Sprintf("as event %d", r.Event)
	case r.State == bus.RedriveFailed:
		return "failed"
	case r.State == bus.RedriveDropped:
		return "no, drop it again"
	}
	return "not finished"
}

// deadLetterLine is an entry as --json prints it.
type deadLetterLine struct {
	Sequence       uint64       `json:"seq"`
	Time           time.Time    `json:"time"`
	Handler        string       `json:"handler"`
	Tenant         string       `json:"tenant"`
	Channel        string       `json:"channel"`
	Event          string       `json:"event"`
	ID             string       `json:"id"`
	Conversation   string       `json:"conversation"`
	Reason         string       `json:"reason"`
	Error          string       `json:"error"`
	Attempts       int          `json:"attempts"`
	First          time.Time    `json:"first_attempt"`
	Last           time.Time    `json:"last_attempt"`
	SourceSubject  string       `json:"source_subject"`
	SourceSequence uint64       `json:"source_seq"`
	SourceTime     time.Time    `json:"source_time"`
	RedriveOf      *uint64      `json:"redrive_of"`       // the dead letter whose redrive failed again as this one
	Size           int          `json:"size"`             // of the payload, bytes
	LeftOut        bool         `json:"payload_left_out"` // it was too large to be kept
	Redriven       *redriveLine `json:"redriven"`         // the last redrive
}

// redriveLine is a record of a redrive as --json prints it.
type redriveLine struct {
	Attempt  int              `json:"attempt"`
	State    bus.RedriveState `json:"state"`
	Operator string           `json:"operator"`
	Time     time.Time        `json:"time"`
	Event    *uint64          `json:"event_seq"` // the new event in CIM_EVENTS
	Error    string           `json:"error"`
}

func describeDeadLetter(d bus.DeadLetter) deadLetterLine {
	return deadLetterLine{
		Sequence: d.Sequence, Time: d.Time, Handler: d.Handler, Tenant: d.Tenant, Channel: d.Channel, Event: d.Event, ID: d.EventID,
		Conversation: d.Conversation, Reason: d.Reason, Error: d.Error, Attempts: d.Attempts, First: d.First, Last: d.Last,
		SourceSubject: d.SourceSubject, SourceSequence: d.SourceSequence, SourceTime: d.SourceTime, RedriveOf: orNull(d.RedriveOf),
		Size: d.Size, LeftOut: d.LeftOut, Redriven: describeRedrive(d.Redrive),
	}
}

func describeRedrive(r *bus.Redrive) *redriveLine {
	if r == nil {
		return nil
	}
	return &redriveLine{r.Attempt, r.State, r.Operator, r.Time, orNull(r.Event), r.Error}
}

// orNull is a sequence, null where there is none.
func orNull(sequence uint64) *uint64 {
	if sequence == 0 {
		return nil
	}
	return &sequence
}

// operatorName is who runs this, as user@host.
func (a *app) operatorName(host string) string {
	return cmp.Or(a.env("USER"), a.env("LOGNAME"), a.env("USERNAME"), "somebody") + "@" + cmp.Or(host, "unknown")
}
