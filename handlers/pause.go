package handlers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus"
)

// ErrNoHandler is returned for a handler that was never started on a bus.
var ErrNoHandler = errors.New("no such handler")

// Pause stops handing events to a handler, in whatever process it runs, until the given time or Resume. What is published
// meanwhile waits in CIM_EVENTS; events already taken are finished.
func Pause(ctx context.Context, b *bus.Bus, handler string, until time.Time) error {
	_, err := b.JetStream().PauseConsumer(ctx, bus.StreamEvents, Handler{Name: handler}.durable(), until)
	return pauseError("pause", handler, err)
}

// Resume lets a paused handler go on where it stopped. Resuming one that is not paused changes nothing.
func Resume(ctx context.Context, b *bus.Bus, handler string) error {
	_, err := b.JetStream().ResumeConsumer(ctx, bus.StreamEvents, Handler{Name: handler}.durable())
	return pauseError("resume", handler, err)
}

func pauseError(verb, handler string, err error) error {
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		return fmt.Errorf("%s handler %q: %w on this bus", verb, handler, ErrNoHandler)
	case err != nil:
		return fmt.Errorf("%s handler %q: %w", verb, handler, err)
	}
	return nil
}
