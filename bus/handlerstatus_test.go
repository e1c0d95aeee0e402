package bus_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

// pausable makes a handler's durable on a bus.
func pausable(t *testing.T, b *bus.Bus, handler string) {
	t.Helper()
	_, err := b.JetStream().CreateConsumer(t.Context(), bus.StreamEvents, jetstream.ConsumerConfig{
		Durable: bus.HandlerConsumer(handler), AckPolicy: jetstream.AckExplicitPolicy,
	})
	require.NoError(t, err)
}

func pauseUntil(t *testing.T, b *bus.Bus, handler string, until time.Time) {
	t.Helper()
	_, err := b.JetStream().PauseConsumer(t.Context(), bus.StreamEvents, bus.HandlerConsumer(handler), until)
	require.NoError(t, err)
}

func TestAPausedHandlerIsAnAlarmUntilItGoesOnOrIsNoMore(t *testing.T) {
	log := &logged{}
	b := ownBus(t, bus.StreamOptions{}, log)
	pausable(t, b, "h")
	a := watch(t, b, bus.AlarmOptions{})
	require.Empty(t, a.Findings())
	pauseUntil(t, b, "h", bus.UntilResumed())
	f := alarm(t, a, "paused", bus.LevelWarn)
	require.Equal(t, "h", f.Of)
	require.Equal(t, "is paused until it is resumed", f.Found)
	require.Equal(t, "cimbus handler resume h, once what it was paused for is over", f.Remedy)
	for i := range 2 {
		_, err := b.Publish(t.Context(), event(t, fmt.Sprint(i), "c1"))
		require.NoError(t, err)
	}
	bustest.Eventually(t, patience, func() error {
		if f = a.Findings()[0]; !strings.HasPrefix(f.Found, "is paused until it is resumed; 2 events wait, the oldest for ") {
			return fmt.Errorf("found %s", f.Found)
		}
		return nil
	})
	pauseUntil(t, b, "h", time.Time{})
	quiet(t, a)
	pauseUntil(t, b, "h", time.Now().Add(time.Hour))
	require.Regexp(t, `^is paused until 20\S+Z; 2 events wait`, alarm(t, a, "paused", bus.LevelWarn).Found)
	require.NoError(t, b.JetStream().DeleteConsumer(t.Context(), bus.StreamEvents, bus.HandlerConsumer("h")))
	quiet(t, a)
	require.Equal(t, 2, log.count("alarm: alarm: check=paused of=h"), "one line for each change of state")
	require.Equal(t, 2, log.count("alarm is over: check=paused of=h"))
}

func TestAPauseForWhichEventsHaveWaitedHalfTheirTimeIsAFailure(t *testing.T) {
	b := ownBus(t, bus.StreamOptions{EventsMaxAge: 4 * time.Second}, &logged{})
	pausable(t, b, "h")
	pauseUntil(t, b, "h", bus.UntilResumed())
	a := watch(t, b, bus.AlarmOptions{})
	var f bus.Finding
	published := 0
	bustest.Eventually(t, patience, func() error { // there is always one that has waited long
		published++
		if _, err := b.Publish(t.Context(), event(t, fmt.Sprint(published), "c1")); err != nil {
			return err
		}
		if f = a.Findings()[0]; f.Level != bus.LevelFail {
			return fmt.Errorf("found %v", f)
		}
		return nil
	})
	require.Contains(t, f.Why, "after 4s it is gone")
}

func TestHandlersAreThoseThatWereStartedHereWithTheirDeadLetters(t *testing.T) {
	g := forgetful(t)
	_, err := g.Handlers(t.Context())
	require.NoError(t, err)
	pausable(t, g.Bus, "idle")
	pausable(t, g.Bus, "h")
	_, err = g.JetStream().CreateConsumer(t.Context(), bus.StreamEvents, jetstream.ConsumerConfig{Durable: "somebodys"})
	require.NoError(t, err)
	g.give("c1")
	g.give("c2")
	var all []bus.HandlerStatus
	bustest.Eventually(t, patience, func() error {
		if all, err = g.Handlers(t.Context()); err != nil || len(all) != 2 || all[0].Pending != 2 {
			return fmt.Errorf("%v, %w", all, err)
		}
		return nil
	})
	require.Equal(t, []string{"h", "idle"}, []string{all[0].Handler, all[1].Handler})
	for i, h := range all {
		require.Equal(t, bus.WorkerNone, h.Worker)
		require.Equal(t, firstEvent(t, g.Bus).Time, h.Oldest)
		require.EqualValues(t, []int{2, 0}[i], h.DeadLetters)
		require.Nil(t, h.PausedUntil)
	}
	until, paused, err := g.HandlerPaused(t.Context(), "h")
	require.NoError(t, err)
	require.False(t, paused)
	require.Zero(t, until)
	_, _, err = g.HandlerPaused(t.Context(), "nobody")
	require.ErrorIs(t, err, jetstream.ErrConsumerNotFound)
	require.NoError(t, g.JetStream().DeleteStream(t.Context(), bus.StreamEvents))
	_, err = g.Handlers(t.Context())
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
}

func TestAHandlerThatNobodyRunsIsFoundBeforeItsEventsHaveWaitedLong(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	pausable(t, b, "h")
	f := one(t, examine(t, b), "lag")
	require.Equal(t, bus.LevelWarn, f.Level)
	require.Equal(t, "has done every event, and no process runs it", f.Found)
	pauseUntil(t, b, "h", bus.UntilResumed())
	f = one(t, examine(t, b), "paused")
	require.Equal(t, "h", f.Of)
	require.Equal(t, bus.LevelWarn, f.Level)
}
