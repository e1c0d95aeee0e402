package handlers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/cimbus/cimbus/bus"
)

// The kinds of Difference.
const (
	DifferenceOutcome = "outcome"   // the event came to another end; agent and type are empty
	DifferenceMissing = "missing"   // was delivered, and would not be
	DifferenceExtra   = "extra"     // was not delivered, and would be
	DifferenceChanged = "different" // would be delivered otherwise
)

// Difference is one thing in which what a handler makes of an event differs from what was delivered for it.
type Difference struct {
	Kind    string   `json:"kind"`
	Agent   string   `json:"agent,omitempty"`
	Type    string   `json:"type,omitempty"`
	Changes []Change `json:"changes,omitempty"` // in an outcome or a delivery
}

// Change is a place in a delivery. Both are as they would be read: the JSON of a body's place, a header's values, or "" where there is
// nothing of it.
type Change struct {
	Path      string `json:"path"` // "outcome", "body", a place in it as "body.cimEvent.data.list[2]", or "header <name>"
	Delivered string `json:"delivered"`
	Rehearsed string `json:"rehearsed"`
}

// Diff compares what a handler makes of an event with what was delivered for it: the stored deliveries by agent and type with their
// bodies and the headers that are not the bus's own, and that an event is, or is not, a dead letter. nil = no difference. A delivery
// whose body is not byte for byte the same differs.
func Diff(delivered, rehearsed Rehearsed) []Difference {
	var out []Difference
	was, is := ending(delivered), ending(rehearsed)
	if was != is {
		out = append(out, Difference{Kind: DifferenceOutcome, Changes: []Change{{Path: "outcome", Delivered: was, Rehearsed: is}}})
	}
	type target struct{ agent, kind string }
	left := make(map[target]Delivery, len(rehearsed.Deliveries))
	for _, d := range rehearsed.Deliveries {
		if !d.Transient {
			left[target{d.Agent, d.Type}] = d
		}
	}
	for _, d := range delivered.Deliveries {
		t := target{d.Agent, d.Type}
		would, ok := left[t]
		delete(left, t)
		if !ok {
			out = append(out, Difference{Kind: DifferenceMissing, Agent: d.Agent, Type: d.Type})
			continue
		}
		if changes := append(headerChanges(d.Header, would.Header), bodyChanges(d.Payload, would.Payload)...); len(changes) > 0 {
			out = append(out, Difference{Kind: DifferenceChanged, Agent: d.Agent, Type: d.Type, Changes: changes})
		}
	}
	for _, d := range rehearsed.Deliveries {
		if _, extra := left[target{d.Agent, d.Type}]; extra && !d.Transient {
			out = append(out, Difference{Kind: DifferenceExtra, Agent: d.Agent, Type: d.Type})
		}
	}
	return out
}

// ending is an outcome as far as the streams tell it: of an event that was dropped nothing is said. A retry might end either way.
func ending(r Rehearsed) string {
	switch r.Outcome {
	case bus.OutcomeDropped:
		return bus.OutcomeDelivered
	case bus.OutcomeDeadLetter:
		return r.Outcome + " " + r.Reason
	}
	return r.Outcome
}

// headerChanges compares what publisher and handler wrote; the trace of a delivery is its own.
func headerChanges(delivered, rehearsed nats.Header) []Change {
	was, is := bus.Foreign(delivered), bus.Foreign(rehearsed)
	for _, h := range []nats.Header{was, is} {
		maps.DeleteFunc(h, func(key string, _ []string) bool {
			return strings.EqualFold(key, "traceparent") || strings.EqualFold(key, "tracestate")
		})
	}
	keys := slices.Collect(maps.Keys(was))
	for key := range is {
		if _, ok := was[key]; !ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	var out []Change
	for _, key := range keys {
		if !slices.Equal(was[key], is[key]) {
			out = append(out, Change{Path: "header " + key, Delivered: strings.Join(was[key], ", "), Rehearsed: strings.Join(is[key], ", ")})
		}
	}
	return out
}

func bodyChanges(delivered, rehearsed []byte) []Change {
	if bytes.Equal(delivered, rehearsed) {
		return nil
	}
	was, wasJSON := readJSON(delivered)
	is, isJSON := readJSON(rehearsed)
	var out []Change
	if wasJSON && isJSON {
		out = valueChanges(nil, "body", was, is)
	}
	if len(out) == 0 {
		out = []Change{{Path: "body", Delivered: string(delivered), Rehearsed: string(rehearsed)}}
	}
	return out
}

func readJSON(body []byte) (v any, ok bool) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	return v, d.Decode(&v) == nil && !d.More()
}

// absent stands for a member that is not there.
type absent struct{}

// valueChanges appends the places in which two JSON values differ.
func valueChanges(out []Change, path string, was, is any) []Change {
	switch was := was.(type) {
	case map[string]any:
		if is, ok := is.(map[string]any); ok {
			return objectChanges(out, path, was, is)
		}
	case []any:
		if is, ok := is.([]any); ok {
			for i := range max(len(was), len(is)) {
				out = valueChanges(out, fmt.Sprintf("%s[%d]", path, i), element(was, i), element(is, i))
			}
			return out
		}
	default:
		if was == is {
			return out
		}
	}
	return append(out, Change{Path: path, Delivered: written(was), Rehearsed: written(is)})
}

func objectChanges(out []Change, path string, was, is map[string]any) []Change {
	keys := slices.Collect(maps.Keys(was))
	for key := range is {
		if _, ok := was[key]; !ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		out = valueChanges(out, path+step(key), member(was, key), member(is, key))
	}
	return out
}

// step is a member's part of a path.
func step(key string) string {
	plain := key != "" && strings.IndexFunc(key, func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) < 0
	if plain {
		return "." + key
	}
	return fmt.Sprintf("[%q]", key)
}

func member(object map[string]any, key string) any {
	if v, ok := object[key]; ok {
		return v
	}
	return absent{}
}

func element(list []any, i int) any {
	if i < len(list) {
		return list[i]
	}
	return absent{}
}

func written(v any) string {
	if v == (absent{}) {
		return ""
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}
