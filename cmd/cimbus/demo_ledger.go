package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// ledger is what should have happened, written down event by event as the script wants it. The bus is not asked for it.
type ledger struct {
	events []entered
	due    map[string][]due // by agent, in the order they are to be received
}

// entered is an event the service got the acknowledgement of.
type entered struct {
	name     string
	sequence uint64 // in CIM_EVENTS, by the acknowledgement
	body     []byte // the event object as published
}

// due is one delivery an agent is to receive.
type due struct {
	event int // index in events
	kind  string
}

func newLedger() *ledger { return &ledger{due: map[string][]due{}} }

// enter writes an event down with those who are to receive it.
func (l *ledger) enter(e entered, to []string, notice string) {
	l.events = append(l.events, e)
	n := len(l.events) - 1
	for _, agent := range to {
		l.due[agent] = append(l.due[agent], due{n, oncimevent.Type})
	}
	if notice != "" {
		l.due[notice] = append(l.due[notice], due{n, oncimevent.Notice})
	}
}

// deliveries is how many there are to be.
func (l *ledger) deliveries() int {
	n := 0
	for _, d := range l.due {
		n += len(d)
	}
	return n
}

func (l *ledger) String(d due) string {
	e := l.events[d.event]
	return fmt.Sprintf("%s of %s, sequence %d", d.kind, e.name, e.sequence)
}

// audit holds what an agent received against what is due to it and says everything that is wrong.
func (l *ledger) audit(agent string, got []received) []string {
	var problems []string
	bad := func(format string, args ...any) {
		problems = append(problems, agent+": "+fmt.Sprintf(format, args...))
	}
	type key struct {
		sequence uint64
		kind     string
	}
	times := map[key]int{}
	for _, r := range got {
		times[key{r.Sequence, r.Type}]++
	}
	position := map[key]int{} // in what is due
	for i, d := range l.due[agent] {
		k := key{l.events[d.event].sequence, d.kind}
		position[k] = i
		switch n := times[k]; {
		case n == 0:
			bad("%s is missing", l.String(d))
		case n > 1:
			bad("%s came %d times", l.String(d), n)
		}
	}
	last := -1
	for _, r := range got {
		i, known := position[key{r.Sequence, r.Type}]
		if !known {
			bad("%s of sequence %d in %q is nothing that was due", r.Type, r.Sequence, r.Conversation)
			continue
		}
		d := l.due[agent][i]
		if i < last {
			bad("%s came after %s", l.String(d), l.String(l.due[agent][last]))
		}
		last = max(last, i)
		if d.kind == oncimevent.Type && !carries(r.Body, l.events[d.event].body) {
			bad("%s does not carry the event as it was published", l.String(d))
		}
	}
	return problems
}

// carries tells whether a delivery holds an event byte for byte.
func carries(delivery, event []byte) bool {
	var d struct {
		CimEvent json.RawMessage `json:"cimEvent"`
	}
	return json.Unmarshal(delivery, &d) == nil && bytes.Equal(d.CimEvent, event)
}
