package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/handlers"
)

// moody starts a handler of another process, which fails until it is mended.
func (s served) moody(t *testing.T, mended *atomic.Bool) *bus.Bus {
	t.Helper()
	nc, err := nats.Connect(s.NATS)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	b, err := bus.Open(t.Context(), bus.Options{Conn: nc, LeaveStreams: true, Logger: hclog.NewNullLogger()})
	require.NoError(t, err)
	w, err := handlers.Start(t.Context(), b, handlers.Handler{
		Name: "moody", Types: []string{"mood"}, FromStart: true,
		Retry: handlers.RetryPolicy{Attempts: 3, First: time.Millisecond, Longest: 2 * time.Millisecond},
		Handle: func(_ context.Context, e handlers.Event) ([]handlers.Delivery, error) {
			if !mended.Load() {
				return nil, errors.New("the tariff service\ndoes not answer")
			}
			return []handlers.Delivery{{Agent: "ann", Type: "mood", Payload: []byte(e.ID)}}, nil
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, w.Close(context.WithoutCancel(t.Context())))
		require.NoError(t, b.Close(context.WithoutCancel(t.Context())))
	})
	return b
}

func (s served) show(t *testing.T, sequence uint64) deadLetterView {
	t.Helper()
	var v deadLetterView
	require.NoError(t, json.Unmarshal([]byte(s.do(t, "", "dlq", "show", fmt.Sprint(sequence), "--json")), &v))
	return v
}

func TestADeadLetterNamesItsHandlerReasonErrorAttemptsTimesAndSourceAndHoldsTheWholePayload(t *testing.T) {
	d := serve(t)
	before := time.Now()
	body := `{"id":"m1","name":"AGENT_MESSAGE","conversationId":"c1","big":9007199254740993,"name2":  "kept as it is"}`
	d.publishPlain(t, "cim.acme.web.AGENT_MESSAGE", nats.Header{"X-Mine": {"a", "b"}}, body)
	b := d.moody(t, &atomic.Bool{})
	v := d.show(t, d.await(t, 1)[0].Sequence)
	stored, err := b.DeadLetter(t.Context(), v.Sequence)
	require.NoError(t, err)
	require.Equal(t, body, string(stored.Payload))
	require.JSONEq(t, body, string(v.Payload))
	require.Equal(t, []string{"a", "b"}, v.Headers["X-Mine"])
	for _, at := range []time.Time{v.First, v.Last, v.SourceTime, v.Time} {
		require.WithinRange(t, at, before.Add(-time.Second), time.Now().Add(time.Second))
	}
	require.False(t, v.Last.Before(v.First))
	require.Equal(t, deadLetterLine{
		Sequence: 1, Handler: "moody", Tenant: "acme", Channel: "web", Event: "AGENT_MESSAGE", ID: "m1", Conversation: "c1",
		Reason: handlers.ReasonFailed, Error: "the tariff service does not answer", Attempts: 3, Size: len(body),
		SourceSubject: "cim.acme.web.AGENT_MESSAGE", SourceSequence: 1, Time: v.Time, First: v.First, Last: v.Last, SourceTime: v.SourceTime,
	}, v.deadLetterLine)
}

func TestADeadLetterIsStoredBeforeItsSourceIsTerminated(t *testing.T) {
	d := serve(t)
	nc, err := nats.Connect(d.NATS)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	terminated, err := nc.SubscribeSync("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.CIM_EVENTS.>")
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	require.NoError(t, js.DeleteStream(t.Context(), bus.StreamDeadLetters))
	d.publishPlain(t, "cim.acme.web.AGENT_MESSAGE", nil, "poison")
	d.saw(&d.stderr, "NATS is in trouble, trying again")
	h := d.handlers(t, func(h handlerLine) bool { return h.InWork == 1 })
	require.Zero(t, h.AckFloor, "it is kept until its dead letter is")
	n, _, err := terminated.Pending()
	require.NoError(t, err)
	require.Zero(t, n)

	d.do(t, "", "streams", "apply")
	d.await(t, 1)
	advisory, err := terminated.NextMsg(patience)
	require.NoError(t, err)
	require.Contains(t, string(advisory.Data), `"stream_seq":1,`)
	d.handlers(t, func(h handlerLine) bool { return h.AckFloor == 1 && h.DeadLetters == 1 })
	_, body := d.get(t, "/metrics")
	require.Contains(t, body, `cimbus_events_lost_total{handler="onCimEvent"} 0`)
}

func TestARedriveIsRecordedOnItsEntryWithItsOperatorAndWhatBecameOfIt(t *testing.T) {
	d := serve(t)
	var mended atomic.Bool
	b := d.moody(t, &mended)
	d.publishPlain(t, "cim.acme.web.AGENT_MESSAGE", nil, `{"id":"m1","name":"AGENT_MESSAGE","conversationId":"c1"}`)
	entry := d.await(t, 1)[0].Sequence
	mended.Store(true)
	d.do(t, "", "handler", "pause", "moody")
	require.Zero(t, invoke(t, "", d.on("dlq", "redrive", "--handler", "moody", "--yes", "--operator", "ann")...).code)
	last := func() redriveView {
		v := d.show(t, entry)
		require.Len(t, v.Redrives, 2)
		require.Equal(t, bus.RedriveStarted, v.Redrives[0].State)
		require.Equal(t, "ann", v.Redrives[1].Operator)
		require.Equal(t, bus.RedriveDone, v.Redrives[1].State)
		return v.Redrives[1]
	}
	require.Equal(t, bus.FateWaiting, last().Fate, "its handler is paused")
	d.do(t, "", "handler", "resume", "moody")
	bustest.Eventually(t, patience, func() error {
		if r := last(); r.Fate != bus.FateHandled || r.DeadLetter != nil {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	m, err := b.LastMessage(t.Context(), bus.StreamDeliveries, "cim-agent.acme.ann.mood.c1")
	require.NoError(t, err, "the handler as it is now has handled it")
	require.Equal(t, *last().Event, bus.SequenceOf(m.Header))
}
