package handlers_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// whole is a bus in this process, with a worker, the control service and a listener for the crowd.
func whole(t *testing.T) *bus.Bus {
	t.Helper()
	b := openWhole(t, bus.Options{Embedded: embedded.Options{StoreDir: t.TempDir(), Durability: embedded.Balanced, NATSAddr: "127.0.0.1:0"}})
	control(t, b)
	return b
}

func TestChaosNothingIsLostOrRepeatedWhenTheConsumerIsDeletedUnderLoad(t *testing.T) {
	rng, seed := chaos(t)
	b := whole(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	c := startCrowd(t, crowdOptions{url: b.Server().NATSURL(), seed: seed, every: 3 * time.Millisecond})
	for range shortOrLong(3, 60) {
		c.more(t, rng.Int64N(200))
		err := b.JetStream().DeleteConsumer(t.Context(), bus.StreamEvents, "handler-"+oncimevent.Name)
		if !errors.Is(err, jetstream.ErrConsumerNotFound) { // the last one is not made good yet
			require.NoError(t, err)
		}
	}
	c.more(t, 100)
	c.end(t)
	bustest.Eventually(t, 30*time.Second, func() error {
		_, err := b.JetStream().Consumer(t.Context(), bus.StreamEvents, "handler-"+oncimevent.Name)
		return err
	})
	c.account(t, b, 0)
}

// What was in a deleted stream is gone. What can still be promised: no event is lost, everything published after the stream is there
// again is delivered once, in order, and nothing of before comes again; the work does not stop.
func TestChaosWorkGoesOnWhenCIM_DELIVERIESIsDeletedAndMadeAgainUnderLoad(t *testing.T) {
	_, seed := chaos(t)
	b := whole(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	c := startCrowd(t, crowdOptions{url: b.Server().NATSURL(), seed: seed, every: 3 * time.Millisecond})
	c.more(t, 300)
	for _, d := range c.desks {
		bustest.Eventually(t, 30*time.Second, func() error {
			if len(d.soFar()) == 0 || d.resumed.Load() < 2 {
				return fmt.Errorf("agent %s has no position yet", d.name)
			}
			return nil
		})
	}
	require.NoError(t, b.JetStream().DeleteStream(t.Context(), bus.StreamDeliveries))
	elapse(300 * time.Millisecond)
	openWhole(t, bus.Options{URL: b.Server().NATSURL()}) // makes what is missing, as a second daemon does
	events, err := b.LastMessage(t.Context(), bus.StreamEvents, ">")
	require.NoError(t, err)
	c.more(t, 300)
	c.end(t)
	drained(t, b)
	s := c.events(t, b)
	t.Log(s)
	require.Zero(t, s.lost+s.repeated+s.misordered)
	report, err := bustest.Audit(t.Context(), b.JetStream())
	require.NoError(t, err)
	t.Log(report)
	require.Empty(t, report.Repeated)
	require.Empty(t, report.Misordered)
	require.Empty(t, report.Unexpected)
	for _, e := range report.Lost {
		require.Equal(t, bus.StreamDeliveries, e.Stream, "%v", e)
		require.LessOrEqual(t, e.Sequence, events.Sequence, "published after the stream was there again: %v", e)
	}
	for _, d := range c.desks {
		var expired *bus.ExpiredError
		bustest.Eventually(t, 30*time.Second, func() error {
			if err := d.failure(); !errors.As(err, &expired) {
				return fmt.Errorf("agent %s was not told that its position has expired, but: %w", d.name, err)
			}
			return nil
		})
	}
}

// With the index goes what tells which events of before are committed and who was a member since the last checkpoint. What can still be
// promised: no event is lost, everything published after the stream is there again is committed once, in order, to those of whom the
// checkpoint or a later event tells, and the work does not stop.
func TestChaosWorkGoesOnWhenCIM_INDEXIsDeletedAndMadeAgainUnderLoad(t *testing.T) {
	_, seed := chaos(t)
	b := whole(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	c := startCrowd(t, crowdOptions{url: b.Server().NATSURL(), seed: seed, every: 3 * time.Millisecond})
	c.more(t, 300)
	require.NoError(t, b.JetStream().DeleteStream(t.Context(), bus.StreamIndex))
	elapse(300 * time.Millisecond)
	openWhole(t, bus.Options{URL: b.Server().NATSURL()}) // makes what is missing, as a second daemon does
	events, err := b.LastMessage(t.Context(), bus.StreamEvents, ">")
	require.NoError(t, err)
	c.more(t, 300)
	c.end(t)
	drained(t, b)
	s := c.events(t, b)
	t.Log(s)
	require.Zero(t, s.lost+s.repeated+s.misordered)
	report, err := bustest.Audit(t.Context(), b.JetStream())
	require.NoError(t, err)
	t.Log(report)
	require.Empty(t, report.Repeated)
	require.Empty(t, report.Misordered)
	for _, e := range report.Lost {
		if e.Stream == bus.StreamIndex {
			require.LessOrEqual(t, e.Sequence, events.Sequence, "published after the stream was there again: %v", e)
		}
	}
}
