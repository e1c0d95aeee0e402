package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus"
)

// receiver is who takes the time in a measurement of latency.
type receiver struct {
	name  string
	side  string // whose road
	agent bool   // bus.Agent, otherwise a plain subscription
}

// latencyReceivers are measured one after the other, each on a server of its own.
func latencyReceivers() []receiver {
	return []receiver{
		{"bus.Agent", sideCimbus, true},
		{"cim-live", sideCimbus, false},
		{"hand-written", sidePlain, false},
	}
}

// latency is how long events took, in milliseconds.
type latency struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	Max  float64 `json:"max"`
	Late float64 `json:"late_p99"` // how late the sender itself was, 99th percentile: the machine's own contribution
	// The same from when the event really was sent; it hides what a late sender held up.
	SentP50 float64 `json:"sent_p50"`
	SentP99 float64 `json:"sent_p99"`
	SentMax float64 `json:"sent_max"`
}

// measureLatency sends events at a fixed rate, whatever becomes of them: each has its time, and its latency counts from that time, not
// from when a late sender got around to it. The first second is not counted.
func (x *bench) measureLatency(ctx context.Context, to receiver) (l latency, err error) {
	g, err := x.newGround(ctx, bus.StreamOptions{})
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, g.close(ctx)) }()
	t := x.traffic()
	warm := x.rate
	total := warm + int(x.duration.Seconds()*float64(x.rate))
	received := make([]time.Time, total)
	m := newMeter(1, total)
	in, err := openReceivers(ctx, g, t, to.agent, func(id string) {
		if i := number(id); i >= 0 && i < total && received[i].IsZero() {
			received[i] = time.Now()
			m.event(id)
		}
	})
	defer func() { err = errors.Join(err, in.close()) }()
	if err != nil {
		return l, err
	}
	if err := x.join(ctx, g, t, to.side); err != nil {
		return l, err
	}
	r, err := x.startRoad(ctx, g, t, to.side)
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, r.close(ctx)) }()
	s, err := newSender(ctx, g, to.side)
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	in.rest(ctx, x.agentRest)
	scheduled, sent, err := x.send(ctx, s, t, total)
	if err == nil {
		err = m.wait(ctx)
	}
	if err != nil {
		return l, err
	}
	return summarize(scheduled[warm:], sent[warm:], received[warm:]), nil
}

// send publishes each event at its time.
func (x *bench) send(ctx context.Context, s eventSender, t *traffic, total int) (scheduled, sent []time.Time, err error) {
	scheduled, sent = make([]time.Time, total), make([]time.Time, total)
	began := time.Now().Add(10 * time.Millisecond)
	for i := range total {
		scheduled[i] = began.Add(time.Duration(i) * time.Second / time.Duration(x.rate))
		e := t.event(i)
		if err := pause(ctx, time.Until(scheduled[i])); err != nil {
			return nil, nil, err
		}
		sent[i] = time.Now()
		if err := s.publish(ctx, e); err != nil {
			return nil, nil, err
		}
	}
	return scheduled, sent, nil
}

func summarize(scheduled, sent, received []time.Time) latency {
	total, own, late := make([]float64, len(sent)), make([]float64, len(sent)), make([]float64, len(sent))
	for i := range sent {
		total[i] = millis(received[i].Sub(scheduled[i]))
		own[i] = millis(received[i].Sub(sent[i]))
		late[i] = millis(sent[i].Sub(scheduled[i]))
	}
	for _, s := range [][]float64{total, own, late} {
		slices.Sort(s)
	}
	return latency{
		P50: percentile(total, 50), P99: percentile(total, 99), Max: percentile(total, 100), Late: percentile(late, 99),
		SentP50: percentile(own, 50), SentP99: percentile(own, 99), SentMax: percentile(own, 100),
	}
}

// percentile of sorted values, the smallest that at least p per cent are not above.
func percentile(sorted []float64, p int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max((len(sorted)*p+99)/100-1, 0)]
}

// eventSender publishes without waiting. flush waits for the acknowledgements of all that was published, and tells whether all went
// well; close does that, too.
type eventSender interface {
	publish(ctx context.Context, e bus.Event) error
	flush(ctx context.Context) error
	close(ctx context.Context) error
}

func newSender(ctx context.Context, g *ground, side string) (eventSender, error) {
	nc, err := g.dial()
	if err != nil {
		return nil, err
	}
	if side == sidePlain {
		js, err := plainJetStream(nc, benchInFlight)
		if err != nil {
			return nil, err
		}
		return &plainSender{js: js}, nil
	}
	b, err := bus.Open(ctx, bus.Options{Conn: nc, LeaveStreams: true})
	if err != nil {
		return nil, err
	}
	p, err := b.NewPublisher(bus.PublisherOptions{MaxPending: benchInFlight})
	if err != nil {
		return nil, errors.Join(err, b.Close(ctx))
	}
	return &busSender{b: b, p: p}, nil
}

type busSender struct {
	b       *bus.Bus
	p       *bus.Publisher
	pending []*bus.Pending
}

func (s *busSender) publish(ctx context.Context, e bus.Event) error {
	q, err := s.p.Publish(ctx, e)
	if err == nil {
		s.pending = append(s.pending, q)
	}
	return err
}

func (s *busSender) flush(context.Context) error {
	var errs []error
	for _, q := range s.pending {
		if _, err := q.Receipt(); err != nil {
			errs = append(errs, err)
		}
	}
	s.pending = s.pending[:0]
	return errors.Join(errs...)
}

func (s *busSender) close(ctx context.Context) error {
	return errors.Join(s.p.Close(ctx), s.flush(ctx), s.b.Close(ctx))
}

type plainSender struct {
	js      jetstream.JetStream
	pending []jetstream.PubAckFuture
}

func (s *plainSender) publish(_ context.Context, e bus.Event) error {
	f, err := s.js.PublishMsgAsync(plainMessage(e), jetstream.WithStallWait(benchTimeout))
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	s.pending = append(s.pending, f)
	return nil
}

func (s *plainSender) flush(ctx context.Context) error {
	var errs []error
	for _, f := range s.pending {
		if err := acked(ctx, f); err != nil {
			errs = append(errs, err)
		}
	}
	s.pending = s.pending[:0]
	return errors.Join(errs...)
}

func (s *plainSender) close(ctx context.Context) error { return s.flush(ctx) }
