package bus

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"
)

// Pending is an event a Publisher accepted. It may be used from several goroutines at once.
type Pending struct {
	msg     *nats.Msg
	done    chan struct{}
	receipt Receipt // written before done is closed
	err     error

	// The rest is guarded by the publisher's lock.
	number uint64
	lane   *lane
	next   *Pending   // the conversation's next event, held back
	turn   time.Time  // when it became the first of its conversation
	queued bool       // to be sent
	span   trace.Span // ends with the outcome; nil without tracing

	tries   int64
	open    int       // tries without an answer: what they did is not known
	since   time.Time // when the first of those was made
	due     time.Time // when to try again; zero before the first try
	link    uint64    // reconnects of the connection at the last try
	unheard bool      // the last try found nobody
	last    error     // why the last try did not decide
}

// Done is closed when the event has its outcome. Every event gets one, at the latest when the publisher is closed.
func (q *Pending) Done() <-chan struct{} { return q.done }

// Receipt waits for the outcome: a Receipt if the event is stored, else an error as Bus.Publish returns it. ErrUnknownOutcome says
// that it may be stored.
func (q *Pending) Receipt() (Receipt, error) {
	<-q.done
	return q.receipt, q.err
}

// laneKey names a conversation of a tenant.
type laneKey struct{ tenant, conversation string }

// lane is a conversation with events that have no outcome; only the first of them is on its way.
type lane struct {
	key         laneKey
	first, last *Pending
}

// settle gives an event, the first of its lane, its outcome and sends the conversation's next. Lock held.
func (p *Publisher) settle(q *Pending, receipt Receipt, err error) {
	delete(p.pending, q.number)
	q.receipt, q.err = receipt, err
	endPublish(q.span, receipt, err)
	p.b.published.count(q.lane.key.tenant, receipt, err)
	if q.lane.first = q.next; q.next != nil {
		q.next.turn = time.Now()
		p.enqueue(q.next)
	} else {
		delete(p.lanes, q.lane.key)
	}
	// Whoever keeps an outcome keeps neither the event nor those behind it.
	q.msg, q.lane, q.next, q.span = nil, nil, nil, nil
	close(q.done)
	<-p.slots
}

// settled reports whether an event has its outcome. Lock held.
func (p *Publisher) settled(q *Pending) bool { return p.pending[q.number] != q }

// enqueue has an event sent. Lock held.
func (p *Publisher) enqueue(q *Pending) {
	if q.queued {
		return
	}
	q.queued = true
	p.queue = append(p.queue, q)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// abandon settles an event without an answer that decides. Lock held.
func (p *Publisher) abandon(q *Pending, cause error) {
	p.settle(q, Receipt{}, publishError(q.msg.Subject, q.open > 0, q.last, cause))
}

// reject settles an event that is not stored and will not be. Lock held.
func (p *Publisher) reject(q *Pending, err error) {
	p.settle(q, Receipt{}, fmt.Errorf("publish %s: %w", q.msg.Subject, err))
}
