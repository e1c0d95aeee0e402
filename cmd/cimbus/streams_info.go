package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
)

func newStreamsInfoCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "info [STREAM]", Short: "Show what the streams hold, what they cost and how far the handlers are",
		Long: `Show what the streams hold, what they cost and how far the handlers are, or of one stream everything, its consumers included. Memory is what
the server keeps of the distinct subjects, about; the server does not tell more of a stream.`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) > 1:
				return usagef("name one stream, or none for all")
			case len(args) == 1 && !slices.Contains(declaredStreams(), args[0]):
				return usagef("%q is no stream of the bus; there are %s", args[0], strings.Join(declaredStreams(), ", "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBus(cmd.Context(), func(b *bus.Bus) error { return a.streamsInfo(cmd.Context(), b, args) })
		},
	}
}

// streamLine is one stream as info prints it.
type streamLine struct {
	Stream    string     `json:"stream"`
	Exists    bool       `json:"exists"`
	Messages  uint64     `json:"messages"`
	Bytes     uint64     `json:"bytes"`
	MaxBytes  int64      `json:"max_bytes"`       // -1 = no limit
	MaxAge    float64    `json:"max_age_seconds"` // 0 = no limit
	First     uint64     `json:"first"`
	Last      uint64     `json:"last"`
	FirstTime *time.Time `json:"first_time"`
	LastTime  *time.Time `json:"last_time"`
	Consumers int        `json:"consumers"`
	Replicas  int        `json:"replicas"`
	Subjects  []string   `json:"subjects"` // that it stores

	Distinct     uint64        `json:"distinct_subjects"` // that are stored
	Memory       uint64        `json:"memory_bytes"`      // what those cost the server, about
	Lost         int           `json:"lost"`
	Created      *time.Time    `json:"created"`
	RestoredFrom *time.Time    `json:"restored_from"` // when the snapshot was taken that it is a copy of; null if it is none
	Handlers     []handlerLine `json:"handlers"`      // that read it
	Account      accountLine   `json:"account"`       // the same with every stream
}

// accountLine is what all streams of the account use together.
type accountLine struct {
	Storage    uint64 `json:"storage_bytes"`
	MaxStorage int64  `json:"max_storage_bytes"` // -1 = no limit
	Memory     uint64 `json:"memory_bytes"`      // of streams and consumers in memory
	MaxMemory  int64  `json:"max_memory_bytes"`  // -1 = no limit
	Streams    int    `json:"streams"`
	Consumers  int    `json:"consumers"`
}

func (a *app) streamsInfo(ctx context.Context, b *bus.Bus, names []string) error {
	streams, err := b.Streams(ctx)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		streams = slices.DeleteFunc(streams, func(s bus.StreamStatus) bool { return s.Stream != names[0] })
	}
	used, err := b.JetStream().AccountInfo(ctx)
	if err != nil {
		return fmt.Errorf("what the streams use: %w", err)
	}
	var all []streamLine
	handlers := []bus.HandlerStatus{}
	for _, s := range streams {
		l := describe(s, used)
		if s.Stream == bus.StreamEvents && s.Exists {
			if handlers, err = b.Handlers(ctx); err != nil {
				return err
			}
			for _, h := range handlers {
				l.Handlers = append(l.Handlers, describeHandler(h))
			}
		}
		all = append(all, l)
	}
	switch {
	case a.json:
		for _, l := range all {
			if err := line(a.stdout, l); err != nil {
				return err
			}
		}
		return nil
	case len(names) > 0:
		return a.streamDetail(all[0], streams[0])
	}
	t := table{head: []string{"STREAM", "MESSAGES", "BYTES", "OF", "FIRST", "LAST", "OLDEST", "KEPT", "DISTINCT", "MEMORY", "CONSUMERS", "REPLICAS", "SUBJECTS"}}
	for _, l := range all {
		t.row(l.cells()...)
	}
	if err := t.write(a.stdout); err != nil {
		return err
	}
	if len(handlers) > 0 {
		if _, err := fmt.Fprintln(a.stdout); err != nil {
			return err
		}
		t := handlerTable()
		for _, h := range all[0].Handlers {
			t.row(h.cells()...)
		}
		if err := t.write(a.stdout); err != nil {
			return err
		}
	}
	a.tell("%s", sum(all))
	return nil
}

func describe(s bus.StreamStatus, used *jetstream.AccountInfo) streamLine {
	limit := func(n int64) int64 {
		if n <= 0 {
			return -1
		}
		return n
	}
	l := streamLine{
		Stream: s.Stream, Exists: s.Exists, Messages: s.Messages, Bytes: s.Bytes, MaxBytes: s.MaxBytes, MaxAge: s.MaxAge,
		First: s.FirstSequence, Last: s.LastSequence, FirstTime: s.FirstTime, LastTime: s.LastTime, Consumers: len(s.Consumers),
		Replicas: s.Replicas, Subjects: s.Takes, Distinct: s.Subjects, Memory: s.SubjectMemory(), Lost: s.Lost, Handlers: []handlerLine{},
		Account: accountLine{
			Storage: used.Store, MaxStorage: limit(used.Limits.MaxStore), Memory: used.Memory, MaxMemory: limit(used.Limits.MaxMemory),
			Streams: used.Streams, Consumers: used.Consumers,
		},
	}
	if s.Exists {
		l.Created = &s.Created
	}
	if !s.RestoredFrom.IsZero() {
		l.RestoredFrom = &s.RestoredFrom
	}
	return l
}

// limits are how much and how long a stream keeps, and how old its first message is.
func (l streamLine) limits() (bytes, kept, oldest string) {
	bytes, kept, oldest = "no limit", "no limit", "-"
	if l.MaxBytes > 0 {
		bytes = size(l.MaxBytes)
	}
	if l.MaxAge > 0 {
		kept = age(time.Duration(l.MaxAge * float64(time.Second)))
	}
	if l.FirstTime != nil {
		oldest = age(max(time.Since(*l.FirstTime), 0))
	}
	return bytes, kept, oldest
}

func (l streamLine) cells() []string {
	if !l.Exists {
		return []string{l.Stream, "missing", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-"}
	}
	limit, kept, oldest := l.limits()
	return []string{
		l.Stream, fmt.Sprint(l.Messages), size(l.Bytes), limit, fmt.Sprint(l.First), fmt.Sprint(l.Last), oldest, kept,
		fmt.Sprint(l.Distinct), size(l.Memory), fmt.Sprint(l.Consumers), fmt.Sprint(l.Replicas), strings.Join(l.Subjects, ", "),
	}
}

// sum is what all streams hold together.
func sum(all []streamLine) string {
	var messages, bytes, distinct, memory, dead uint64
	there := 0
	restored := ""
	for _, l := range all {
		if !l.Exists {
			continue
		}
		there++
		messages, bytes, distinct, memory = messages+l.Messages, bytes+l.Bytes, distinct+l.Distinct, memory+l.Memory
		for _, h := range l.Handlers {
			dead += h.DeadLetters
		}
		if l.RestoredFrom != nil && l.Stream == bus.StreamEvents {
			restored = "; restored from the snapshot of " + l.RestoredFrom.UTC().Format(time.RFC3339)
		}
	}
	used := all[0].Account
	of := func(n int64) string {
		if n < 0 {
			return ""
		}
		return " of " + size(n)
	}
	return fmt.Sprintf("%s: %s, %s; %s, about %s of memory; %s; the account uses %s%s on disk and %s%s in memory%s",
		plural(there, "stream"), plural(int(messages), "message"), size(bytes), plural(int(distinct), "distinct subject"), size(memory),
		plural(int(dead), "dead letter"), size(used.Storage), of(used.MaxStorage), size(used.Memory), of(used.MaxMemory), restored)
}

// streamDetail prints all about one stream.
func (a *app) streamDetail(l streamLine, s bus.StreamStatus) error {
	t := table{head: []string{"STREAM", l.Stream}}
	if !l.Exists {
		t.row("is", "missing: run cimbus streams apply, or start cimbus serve")
		return t.write(a.stdout)
	}
	limit, kept, oldest := l.limits()
	t.row("subjects", strings.Join(l.Subjects, ", "))
	t.row("created", clock(s.Created))
	if l.RestoredFrom != nil {
		t.row("restored", "from the snapshot of "+clock(*l.RestoredFrom)+", at "+clock(s.RestoredAt))
	}
	t.row("messages", fmt.Sprintf("%d, %d to %d", l.Messages, l.First, l.Last))
	t.row("bytes", size(l.Bytes)+", limit: "+limit)
	t.row("age", "oldest "+oldest+", limit: "+kept)
	t.row("distinct subjects", fmt.Sprintf("%d, about %s of memory", l.Distinct, size(l.Memory)))
	t.row("lost", plural(l.Lost, "message"))
	t.row("replicas", fmt.Sprint(l.Replicas))
	if s.Leader != "" {
		t.row("leader", s.Leader)
	}
	for _, p := range s.Peers {
		state := "current"
		switch {
		case p.Offline:
			state = "away"
		case !p.Current:
			state = fmt.Sprintf("%d operations behind", p.Lag)
		}
		t.row("peer", p.Server+", "+state)
	}
	if err := t.write(a.stdout); err != nil || len(s.Consumers) == 0 {
		return err
	}
	consumers := table{head: []string{"CONSUMER", "DURABLE", "LAG", "WAITING", "IN WORK", "REDELIVERED", "DONE UP TO"}}
	for _, c := range s.Consumers {
		durable := "no"
		if c.Durable {
			durable = "yes"
		}
		consumers.row(c.Name, durable, fmt.Sprint(c.Lag), fmt.Sprint(c.Pending), fmt.Sprint(c.AckPending), fmt.Sprint(c.Redelivered), fmt.Sprint(c.AckFloor))
	}
	if _, err := fmt.Fprintln(a.stdout); err != nil {
		return err
	}
	return consumers.write(a.stdout)
}
