package bus

import (
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Action is what a plan does with a stream.
type Action string

// The actions of a plan.
const (
	ActionCreate Action = "create" // the stream is missing
	ActionKeep   Action = "keep"   // it is as declared
	ActionUpdate Action = "update" // its differences cost no data
	ActionRefuse Action = "refuse" // a difference loses data or cannot be changed; nothing is done unless forced, where it can be
)

// Plan says what has to be done to bring the streams to what is declared, in the order of the declaration. It is made by
// PlanStreams and carried out by ApplyStreams of the same bus.
type Plan struct {
	Streams []StreamPlan `json:"streams"`
}

// StreamPlan is the plan for one stream.
type StreamPlan struct {
	Stream      string       `json:"stream"`
	Action      Action       `json:"action"`
	Differences []Difference `json:"differences,omitempty"`

	config jetstream.StreamConfig // what the stream is created with or updated to
	grows  int64                  // bytes by which the stream's reservation of storage grows

	restored time.Time // when the snapshot was taken that the stream was restored from
}

// Difference is one setting of a stream that is not as declared.
type Difference struct {
	Field string `json:"field"`
	Have  string `json:"have"`
	Want  string `json:"want"`
	// Destructive: making the change loses stored messages or a promise about them; it is made only when forced.
	Destructive bool `json:"destructive"`
	// Impossible: the server does not make this change to an existing stream, forced or not.
	Impossible bool   `json:"impossible"`
	Why        string `json:"why,omitempty"` // what the change would do; empty where it is harmless
}

// String is the difference in one line.
func (d Difference) String() string {
	s := d.Field + ": " + d.Have + " → " + d.Want
	if d.Why != "" {
		s += " (" + d.Why + ")"
	}
	return s
}

// Changes reports whether the plan would change anything, forced or not.
func (p Plan) Changes() bool {
	for _, s := range p.Streams {
		if s.Action != ActionKeep {
			return true
		}
	}
	return false
}

// Refused holds the streams the plan refuses to change.
func (p Plan) Refused() []StreamPlan {
	var refused []StreamPlan
	for _, s := range p.Streams {
		if s.Action == ActionRefuse {
			refused = append(refused, s)
		}
	}
	return refused
}

// Impossible reports whether a difference cannot be made away even by force.
func (p Plan) Impossible() bool {
	for _, s := range p.Streams {
		if s.impossible() {
			return true
		}
	}
	return false
}

func (s StreamPlan) impossible() bool {
	for _, d := range s.Differences {
		if d.Impossible {
			return true
		}
	}
	return false
}

// String lists every stream with its action, and below it one line per difference.
func (p Plan) String() string {
	var b strings.Builder
	for _, s := range p.Streams {
		fmt.Fprintf(&b, "%s: %s\n", s.Stream, s.Action)
		for _, d := range s.Differences {
			fmt.Fprintf(&b, "  %s\n", d)
		}
	}
	return b.String()
}

// PlanError is returned where streams differ from what is declared in a way that is not changed unasked. Nothing was changed.
type PlanError struct {
	Plan Plan
}

// Error prints the refused differences and what can be done.
func (e *PlanError) Error() string {
	var b strings.Builder
	b.WriteString("streams differ from what is declared, nothing was changed:")
	forcible := false
	for _, s := range e.Plan.Refused() {
		for _, d := range s.Differences {
			if !d.Destructive && !d.Impossible {
				continue
			}
			forcible = forcible || !d.Impossible
			fmt.Fprintf(&b, "\n  %s %s", s.Stream, d)
		}
	}
	if e.Plan.Impossible() {
		b.WriteString("\nthe server cannot change what is marked so on an existing stream: copy out what is needed, delete the stream by hand and start again, or configure what is there")
	}
	if forcible {
		b.WriteString("\nto make the other changes and lose what they lose: cimbus streams apply --force; to keep it: configure what is there")
	}
	return b.String()
}
