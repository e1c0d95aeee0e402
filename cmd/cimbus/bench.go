package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus/embedded"
)

// What is measured, in this order.
const (
	benchPublish = "publish"
	benchRoad    = "road"
	benchLatency = "latency"
	benchMemory  = "memory"
)

// The sides of a comparison.
const (
	sideCimbus = "cimbus"
	sidePlain  = "plain"
)

// What is to be reached.
const (
	targetPublish = 0.95 // of plain asynchronous publishing
	targetRoad    = 0.85 // of the hand-written road
	targetP99     = 5.0  // milliseconds from publish to the agent's callback, balanced
	targetGrowth  = 100  // bytes of heap that an event leaves behind for ever beside what it leaves on the hand-written side
)

const (
	benchAgents    = 100  // a conversation has one of them
	benchInFlight  = 4096 // events published and not acknowledged
	defaultEvents  = 20_000
	defaultStrict  = 4_000 // each event waits for the disk three times
	defaultTraffic = 1000  // conversations
)

// bench measures the bus beside what is written by hand for the same streams.
type bench struct {
	app           *app
	durability    embedded.Durability
	only          []string
	size          int
	events        int
	conversations int
	rounds        int
	rate          int
	duration      time.Duration
	memoryEvents  int           // how many go through before the last look at the memory
	memoryRest    time.Duration // before each look
	agentRest     time.Duration // before the agents are to receive
	report        *benchReport
}

func newBench(a *app) *bench {
	return &bench{app: a, memoryEvents: memoryEvents, memoryRest: memoryRest, agentRest: agentRest}
}

func newBenchCommand(a *app) *cobra.Command {
	x := newBench(a)
	var durability string
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure the bus beside the same written by hand with nats.go", Args: noArgs,
		Long: `Measure the bus on a server of its own, in a temporary folder, beside the hand-written equivalent in plain nats.go: the same streams,
the same writes, in turn, each time on a new server. Ratios are medians over the rounds. Rates depend on whatever else runs on the
machine, CPU time for an event hardly does; --json tells the load average of every round.

  publish   a Publisher beside PublishMsgAsync, until the last acknowledgement, from the time that one event of every
            conversation is stored
  road      from the stored event over the stored delivery to the agent's callback: the worker and bus.Agent, beside a pull consumer
            with a goroutine per conversation that makes the same deliveries and index entries
  latency   from publish to the agent's callback at a fixed rate, counted from the time at which each event was due, and from
            when it was sent
  memory    heap in use and resident memory at rest after 20,000 to 100,000 events

All of it takes some seven minutes, most of which is waiting until the memory is at rest.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := x.check(durability); err != nil {
				return err
			}
			x.report = newBenchReport(a)
			return x.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&durability, "durability", string(embedded.Balanced), "strict or balanced")
	flags.StringSliceVar(&x.only, "only", nil, "measure only these, of publish, road, latency and memory")
	flags.IntVar(&x.size, "size", 6000, "`bytes` of an event's body")
	flags.IntVar(&x.events, "events", 0, fmt.Sprintf("events of a round of publish and road (default %d, strict %d)", defaultEvents, defaultStrict))
	flags.IntVar(&x.conversations, "conversations", defaultTraffic, "conversations the events belong to, in turn")
	flags.IntVar(&x.rounds, "rounds", 3, "rounds of each side")
	flags.IntVar(&x.rate, "rate", 1000, "events a second of latency")
	flags.DurationVar(&x.duration, "duration", 5*time.Second, "length of a round of latency")
	return cmd
}

// check tells what of the command line cannot be.
func (x *bench) check(durability string) error {
	var err error
	if x.durability, err = embedded.ParseDurability(durability); err != nil {
		return usagef("--durability: %w", err)
	}
	for _, name := range x.only {
		if all := []string{benchPublish, benchRoad, benchLatency, benchMemory}; !slices.Contains(all, name) {
			return usagef("--only %q: name one or more of %s", name, strings.Join(all, ", "))
		}
	}
	if x.events == 0 {
		x.events = defaultEvents
		if x.durability == embedded.Strict {
			x.events = defaultStrict
		}
	}
	for _, n := range []struct {
		flag             string
		value, low, high int
	}{
		{"size", x.size, minEventSize, 1_000_000},
		{"events", x.events, 1, 1_000_000},
		{"conversations", x.conversations, 1, 100_000},
		{"rounds", x.rounds, 1, 100},
		{"rate", x.rate, 1, 100_000},
	} {
		if n.value < n.low || n.value > n.high {
			return usagef("--%s %d: give a number from %d to %d", n.flag, n.value, n.low, n.high)
		}
	}
	if x.duration < time.Second || x.duration > 10*time.Minute {
		return usagef("--duration %v: give a time from 1s to 10m", x.duration)
	}
	return nil
}

func (x *bench) traffic() *traffic {
	return newTraffic(x.size, x.conversations, min(benchAgents, x.conversations))
}

// measures tells whether a measurement was asked for.
func (x *bench) measures(name string) bool { return len(x.only) == 0 || slices.Contains(x.only, name) }

func (x *bench) run(ctx context.Context) error {
	x.report.setup(benchSetup{
		Durability: x.durability, Size: x.size, Events: x.events, Conversations: x.conversations,
		Agents: min(benchAgents, x.conversations), Rounds: x.rounds, CPUs: runtime.NumCPU(), build: readBuild(),
	})
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{benchPublish, func(ctx context.Context) error { return x.compare(ctx, benchPublish, targetPublish, x.measurePublish) }},
		{benchRoad, func(ctx context.Context) error { return x.compare(ctx, benchRoad, targetRoad, x.measureRoad) }},
		{benchLatency, x.latencies},
		{benchMemory, x.memory},
	} {
		if !x.measures(step.name) {
			continue
		}
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return x.report.err
}

// compare measures the sides in turn, in every second round the other one first: what the machine is up to, and what the one leaves
// behind, shall not fall upon the same side each time.
func (x *bench) compare(ctx context.Context, name string, target float64, measure func(context.Context, string) (measured, error)) error {
	c := comparison{Bench: name, Unit: "events/s", Target: target}
	for round := 1; round <= x.rounds; round++ {
		var sides [2]measured
		load := loadAverage()
		for _, i := range turns(round, len(sides)) {
			side := []string{sideCimbus, sidePlain}[i]
			x.report.progress("%s, round %d of %d, %s", name, round, x.rounds, side)
			var err error
			if sides[i], err = measure(ctx, side); err != nil {
				return fmt.Errorf("%s: %w", side, err)
			}
			// Its garbage is no business of the next one's.
			runtime.GC()
		}
		c.add(sides[0], sides[1], load)
	}
	x.report.comparison(c)
	return nil
}

// turns is the order in which n are measured in a round, each time another one first.
func turns(round, n int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = (round - 1 + i) % n
	}
	return order
}

func (x *bench) latencies(ctx context.Context) error {
	receivers := latencyReceivers()
	rounds := make([][]latency, len(receivers))
	for round := 1; round <= x.rounds; round++ {
		for _, i := range turns(round, len(receivers)) {
			to := receivers[i]
			x.report.progress("latency, round %d of %d, %s", round, x.rounds, to.name)
			l, err := x.measureLatency(ctx, to)
			if err != nil {
				return fmt.Errorf("%s: %w", to.name, err)
			}
			rounds[i] = append(rounds[i], l)
			runtime.GC()
		}
	}
	results := make([]latencyResult, len(receivers))
	for i, to := range receivers {
		results[i] = newLatencyResult(x.rate, to, rounds[i])
	}
	x.report.latencies(x.rate, results)
	return nil
}

func (x *bench) memory(ctx context.Context) error {
	var looks [2][]memory
	for i, side := range []string{sideCimbus, sidePlain} {
		var err error
		if looks[i], err = x.measureMemory(ctx, side); err != nil {
			return fmt.Errorf("%s: %w", side, err)
		}
	}
	x.report.memory(looks[0], looks[1])
	return nil
}
