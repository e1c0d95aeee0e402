package bus_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

func examine(t *testing.T, b *bus.Bus) []bus.Finding {
	t.Helper()
	found, err := b.Examine(t.Context(), bus.AlarmOptions{})
	require.NoError(t, err)
	for _, f := range found {
		require.NotEmpty(t, f.Check)
		require.NotEmpty(t, f.Found, f)
		require.NotEmpty(t, f.Why, f)
		require.NotEmpty(t, f.Remedy, f)
		require.Equal(t, f.Level == bus.LevelOK, f.Remedy == "nothing", f)
	}
	return found
}

// one is the finding of a check that is not ok; there is exactly one.
func one(t *testing.T, found []bus.Finding, check string) bus.Finding {
	t.Helper()
	var bad []bus.Finding
	for _, f := range found {
		if f.Check == check && f.Level != bus.LevelOK {
			bad = append(bad, f)
		}
	}
	require.Len(t, bad, 1, "%v", found)
	return bad[0]
}

// derived stores an index entry made of event s, stored at that time.
func derived(t *testing.T, b *bus.Bus, s uint64, stored time.Time) {
	t.Helper()
	_, err := b.JetStream().PublishMsg(t.Context(), &nats.Msg{Subject: "cim-index.acme.c1", Header: nats.Header{
		bus.HeaderSequence:   {strconv.FormatUint(s, 10)},
		bus.HeaderSourceTime: {stored.UTC().Format(time.RFC3339Nano)},
	}})
	require.NoError(t, err)
}

func TestABusThatIsWellHasNothingButTheMissingHandlerFound(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	_, err := b.Publish(t.Context(), event(t, "1", "c1"))
	require.NoError(t, err)
	derived(t, b, 1, firstEvent(t, b).Time)
	found := examine(t, b)
	checks := map[string]bool{}
	for _, f := range found {
		checks[f.Check] = true
		if f.Check != "lag" {
			require.Equal(t, bus.LevelOK, f.Level, f)
		}
	}
	for _, want := range []string{"server", "jetstream", "replicas", "streams", "room", "lost", "sequences", "lag", "clock"} {
		require.True(t, checks[want], want)
	}
	require.Contains(t, one(t, found, "lag").Found, "no handler")
	require.Equal(t, bus.LevelWarn, bus.Worst(found))
	require.Equal(t, bus.LevelOK, bus.Worst(nil))
}

func TestEventsThatWentBackAreFoundByWhatWasMadeOfThem(t *testing.T) {
	for name, c := range map[string]struct {
		sequence uint64
		shift    time.Duration
		found    string
	}{
		"an event above the last one":   {7, 0, "CIM_EVENTS ends at 1"},
		"another event at its sequence": {1, -time.Hour, "CIM_EVENTS has another there"},
	} {
		t.Run(name, func(t *testing.T) {
			b := testBus(t, bus.StreamOptions{})
			_, err := b.Publish(t.Context(), event(t, "1", "c1"))
			require.NoError(t, err)
			derived(t, b, c.sequence, firstEvent(t, b).Time.Add(c.shift))
			f := one(t, examine(t, b), "sequences")
			require.Equal(t, bus.LevelFail, f.Level)
			require.Equal(t, bus.StreamIndex, f.Of)
			require.Contains(t, f.Found, c.found)
		})
	}
}

func TestAStreamThatIsMissingOrDiffersIsFoundWithItsRemedy(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	require.NoError(t, b.JetStream().DeleteStream(t.Context(), bus.StreamIndex))
	f := one(t, examine(t, b), "streams")
	require.Equal(t, bus.Finding{
		Check: "streams", Of: bus.StreamIndex, Level: bus.LevelFail, Found: "is missing", Why: f.Why,
		Remedy: "run cimbus streams apply, or start cimbus serve",
	}, f)

	b = testBus(t, bus.StreamOptions{})
	c := streamConfig(t, b, bus.StreamEvents)
	c.MaxAge = time.Hour
	_, err := b.JetStream().UpdateStream(t.Context(), c)
	require.NoError(t, err)
	f = one(t, examine(t, b), "streams")
	require.Equal(t, bus.LevelWarn, f.Level)
	require.Contains(t, f.Found, "max age: 1h0m0s")
}

func TestEventsNobodyHandlesAreALag(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	_, err := b.JetStream().CreateConsumer(t.Context(), bus.StreamEvents, jetstream.ConsumerConfig{Durable: "h", AckPolicy: jetstream.AckExplicitPolicy})
	require.NoError(t, err)
	for i := range 3 {
		_, err := b.Publish(t.Context(), event(t, fmt.Sprint(i), "c1"))
		require.NoError(t, err)
	}
	// The server counts what waits for a consumer a moment after it is stored.
	bustest.Eventually(t, patience, func() error {
		all := examine(t, b)
		for _, f := range all {
			if f.Check == "lag" && f.Of == "h" && strings.Contains(f.Found, "3 events wait and 0 are in work, the oldest for ") {
				return nil
			}
		}
		return fmt.Errorf("%v", all)
	})
}

func TestRoomIsJudgedByWhatAFullStreamDoes(t *testing.T) {
	hour := time.Now().Add(-time.Hour)
	for _, c := range []struct {
		status bus.StreamStatus
		level  bus.Level
		found  string
	}{
		{bus.StreamStatus{Stream: bus.StreamEvents, Bytes: 1 << 30, MaxBytes: -1}, bus.LevelOK, "1 GiB, no limit of its own"},
		{bus.StreamStatus{Stream: bus.StreamEvents, Bytes: 7999, MaxBytes: 10000}, bus.LevelOK, "80 %"},
		{bus.StreamStatus{Stream: bus.StreamEvents, Bytes: 8000, MaxBytes: 10000}, bus.LevelWarn, "80 %"},
		{bus.StreamStatus{Stream: bus.StreamEvents, Bytes: 9900, MaxBytes: 10000}, bus.LevelFail, "full"},
		{bus.StreamStatus{Stream: bus.StreamMembers, Bytes: 9999, MaxBytes: 10000}, bus.LevelFail, "full"},
		{bus.StreamStatus{Stream: bus.StreamConversations, Bytes: 9999, MaxBytes: 10000, FirstTime: &hour, MaxAge: 7200}, bus.LevelWarn, "100 %: full"},
		{bus.StreamStatus{Stream: bus.StreamDeliveries, Bytes: 9999, MaxBytes: 10000, FirstTime: &hour, MaxAge: 7200}, bus.LevelWarn, "it reaches back 1h0m0s instead of 2h0m0s"},
	} {
		f := c.status.Room(bus.AlarmThreshold)
		require.Equal(t, c.level, f.Level, f)
		require.Contains(t, f.Found, c.found)
	}
	f := bus.StreamStatus{Stream: bus.StreamEvents, Lost: 3}.Loss()
	require.Equal(t, bus.LevelFail, f.Level)
	require.Contains(t, f.Found, "lost 3 messages")
}

func TestAnEndedExaminationSaysSo(t *testing.T) {
	b := openOn(t, testConn(t, bustest.Server(t)), bus.StreamOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	found, err := b.Examine(ctx, bus.AlarmOptions{})
	require.Error(t, err)
	require.Equal(t, bus.LevelFail, bus.Worst(found))
}

func TestDeadLettersAreToldAndWhileMoreComeWarnedOf(t *testing.T) {
	g := forgetful(t)
	found := examine(t, g.Bus)
	for _, f := range found {
		if f.Check == "dead-letters" {
			require.Equal(t, "there are none", f.Found)
		}
	}
	g.give("c1")
	g.give("c2")
	f := one(t, examine(t, g.Bus), "dead-letters")
	require.Equal(t, bus.LevelWarn, f.Level)
	require.Regexp(t, `^there are 2, the last one was stored \d+s ago$`, f.Found)
	require.Contains(t, f.Remedy, "cimbus dlq ls")
}
