package bus

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// minding is how often events without an answer are looked at.
	minding = 100 * time.Millisecond
	// batchSize is how many answers and events are taken at a time.
	batchSize = 128
	// maxBackoff bounds how often AckWait doubles: a server that is slow is not helped by sending everything again and again.
	maxBackoff = 3
)

// run takes the server's answers and writes events to the connection. It is the only goroutine that writes them, so their order is
// that of the queue, and nobody who holds the lock waits for a slow network. It works in batches: every answer lets the next event of
// its conversation go, and events that go together cost less than one by one.
func (p *Publisher) run() {
	var (
		answers = make([]answer, 0, batchSize)
		events  = make([]*Pending, 0, batchSize)
		msgs    = make([]nats.Msg, 0, batchSize)
	)
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.wake:
		case m := <-p.answers:
			answers = append(answers, p.read(m))
		}
		for {
			answers = p.gather(answers)
			events, msgs = p.turn(answers, events[:0], msgs[:0])
			if len(answers)+len(events) == 0 {
				break
			}
			for i, q := range events {
				if err := p.b.nc.PublishMsg(&msgs[i]); err != nil {
					p.unsent(q, err)
				}
			}
			clear(events)
			clear(msgs)
			answers = answers[:0]
		}
	}
}

// gather takes the answers that have arrived, without waiting.
func (p *Publisher) gather(answers []answer) []answer {
	for len(answers) < batchSize {
		select {
		case m := <-p.answers:
			answers = append(answers, p.read(m))
		default:
			return answers
		}
	}
	return answers
}

// turn applies answers and makes the messages of the next events to be sent.
func (p *Publisher) turn(answers []answer, events []*Pending, msgs []nats.Msg) ([]*Pending, []nats.Msg) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for i := range answers {
		p.apply(&answers[i], now)
	}
	taken := min(len(p.queue), batchSize)
	for _, q := range p.queue[:taken] {
		q.queued = false
		switch {
		case p.settled(q):
		case !p.connected:
			// Left to mind, not to the connection's buffer: that may be flushed at any later time.
			q.due, q.last = now, ErrUnreachable
		default:
			events, msgs = append(events, q), append(msgs, p.attempt(q, now))
		}
	}
	rest := copy(p.queue, p.queue[taken:])
	clear(p.queue[rest:])
	p.queue = p.queue[:rest]
	return events, msgs
}

// attempt makes the message of an event's next try. Lock held.
func (p *Publisher) attempt(q *Pending, now time.Time) nats.Msg {
	if q.open == 0 {
		q.since = now
	}
	q.open++
	q.due = now.Add(p.o.AckWait << min(q.tries, maxBackoff))
	q.tries++
	q.link = p.links
	// The reply subject names event and try: an answer that refuses says nothing about a later try.
	reply := make([]byte, 0, 96)
	reply = append(reply, p.inbox...)
	reply = strconv.AppendUint(reply, q.number, 36)
	reply = append(reply, '-')
	reply = strconv.AppendInt(reply, q.tries, 36)
	return nats.Msg{Subject: q.msg.Subject, Reply: string(reply), Header: q.msg.Header, Data: q.msg.Data}
}

// unsent judges a try that the connection did not take.
func (p *Publisher) unsent(q *Pending, err error) {
	kind, err := readFailure(err)
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrConnectionDraining) {
		kind = answerAgain
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.settled(q) {
		p.judge(q, kind, err, time.Now())
	}
}

// answer is what the server answered to one try of an event.
type answer struct {
	number  uint64
	try     int64
	receipt Receipt
	kind    answerKind
	err     error
}

// read reads an answer; what is none of ours names event 0, which there is not.
func (p *Publisher) read(m *nats.Msg) answer {
	var a answer
	number, try, _ := strings.Cut(strings.TrimPrefix(m.Subject, p.inbox), "-")
	var err error
	if a.number, err = strconv.ParseUint(number, 36, 64); err != nil {
		return answer{}
	}
	if a.try, err = strconv.ParseInt(try, 36, 64); err != nil {
		return answer{}
	}
	a.receipt, a.kind, a.err = readAnswer("", m)
	return a
}

// apply does what an answer says. Lock held.
func (p *Publisher) apply(a *answer, now time.Time) {
	q := p.pending[a.number]
	switch {
	case q == nil: // an answer to another try came first
	case a.kind == answerStored:
		a.receipt.Subject = q.msg.Subject
		a.receipt.Duplicate = a.receipt.Duplicate && q.tries == 1
		p.answered = now
		p.settle(q, a.receipt, nil)
	case a.try == q.tries:
		p.judge(q, a.kind, a.err, now)
	case a.kind != answerUnknown:
		q.open-- // an earlier try is settled, nothing more
	}
}

// judge takes what became of an event's last try, if that did not store it. Lock held.
func (p *Publisher) judge(q *Pending, kind answerKind, err error, now time.Time) {
	q.last = err
	q.unheard = errors.Is(err, nats.ErrNoResponders)
	q.due = now.Add(retryPause)
	if kind != answerUnknown {
		q.open--
	}
	if kind == answerRefused {
		p.answered = now
		p.reject(q, err)
	}
}

// mind sends events again and gives up those that had their time.
func (p *Publisher) mind() {
	nc := p.b.nc
	changed := nc.StatusChanged()
	defer nc.RemoveStatusListener(changed)
	tick := time.NewTicker(minding)
	defer tick.Stop()
	for {
		select {
		case <-p.ctx.Done():
			p.giveUp(ErrClosed, func(*Pending) bool { return true })
			return
		case <-changed:
		case <-tick.C:
		}
		if nc.IsClosed() {
			p.giveUp(ErrClosed, func(*Pending) bool { return true })
			continue
		}
		if p.look() && p.b.eventsMissing(p.ctx) {
			p.giveUp(nats.ErrNoResponders, func(q *Pending) bool { return q.open == 0 })
		}
	}
}

// look does what is due and reports whether there are events that nobody takes.
func (p *Publisher) look() (unheard bool) {
	connected, links := p.b.nc.IsConnected(), p.b.nc.Stats().Reconnects
	p.mu.Lock()
	defer p.mu.Unlock()
	p.connected, p.links = connected, links
	now := time.Now()
	for _, q := range p.firsts() {
		switch {
		case now.Sub(q.turn) > p.o.RetryFor:
			p.expire(q, now)
		case q.queued, !connected:
		case now.After(q.due) || q.link != links:
			p.again(q, now)
			unheard = unheard || q.unheard && q.tries >= noResponders
		}
	}
	return unheard
}

// firsts lists the first event of every conversation, in the order they were accepted. Lock held.
func (p *Publisher) firsts() []*Pending {
	firsts := make([]*Pending, 0, len(p.lanes))
	for _, l := range p.lanes {
		firsts = append(firsts, l.first)
	}
	slices.SortFunc(firsts, func(x, y *Pending) int { return cmp.Compare(x.number, y.number) })
	return firsts
}

// expire gives up an event that had its time. Where the server was silent all along, those behind it would fare no better. Lock held.
func (p *Publisher) expire(q *Pending, now time.Time) {
	silent := p.answered.Before(q.turn) && (!p.connected || !p.forgotten(q, now))
	cause := fmt.Errorf("given up after %v", p.o.RetryFor)
	l := q.lane
	for p.abandon(q, cause); silent && l.first != nil; {
		p.abandon(l.first, cause)
	}
}

// forgotten reports whether the server may have stored the event and forgotten its message id: it would store it twice. Lock held.
func (p *Publisher) forgotten(q *Pending, now time.Time) bool {
	return q.open > 0 && now.Sub(q.since) > p.resendFor
}

// again sends an event again, if that does no harm; else an answer may still come. Lock held.
func (p *Publisher) again(q *Pending, now time.Time) {
	if p.forgotten(q, now) {
		return
	}
	if q.open > 0 {
		if err := denied(p.b.nc, q.msg.Subject); err != nil {
			p.reject(q, err)
			return
		}
	}
	p.enqueue(q)
}

// giveUp settles the first event of every conversation that satisfies which, and those behind it as far as they do, without an answer
// that decides.
func (p *Publisher) giveUp(cause error, which func(*Pending) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, q := range p.firsts() {
		for l := q.lane; l.first != nil && which(l.first); {
			p.abandon(l.first, cause)
		}
	}
}
