package handlers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestALatencyCountsInTheFirstBucketItDoesNotExceed(t *testing.T) {
	var l latency
	for _, d := range []time.Duration{-time.Second, 0, time.Millisecond, time.Millisecond + 1, 300 * time.Second, time.Hour} {
		l.observe(d)
	}
	got := l.read()
	require.Len(t, got.Counts, len(got.Bounds)+1)
	require.IsIncreasing(t, got.Bounds)
	require.EqualValues(t, 3, got.Counts[0], "what is below 0 counts as 0")
	require.EqualValues(t, 1, got.Counts[1])
	require.EqualValues(t, 1, got.Counts[len(got.Bounds)-1])
	require.EqualValues(t, 1, got.Counts[len(got.Bounds)])
	require.Equal(t, 2*time.Millisecond+1+300*time.Second+time.Hour, got.Sum)
}

func TestHandlersCannotMultiplyTheReasonsThatAreCounted(t *testing.T) {
	r := newReasons()
	own := len(r.count)
	require.Zero(t, r.count[ReasonFailed])
	require.Contains(t, r.count, ReasonFailed)
	for i := range 10_000 {
		r.add(fmt.Sprint("customer ", i))
	}
	r.add("\xff")
	r.add(strings.Repeat("x", 1000))
	require.Len(t, r.count, own+maxReasons+1)
	require.EqualValues(t, 10_002-maxReasons, r.count["_other"])
	require.EqualValues(t, 1, r.count["customer 0"])
	r = &reasons{limit: 2, count: map[string]uint64{}}
	r.add("\xff")
	r.add(strings.Repeat("x", 1000))
	require.Equal(t, map[string]uint64{"?": 1, strings.Repeat("x", 64): 1}, r.count)
}

func BenchmarkCountingADelivery(b *testing.B) {
	var t tally
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			t.ends[endDelivered].Add(1)
			t.latency.observe(600 * time.Microsecond)
		}
	})
}
