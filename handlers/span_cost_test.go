package handlers

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
)

func TestWithoutTracingAHandledEventAllocatesNothingForIt(t *testing.T) {
	c := &conversation{w: &Worker{bus: &bus.Bus{}}}
	e := &Event{Attempt: 1}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		ctx := c.startHandle(t.Context(), e)
		c.noteFailure(1, nil)
		c.noteDeadLetter(failure{})
		c.noteOutcome(bus.OutcomeDelivered)
		c.startDeliver(ctx, e, nil)
		c.endHandle(e, nil)
	}))
	require.Nil(t, e.derived, "nothing is prepared that may not be needed")
}
