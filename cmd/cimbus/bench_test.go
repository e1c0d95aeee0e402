package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/bus/embedded"
)

// smallBench measures next to nothing, in no time.
func smallBench(t *testing.T, asJSON bool, only ...string) (*bench, *bytes.Buffer) {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	var out, errs bytes.Buffer
	t.Cleanup(func() { require.Empty(t, errs.String()) })
	x := newBench(&app{stdout: &out, stderr: &errs, json: asJSON})
	x.only, x.durability, x.size, x.events, x.conversations, x.rounds = only, embedded.Balanced, 2000, 300, 10, 1
	x.rate, x.duration, x.memoryEvents, x.memoryRest, x.agentRest = 100, time.Second, 500, 0, 0
	x.report = newBenchReport(x.app)
	return x, &out
}

func TestBenchMeasuresEverythingAndLeavesNothingBehind(t *testing.T) {
	x, out := smallBench(t, true)
	require.NoError(t, x.run(t.Context()))
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	require.NoError(t, err)
	require.Empty(t, left)

	var lines []map[string]any
	for l := range strings.Lines(out.String()) {
		var o map[string]any
		require.NoError(t, json.Unmarshal([]byte(l), &o), l)
		lines = append(lines, o)
	}
	require.Len(t, lines, 7)
	require.Equal(t, "setup", lines[0]["bench"])
	for i, name := range []string{benchPublish, benchRoad} {
		l := lines[1+i]
		require.Equal(t, name, l["bench"])
		require.Positive(t, l["cimbus"])
		require.Positive(t, l["plain"])
		require.Equal(t, l["pass"], l["ratio"].(float64) >= l["target"].(float64))
		require.Len(t, l["rounds"], 1)
	}
	for i, to := range latencyReceivers() {
		l := lines[3+i]
		require.Equal(t, to.name, l["receiver"])
		require.Positive(t, l["p50"])
		require.GreaterOrEqual(t, l["p99"], l["p50"])
		require.GreaterOrEqual(t, l["max"], l["p99"])
	}
	require.Len(t, lines[6]["cimbus"], memoryLooks)
	require.Len(t, lines[6]["plain"], memoryLooks)
}

func TestBenchPrintsTablesForPeople(t *testing.T) {
	x, out := smallBench(t, false, benchPublish)
	require.NoError(t, x.run(t.Context()))
	require.Contains(t, out.String(), "RATIO")
	require.Contains(t, out.String(), "≥ 0.95")
	require.NotContains(t, out.String(), benchRoad)
}

func TestBenchRefusesACommandLineThatCannotBe(t *testing.T) {
	for _, args := range [][]string{
		{"--durability", "often"}, {"--only", "speed"}, {"--size", "10"}, {"--events", "-1"}, {"--rounds", "0"}, {"--duration", "1ms"}, {"more"},
	} {
		r := start(t, append([]string{"bench"}, args...)...)
		<-r.ended
		require.Equal(t, exitUsage, r.code, "%v: %s", args, r.stderr.String())
	}
}

func TestLatencyCountsFromTheTimeAnEventWasDueWhenTheSenderIsLate(t *testing.T) {
	began := time.Now()
	at := func(ms ...int) (times []time.Time) {
		for _, m := range ms {
			times = append(times, began.Add(time.Duration(m)*time.Millisecond))
		}
		return times
	}
	// The sender stands still from 10 to 100: everything due meanwhile goes out at once and arrives soon.
	l := summarize(at(0, 10, 20, 30), at(0, 100, 100, 100), at(1, 101, 101, 101))
	require.Equal(t, latency{P50: 71, P99: 91, Max: 91, Late: 90, SentP50: 1, SentP99: 1, SentMax: 1}, l)
}

func TestPercentileIsAValueThatWasMeasured(t *testing.T) {
	var hundred []float64
	for i := range 100 {
		hundred = append(hundred, float64(i+1))
	}
	require.Equal(t, []float64{50, 99, 100}, []float64{percentile(hundred, 50), percentile(hundred, 99), percentile(hundred, 100)})
	require.Equal(t, 7.0, percentile([]float64{7}, 50))
	require.Zero(t, percentile(nil, 99))
}

func TestSidesTakeTurnsToBeFirst(t *testing.T) {
	require.Equal(t, [][]int{{0, 1}, {1, 0}, {0, 1}}, [][]int{turns(1, 2), turns(2, 2), turns(3, 2)})
	require.Equal(t, []int{2, 0, 1}, turns(3, 3))
}

func TestRatioIsTheMedianOfTheRoundsOwnRatios(t *testing.T) {
	c := comparison{Target: 0.9}
	// The machine was half as fast in the second round, for both.
	for _, r := range [][2]float64{{100, 100}, {48, 50}, {10, 100}} {
		c.add(measured{rate: r[0]}, measured{rate: r[1]}, 0)
	}
	require.Equal(t, 0.96, c.Ratio)
	require.True(t, c.Pass)
	require.Equal(t, 48.0, c.Cimbus)
}

func TestTrafficIsValidAndOfTheSizeAskedFor(t *testing.T) {
	for _, size := range []int{minEventSize, 2000, 6000, 100_000} {
		tr := newTraffic(size, 10, 3)
		e := tr.event(12345)
		require.True(t, json.Valid(e.Body))
		require.InDelta(t, size, len(e.Body), 100)
		decoded, err := cim.Decode(e.Body, "")
		require.NoError(t, err)
		require.Equal(t, []string{e.ID, e.Name, e.Conversation, e.Channel}, []string{decoded.ID, decoded.Name, decoded.Conversation, decoded.Channel})
		require.Equal(t, 12345, number(decoded.ID))
	}
}
