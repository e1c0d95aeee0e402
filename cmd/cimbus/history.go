package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// historyCommand lists a conversation's events.
type historyCommand struct {
	app *app
	membership
	after       uint64
	from, until string
	limit       int
	newest      bool
	payload     bool
}

func newHistoryCommand(a *app) *cobra.Command {
	c := &historyCommand{app: a}
	cmd := c.named(&cobra.Command{
		Use: "history", Short: "List a conversation's events with their outcome", Args: noArgs,
		Long: `List the events of a conversation that were handled, in order, with their outcome: delivered, dropped, dead-letter or imported. They come from
the conversation's index, however large the stream is. --conversation - lists the tenant's events of no conversation. With --json, or
--payload, every event is printed whole as long as the stream keeps it. The exit code is 1 where there is none.

` + pointHelp,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.conversation == "" {
				return usagef("--conversation is empty: give the conversation's id, or - for the events of none")
			}
			if c.conversation == "-" {
				c.conversation = ""
			}
			if _, err := (subjects.Index{Tenant: c.tenant, Conversation: c.conversation}).Subject(); err != nil {
				return &usageError{err}
			}
			if c.limit < 0 {
				return usagef("--limit %d: give at least 1, or 0 for all", c.limit)
			}
			now := time.Now()
			from, err := parsePoint("from", c.from, now)
			if err != nil {
				return err
			}
			until, err := parsePoint("until", c.until, now)
			if err != nil {
				return err
			}
			if err := inOrder(from, until); err != nil {
				return err
			}
			return a.withBus(cmd.Context(), func(b *bus.Bus) error { return a.withoutBus(c.run(cmd.Context(), b, from, until)) })
		},
	})
	cmd.Flags().Uint64Var(&c.after, "after", 0, "only events behind this `sequence`")
	cmd.Flags().StringVar(&c.from, "from", "", "from this `place` on: a sequence, an age, a time or a position")
	cmd.Flags().StringVar(&c.until, "until", "", "up to this `place`, included")
	cmd.Flags().IntVar(&c.limit, "limit", 0, "end after so many, 0 = all")
	cmd.Flags().BoolVar(&c.newest, "newest", false, "the newest first")
	cmd.Flags().BoolVar(&c.payload, "payload", false, "print the events' bodies, too")
	return cmd
}

func (c *historyCommand) run(ctx context.Context, b *bus.Bus, from, until bus.Point) error {
	began := time.Now()
	after, upto := c.after, uint64(0)
	if !from.IsZero() || !until.IsZero() {
		span, err := b.Span(ctx, bus.StreamEvents, from, until)
		if err != nil {
			return err
		}
		if span.First > span.Last {
			return c.nothing(ctx, b) // 0 as the last one would be all
		}
		after, upto = max(after, span.First-1), span.Last
	}
	read := b.History
	if c.newest {
		read = b.HistoryBack
	}
	entries := read(ctx, c.tenant, c.conversation, after, upto)
	out := flowTo(c.app.stdout,
		column{"TIME", 23}, column{"SEQUENCE", -8}, column{"EVENT", 28}, column{"ID", 20}, column{"CHANNEL", 10}, column{"OUTCOME", 11})
	var count int
	var err error
	if c.app.json || c.payload {
		count, err = c.events(ctx, b, out, entries)
	} else {
		count, err = c.list(out, entries)
	}
	if closed := out.close(); err == nil {
		err = closed
	}
	switch {
	case ctx.Err() != nil:
		c.app.tell("interrupted: %s so far", plural(count, "event"))
		return errReported
	case err != nil:
		return err
	case count == 0:
		return c.nothing(ctx, b)
	}
	more := ""
	if c.limit == count {
		more = "; there may be more than --limit"
	}
	c.app.tell("%s of %s in %s%s", plural(count, "event"), c.name(), age(time.Since(began)), more)
	return nil
}

func (c *historyCommand) name() string {
	if c.conversation == "" {
		return fmt.Sprintf("no conversation of tenant %q", c.tenant)
	}
	return fmt.Sprintf("conversation %q of tenant %q", c.conversation, c.tenant)
}

// nothing says what there is instead.
func (c *historyCommand) nothing(ctx context.Context, b *bus.Bus) error {
	for e, err := range b.HistoryBack(ctx, c.tenant, c.conversation, 0, 0) {
		if err != nil {
			return err
		}
		return fmt.Errorf("no event of %s there; its last one is %d (%s)", c.name(), e.Sequence, clock(e.Stored))
	}
	span, err := b.Span(ctx, bus.StreamEvents, bus.Point{}, bus.Point{})
	if err != nil {
		return err
	}
	return fmt.Errorf("no event of %s was handled; check both names. There is %s", c.name(), describeSpan(ctx, b, span))
}

func (c *historyCommand) list(out *flow, entries iter.Seq2[bus.Entry, error]) (count int, err error) {
	for e, err := range entries {
		if err != nil {
			return count, err
		}
		if err := out.row(entryCells(&e)...); err != nil {
			return count, err
		}
		if count++; count == c.limit {
			break
		}
	}
	return count, nil
}

func entryCells(e *bus.Entry) []string {
	return []string{clock(e.Stored), fmt.Sprint(e.Sequence), orDash(e.EventName), orDash(cut(e.EventID)), orDash(e.Channel), e.Outcome}
}

// historyAhead is more than what MessagesAt reads ahead.
const historyAhead = 16

// events prints the events themselves. Their bodies are read some at a time, while the entries are.
func (c *historyCommand) events(ctx context.Context, b *bus.Bus, out *flow, entries iter.Seq2[bus.Entry, error]) (count int, err error) {
	var waiting []bus.Entry // those whose bodies are on their way
	var failed error
	show := func(upto uint64, m *jetstream.RawStreamMsg) error {
		for len(waiting) > 0 {
			e := waiting[0]
			waiting = waiting[1:]
			body := m
			if e.Sequence != upto {
				body = nil // it is not there any more
			}
			count++
			if err := c.one(out, &e, body); err != nil || e.Sequence == upto {
				return err
			}
		}
		return nil
	}
	asked := 0
	sequences := func(next func(uint64) bool) {
		for e, err := range entries {
			if failed = err; err != nil {
				return
			}
			// What is far behind those that are read ahead was answered, and was not there.
			if waiting = append(waiting, e); len(waiting) > 2*historyAhead {
				if failed = show(waiting[0].Sequence, nil); failed != nil {
					return
				}
			}
			if asked++; !next(e.Sequence) || asked == c.limit {
				return
			}
		}
	}
	for m, err := range b.MessagesAt(ctx, bus.StreamEvents, sequences) {
		if err == nil {
			err = show(m.Sequence, m)
		}
		if err != nil {
			return count, err
		}
	}
	if failed != nil {
		return count, failed
	}
	return count, show(0, nil)
}

// one prints an event with its outcome; m is nil where only its entry is left.
func (c *historyCommand) one(out *flow, e *bus.Entry, m *jetstream.RawStreamMsg) error {
	if c.app.json {
		return out.json(func(dst []byte) []byte { return c.appendJSON(dst, e, m) })
	}
	if err := out.row(entryCells(e)...); err != nil {
		return err
	}
	body := "    the stream does not keep it any more\n"
	if m != nil {
		body = indented(m.Data)
	}
	return out.write([]byte(body))
}

// appendJSON appends the event's line, as find has it, with its outcome. What is gone has payload null, and says so.
func (c *historyCommand) appendJSON(dst []byte, e *bus.Entry, m *jetstream.RawStreamMsg) []byte {
	stored := bus.StoredEvent{RawStreamMsg: m, Conversation: c.conversation, ID: e.EventID}
	if m == nil {
		stored.RawStreamMsg = &jetstream.RawStreamMsg{Sequence: e.Sequence, Time: e.Stored, Subject: e.Subject}
	}
	if name, err := subjects.ParseEvent(stored.Subject); err == nil {
		stored.Name = name
	}
	dst = stored.AppendJSON(dst)
	dst = append(dst[:len(dst)-1], `,"outcome":`...)
	dst = cim.AppendString(dst, e.Outcome)
	if m == nil {
		dst = append(dst, `,"expired":true`...)
	}
	return append(dst, '}')
}

// indented is a body for people, below the line of its event.
func indented(body []byte) string {
	var b bytes.Buffer
	if json.Indent(&b, body, "    ", "  ") != nil {
		return "    " + harmless(string(body)) + "\n"
	}
	return "    " + harmless(b.String()) + "\n"
}
