package bus

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// comparison holds a stream against its declaration. What is not declared (metadata, placement, consumer limits, what the server
// adds by itself) is left as it is.
type comparison struct {
	have  jetstream.StreamConfig
	state jetstream.StreamState
	want  jetstream.StreamConfig
	now   time.Time
	// fullest counts the messages of the subject that holds most; asked only where it matters, it reads every subject.
	fullest func(context.Context) (uint64, error)
	// atLeast keeps replicas beyond the wanted ones: nobody asked for fewer.
	atLeast bool

	to    jetstream.StreamConfig // have, with every difference made away
	diffs []Difference
}

// verdict judges a difference.
type verdict struct {
	destructive, impossible bool
	why                     string
}

func harmless() verdict              { return verdict{} }
func destructive(why string) verdict { return verdict{destructive: true, why: why} }
func unchangeable(why string) verdict {
	return verdict{impossible: true, why: "cannot be changed: " + why}
}

func (c *comparison) note(field, have, want string, v verdict) {
	c.diffs = append(c.diffs, Difference{
		Field: field, Have: have, Want: want, Destructive: v.destructive, Impossible: v.impossible, Why: v.why,
	})
}

// differ notes a difference of one setting and makes it away in c.to.
func differ[T comparable](c *comparison, field string, setting *T, want T, text func(T) string, judge func(have T) verdict) {
	if *setting == want {
		return
	}
	c.note(field, text(*setting), text(want), judge(*setting))
	*setting = want
}

func always[T any](v verdict) func(T) verdict { return func(T) verdict { return v } }

// run compares everything.
func (c *comparison) run(ctx context.Context) error {
	c.to = c.have
	c.nature()
	c.subjects()
	c.origins()
	if err := c.limits(ctx); err != nil {
		return err
	}
	c.behaviour()
	return nil
}

// nature compares what a stream is made as.
func (c *comparison) nature() {
	differ(c, "storage", &c.to.Storage, c.want.Storage, jetstream.StorageType.String,
		always[jetstream.StorageType](unchangeable("a stream stays on the storage it was made on")))
	differ(c, "persist mode", &c.to.PersistMode, c.want.PersistMode, jetstream.PersistModeType.String,
		always[jetstream.PersistModeType](unchangeable("acknowledgements of this stream come before its messages are written")))
	differ(c, "message counter", &c.to.AllowMsgCounter, c.want.AllowMsgCounter, strconv.FormatBool,
		always[bool](unchangeable("a counter stream holds no events")))
	differ(c, "sealed", &c.to.Sealed, c.want.Sealed, strconv.FormatBool,
		always[bool](unchangeable("a sealed stream takes no more messages")))
	differ(c, "retention", &c.to.Retention, c.want.Retention, jetstream.RetentionPolicy.String, func(have jetstream.RetentionPolicy) verdict {
		if have == jetstream.WorkQueuePolicy {
			return unchangeable("a work queue stays one")
		}
		return destructive("consumers made for the stream as it is keep or lose messages by another rule from then on")
	})
	if c.want.Discard == jetstream.DiscardNew && c.have.AllowMsgSchedules {
		c.note("message schedules", "true", "false", unchangeable("a stream with schedules cannot refuse messages when it is full"))
	}
}

// subjects compares what the stream takes in. More is harmless; what would no longer be stored is not.
func (c *comparison) subjects() {
	have, want := slices.Sorted(slices.Values(c.have.Subjects)), slices.Sorted(slices.Values(c.want.Subjects))
	if slices.Equal(have, want) {
		return
	}
	var lost []string
	for _, h := range have {
		if !slices.ContainsFunc(want, func(w string) bool { return covers(w, h) }) {
			lost = append(lost, h)
		}
	}
	v := harmless()
	if len(lost) > 0 {
		v = destructive("messages on " + strings.Join(lost, ", ") + " would no longer be stored")
	}
	c.note("subjects", strings.Join(have, ", "), strings.Join(want, ", "), v)
	c.to.Subjects = c.want.Subjects
}

// covers reports whether every subject that matches inner matches outer.
func covers(outer, inner string) bool {
	o, i := strings.Split(outer, "."), strings.Split(inner, ".")
	for n, token := range o {
		if token == ">" {
			return len(i) > n
		}
		if n >= len(i) || i[n] == ">" || token != "*" && token != i[n] {
			return false
		}
	}
	return len(o) == len(i)
}

// origins compares where messages come from besides publishers. Whoever set these meant something by it.
func (c *comparison) origins() {
	if m := c.have.Mirror; m != nil {
		c.note("mirror", m.Name, "none", destructive("the stream would stop copying "+m.Name))
		c.to.Mirror = nil
	}
	if len(c.have.Sources) > 0 {
		names := make([]string, len(c.have.Sources))
		for i, s := range c.have.Sources {
			names[i] = s.Name
		}
		list := strings.Join(names, ", ")
		c.note("sources", list, "none", destructive("the stream would stop copying "+list))
		c.to.Sources = nil
	}
	if t := c.have.SubjectTransform; t != nil {
		c.note("subject transform", t.Source+" to "+t.Destination, "none", destructive("messages would be stored under other subjects than before"))
		c.to.SubjectTransform = nil
	}
}

// limits compares how much the stream keeps: a lower limit is destructive where it deletes something right now.
func (c *comparison) limits(ctx context.Context) error {
	differ(c, "max age", &c.to.MaxAge, c.want.MaxAge, printAge, func(time.Duration) verdict {
		if c.want.MaxAge > 0 && c.state.Msgs > 0 && c.state.FirstTime.Before(c.now.Add(-c.want.MaxAge)) {
			return destructive("messages since " + c.state.FirstTime.UTC().Format(time.RFC3339) + " are older and would be deleted")
		}
		return harmless()
	})
	differ(c, "max bytes", &c.to.MaxBytes, c.want.MaxBytes, printLimit, func(int64) verdict {
		switch {
		case c.want.MaxBytes <= 0 || c.state.Bytes <= uint64(c.want.MaxBytes):
			return harmless()
		case c.want.Discard == jetstream.DiscardNew && c.have.Discard == jetstream.DiscardNew:
			return destructive(fmt.Sprintf("it holds %d bytes and would refuse every message until they have aged out", c.state.Bytes))
		}
		return destructive(fmt.Sprintf("it holds %d bytes, the oldest would be deleted", c.state.Bytes))
	})
	differ(c, "max messages", &c.to.MaxMsgs, c.want.MaxMsgs, printLimit, always[int64](harmless()))
	differ(c, "max message size", &c.to.MaxMsgSize, c.want.MaxMsgSize, printLimit, always[int32](harmless()))
	differ(c, "discard per subject", &c.to.DiscardNewPerSubject, c.want.DiscardNewPerSubject, strconv.FormatBool, always[bool](harmless()))
	differ(c, "discard", &c.to.Discard, c.want.Discard, jetstream.DiscardPolicy.String, func(have jetstream.DiscardPolicy) verdict {
		if have == jetstream.DiscardNew {
			return destructive("when full it would drop its oldest messages instead of refusing new ones")
		}
		return harmless()
	})
	differ(c, "duplicate window", &c.to.Duplicates, c.want.Duplicates, time.Duration.String, always[time.Duration](harmless()))
	if c.have.MaxConsumers < c.want.MaxConsumers {
		differ(c, "max consumers", &c.to.MaxConsumers, c.want.MaxConsumers, printLimit, always[int](harmless()))
	}
	return c.perSubject(ctx)
}

func (c *comparison) perSubject(ctx context.Context) error {
	v := harmless()
	want := c.want.MaxMsgsPerSubject
	if want > 0 && want != c.have.MaxMsgsPerSubject && c.state.Msgs > uint64(want) {
		most, err := c.fullest(ctx)
		if err != nil {
			return err
		}
		if most > uint64(want) {
			v = destructive(fmt.Sprintf("a subject holds %d messages, its oldest would be deleted", most))
		}
	}
	differ(c, "max messages per subject", &c.to.MaxMsgsPerSubject, want, printLimit, always[int64](v))
	return nil
}

// behaviour compares the rest; none of it touches what is stored. What is stricter than declared and cannot be undone (deny purge,
// deny delete, TTLs allowed) is left.
func (c *comparison) behaviour() {
	if !c.atLeast || c.have.Replicas < c.want.Replicas {
		differ(c, "replicas", &c.to.Replicas, c.want.Replicas, strconv.Itoa, func(have int) verdict {
			if c.want.Replicas < have {
				return destructive("copies would be given up")
			}
			return harmless()
		})
	}
	on := always[bool](harmless())
	differ(c, "description", &c.to.Description, c.want.Description, strconv.Quote, always[string](harmless()))
	differ(c, "compression", &c.to.Compression, c.want.Compression, jetstream.StoreCompression.String, always[jetstream.StoreCompression](harmless()))
	differ(c, "direct reads", &c.to.AllowDirect, c.want.AllowDirect, strconv.FormatBool, on)
	differ(c, "rollup", &c.to.AllowRollup, c.want.AllowRollup, strconv.FormatBool, on)
	differ(c, "no acknowledgement", &c.to.NoAck, c.want.NoAck, strconv.FormatBool, on)
	if c.want.AllowMsgTTL {
		differ(c, "message TTL", &c.to.AllowMsgTTL, true, strconv.FormatBool, on)
	}
	if want := c.want.RePublish; want != nil && (c.have.RePublish == nil || *c.have.RePublish != *want) {
		c.note("republish", printRePublish(c.have.RePublish), printRePublish(want), harmless())
		c.to.RePublish = want
	}
}

func printLimit[T int | int32 | int64](n T) string {
	if n <= 0 {
		return "none"
	}
	return strconv.FormatInt(int64(n), 10)
}

func printAge(d time.Duration) string {
	if d <= 0 {
		return "none"
	}
	return d.String()
}

func printRePublish(r *jetstream.RePublish) string {
	switch {
	case r == nil:
		return "none"
	case r.HeadersOnly:
		return r.Source + " to " + r.Destination + ", headers only"
	}
	return r.Source + " to " + r.Destination
}
