package handlers

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// rebuild writes one of the streams again that were made anew.
func (w *Worker) rebuild(ctx context.Context, name string, floor uint64) error {
	cause := "stream " + name
	w.outage.report(cause, fmt.Errorf("it was deleted and made again: writing it from the events up to %d", floor))
	write := w.rebuildIndex
	if name == bus.StreamMembers {
		write = w.rebuildMembers
	}
	began := time.Now()
	n, err := write(ctx, floor)
	if err != nil {
		return err
	}
	w.outage.over(cause)
	w.log.Info("stream written again", "stream", name, "messages", n, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// rebuildIndex writes an entry for every event up to the floor; those above it are done again anyway, which writes theirs. Entries are
// fenced as they always are: two who do this at once cannot both go on.
func (w *Worker) rebuildIndex(ctx context.Context, floor uint64) (int, error) {
	r := indexRebuild{w: w, last: map[string]mark{}, channel: map[string]string{}, waits: map[string]bool{}}
	if err := r.readEntries(ctx); err != nil {
		return 0, err
	}
	var err error
	if r.dead, err = w.deadLetters(ctx); err != nil {
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
			return r.written, err
		}
	}
	return r.written, r.settle(ctx, 0)
}

type indexRebuild struct {
	w       *Worker
	last    map[string]mark   // by subject: its last entry
	channel map[string]string // by subject: the channel used last
	dead    map[uint64]bool   // sequences of the handler's dead letters
	sent    []sentEntry
	waits   map[string]bool // subjects with an entry on its way: replicas refuse a second one
	written int
}

type sentEntry struct {
	subject  string
	sequence uint64
	ack      jetstream.PubAckFuture
}

// inFlight bounds the entries on their way.
const inFlight = 1024

// readEntries reads what the index has already: a rebuild that was broken off is gone on with.
func (r *indexRebuild) readEntries(ctx context.Context) error {
	for m, err := range r.w.bus.Read(ctx, bus.Range{Stream: bus.StreamIndex, Filter: subjects.AllIndex}) {
		if err != nil {
			return err
		}
		r.last[m.Subject] = mark{known: true, stream: m.Sequence, sequence: bus.SequenceOf(m.Header)}
		r.channel[m.Subject] = bus.LastHeader(m.Header, bus.HeaderChannel)
	}
	return nil
}

// deadLetters are the sequences of the events that became dead letters of this handler.
func (w *Worker) deadLetters(ctx context.Context) (map[uint64]bool, error) {
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
	if r.waits[subject] {
		if err := r.settle(ctx, 0); err != nil {
			return err
		}
	}
	if r.last[subject].sequence >= e.Sequence || why == nil && cim.IsTransient(e.Name) {
		return nil
	}
	if others, err := newConversation(r.w, key).redrivenForOthers(ctx, &e); err != nil || others {
		return err
	}
	// An event that was dropped cannot be told from one that was delivered to nobody.
	outcome := bus.OutcomeDelivered
	if why.imported() {
		outcome = bus.OutcomeImported
	} else if why != nil || r.dead[e.Sequence] {
		outcome = bus.OutcomeDeadLetter
	}
	h := indexHeader(&e, outcome, r.channel[subject])
	r.channel[subject] = bus.LastHeader(h, bus.HeaderChannel)
	h[headerExpected] = []string{strconv.FormatUint(r.last[subject].stream, 10)}
	ack, err := r.w.js.PublishMsgAsync(&nats.Msg{Subject: subject, Header: h})
	if err != nil {
		return err
	}
	r.waits[subject] = true
	r.sent = append(r.sent, sentEntry{subject: subject, sequence: e.Sequence, ack: ack})
	return r.settle(ctx, inFlight)
}

// settle waits until no more than so many entries are on their way.
func (r *indexRebuild) settle(ctx context.Context, most int) error {
	for len(r.sent) > most {
		s := r.sent[0]
		select {
		case ack := <-s.ack.Ok():
			r.last[s.subject] = mark{known: true, stream: ack.Sequence, sequence: s.sequence}
			r.written++
		case err := <-s.ack.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
		delete(r.waits, s.subject)
		r.sent = r.sent[1:]
	}
	return nil
}
