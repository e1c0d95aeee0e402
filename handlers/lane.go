package handlers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cimbus/cimbus/bus"
)

// How long a conversation stays in memory after its last event, and when its checkpoint is written.
const (
	idleCheckpoint = 2 * time.Second
	idleForget     = 2 * time.Minute
)

// lane is one conversation's queue. Events of one lane are worked on one after the other, lanes side by side; a lane has a
// goroutine only while it has work.
type lane struct {
	e       *epoch
	key     laneKey
	queue   []*item
	running bool
	used    time.Time
	abort   context.CancelFunc // ends the attempts at the head; nil while there are none
	conv    *conversation      // the running goroutine's
}

// enqueue puts an item at the end of its lane. Beyond maxHeld waiting events of a conversation, or HoldBytes of all, only their
// sequence is kept. The lock is held.
func (e *epoch) enqueue(key laneKey, it *item) {
	e.items[it.sequence] = it
	l := e.lanes[key]
	if l == nil {
		l = &lane{e: e, key: key}
		l.conv = newConversation(e.w, key)
		l.conv.lane = l
		e.lanes[key] = l
	}
	if len(l.queue) < maxHeld && e.held+len(it.event.Payload) <= e.w.handler.HoldBytes {
		it.held = true
		e.held += len(it.event.Payload)
	} else {
		it.event, it.why = Event{}, nil
	}
	l.queue = append(l.queue, it)
	if len(l.queue) > maxWaiting && l.abort != nil {
		l.abort()
	}
	e.startLocked(l, l.work)
}

// startLocked gives a lane a goroutine unless it has one.
func (e *epoch) startLocked(l *lane, work func()) {
	if l.running {
		return
	}
	l.running = true
	e.wg.Add(1)
	e.w.lanes.Add(1)
	go func() {
		defer e.wg.Done()
		defer e.w.lanes.Done()
		work()
	}()
}

// work handles the queue until it is empty or the epoch is over.
func (l *lane) work() {
	for {
		it := l.take()
		if it == nil {
			return
		}
		if err := l.step(it); err != nil {
			if l.e.ctx.Err() == nil {
				l.e.end(err)
			}
			l.stop()
			return
		}
	}
}

// step brings one event to its end, in a place of its tenant's at the gate. What is to be read again is read there, too: of the lanes
// there are thousands, and memory is for as many events as are worked on.
func (l *lane) step(it *item) error {
	if err := l.e.w.gate.enter(l.e.ctx, l.key.tenant); err != nil {
		return err
	}
	defer l.e.w.gate.leave(l.key.tenant)
	if !it.held && !l.fetch(it) {
		return nil
	}
	ack, err := l.conv.process(l.e.ctx, it.event, it.why)
	if err != nil {
		return err
	}
	l.e.finish(it, ack, l.conv.tally)
	return nil
}

// stoppable is ctx, ending also when too many events wait behind the one at hand.
func (c *conversation) stoppable(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if c.lane == nil {
		return ctx, cancel
	}
	mu := &c.lane.e.mu
	mu.Lock()
	c.lane.abort = cancel
	if len(c.lane.queue) > maxWaiting {
		cancel()
	}
	mu.Unlock()
	return ctx, func() {
		mu.Lock()
		c.lane.abort = nil
		mu.Unlock()
		cancel()
	}
}

// rest waits outside the gate: an event that is to be tried again later takes nobody's place meanwhile.
func (c *conversation) rest(ctx context.Context, d time.Duration) error {
	if c.lane == nil {
		return pause(ctx, d)
	}
	c.w.gate.leave(c.key.tenant)
	err := pause(ctx, d)
	// The place is entered whatever ended the wait: whoever called leaves it.
	return errors.Join(err, c.w.gate.enter(context.WithoutCancel(ctx), c.key.tenant))
}

// take removes the head of the queue; with none left, or the epoch over, the lane stops.
func (l *lane) take() *item {
	l.e.mu.Lock()
	defer l.e.mu.Unlock()
	if len(l.queue) == 0 || l.e.ctx.Err() != nil {
		l.queue = nil
		l.running, l.used = false, time.Now()
		return nil
	}
	it := l.queue[0]
	l.queue[0] = nil
	l.queue = l.queue[1:]
	return it
}

func (l *lane) stop() {
	l.e.mu.Lock()
	l.running = false
	l.e.mu.Unlock()
}

// fetch reads an event again of which only the sequence was kept. One that is gone has expired or was erased: nobody shall get
// it any more, so it is acknowledged.
func (l *lane) fetch(it *item) bool {
	var gone bool
	var key laneKey
	err := l.e.w.persist(l.e.ctx, bus.StreamEvents, func() error {
		m, err := l.e.w.bus.MessageAt(l.e.ctx, bus.StreamEvents, it.sequence)
		if errors.Is(err, bus.ErrNoMessage) {
			gone = true
			return nil
		}
		if err != nil {
			return err
		}
		it.event, key, it.why = decode(m.Subject, m.Header, m.Data, m.Sequence, m.Time)
		return nil
	})
	if err == nil && !gone && key != l.key {
		err = fmt.Errorf("%w (event %d)", errWentBack, it.sequence)
	}
	if errors.Is(err, errWentBack) {
		l.e.end(err)
	}
	if err == nil && gone {
		l.e.finish(it, acknowledged, l.conv.tally)
	}
	return err == nil && !gone
}

// sweep writes the checkpoints of conversations gone quiet and forgets those that stay so. With the zero time, at the end of a
// drain, every conversation counts as quiet.
func (e *epoch) sweep(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for key, l := range e.lanes {
		if l.running {
			continue
		}
		quiet := now.Sub(l.used)
		if quiet > idleForget && l.conv.uncovered == 0 && l.conv.snapshot == nil {
			delete(e.lanes, key)
			continue
		}
		if (now.IsZero() || quiet > idleCheckpoint) && (l.conv.uncovered > 0 || l.conv.snapshot != nil) {
			e.startLocked(l, l.checkpoint)
		}
	}
}

// checkpoint writes a quiet conversation's state down, then goes on with what came meanwhile.
func (l *lane) checkpoint() {
	if err := l.conv.checkpointIdle(l.e.ctx); err != nil {
		if !errors.Is(err, errOvertaken) {
			l.stop()
			if l.e.ctx.Err() == nil {
				l.e.end(err)
			}
			return
		}
		l.conv.forget()
	}
	l.work()
}
