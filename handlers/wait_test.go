package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

func TestAnEventThatAsksForATimeIsTriedAgainAfterIt(t *testing.T) {
	b := openBus(t)
	const after = 300 * time.Millisecond
	var mu sync.Mutex
	var at []time.Time
	start(t, b, handlers.Handler{
		Name: "moody", Types: []string{"mood"}, FromStart: true,
		Retry: handlers.RetryPolicy{Attempts: 3, First: time.Millisecond, Longest: time.Millisecond},
		Handle: func(context.Context, handlers.Event) ([]handlers.Delivery, error) {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Now())
			return nil, handlers.Retry(errors.New("not yet"), after)
		},
	})
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("m", "c1"))
	bustest.Eventually(t, 20*time.Second, func() error {
		if n := len(stored(t, b, bus.StreamDeadLetters, ">")); n != 1 {
			return fmt.Errorf("%d dead letters", n)
		}
		return nil
	})
	require.Len(t, at, 3, "it counts as an attempt")
	require.GreaterOrEqual(t, at[2].Sub(at[0]), 2*after)
}

// A delivery that no server takes ends an event that was tried before.
func TestADeadLetterForItsSizeCountsTheAttemptsBefore(t *testing.T) {
	b := openBus(t)
	start(t, b, handlers.Handler{
		Name: "moody", Types: []string{"mood"}, FromStart: true,
		Retry: handlers.RetryPolicy{Attempts: 5, First: 20 * time.Millisecond, Longest: 20 * time.Millisecond},
		Handle: func(_ context.Context, e handlers.Event) ([]handlers.Delivery, error) {
			if e.Attempt < 3 {
				return nil, errors.New("not yet")
			}
			return []handlers.Delivery{{Agent: "ada", Type: "mood", Payload: make([]byte, 5<<20)}}, nil
		},
	})
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("m", "c1"))
	bustest.Eventually(t, 20*time.Second, func() error {
		if n := len(stored(t, b, bus.StreamDeadLetters, ">")); n != 1 {
			return fmt.Errorf("%d dead letters", n)
		}
		return nil
	})
	h := stored(t, b, bus.StreamDeadLetters, ">")[0].Header
	require.Equal(t, handlers.ReasonTooLarge, bus.LastHeader(h, bus.HeaderReason))
	require.Equal(t, "3", bus.LastHeader(h, bus.HeaderAttempts))
	first, err := time.Parse(time.RFC3339Nano, bus.LastHeader(h, bus.HeaderFirstAttempt))
	require.NoError(t, err)
	last, err := time.Parse(time.RFC3339Nano, bus.LastHeader(h, bus.HeaderLastAttempt))
	require.NoError(t, err)
	require.GreaterOrEqual(t, last.Sub(first), 30*time.Millisecond)
}

// An event that takes longer than AckWait, and those that wait behind it, are not sent again.
func TestWhatIsWaitedForIsNotDeliveredAgain(t *testing.T) {
	b := openBus(t)
	h := oncimevent.New(oncimevent.Options{})
	translate := h.Handle
	h.AckWait = time.Second
	h.Handle = func(ctx context.Context, e handlers.Event) ([]handlers.Delivery, error) {
		if e.ID == "slow" {
			elapse(3 * h.AckWait)
		}
		return translate(ctx, e)
	}
	w := start(t, b, h)
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("slow", "c1"))
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("behind", "c1"))
	drained(t, b)
	require.Zero(t, w.Stats().Redelivered)
	require.EqualValues(t, 1, w.Stats().Epochs)
}

// However many conversations have an event waiting, no more payloads are in memory than may be held or are worked on.
func TestEventsBeyondWhatMayBeHeldAreReadAgainWhenTheirTurnComes(t *testing.T) {
	b := openBus(t)
	h := oncimevent.New(oncimevent.Options{})
	translate := h.Handle
	h.HoldBytes, h.Parallel = 1, 1
	goOn := make(chan struct{})
	h.Handle = func(ctx context.Context, e handlers.Event) ([]handlers.Delivery, error) {
		select {
		case <-goOn:
			return translate(ctx, e)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	const conversations = 100
	for i := range conversations {
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprint(i), fmt.Sprint("c", i)))
	}
	w := start(t, b, h)
	bustest.Eventually(t, 20*time.Second, func() error {
		if n := w.Stats().Waiting; n != conversations {
			return fmt.Errorf("%d taken", n)
		}
		return nil
	})
	// What was not read yet cannot be there any more when its turn comes.
	stream, err := b.JetStream().Stream(t.Context(), bus.StreamEvents)
	require.NoError(t, err)
	require.NoError(t, stream.DeleteMsg(t.Context(), conversations/2))
	close(goOn)
	drained(t, b)
	require.Len(t, stored(t, b, bus.StreamIndex, ">"), conversations-1)
}
