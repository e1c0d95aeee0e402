package handlers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus"
)

// errRemade ends an epoch when one of the streams its conversations were read from is not the one of its beginning.
var errRemade = errors.New("a stream was deleted and made again")

// creations are when the streams were created that a committing handler reads back: a stream that was deleted and made again is
// empty, and its silence would pass for "this conversation is new".
type creations map[string]time.Time

// readBack are the streams a committing handler reads back and can write again from the others. Checkpoints are not among them:
// without one the conversation is folded from its index.
func readBack() []string { return []string{bus.StreamIndex, bus.StreamMembers} }

// derivedStreams are all that a committing handler writes.
func derivedStreams() []string {
	return append(readBack(), bus.StreamConversations, bus.StreamDeliveries, bus.StreamDeadLetters)
}

// restore makes sure, before anything is read back in an epoch, that index and member records are whole: where one was deleted
// and made again since the durable's floor was reached, it is written again. It returns what the epoch holds for given.
func (w *Worker) restore(ctx context.Context, pin string) (creations, error) {
	if !w.commits() {
		return nil, nil
	}
	if err := w.forgetOldEvents(ctx); err != nil {
		return nil, err
	}
	info, err := w.lookUp()
	if err != nil {
		return nil, err
	}
	now, err := w.created(ctx, readBack())
	if err != nil {
		return nil, err
	}
	config, changed, rebuilt := info.Config, false, false
	config.Metadata = maps.Clone(config.Metadata)
	for _, name := range readBack() {
		at := now[name].UTC().Format(time.RFC3339Nano)
		key := bus.CreatedMark(name)
		noted, finished := config.Metadata[key], w.metadata[key]
		if noted == at {
			continue
		}
		if finished != at && noted+finished != "" {
			rebuilt = true
			// What was finished may be known better than the durable knows, which may have been made anew itself.
			if err := w.rebuild(ctx, name, max(info.AckFloor.Stream+1, w.resumeAt)-1); err != nil {
				return nil, fmt.Errorf("write stream %s again: %w", name, err)
			}
		}
		if config.Metadata == nil {
			config.Metadata = map[string]string{}
		}
		config.Metadata[key], changed = at, true
	}
	w.metadata = config.Metadata
	if rebuilt {
		// What is noted must not outlive a power cut that what it tells of does not.
		if err := w.sync(ctx); err != nil {
			return nil, err
		}
		// It may have taken longer than the pin lasts: a reset now would disturb another worker.
		if held, err := w.holds(pin); err != nil || !held {
			return nil, cmp.Or(err, errPinLost)
		}
	}
	if changed {
		w.note(ctx, config)
	}
	return now, nil
}

// note writes into the durable which streams are whole. No work waits for it: this worker knows, and one that does not writes them again.
func (w *Worker) note(ctx context.Context, config jetstream.ConsumerConfig) {
	ctx, cancel := context.WithTimeout(ctx, noteTimeout)
	defer cancel()
	cause := "metadata of consumer " + w.handler.durable()
	if _, err := w.js.UpdateConsumer(ctx, bus.StreamEvents, config); err != nil {
		w.outage.report(cause, fmt.Errorf("not noted, give the NATS user the right to update consumers: %w", err))
		return
	}
	w.outage.over(cause)
}

// noteTimeout bounds the note, which a user without the right to make it gets no answer to.
const noteTimeout = 2 * time.Second

// created asks when the streams were created.
func (w *Worker) created(ctx context.Context, streams []string) (creations, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	c := creations{}
	for _, name := range streams {
		stream, err := w.js.Stream(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", name, err)
		}
		c[name] = stream.CachedInfo().Created
	}
	return c, nil
}

// watchStreams ends the epoch when a stream it reads back is another one than at its beginning, whoever made it. It notices that one is
// gone, too, before it is needed.
func (e *epoch) watchStreams() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-tick.C:
			err := e.sameStreams(e.ctx, derivedStreams())
			switch {
			case errors.Is(err, errRemade):
				e.end(err)
				return
			case err == nil:
				e.w.outage.over("streams")
			case e.ctx.Err() == nil:
				e.w.trouble(e.ctx, "streams", err)
			}
		}
	}
}

// watchEvery is how often the streams are looked at. Nothing wrong is written meanwhile: conversation.sameStreams asks where it matters.
const watchEvery = 2 * time.Second

// sameStreams tells whether streams are there, and are those of the epoch's beginning.
func (e *epoch) sameStreams(ctx context.Context, streams []string) error {
	now, err := e.w.created(ctx, streams)
	if err != nil {
		return err
	}
	for name, at := range e.made {
		if then, asked := now[name]; asked && !then.Equal(at) {
			return fmt.Errorf("%w: %s", errRemade, name)
		}
	}
	return nil
}
