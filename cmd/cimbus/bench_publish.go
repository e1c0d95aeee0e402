package main

import (
	"context"
	"errors"
	"time"

	"github.com/cimbus/cimbus/bus"
)

// measurePublish stores events that are ready, until the last acknowledgement. As many as there are conversations go before and are
// not counted, so that starting is not in it.
func (x *bench) measurePublish(ctx context.Context, side string) (m measured, err error) {
	g, err := x.newGround(ctx, bus.StreamOptions{})
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, g.close(ctx)) }()
	s, err := newSender(ctx, g, side)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	t := x.traffic()
	events := t.events(0, t.conversations+x.events)
	if err := publishAll(ctx, s, events[:t.conversations]); err != nil {
		return m, err
	}
	began, before := time.Now(), processCPU()
	if err := publishAll(ctx, s, events[t.conversations:]); err != nil {
		return m, err
	}
	took := time.Since(began)
	return newMeasured(x.events, took, processCPU()-before), g.holds(ctx, bus.StreamEvents, len(events))
}

func publishAll(ctx context.Context, s eventSender, events []bus.Event) error {
	for _, e := range events {
		if err := s.publish(ctx, e); err != nil {
			return err
		}
	}
	return s.flush(ctx)
}
