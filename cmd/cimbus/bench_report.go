package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/cimbus/cimbus/bus/embedded"
)

// benchReport prints what was measured as it comes: a table each, or one JSON object a line.
type benchReport struct {
	w        io.Writer
	json     bool
	terminal io.Writer // for progress, nil if there is none
	err      error     // the first failure to write
}

func newBenchReport(a *app) *benchReport {
	r := &benchReport{w: a.stdout, json: a.json}
	if isTerminal(a.stderr) {
		r.terminal = a.stderr
	}
	return r
}

// progress says on a terminal what is being measured, on one line that is written over.
func (r *benchReport) progress(format string, args ...any) {
	if r.terminal != nil && r.err == nil {
		_, r.err = fmt.Fprintf(r.terminal, "\r\x1b[K"+format, args...)
	}
}

func (r *benchReport) line(v any) {
	r.progress("")
	if r.err == nil {
		r.err = line(r.w, v)
	}
}

// table prints rows under their head, below a title.
func (r *benchReport) table(title string, t table) {
	r.progress("")
	if r.err == nil {
		_, r.err = fmt.Fprintf(r.w, "\n%s\n", title)
	}
	if r.err == nil {
		r.err = t.write(r.w)
	}
}

// benchSetup is what all measurements have in common.
type benchSetup struct {
	Bench         string              `json:"bench"`
	Durability    embedded.Durability `json:"durability"`
	Size          int                 `json:"size"`
	Events        int                 `json:"events"`
	Conversations int                 `json:"conversations"`
	Agents        int                 `json:"agents"`
	Rounds        int                 `json:"rounds_each"`
	CPUs          int                 `json:"cpus"`

	build
}

func (r *benchReport) setup(s benchSetup) {
	s.Bench = "setup"
	if r.json {
		r.line(s)
		return
	}
	if r.err == nil {
		_, r.err = fmt.Fprintf(r.w, "durability %s, %d bytes an event, %d events a round in %d conversations of %d agents, %d CPUs, NATS server %s\n",
			s.Durability, s.Size, s.Events, s.Conversations, s.Agents, s.CPUs, orDash(s.Server))
	}
}

// comparison is a measurement of both sides.
type comparison struct {
	Bench  string           `json:"bench"`
	Unit   string           `json:"unit"`
	Cimbus float64          `json:"cimbus"` // medians
	Plain  float64          `json:"plain"`
	Ratio  float64          `json:"ratio"` // median of the rounds' ratios
	Target float64          `json:"target"`
	Pass   bool             `json:"pass"`
	CPU    [2]float64       `json:"cpu_us"` // microseconds of the process for an event, medians; 0 if unknown
	Rounds []comparedRounds `json:"rounds"`
}

type comparedRounds struct {
	Cimbus float64    `json:"cimbus"`
	Plain  float64    `json:"plain"`
	Ratio  float64    `json:"ratio"`
	CPU    [2]float64 `json:"cpu_us"`
	Load   float64    `json:"load"` // average of the machine when the round began; 0 if unknown
}

func (c *comparison) add(cimbus, plain measured, load float64) {
	c.Rounds = append(c.Rounds, comparedRounds{
		Cimbus: rounded(cimbus.rate, 0), Plain: rounded(plain.rate, 0), Ratio: rounded(cimbus.rate/plain.rate, 3),
		CPU: [2]float64{rounded(cimbus.cpu, 1), rounded(plain.cpu, 1)}, Load: load,
	})
	of := func(value func(comparedRounds) float64) float64 { return medianOf(c.Rounds, value) }
	c.Cimbus, c.Plain = of(func(r comparedRounds) float64 { return r.Cimbus }), of(func(r comparedRounds) float64 { return r.Plain })
	c.Ratio = of(func(r comparedRounds) float64 { return r.Ratio })
	c.CPU = [2]float64{of(func(r comparedRounds) float64 { return r.CPU[0] }), of(func(r comparedRounds) float64 { return r.CPU[1] })}
	c.Pass = c.Ratio >= c.Target
}

func (r *benchReport) comparison(c comparison) {
	if r.json {
		r.line(c)
		return
	}
	low, high := c.Rounds[0].Ratio, c.Rounds[0].Ratio
	for _, round := range c.Rounds {
		low, high = min(low, round.Ratio), max(high, round.Ratio)
	}
	t := table{head: []string{"EVENTS/S", "CIMBUS", "PLAIN", "RATIO", "FROM", "TO", "TARGET", "", "CPU µs/EVENT", "PLAIN"}}
	t.row(c.Bench, number0(c.Cimbus), number0(c.Plain), number2(c.Ratio), number2(low), number2(high), "≥ "+number2(c.Target), passed(c.Pass),
		number0(c.CPU[0]), number0(c.CPU[1]))
	r.table(c.Bench, t)
}

// latencyResult is what one receiver measured: medians over the rounds, and the worst maximum.
type latencyResult struct {
	Bench    string `json:"bench"`
	Unit     string `json:"unit"`
	Receiver string `json:"receiver"`
	Rate     int    `json:"rate"`
	latency
	Target float64   `json:"target"` // of p99; 0 = none
	Pass   bool      `json:"pass"`
	Rounds []latency `json:"rounds"`
}

func newLatencyResult(rate int, to receiver, rounds []latency) latencyResult {
	of := func(value func(latency) float64) float64 { return rounded(medianOf(rounds, value), 3) }
	res := latencyResult{Bench: benchLatency, Unit: "ms", Receiver: to.name, Rate: rate, Rounds: rounds}
	res.latency = latency{
		P50: of(func(l latency) float64 { return l.P50 }), P99: of(func(l latency) float64 { return l.P99 }),
		SentP50: of(func(l latency) float64 { return l.SentP50 }), SentP99: of(func(l latency) float64 { return l.SentP99 }),
		Late: of(func(l latency) float64 { return l.Late }),
	}
	for _, l := range rounds {
		res.Max, res.SentMax = max(res.Max, l.Max), max(res.SentMax, l.SentMax)
	}
	if to.side == sideCimbus {
		res.Target = targetP99
	}
	res.Pass = res.Target == 0 || res.P99 < res.Target
	return res
}

func (r *benchReport) latencies(rate int, results []latencyResult) {
	t := table{head: []string{"RECEIVER", "p50", "p99", "MAX", "TARGET", "", "SENT p50", "SENT p99", "SENT MAX", "LATE p99"}}
	for _, l := range results {
		if r.json {
			r.line(l)
			continue
		}
		target, verdict := "-", "-"
		if l.Target > 0 {
			target, verdict = "p99 < "+number0(l.Target), passed(l.Pass)
		}
		t.row(l.Receiver, number2(l.P50), number2(l.P99), number2(l.Max), target, verdict,
			number2(l.SentP50), number2(l.SentP99), number2(l.SentMax), number2(l.Late))
	}
	if !r.json {
		r.table(fmt.Sprintf("latency, milliseconds at %d events/s from the time each was due; SENT: from when it was sent, LATE: how late that was", rate), t)
	}
}

// memoryResult is the memory after so many events, and what of it stays behind.
type memoryResult struct {
	Bench  string   `json:"bench"`
	Unit   string   `json:"unit"`
	Cimbus []memory `json:"cimbus"`
	Plain  []memory `json:"plain"`
	Growth float64  `json:"growth"` // of the heap for each event from the first look to the last, beyond the hand-written side's
	Target float64  `json:"target"`
	Pass   bool     `json:"pass"`
}

func (r *benchReport) memory(cimbus, plain []memory) {
	res := memoryResult{
		Bench: benchMemory, Unit: "bytes", Cimbus: cimbus, Plain: plain, Target: targetGrowth, Growth: rounded(growth(cimbus)-growth(plain), 1),
	}
	res.Pass = res.Growth <= res.Target
	if r.json {
		r.line(res)
		return
	}
	t := table{head: []string{"EVENTS", "CIMBUS HEAP", "RESIDENT", "PLAIN HEAP", "RESIDENT"}}
	for i, l := range cimbus {
		t.row(strconv.Itoa(l.Events), size(l.Heap), size(l.RSS), size(plain[i].Heap), size(plain[i].RSS))
	}
	r.table(fmt.Sprintf("memory: an event leaves %.0f bytes of heap behind, beside %.0f by hand; target ≤ %.0f more: %s",
		growth(cimbus), growth(plain), res.Target, passed(res.Pass)), t)
}

// growth is what an event left of heap, in bytes.
func growth(looks []memory) float64 {
	first, last := looks[0], looks[len(looks)-1]
	return float64(last.Heap-first.Heap) / float64(last.Events-first.Events)
}

func passed(ok bool) string {
	if ok {
		return "pass"
	}
	return "miss"
}

func medianOf[T any](of []T, value func(T) float64) float64 {
	values := make([]float64, len(of))
	for i, v := range of {
		values[i] = value(v)
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

func rounded(f float64, digits int) float64 {
	s := strconv.FormatFloat(f, 'f', digits, 64)
	// It was a number a moment ago.
	r, _ := strconv.ParseFloat(s, 64)
	return r
}

func number0(f float64) string { return strconv.FormatFloat(f, 'f', 0, 64) }
func number2(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) }
