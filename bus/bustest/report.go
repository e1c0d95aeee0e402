package bustest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Entry is one thing that should be or is somewhere: a delivery, an index
// entry, a member record, a dead letter.
type Entry struct {
	Stream   string // where it belongs
	Subject  string
	Sequence uint64 // its Cim-Sequence; 0 for member records
	Record   string // what else tells it from others: a member's record, an index entry's outcome
}

func (e Entry) String() string {
	s := e.Subject
	if e.Sequence != 0 {
		s += fmt.Sprintf(" of event %d", e.Sequence)
	}
	if e.Record != "" {
		s += " " + e.Record
	}
	return s
}

// Report is what an account came to. A kept promise has none of the four lists.
type Report struct {
	Events     int            // published
	Expected   map[string]int // how many entries they demand, by stream
	Lost       []Entry        // demanded, not there
	Repeated   []Entry        // there once more
	Misordered []Entry        // there, behind one that comes after it
	Unexpected []Entry        // there, never demanded
}

// printed bounds how many entries of one kind and stream a report spells out.
const printed = 5

func (r Report) faults() []fault {
	return []fault{
		{"lost", r.Lost}, {"repeated", r.Repeated},
		{"out of order", r.Misordered}, {"unexpected", r.Unexpected},
	}
}

type fault struct {
	kind    string
	entries []Entry
}

func (f fault) in(stream string) []Entry {
	return slices.DeleteFunc(slices.Clone(f.entries), func(e Entry) bool { return e.Stream != stream })
}

// String is a line of counts for every stream, followed by the first few
// entries of everything that is wrong there.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d events", r.Events)
	for _, stream := range r.streams() {
		fmt.Fprintf(&b, "\n%s: %d expected", stream, r.Expected[stream])
		for _, f := range r.faults() {
			fmt.Fprintf(&b, ", %d %s", len(f.in(stream)), f.kind)
		}
		for _, f := range r.faults() {
			entries := f.in(stream)
			for _, e := range entries[:min(printed, len(entries))] {
				fmt.Fprintf(&b, "\n  %s: %s", f.kind, e)
			}
			if more := len(entries) - printed; more > 0 {
				fmt.Fprintf(&b, "\n  %s: and %d more", f.kind, more)
			}
		}
	}
	return b.String()
}

// streams are those the report says something of, in a fixed order.
func (r Report) streams() []string {
	seen := map[string]bool{}
	for stream := range r.Expected {
		seen[stream] = true
	}
	for _, f := range r.faults() {
		for _, e := range f.entries {
			seen[e.Stream] = true
		}
	}
	var names []string
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Err is nil if the promise was kept, else an error that says what String says.
func (r Report) Err() error {
	for _, f := range r.faults() {
		if len(f.entries) > 0 {
			return errors.New("not everything is there exactly once and in order: " + r.String())
		}
	}
	return nil
}

// compare holds what is there against what is demanded. Both are in order;
// the order counts within a line, which is a conversation of one agent, a
// subject, or whatever line says.
func (r *Report) compare(demanded, there []Entry, line func(Entry) string) {
	if r.Expected == nil {
		r.Expected = map[string]int{}
	}
	rank := make(map[Entry]int, len(demanded))
	for i, e := range demanded {
		rank[e] = i
		r.Expected[e.Stream]++
	}
	seen := make(map[Entry]bool, len(there))
	highest := map[string]int{}
	for _, e := range there {
		i, known := rank[e]
		switch {
		case !known:
			r.Unexpected = append(r.Unexpected, e)
			continue
		case seen[e]:
			r.Repeated = append(r.Repeated, e)
			continue
		}
		seen[e] = true
		if l := line(e); i < highest[l] {
			r.Misordered = append(r.Misordered, e)
		} else {
			highest[l] = i
		}
	}
	for _, e := range demanded {
		if !seen[e] {
			r.Lost = append(r.Lost, e)
		}
	}
}
