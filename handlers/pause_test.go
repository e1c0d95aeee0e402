package handlers_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

func TestPausedHandlerLosesNothingAndGoesOnWhereItStopped(t *testing.T) {
	b := openBus(t)
	w := start(t, b, oncimevent.New(oncimevent.Options{}))
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
	drained(t, b)
	require.NoError(t, handlers.Pause(t.Context(), b, oncimevent.Name, time.Now().Add(time.Hour)))
	// The server takes a moment to hold it.
	published := 0
	bustest.Eventually(t, 10*time.Second, func() error {
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprint(published), "c1"))
		published++
		if consumer(t, b).NumPending == 0 {
			return fmt.Errorf("not paused yet")
		}
		return nil
	})
	waiting := consumer(t, b).NumPending
	// Longer than a pull request and its grace: a paused durable is not taken for a dead one.
	paused := time.After(4 * time.Second)
	bustest.Eventually(t, 10*time.Second, func() error {
		select {
		case <-paused:
			return nil
		default:
		}
		require.Equal(t, waiting, consumer(t, b).NumPending)
		return fmt.Errorf("still paused")
	})
	require.EqualValues(t, 1, w.Stats().Epochs)
	require.NoError(t, handlers.Resume(t.Context(), b, oncimevent.Name))
	require.NoError(t, handlers.Resume(t.Context(), b, oncimevent.Name), "twice is harmless")
	drained(t, b)
	last, err := b.LastMessage(t.Context(), bus.StreamDeliveries, "cim-agent.acme.ada.>")
	require.NoError(t, err)
	require.EqualValues(t, published+1, bus.SequenceOf(last.Header))
	audit(t, b)
}

func TestPausingAHandlerThatIsNotThereSaysSo(t *testing.T) {
	b := openBus(t)
	require.ErrorIs(t, handlers.Pause(t.Context(), b, "nobody", time.Now().Add(time.Hour)), handlers.ErrNoHandler)
	require.ErrorIs(t, handlers.Resume(t.Context(), b, "nobody"), handlers.ErrNoHandler)
}
