package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
)

// This file is the hand-written equivalent: what a good engineer writes with nats.go for the same streams. It publishes with the
// same headers; its road makes the same deliveries and the same index entries, with a goroutine per conversation, and
// acknowledges an event when both are stored. What it has not is what the bus is about: a crash repeats deliveries, a second
// process mixes them up, nobody keeps who is a member.

// plainMessage is an event with the headers the bus's publisher sets.
func plainMessage(e bus.Event) *nats.Msg {
	return &nats.Msg{
		Subject: "cim." + e.Tenant + "." + strings.ToLower(e.Channel) + "." + e.Name,
		Header: nats.Header{
			"Nats-Msg-Id":          {e.Tenant + ":" + e.Name + ":" + e.ID},
			"Nats-Expected-Stream": {bus.StreamEvents},
			"Cim-Conversation-Id":  {e.Conversation},
			"Cim-Channel":          {e.Channel},
			"Cim-Event-Id":         {e.ID},
			"Cim-Event-Name":       {e.Name},
		},
		Data: e.Body,
	}
}

// plainJetStream is a context for publishing many messages at once.
func plainJetStream(nc *nats.Conn, inFlight int) (jetstream.JetStream, error) {
	return jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(inFlight), jetstream.WithPublishAsyncTimeout(benchTimeout))
}

// plainPublish publishes events and waits for all acknowledgements.
func plainPublish(ctx context.Context, js jetstream.JetStream, events []bus.Event) error {
	futures := make([]jetstream.PubAckFuture, 0, len(events))
	for _, e := range events {
		f, err := js.PublishMsgAsync(plainMessage(e), jetstream.WithStallWait(benchTimeout))
		if err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		futures = append(futures, f)
	}
	for _, f := range futures {
		if err := acked(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

func acked(ctx context.Context, f jetstream.PubAckFuture) error {
	select {
	case <-f.Ok():
		return nil
	case err := <-f.Err():
		return fmt.Errorf("publish %s: %w", f.Msg().Subject, err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// plainRoad is the hand-written worker.
type plainRoad struct {
	ctx     context.Context
	js      jetstream.JetStream
	traffic *traffic
	consume jetstream.ConsumeContext
	lanes   map[string]chan jetstream.Msg
	wg      sync.WaitGroup
	fail    context.CancelCauseFunc
}

// startPlainRoad begins with the event after skip.
func startPlainRoad(ctx context.Context, g *ground, t *traffic, skip int) (*plainRoad, error) {
	nc, err := g.inside()
	if err != nil {
		return nil, err
	}
	js, err := plainJetStream(nc, 4*plainAckPending)
	if err != nil {
		return nil, err
	}
	consumer, err := js.CreateConsumer(ctx, bus.StreamEvents, jetstream.ConsumerConfig{
		Durable: "plain", AckPolicy: jetstream.AckExplicitPolicy, AckWait: benchTimeout, MaxAckPending: plainAckPending,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: uint64(skip + 1),
	})
	if err != nil {
		return nil, fmt.Errorf("create consumer: %w", err)
	}
	r := &plainRoad{js: js, traffic: t, lanes: map[string]chan jetstream.Msg{}}
	r.ctx, r.fail = context.WithCancelCause(context.WithoutCancel(ctx))
	r.consume, err = consumer.Consume(r.dispatch, jetstream.PullMaxMessages(plainWindow), jetstream.PullExpiry(plainExpiry))
	if err != nil {
		return nil, fmt.Errorf("consume: %w", err)
	}
	return r, nil
}

const (
	plainAckPending = 16384 // as the bus's worker
	plainWindow     = 1024  // events asked for at once; more is no faster
	// plainExpiry bounds how long Consume stands still when, once in a while under load, its requests and the server's answers miss
	// each other; by default that is 30 seconds.
	plainExpiry = 2 * time.Second
)

// dispatch gives an event to its conversation's goroutine.
func (r *plainRoad) dispatch(m jetstream.Msg) {
	conversation := m.Headers().Get("Cim-Conversation-Id")
	lane := r.lanes[conversation]
	if lane == nil {
		lane = make(chan jetstream.Msg, plainWindow)
		r.lanes[conversation] = lane
		r.wg.Go(func() { r.work(conversation, lane) })
	}
	select {
	case lane <- m:
	case <-r.ctx.Done():
	}
}

func (r *plainRoad) work(conversation string, lane <-chan jetstream.Msg) {
	agent := r.traffic.agent(number("e" + strings.TrimPrefix(conversation, "c")))
	delivery := "cim-agent." + benchTenant + "." + agent + ".onCimEvent." + conversation
	index := "cim-index." + benchTenant + "." + conversation
	for {
		select {
		case m := <-lane:
			if err := r.handle(m, conversation, delivery, index); err != nil {
				r.fail(err)
				return
			}
		case <-r.ctx.Done():
			return
		}
	}
}

func (r *plainRoad) handle(m jetstream.Msg, conversation, delivery, index string) error {
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	e, err := cim.Decode(m.Data(), conversation)
	if err != nil {
		return err
	}
	header := func() nats.Header {
		return nats.Header{
			"Cim-Sequence":        {strconv.FormatUint(meta.Sequence.Stream, 10)},
			"Cim-Conversation-Id": {conversation},
			"Cim-Channel":         {e.Channel},
			"Cim-Event-Id":        {e.ID},
			"Cim-Event-Name":      {e.Name},
			"Cim-Source-Subject":  {m.Subject()},
			"Cim-Source-Time":     {meta.Timestamp.UTC().Format(time.RFC3339Nano)},
		}
	}
	body := cim.AppendDelivery(nil, &e, conversation, true)
	if err := r.store(&nats.Msg{Subject: delivery, Header: header(), Data: body}); err != nil {
		return err
	}
	h := header()
	h["Cim-Outcome"] = []string{bus.OutcomeDelivered}
	if err := r.store(&nats.Msg{Subject: index, Header: h}); err != nil {
		return err
	}
	return m.Ack()
}

// store publishes and waits; the other conversations go on meanwhile.
func (r *plainRoad) store(m *nats.Msg) error {
	f, err := r.js.PublishMsgAsync(m, jetstream.WithStallWait(benchTimeout))
	if err != nil {
		return fmt.Errorf("publish %s: %w", m.Subject, err)
	}
	return acked(r.ctx, f)
}

// close ends the road and tells what went wrong on it.
func (r *plainRoad) close(context.Context) error {
	r.consume.Stop()
	<-r.consume.Closed()
	over := errors.New("over")
	r.fail(over)
	r.wg.Wait()
	if err := context.Cause(r.ctx); !errors.Is(err, over) {
		return fmt.Errorf("hand-written road: %w", err)
	}
	return nil
}
