package handlers

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/nats-io/nats.go"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/subjects"
)

// advisories are what the server tells of an event that it delivers no more: it was terminated, or delivered as often as the
// consumer allows, which the handlers' own consumers do not limit.
var advisories = [...]string{"$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.", "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES."}

// maxAdvisories is how many advisories wait to be looked at; more are let go.
const maxAdvisories = 1024

// watchAdvisories is the backstop behind the dead letters: the worker stores one before it terminates an event, so an event that was
// terminated without one is lost to the handler by somebody else's doing. It is told, and counted; advisories come once and without
// the payload, so more cannot be built on them. Of several processes one looks.
func (w *Worker) watchAdvisories() {
	given := make(chan uint64, maxAdvisories)
	var subs []*nats.Subscription
	defer func() {
		for _, sub := range subs {
			if err := sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrBadSubscription) {
				w.log.Debug("advisories still come", "error", err)
			}
		}
	}()
	for _, prefix := range advisories {
		sub, err := w.bus.Conn().QueueSubscribe(prefix+bus.StreamEvents+"."+w.handler.durable(), w.handler.durable(), func(m *nats.Msg) {
			var a struct {
				Sequence uint64 `json:"stream_seq"`
			}
			if json.Unmarshal(m.Data, &a) != nil || a.Sequence == 0 {
				return
			}
			select {
			case given <- a.Sequence:
			default:
			}
		})
		if err != nil {
			w.log.Warn("advisories of the server are not watched", "error", err)
			return
		}
		subs = append(subs, sub)
	}
	ctx, cancel := context.WithCancel(w.ctx)
	w.lanes.Go(func() {
		defer cancel()
		select {
		case <-w.draining:
		case <-ctx.Done():
		}
	})
	for {
		select {
		case s := <-given:
			w.checkBuried(ctx, s)
		case <-ctx.Done():
			return
		}
	}
}

// checkBuried raises the alarm if an event that is delivered no more has no dead letter.
func (w *Worker) checkBuried(ctx context.Context, sequence uint64) {
	buried := true
	err := w.persist(ctx, bus.StreamDeadLetters, func() (err error) {
		buried, err = w.isBuried(ctx, sequence)
		return err
	})
	if err == nil && !buried {
		w.stats.lost.Add(1)
		w.log.Error("event was terminated without a dead letter: this handler will not see it again", "sequence", sequence)
	}
}

// isBuried tells whether an event has its dead letter; one that CIM_EVENTS no longer keeps counts as buried.
func (w *Worker) isBuried(ctx context.Context, sequence uint64) (bool, error) {
	m, err := w.bus.MessageAt(ctx, bus.StreamEvents, sequence)
	if errors.Is(err, bus.ErrNoMessage) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	e, _, _ := decode(m.Subject, m.Header, m.Data, m.Sequence, m.Time)
	subject, err := deadLetterOf(w.handler.Name, &e).Subject()
	if err != nil {
		return false, err
	}
	_, err = w.bus.LastMessage(ctx, bus.StreamDeadLetters, subject)
	if errors.Is(err, bus.ErrNoMessage) {
		return false, nil
	}
	return err == nil, err
}

// deadLetterOf names the dead letter of an event.
func deadLetterOf(handler string, e *Event) subjects.DeadLetter {
	return subjects.DeadLetter{
		Handler: handler, Tenant: e.Source.Tenant, Channel: e.Source.Channel, Event: e.Source.Event, Sequence: e.Sequence,
	}
}
