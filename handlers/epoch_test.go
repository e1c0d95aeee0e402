package handlers

import (
	"context"
	"fmt"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// newTestEpoch is an epoch that hears only what a test tells it; its lanes never start.
func newTestEpoch(t *testing.T) *epoch {
	t.Helper()
	w := &Worker{handler: Handler{Name: "h"}.withDefaults(), log: hclog.NewNullLogger(), gate: newGate(1)}
	w.outage = &reports{log: w.log}
	e := &epoch{w: w, pin: "p1", next: 1, items: map[uint64]*item{}, lanes: map[laneKey]*lane{}, pulls: map[string]pull{}, wake: make(chan struct{}, 1)}
	e.lanes[laneKey{"acme", "c1"}] = &lane{e: e, key: laneKey{"acme", "c1"}, running: true, conv: &conversation{}}
	e.ctx, e.end = context.WithCancelCause(t.Context())
	return e
}

// delivery is a message as the server delivers it: sequence in the stream, number in the epoch.
func delivery(sequence, number int, pin ...string) *nats.Msg {
	return &nats.Msg{
		Subject: "cim.acme.web.A", Sub: &nats.Subscription{}, Header: nats.Header{headerPin: pin},
		Reply: fmt.Sprintf("$JS.ACK.CIM_EVENTS.handler-h.1.%d.%d.1767000000000000000.0", sequence, number),
		Data:  []byte(`{"id":"1","name":"A","conversationId":"c1"}`),
	}
}

func TestDeliveryLostOnItsWayEndsTheEpochBeforeAnythingAfterItIsTaken(t *testing.T) {
	e := newTestEpoch(t)
	e.receive(delivery(10, 1, "p1"))
	e.receive(delivery(12, 3, "p1")) // number 2 never came
	require.ErrorIs(t, context.Cause(e.ctx), errGap)
	require.Len(t, e.items, 1)
	require.NotContains(t, e.items, uint64(12))
	e.receive(delivery(11, 2, "p1"))
	require.Len(t, e.items, 1, "an epoch that is over takes nothing")
}

func TestNumberingThatBeginsAnewEndsTheEpoch(t *testing.T) {
	e := newTestEpoch(t)
	e.receive(delivery(10, 1, "p1"))
	e.receive(delivery(10, 1, "p1")) // somebody else reset the durable
	require.ErrorIs(t, context.Cause(e.ctx), errGap)
}

func TestAnotherWorkersPinEndsTheEpoch(t *testing.T) {
	e := newTestEpoch(t)
	e.receive(delivery(10, 1, "p2"))
	require.ErrorIs(t, context.Cause(e.ctx), errPinLost)
	require.Empty(t, e.items)
}

func TestForgedPinBeforeTheServersIsNotBelieved(t *testing.T) {
	e := newTestEpoch(t)
	e.receive(delivery(10, 1, "forged", "p1"))
	require.NoError(t, e.ctx.Err())
	require.Len(t, e.items, 1)
}

func TestRedeliveryOfAQueuedEventRenewsItsAcknowledgementAndIsNotQueuedTwice(t *testing.T) {
	e := newTestEpoch(t)
	e.receive(delivery(10, 1, "p1"))
	e.receive(delivery(11, 2, "p1"))
	again := delivery(10, 3, "p1")
	e.receive(again)
	require.NoError(t, e.ctx.Err())
	require.Len(t, e.items, 2)
	require.Equal(t, again.Reply, e.items[10].reply)
	require.Len(t, e.lanes[laneKey{"acme", "c1"}].queue, 2)
}

func TestFollowersOfABusyConversationAreParkedAndTheHeadGivenUpAtTheBound(t *testing.T) {
	e := newTestEpoch(t)
	l := e.lanes[laneKey{"acme", "c1"}]
	aborted := false
	l.abort = func() { aborted = true }
	for i := 1; i <= maxWaiting; i++ {
		e.receive(delivery(i, i, "p1"))
	}
	require.False(t, aborted)
	require.Equal(t, maxHeld*len(delivery(1, 1).Data), e.held, "of the others only the sequence is kept")
	require.Nil(t, l.queue[maxWaiting-1].event.Payload)
	e.receive(delivery(maxWaiting+1, maxWaiting+1, "p1"))
	require.True(t, aborted)
}
