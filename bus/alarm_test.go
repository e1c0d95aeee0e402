package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
)

// logged is a log whose lines are counted.
type logged struct{ bustest.Buffer }

func (l *logged) count(text string) int { return strings.Count(l.String(), text) }

// ownBus opens a bus with a server of its own in this process.
func ownBus(t *testing.T, o bus.StreamOptions, log *logged) *bus.Bus {
	t.Helper()
	b, err := tryOpen(t, bus.Options{
		Streams: o, Logger: hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Info}),
		Embedded: embedded.Options{StoreDir: t.TempDir(), Durability: embedded.Balanced},
	})
	require.NoError(t, err)
	return b
}

func watch(t *testing.T, b *bus.Bus, o bus.AlarmOptions) *bus.Alarms {
	t.Helper()
	o.Every = 5 * time.Millisecond
	a, err := b.WatchAlarms(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	return a
}

// alarm waits until there is a finding of that check and level.
func alarm(t *testing.T, a *bus.Alarms, check string, level bus.Level) bus.Finding {
	t.Helper()
	var found bus.Finding
	bustest.Eventually(t, patience, func() error {
		for _, f := range a.Findings() {
			if f.Check == check && f.Level == level {
				found = f
				return nil
			}
		}
		return fmt.Errorf("no %s of %s among %v", level, check, a.Findings())
	})
	return found
}

func quiet(t *testing.T, a *bus.Alarms) {
	t.Helper()
	bustest.Eventually(t, patience, func() error {
		if f := a.Findings(); len(f) > 0 {
			return fmt.Errorf("still %v", f)
		}
		return nil
	})
}

// fill publishes events until one is refused.
func fill(t *testing.T, b *bus.Bus, prefix string) (stored int, err error) {
	t.Helper()
	for ; stored < 10_000; stored++ {
		if _, err = b.Publish(t.Context(), event(t, fmt.Sprint(prefix, stored), "c1")); err != nil {
			return stored, err
		}
	}
	return stored, nil
}

func TestAnAlarmGoesOffBeforeTheLimitOnceAndIsOverWhenThereIsRoom(t *testing.T) {
	log := &logged{}
	b := ownBus(t, bus.StreamOptions{MaxBytes: 60_000}, log)
	a := watch(t, b, bus.AlarmOptions{})
	require.Empty(t, a.Findings())
	for n, used := 0, 0.0; used < bus.AlarmThreshold; n++ {
		_, err := b.Publish(t.Context(), event(t, fmt.Sprint("a", n), "c1"))
		require.NoError(t, err)
		streams, err := b.Streams(t.Context())
		require.NoError(t, err)
		used = float64(streams[0].Bytes) / float64(streams[0].MaxBytes)
	}
	near := alarm(t, a, "room", bus.LevelWarn)
	require.Equal(t, bus.StreamEvents, near.Of)
	require.Contains(t, near.Found, " %")
	_, err := fill(t, b, "b")
	require.ErrorIs(t, err, bus.ErrStoreFull)
	require.Contains(t, alarm(t, a, "room", bus.LevelFail).Found, "full")

	stream, err := b.JetStream().Stream(t.Context(), bus.StreamEvents)
	require.NoError(t, err)
	require.NoError(t, stream.Purge(t.Context()))
	quiet(t, a)
	_, err = b.Publish(t.Context(), event(t, "c", "c1"))
	require.NoError(t, err)
	require.Equal(t, 2, log.count("alarm: alarm: check=room of=CIM_EVENTS"), "one line for each change of state: %s", log.String())
	require.Equal(t, 1, log.count("alarm is over: check=room"))
}

func TestADiskThatRunsFullRefusesEventsAndTakesThemAgainOnceThereIsRoom(t *testing.T) {
	log := &logged{}
	b := ownBus(t, bus.StreamOptions{}, log)
	var free atomic.Uint64
	free.Store(500)
	a := watch(t, b, bus.AlarmOptions{DiskReserve: 100, ReadDisk: func(dir string) (embedded.Disk, error) {
		require.Equal(t, b.Server().StoreDir(), dir)
		return embedded.Disk{Free: free.Load(), Total: 1000}, nil
	}})
	require.Empty(t, a.Findings())
	declared := streamConfig(t, b, bus.StreamEvents).MaxBytes
	kept, err := b.Publish(t.Context(), event(t, "before", "c1"))
	require.NoError(t, err)

	free.Store(199)
	alarm(t, a, "disk", bus.LevelWarn)
	free.Store(99)
	require.Contains(t, alarm(t, a, "disk", bus.LevelFail).Remedy, "once 150 B are free")
	f := one(t, examine(t, b), "streams")
	require.Equal(t, bus.LevelFail, f.Level)
	require.NotContains(t, f.Remedy, "streams apply", "that would lift the limit")
	require.Contains(t, f.Found, "the disk of its server is nearly full")
	for i := range 3 {
		_, err = b.Publish(t.Context(), event(t, fmt.Sprint("refused", i), "c1"))
		require.ErrorIs(t, err, bus.ErrStoreFull)
		require.NotErrorIs(t, err, bus.ErrUnknownOutcome)
	}
	require.NotNil(t, firstEvent(t, b), "lowering the limit deleted what was stored")

	free.Store(140)
	alarm(t, a, "disk", bus.LevelFail) // a little room is not enough: it would go on and off
	free.Store(500)
	quiet(t, a)
	next, err := b.Publish(t.Context(), event(t, "refused0", "c1"))
	require.NoError(t, err)
	require.Equal(t, kept.Sequence+1, next.Sequence)
	require.False(t, next.Duplicate)
	require.Equal(t, declared, streamConfig(t, b, bus.StreamEvents).MaxBytes)
	require.Empty(t, streamConfig(t, b, bus.StreamEvents).Metadata["cimbus-held"])
	require.NotErrorIs(t, err, bus.ErrStoreFull)
}

func TestAStoreIsHeldOnAlthoughSomebodyGivesItRoomWhileTheDiskIsFull(t *testing.T) {
	b := ownBus(t, bus.StreamOptions{}, &logged{})
	declared := streamConfig(t, b, bus.StreamEvents)
	a := watch(t, b, bus.AlarmOptions{ReadDisk: func(string) (embedded.Disk, error) { return embedded.Disk{Free: 1, Total: 1000}, nil }})
	alarm(t, a, "disk", bus.LevelFail)
	_, err := b.JetStream().UpdateStream(t.Context(), declared) // as cimbus streams apply
	require.NoError(t, err)
	n := 0
	bustest.Eventually(t, patience, func() error {
		n++
		_, err := b.Publish(t.Context(), event(t, fmt.Sprint("e", n), "c1"))
		if !errors.Is(err, bus.ErrStoreFull) {
			return fmt.Errorf("not held: %w", err)
		}
		return nil
	})
}

func TestAStoreThatWasHeldWhenItsServerEndedTakesEventsAtTheNextStart(t *testing.T) {
	dir := t.TempDir()
	options := bus.Options{Embedded: embedded.Options{StoreDir: dir, Durability: embedded.Balanced}}
	b, err := bus.Open(t.Context(), options)
	require.NoError(t, err)
	a, err := b.WatchAlarms(t.Context(), bus.AlarmOptions{ReadDisk: func(string) (embedded.Disk, error) {
		return embedded.Disk{Free: 1, Total: 1000}, nil
	}})
	require.NoError(t, err)
	_, err = b.Publish(t.Context(), event(t, "1", "c1"))
	require.ErrorIs(t, err, bus.ErrStoreFull)
	require.NoError(t, a.Close())
	require.NoError(t, a.Close())
	require.NoError(t, b.Close(context.WithoutCancel(t.Context())))

	again, err := tryOpen(t, options)
	require.NoError(t, err)
	_, err = again.Publish(t.Context(), event(t, "1", "c1"))
	require.NoError(t, err)
}

func TestAStreamThatWasMadeAnewIsAnAlarmThatStays(t *testing.T) {
	log := &logged{}
	b := ownBus(t, bus.StreamOptions{}, log)
	_, err := b.Publish(t.Context(), event(t, "1", "c1"))
	require.NoError(t, err)
	a := watch(t, b, bus.AlarmOptions{})
	c := streamConfig(t, b, bus.StreamEvents)
	require.NoError(t, b.JetStream().DeleteStream(t.Context(), bus.StreamEvents))
	_, err = b.JetStream().CreateStream(t.Context(), c)
	require.NoError(t, err)
	f := alarm(t, a, "sequences", bus.LevelFail)
	require.Equal(t, bus.StreamEvents, f.Of)
	require.Contains(t, f.Found, "made again")
	require.Contains(t, f.Found, "it ended at 1")
	for i := range 3 {
		_, err = b.Publish(t.Context(), event(t, fmt.Sprint("new", i), "c1"))
		require.NoError(t, err)
	}
	alarm(t, a, "sequences", bus.LevelFail)
}

func TestADiskThatCannotBeReadIsAWarningUnlessTheSystemCannotTell(t *testing.T) {
	b := ownBus(t, bus.StreamOptions{}, &logged{})
	a := watch(t, b, bus.AlarmOptions{ReadDisk: func(string) (embedded.Disk, error) { return embedded.Disk{}, errors.New("no such device") }})
	require.Contains(t, alarm(t, a, "disk", bus.LevelWarn).Found, "no such device")
	b = ownBus(t, bus.StreamOptions{}, &logged{})
	a = watch(t, b, bus.AlarmOptions{ReadDisk: func(string) (embedded.Disk, error) { return embedded.Disk{}, errors.ErrUnsupported }})
	require.Empty(t, a.Findings())
}

func TestAlarmOptionsThatCannotBeAreRefused(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	for _, o := range []bus.AlarmOptions{{Threshold: -1}, {Threshold: 80}, {Every: -time.Second}} {
		_, err := b.WatchAlarms(t.Context(), o)
		require.ErrorContains(t, err, "alarm options")
	}
}
