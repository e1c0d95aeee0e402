package main

import (
	"context"
	"errors"
	"time"

	"github.com/cimbus/cimbus/bus"
)

// measurePublish stores events that are ready, until the last acknowledgement.
func (x *bench) measurePublish(ctx context.Context, side string) (m measured, err error) {
	g, err := x.newGround(ctx, bus.StreamOptions{})
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, g.close(ctx)) }()
	t := x.traffic()
	publish := x.publishPlain
	if side == sideCimbus {
		publish = x.publishBus
	}
	events := t.events(0, x.events)
	before := processCPU()
	took, err := publish(ctx, g, events)
	if err != nil {
		return m, err
	}
	return newMeasured(x.events, took, processCPU()-before), g.holds(ctx, bus.StreamEvents, x.events)
}

func (x *bench) publishPlain(ctx context.Context, g *ground, events []bus.Event) (time.Duration, error) {
	nc, err := g.dial()
	if err != nil {
		return 0, err
	}
	js, err := plainJetStream(nc, benchInFlight)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	err = plainPublish(ctx, js, events)
	return time.Since(began), err
}

func (x *bench) publishBus(ctx context.Context, g *ground, events []bus.Event) (took time.Duration, err error) {
	nc, err := g.dial()
	if err != nil {
		return 0, err
	}
	b, err := bus.Open(ctx, bus.Options{Conn: nc, LeaveStreams: true})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, b.Close(ctx)) }()
	p, err := b.NewPublisher(bus.PublisherOptions{MaxPending: benchInFlight})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.Close(ctx)) }()
	began := time.Now()
	pending := make([]*bus.Pending, 0, len(events))
	for _, e := range events {
		q, err := p.Publish(ctx, e)
		if err != nil {
			return 0, err
		}
		pending = append(pending, q)
	}
	for _, q := range pending {
		if _, err := q.Receipt(); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}
