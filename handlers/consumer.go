package handlers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus"
)

// pinGroup is the priority group of every durable: all its workers, of which one is pinned.
const pinGroup = "workers"

// apiTimeout bounds one question to the JetStream API.
const apiTimeout = 5 * time.Second

// ensureConsumer creates the handler's durable, or brings the settings of an existing one up to date. Where it begins is
// decided once, at its creation: a durable that exists goes on where it was.
func (w *Worker) ensureConsumer(ctx context.Context) error {
	if err := w.forgetOldEvents(ctx); err != nil {
		return err
	}
	want := jetstream.ConsumerConfig{
		Durable:        w.handler.durable(),
		Description:    "cimbus handler " + w.handler.Name,
		AckPolicy:      jetstream.AckExplicitPolicy,
		AckWait:        w.handler.AckWait,
		MaxDeliver:     -1,
		MaxAckPending:  w.handler.MaxAckPending,
		DeliverPolicy:  jetstream.DeliverAllPolicy,
		PriorityPolicy: jetstream.PriorityPolicyPinned,
		PriorityGroups: []string{pinGroup},
		PinnedTTL:      w.handler.PinnedTTL,
		Metadata:       w.metadata,
	}
	have, err := w.js.Consumer(ctx, bus.StreamEvents, want.Durable)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		if !w.handler.FromStart {
			stream, err := w.js.Stream(ctx, bus.StreamEvents)
			if err != nil {
				return fmt.Errorf("create consumer %s: %w", want.Durable, err)
			}
			// A consumer that delivers new messages only cannot be reset, one that begins at the next sequence can.
			want.DeliverPolicy = jetstream.DeliverByStartSequencePolicy
			want.OptStartSeq = stream.CachedInfo().State.LastSeq + 1
			if w.resumeAt > 0 {
				want.OptStartSeq = min(want.OptStartSeq, w.resumeAt)
			}
		}
	case err != nil:
		return fmt.Errorf("look up consumer %s: %w", want.Durable, err)
	default:
		w.resumeAt = max(w.resumeAt, have.CachedInfo().AckFloor.Stream+1)
		info := have.CachedInfo().Config
		if w.metadata == nil {
			w.metadata = info.Metadata // a standby may have to make it again
		}
		if info.AckWait == want.AckWait && info.MaxAckPending == want.MaxAckPending && info.PinnedTTL == want.PinnedTTL {
			return nil
		}
		info.AckWait, info.MaxAckPending, info.PinnedTTL = want.AckWait, want.MaxAckPending, want.PinnedTTL
		want = info
	}
	if _, err := w.js.CreateOrUpdateConsumer(ctx, bus.StreamEvents, want); err != nil {
		return fmt.Errorf("create consumer %s: %w", want.Durable, err)
	}
	w.resumeAt = max(w.resumeAt, want.OptStartSeq)
	return nil
}

// forgetOldEvents forgets what is remembered of another CIM_EVENTS.
func (w *Worker) forgetOldEvents(ctx context.Context) error {
	now, err := w.created(ctx, []string{bus.StreamEvents})
	if err != nil {
		return err
	}
	if at := now[bus.StreamEvents]; !at.Equal(w.eventsMade) {
		if !w.eventsMade.IsZero() {
			w.resumeAt, w.redoFrom, w.redoUntil = 1, 0, 0
		}
		w.eventsMade = at
	}
	return nil
}

// lookUp asks the server for the durable.
func (w *Worker) lookUp() (*jetstream.ConsumerInfo, error) {
	ctx, cancel := context.WithTimeout(w.ctx, apiTimeout)
	defer cancel()
	c, err := w.js.Consumer(ctx, bus.StreamEvents, w.handler.durable())
	if err != nil {
		return nil, fmt.Errorf("look up consumer %s: %w", w.handler.durable(), err)
	}
	return c.CachedInfo(), nil
}

// persistConsumer creates the durable again after it was deleted.
func (w *Worker) persistConsumer() error {
	return w.persist(w.ctx, "consumer "+w.handler.durable(), func() error {
		ctx, cancel := context.WithTimeout(w.ctx, apiTimeout)
		defer cancel()
		return w.ensureConsumer(ctx)
	})
}

// reset makes the durable begin again after its acknowledgement floor.
func (w *Worker) reset(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	if _, err := w.js.ResetConsumer(ctx, bus.StreamEvents, w.handler.durable()); err != nil {
		return fmt.Errorf("reset consumer %s: %w", w.handler.durable(), err)
	}
	return nil
}

// unpin lets a standby take over at once.
func (w *Worker) unpin() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), time.Second)
	defer cancel()
	stream, err := w.js.Stream(ctx, bus.StreamEvents)
	if err == nil {
		err = stream.UnpinConsumer(ctx, w.handler.durable(), pinGroup)
	}
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		w.log.Debug("standby not told, it takes over by itself", "error", err)
	}
}
