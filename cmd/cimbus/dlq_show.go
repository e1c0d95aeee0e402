package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
)

func newDLQShowCommand(a *app) *cobra.Command {
	c := &dlqCommand{app: a}
	return &cobra.Command{
		Use: "show SEQ", Short: "Show everything about a dead letter",
		Long: "Show everything about a dead letter: what failed and why, what became of its redrives, its headers and its payload.",
		Args: func(_ *cobra.Command, args []string) error {
			var err error
			c.names.Sequences, err = entryNumbers(args)
			if err == nil && len(args) != 1 {
				err = usagef("give the number of one entry, as cimbus dlq ls prints it")
			}
			return err
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withBus(cmd.Context(), func(b *bus.Bus) error { return a.withoutBus(c.show(cmd.Context(), b)) })
		},
	}
}

// deadLetterView is an entry as show prints it.
type deadLetterView struct {
	deadLetterLine
	Redrives []redriveView   `json:"redrives"` // oldest first
	Headers  nats.Header     `json:"headers"`
	Payload  json.RawMessage `json:"payload"` // JSON; a string where it is none; null where it was left out

	raw []byte
}

// redriveView is a record with what became of the event.
type redriveView struct {
	redriveLine
	Fate       bus.RedriveFate `json:"fate,omitempty"`        // waiting, handled or dead-letter
	DeadLetter *uint64         `json:"dead_letter,omitempty"` // the entry it became when it failed again
}

func (c *dlqCommand) show(ctx context.Context, b *bus.Bus) error {
	d, err := b.DeadLetter(ctx, c.names.Sequences[0])
	if errors.Is(err, bus.ErrNoMessage) {
		return c.gone(ctx, b)
	}
	if err != nil {
		return err
	}
	v := deadLetterView{deadLetterLine: describeDeadLetter(d), Redrives: []redriveView{}, Headers: d.Header, raw: d.Payload}
	if !d.LeftOut {
		v.Payload = payload(d.Payload)
	}
	records, err := b.Redrives(ctx, d)
	if err != nil {
		return err
	}
	for _, r := range records {
		rv := redriveView{redriveLine: *describeRedrive(&r)}
		if r.Event != 0 {
			fate, again, err := b.RedriveFate(ctx, d, r.Event)
			if err != nil {
				return err
			}
			rv.Fate, rv.DeadLetter = fate, orNull(again)
		}
		v.Redrives = append(v.Redrives, rv)
	}
	if c.app.json {
		return line(c.app.stdout, v)
	}
	return v.write(c.app.stdout)
}

// gone says what became of an entry that is not there.
func (c *dlqCommand) gone(ctx context.Context, b *bus.Bus) error {
	for d, err := range b.DroppedDeadLetters(ctx, c.names) {
		if err != nil {
			return err
		}
		return fmt.Errorf("dead letter %d is not there: %s dropped it at %s; it was event %d of tenant %s, which handler %s gave up as %s",
			d.Sequence, d.Redrive.Operator, clock(d.Time), d.SourceSequence, d.Tenant, d.Handler, d.Reason)
	}
	return fmt.Errorf("dead letter %d is not there: it has expired, or never was; cimbus dlq ls lists them", c.names.Sequences[0])
}

func (v deadLetterView) write(w io.Writer) error {
	facts := table{head: []string{"DEAD LETTER", fmt.Sprint(v.Sequence)}}
	for _, fact := range [][2]string{
		{"time", clock(v.Time)}, {"handler", v.Handler}, {"reason", orDash(v.Reason)}, {"error", orDash(v.Error)},
		{"attempts", fmt.Sprint(v.Attempts)}, {"first attempt", clock(v.First)}, {"last attempt", clock(v.Last)},
		{"tenant", v.Tenant}, {"channel", orDash(v.Channel)}, {"event", v.Event}, {"id", orDash(v.ID)}, {"conversation", orDash(v.Conversation)},
		{"published on", orDash(v.SourceSubject)}, {"as event", fmt.Sprint(v.SourceSequence)}, {"stored", clock(v.SourceTime)},
	} {
		facts.row(fact[0], fact[1])
	}
	if v.RedriveOf != nil {
		facts.row("redrive of", fmt.Sprintf("dead letter %d", *v.RedriveOf))
	}
	redrives := table{head: []string{"REDRIVE", "TIME", "OPERATOR", "STATE", "EVENT", "BECAME"}}
	for _, r := range v.Redrives {
		redrives.row(fmt.Sprint(r.Attempt), clock(r.Time), r.Operator, string(r.State), cell(r.Event), r.became())
	}
	headers := table{head: []string{"HEADER", "VALUE"}}
	foreign := bus.Foreign(v.Headers)
	for _, key := range slices.Sorted(maps.Keys(foreign)) {
		for _, value := range foreign[key] {
			headers.row(key, value)
		}
	}
	for _, t := range []table{facts, redrives, headers} {
		if len(t.rows) == 0 {
			continue
		}
		if err := t.write(w); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "PAYLOAD  %s\n%s\n", size(v.Size), v.pretty())
	return err
}

func cell(sequence *uint64) string {
	if sequence == nil {
		return "-"
	}
	return fmt.Sprint(*sequence)
}

// became says what became of a redriven event, or why there is none.
func (r redriveView) became() string {
	switch {
	case r.DeadLetter != nil:
		return fmt.Sprintf("dead letter %d", *r.DeadLetter)
	case r.Fate != "":
		return string(r.Fate)
	}
	return orDash(r.Error)
}

// pretty is the payload for people.
func (v deadLetterView) pretty() string {
	if v.LeftOut {
		return "left out: it was too large; the event has it as long as CIM_EVENTS keeps it"
	}
	var b bytes.Buffer
	if json.Indent(&b, v.raw, "", "  ") != nil {
		return harmless(string(v.raw))
	}
	return harmless(b.String())
}

// harmless is text of several lines as it may go to a terminal: what is not printable is escaped, in a way that JSON understands too.
func harmless(text string) string {
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == '\n', unicode.IsPrint(r) && r != utf8.RuneError:
			b.WriteRune(r)
		case r == '\t':
			b.WriteString("    ")
		case r == utf8.RuneError:
			_, n := utf8.DecodeRuneInString(text[i:])
			if n == 1 {
				fmt.Fprintf(&b, `\x%02x`, text[i])
			} else {
				b.WriteRune(r)
			}
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
