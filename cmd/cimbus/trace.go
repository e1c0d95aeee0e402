package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/subjects"
)

// traceCommand tells the journey of one event.
type traceCommand struct {
	app                  *app
	id                   string
	tenant, conversation string
	sequence             uint64
	from, until, day     string
}

func newTraceCommand(a *app) *cobra.Command {
	c := &traceCommand{app: a}
	cmd := &cobra.Command{
		Use: "trace [ID]", Short: "Tell the journey of one event",
		Long: `Tell what the streams know of one event, named by its id or by --sequence: how it was published, when it was stored, to whom it was
delivered and how late, whom it made a member, its dead letters, redrives and replays, and its outcome. What was tried again and then
succeeded, or published twice and stored once, leaves no mark. Of an id that was stored more than once each journey is told, that of a
redriven event too.

An id is looked for in the whole index; --tenant, --day, --from and --until, or --conversation make that less. The exit code is 1 where
the event is not found.

` + pointHelp,
		Example: `  cimbus trace 6d3c1d55 --tenant acme --day today
  cimbus trace --sequence 4711 --json`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) > 1:
				return usagef("unexpected argument %q: one event is traced at a time", args[1])
			case len(args) == 1 && args[0] == "":
				return usagef("the id is empty: give the event's id")
			case len(args) == 1:
				c.id = args[0]
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := saysSomething(cmd.Flags()); err != nil {
				return err
			}
			sel, err := c.selects(time.Now())
			if err != nil {
				return err
			}
			return a.withBus(cmd.Context(), func(b *bus.Bus) error { return a.withoutBus(c.run(cmd.Context(), b, sel)) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.tenant, "tenant", "", "the event's tenant")
	flags.StringVar(&c.conversation, "conversation", "", "the event's conversation, where it is known")
	flags.Uint64Var(&c.sequence, "sequence", 0, "the event's `sequence` in CIM_EVENTS, instead of its id")
	flags.StringVar(&c.day, "day", "", "the `day` it was stored on: today, yesterday or 2026-01-31")
	flags.StringVar(&c.from, "from", "", "look from this `place` on: a sequence, an age, a time or a position")
	flags.StringVar(&c.until, "until", "", "look up to this `place`, included")
	return cmd
}

// selects is where to look for the event.
func (c *traceCommand) selects(now time.Time) (bus.EventSelection, error) {
	sel := bus.EventSelection{Tenant: match(c.tenant), Conversation: match(c.conversation), ID: c.id}
	switch {
	case c.id == "" && c.sequence == 0:
		return sel, usagef("name the event: give its id, or --sequence")
	case c.id != "" && c.sequence != 0:
		return sel, usagef("--sequence %d beside the id %q: one of them names the event", c.sequence, c.id)
	case c.day != "" && (c.from != "" || c.until != ""):
		return sel, usagef("--day beside --from or --until: a day has both ends")
	}
	var err error
	if sel.From, err = parsePoint("from", c.from, now); err != nil {
		return sel, err
	}
	if sel.Until, err = parsePoint("until", c.until, now); err != nil {
		return sel, err
	}
	if err := inOrder(sel.From, sel.Until); err != nil {
		return sel, err
	}
	if c.day != "" {
		at, ok := parseMoment(c.day, now)
		if !ok {
			return sel, usagef("--day %q: give a day as today, yesterday or 2026-01-31", c.day)
		}
		day := time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, at.Location())
		sel.From.Time = day
		if end := day.AddDate(0, 0, 1).Add(-1); end.Before(now) {
			sel.Until.Time = end
		}
	}
	if err := sel.Validate(); err != nil {
		return sel, &usageError{err}
	}
	return sel, nil
}

func (c *traceCommand) run(ctx context.Context, b *bus.Bus, sel bus.EventSelection) error {
	began := time.Now()
	var span bus.Span
	journeys := b.Journeys(ctx, c.sequence)
	if c.id != "" {
		var err error
		if span, err = b.Span(ctx, bus.StreamEvents, sel.From, sel.Until); err != nil {
			return err
		}
		journeys = b.JourneysOf(ctx, sel, span)
	}
	out := flowTo(c.app.stdout)
	told, steps := 0, 0
	var failed error
	for j, err := range journeys {
		if err == nil {
			told, steps = told+1, steps+len(j.Steps)
			err = c.tell(out, &j, told == 1)
		}
		if failed = err; err != nil {
			break
		}
	}
	if err := out.close(); failed == nil {
		failed = err
	}
	took := age(time.Since(began))
	switch {
	case ctx.Err() != nil:
		c.app.tell("interrupted: %s so far", plural(told, "event"))
		return errReported
	case failed != nil:
		return failed
	case told == 0:
		of := "any tenant"
		if c.tenant != "" {
			of = fmt.Sprintf("tenant %q", c.tenant)
		}
		if c.conversation != "" {
			of = fmt.Sprintf("conversation %q of %s", c.conversation, of)
		}
		return fmt.Errorf("no event with the id %q of %s in %s; looked for %s", c.id, of, describeSpan(ctx, b, span), took)
	}
	c.app.tell("%s, %s in %s", plural(told, "event"), plural(steps, "step"), took)
	return nil
}

// tell prints a journey.
func (c *traceCommand) tell(out *flow, j *bus.Journey, first bool) error {
	if c.app.json {
		for i := range j.Steps {
			var b strings.Builder
			if err := line(&b, traceLineOf(j, &j.Steps[i])); err != nil {
				return err
			}
			if err := out.write([]byte(b.String())); err != nil {
				return err
			}
		}
		return nil
	}
	var text strings.Builder
	if !first {
		text.WriteByte('\n')
	}
	facts := table{head: []string{"EVENT", fmt.Sprint(j.Event.Sequence)}}
	for _, fact := range [][2]string{
		{"subject", orDash(j.Event.Subject)}, {"id", orDash(j.Event.ID)}, {"conversation", orDash(j.Event.Conversation)}, {"outcome", outcomeOf(j)},
	} {
		facts.row(fact[0], fact[1])
	}
	if j.Expired {
		facts.row("expired", "CIM_EVENTS does not keep it any more; this is what is left")
	}
	if !j.DeliveriesSince.IsZero() {
		facts.row("deliveries", "are kept since "+clock(j.DeliveriesSince)+" only; there may have been others")
	}
	steps := table{head: []string{"TIME", "AFTER", "STEP", "WHAT"}}
	for i := range j.Steps {
		s := &j.Steps[i]
		after := "-"
		if s.Kind != bus.StepPublished && !s.Time.IsZero() && !j.Event.Time.IsZero() {
			after = "+" + delay(s.Time.Sub(j.Event.Time))
		}
		steps.row(clock(s.Time), after, string(s.Kind), describeStep(j, s))
	}
	if err := facts.write(&text); err != nil {
		return err
	}
	text.WriteByte('\n')
	if err := steps.write(&text); err != nil {
		return err
	}
	return out.write([]byte(text.String()))
}

// outcomeOf is what became of an event.
func outcomeOf(j *bus.Journey) string {
	switch {
	case j.Entry != nil:
		return j.Entry.Outcome
	case j.Waiting:
		return "none yet: its worker has not finished it"
	}
	return "not known: the index does not have it"
}

// delay is how much later something was, for people. Clocks of different servers may make it negative.
func delay(d time.Duration) string {
	if d.Abs() < time.Second {
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	}
	return age(d)
}

// emittedBy says who an event says it comes from, as "AGENT a1 (Ada)"; "" where it does not say.
func emittedBy(e bus.Emitter) string {
	words := []string{}
	for _, word := range []string{e.Type, e.ID} {
		if word != "" {
			words = append(words, printable(cut(word)))
		}
	}
	switch {
	case e.Name == "" || e.Name == e.ID:
	case len(words) == 0:
		words = append(words, printable(cut(e.Name)))
	default:
		words = append(words, "("+printable(cut(e.Name))+")")
	}
	return strings.Join(words, " ")
}

// describeStep is a step for people.
func describeStep(j *bus.Journey, s *bus.Step) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch s.Kind {
	case bus.StepPublished:
		if by := emittedBy(s.Emitter); by != "" {
			add("by %s", by)
		}
		if id := bus.LastHeader(s.Header, jetstream.MsgIDHeader); id != "" {
			add("as %s", id)
		} else {
			add("without message id")
		}
		if trace := bus.TraceOf(s.Header); trace.IsValid() {
			add("trace %s", trace.TraceID())
		}
		if of := bus.LastHeader(s.Header, bus.HeaderRedriveOf); of != "" {
			add("redrive of dead letter %s for handler %s", of, bus.LastHeader(s.Header, bus.HeaderRedriveHandler))
		}
		if s.Time.IsZero() {
			add("the event has no time of its own")
		} else {
			add("by its own time %s before it was stored", delay(j.Event.Time.Sub(s.Time)))
		}
	case bus.StepStored:
		add("in CIM_EVENTS at %d", j.Event.Sequence)
		if !j.Expired {
			add("%s", size(len(j.Event.Data)))
		}
	case bus.StepCommitted:
		add("%s, index entry %d", j.Entry.Outcome, j.Entry.IndexSequence)
	case bus.StepMember:
		add("%s is %s", s.Agent, s.Role)
	case bus.StepLeft:
		add("%s, who was %s", s.Agent, s.Role)
	case bus.StepDelivered, bus.StepReplayed:
		add("%s to %s, delivery %d", s.Delivery.Name.Type, s.Agent, s.Delivery.Sequence)
		if s.Replay != "" {
			add("replay %s", s.Replay)
		}
	case bus.StepDeadLetter:
		d := s.DeadLetter
		add("%d of handler %s: %s after %s", d.Sequence, d.Handler, d.Reason, plural(d.Attempts, "attempt"))
		add("%s to %s", clock(d.First), clock(d.Last))
		add("%s", d.Error)
	case bus.StepRedrive:
		add("of dead letter %d %s by %s", s.DeadLetter.Sequence, s.Redrive.State, s.Redrive.Operator)
		if s.Redrive.Event != 0 {
			add("as event %d", s.Redrive.Event)
		}
		if s.Redrive.Error != "" {
			add("%s", s.Redrive.Error)
		}
	case bus.StepReplay:
		add("%s to %s by %s", s.Replay, s.Record.Target, s.Record.Operator)
	}
	return strings.Join(parts, ", ")
}

// traceLine is a step as NDJSON has it.
type traceLine struct {
	Event   uint64     `json:"event"` // sequence in CIM_EVENTS
	Step    string     `json:"step"`
	Time    *time.Time `json:"time"`     // null where it is not known
	AfterMS *float64   `json:"after_ms"` // since the event was stored; null for published

	Tenant       string        `json:"tenant,omitempty"`
	ID           string        `json:"id,omitempty"`
	Conversation string        `json:"conversation,omitempty"`
	Subject      string        `json:"subject,omitempty"` // of what was stored
	Size         int           `json:"size,omitempty"`    // of the payload, bytes
	MessageID    string        `json:"message_id,omitempty"`
	Headers      nats.Header   `json:"headers,omitempty"`    // published
	RedriveOf    string        `json:"redrive_of,omitempty"` // published: the dead letter
	Emitter      *traceEmitter `json:"emitter,omitempty"`    // published: who it says it comes from
	Expired      bool          `json:"expired,omitempty"`    // stored: and not kept any more
	Waiting      bool          `json:"waiting,omitempty"`    // stored: and not handled yet

	Outcome string `json:"outcome,omitempty"` // committed
	Index   uint64 `json:"index,omitempty"`   // committed: sequence in CIM_INDEX

	Agent    string `json:"agent,omitempty"`
	Role     string `json:"role,omitempty"`
	Type     string `json:"type,omitempty"`
	Position string `json:"position,omitempty"` // delivered, replayed
	Replay   string `json:"replay,omitempty"`   // replayed, replay

	DeadLetter   uint64     `json:"dead_letter,omitempty"` // dead-letter, redrive: sequence in CIM_DEAD_LETTERS
	Handler      string     `json:"handler,omitempty"`
	Reason       string     `json:"reason,omitempty"`
	Error        string     `json:"error,omitempty"`
	Attempts     int        `json:"attempts,omitempty"`
	FirstAttempt *time.Time `json:"first_attempt,omitempty"`
	LastAttempt  *time.Time `json:"last_attempt,omitempty"`
	State        string     `json:"state,omitempty"`    // redrive, replay
	Operator     string     `json:"operator,omitempty"` // redrive, replay
	NewEvent     uint64     `json:"new_event,omitempty"`
	Target       string     `json:"target,omitempty"` // replay
}

// traceEmitter is who an event says it comes from, as NDJSON has it.
type traceEmitter struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	Name string `json:"name"`
}

func traceLineOf(j *bus.Journey, s *bus.Step) traceLine {
	moment := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		t = t.UTC()
		return &t
	}
	l := traceLine{
		Event: j.Event.Sequence, Step: string(s.Kind), Time: moment(s.Time),
		Tenant: j.Event.Name.Tenant, ID: j.Event.ID, Conversation: j.Event.Conversation, Agent: s.Agent, Role: s.Role, Replay: s.Replay,
	}
	if s.Kind != bus.StepPublished && l.Time != nil && !j.Event.Time.IsZero() {
		after := float64(s.Time.Sub(j.Event.Time).Microseconds()) / 1000
		l.AfterMS = &after
	}
	switch s.Kind {
	case bus.StepPublished:
		l.Headers, l.MessageID, l.RedriveOf = s.Header, bus.LastHeader(s.Header, jetstream.MsgIDHeader), bus.LastHeader(s.Header, bus.HeaderRedriveOf)
		if s.Emitter != (bus.Emitter{}) {
			l.Emitter = &traceEmitter{s.Emitter.ID, s.Emitter.Type, s.Emitter.Name}
		}
	case bus.StepStored:
		l.Subject, l.Size, l.Expired, l.Waiting = j.Event.Subject, len(j.Event.Data), j.Expired, j.Waiting
	case bus.StepCommitted:
		l.Outcome, l.Index = j.Entry.Outcome, j.Entry.IndexSequence
		l.Subject, _ = subjects.Index{Tenant: l.Tenant, Conversation: j.Entry.Conversation}.Subject() // which it was read by
	case bus.StepDelivered, bus.StepReplayed:
		l.Subject, l.Type, l.Position, l.Size = s.Delivery.Subject, s.Delivery.Name.Type, s.Delivery.Position.String(), len(s.Delivery.Data)
	}
	if d := s.DeadLetter; d != nil {
		l.DeadLetter, l.Handler = d.Sequence, d.Handler
		if s.Redrive == nil {
			l.Reason, l.Error, l.Attempts, l.FirstAttempt, l.LastAttempt = d.Reason, d.Error, d.Attempts, moment(d.First), moment(d.Last)
		}
	}
	if r := s.Redrive; r != nil {
		l.State, l.Operator, l.NewEvent, l.Error = string(r.State), r.Operator, r.Event, r.Error
	}
	if r := s.Record; r != nil {
		l.State, l.Operator, l.Target = string(r.State), r.Operator, r.Target
	}
	return l
}
