package handlers

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// rebuild writes one of the streams again that were made anew.
func (w *Worker) rebuild(ctx context.Context, name string, floor uint64) error {
	began := time.Now()
	w.log.Error("a stream was deleted and made again, writing it from the events", "stream", name, "up_to", floor)
	write := w.rebuildIndex
	if name == bus.StreamMembers {
		write = w.rebuildMembers
	}
	n, err := write(ctx, floor)
	if err == nil {
		w.log.Warn("stream written again", "stream", name, "messages", n, "took", time.Since(began).Round(time.Millisecond))
	}
	return err
}

// rebuildIndex writes an entry for every event up to the floor; those above it are done again anyway, which writes theirs. Each message
// expects the last of the whole stream to be the one before it, so that two who do this at once cannot both go on.
func (w *Worker) rebuildIndex(ctx context.Context, floor uint64) (int, error) {
	r := indexRebuild{w: w, committed: map[string]uint64{}, channel: map[string]string{}}
	if err := r.readEntries(ctx); err != nil {
		return 0, err
	}
	var err error
	if r.dead, err = w.buried(ctx); err != nil {
		return 0, err
	}
	if floor == 0 {
		return 0, nil
	}
	for m, err := range w.bus.Read(ctx, bus.Range{Stream: bus.StreamEvents, Filter: subjects.AllEvents, Upto: floor}) {
		if err == nil {
			err = r.write(ctx, m)
		}
		if err != nil {
			return r.written, errors.Join(err, ctx.Err())
		}
	}
	return r.written, r.settle(0)
}

type indexRebuild struct {
	w         *Worker
	last      uint64            // sequence of the last message of the index, sent ones included
	committed map[string]uint64 // by subject: Cim-Sequence of its last entry
	channel   map[string]string // by subject: the channel used last
	dead      map[uint64]bool   // sequences of the handler's dead letters
	sent      []jetstream.PubAckFuture
	written   int
}

// inFlight bounds the entries on their way.
const inFlight = 1024

// readEntries reads what the index has already: a rebuild that was broken off is gone on with.
func (r *indexRebuild) readEntries(ctx context.Context) error {
	stream, err := r.w.js.Stream(ctx, bus.StreamIndex)
	if err != nil {
		return err
	}
	if r.last = stream.CachedInfo().State.LastSeq; r.last == 0 {
		return nil
	}
	for m, err := range r.w.bus.Read(ctx, bus.Range{Stream: bus.StreamIndex, Filter: subjects.AllIndex, Upto: r.last}) {
		if err != nil {
			return err
		}
		r.committed[m.Subject] = bus.SequenceOf(m.Header)
	}
	return nil
}

// buried are the sequences of the events that became dead letters of this handler.
func (w *Worker) buried(ctx context.Context) (map[uint64]bool, error) {
	filter, err := subjects.DeadLetterFilter{Handler: subjects.Is(w.handler.Name)}.Subject()
	if err != nil {
		return nil, err
	}
	dead := map[uint64]bool{}
	for m, err := range w.bus.Read(ctx, bus.Range{Stream: bus.StreamDeadLetters, Filter: filter}) {
		if err != nil {
			return nil, err
		}
		dead[bus.SequenceOf(m.Header)] = true
	}
	return dead, nil
}

func (r *indexRebuild) write(ctx context.Context, m *jetstream.RawStreamMsg) error {
	e, key, why := decode(m.Subject, m.Header, m.Data, m.Sequence, m.Time)
	subject, err := subjects.Index{Tenant: key.tenant, Conversation: key.conversation}.Subject()
	if err != nil {
		return err
	}
	if r.committed[subject] >= e.Sequence || why == nil && cim.IsTransient(e.Name) {
		return nil
	}
	if others, err := newConversation(r.w, key).redrivenForOthers(ctx, &e); err != nil || others {
		return err
	}
	// An event that was dropped cannot be told from one that was delivered to nobody.
	outcome := bus.OutcomeDelivered
	if why != nil || r.dead[e.Sequence] {
		outcome = bus.OutcomeDeadLetter
	}
	h := indexHeader(&e, outcome, r.channel[subject])
	r.channel[subject] = bus.LastHeader(h, bus.HeaderChannel)
	f, err := r.w.js.PublishMsgAsync(&nats.Msg{Subject: subject, Header: h}, jetstream.WithExpectLastSequence(r.last))
	if err != nil {
		return err
	}
	r.last++
	r.committed[subject] = e.Sequence
	r.sent = append(r.sent, f)
	return r.settle(inFlight)
}

// settle waits until no more than so many entries are on their way.
func (r *indexRebuild) settle(most int) error {
	for len(r.sent) > most {
		select {
		case <-r.sent[0].Ok():
			r.written++
		case err := <-r.sent[0].Err():
			return err
		}
		r.sent = r.sent[1:]
	}
	return nil
}
