package handlers

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cimbus/cimbus/bus"
)

// Why an epoch ends. None of them is a fault of an event: the next epoch begins after the acknowledgement floor.
var (
	errConsumerGone = errors.New("the consumer was deleted")
	errPinLost      = errors.New("another worker holds the pin")
	errGap          = errors.New("a delivery was lost on its way")
	errSilence      = errors.New("the server does not answer pull requests")
	errReconnected  = errors.New("the connection was lost in between")
	errDrained      = errors.New("drained")
)

// epoch is one uninterrupted reading of the durable, from a reset on. In it every delivery bears the next consumer sequence; the
// first that does not ends it, for then something was lost, or somebody else has taken up the work. All that was queued and
// known is dropped with it: the next epoch delivers it again and reads it anew.
//
// It exists because a successor gets new events seconds before the unacknowledged old ones, and because a message lost on its
// way to this client comes back only after AckWait: both break the order of a conversation.
type epoch struct {
	w          *Worker
	ctx        context.Context
	end        context.CancelCauseFunc
	pin        string
	inbox      string
	reconnects uint64 // of the connection when the epoch began
	made       creations

	mu       sync.Mutex
	next     uint64 // the consumer sequence to come
	highest  uint64 // stream sequence taken last
	items    map[uint64]*item
	held     int // bytes of the events in memory
	lanes    map[laneKey]*lane
	pulls    map[string]pull
	owed     int // events asked for and not yet here
	lastPull time.Time
	heard    time.Time // when the server last sent anything
	pullID   uint64
	closed   bool // takes no more

	wake chan struct{} // there is room for more
	idle chan struct{} // an item was finished
	wg   sync.WaitGroup
}

// item is one event between its delivery and its acknowledgement.
type item struct {
	sequence uint64
	reply    string    // where it is acknowledged; replaced by a redelivery
	progress time.Time // when the server last heard of it
	held     bool      // event is in memory; otherwise it is read again when its turn comes
	event    Event
	why      *invalid
}

// acknowledgement is how a finished event is acknowledged: plainly, or terminated with a reason.
type acknowledgement struct {
	term string
	end  end
}

var acknowledged = acknowledgement{}

func (a acknowledgement) payload() []byte {
	if a.term != "" {
		return []byte("+TERM " + a.term)
	}
	return []byte("+ACK")
}

// epoch gets the pin, resets the durable and reads it until something ends the epoch; it returns what.
func (w *Worker) epoch(pin *string) error {
	held, err := w.holds(*pin)
	if err != nil {
		return err
	}
	if !held {
		if *pin, err = w.acquire(); err != nil {
			return err
		}
	}
	made, err := w.restore(w.ctx, *pin)
	if err != nil && !ordinary(err) && !errors.Is(err, errWentBack) {
		w.trouble(w.ctx, "streams", err)
		return errors.Join(errReported, err)
	}
	if err != nil {
		return err
	}
	if err := w.reset(w.ctx); err != nil {
		return err
	}
	w.stats.epochs.Add(1)
	w.stats.acts.Store(true)
	defer func() {
		w.stats.acts.Store(false)
		w.stats.waiting.Store(0)
	}()
	e := &epoch{
		w: w, pin: *pin, inbox: w.bus.Conn().NewInbox(), reconnects: w.bus.Conn().Stats().Reconnects, made: made,
		next: 1, items: map[uint64]*item{}, lanes: map[laneKey]*lane{}, pulls: map[string]pull{},
		wake: make(chan struct{}, 1), idle: make(chan struct{}, 1),
	}
	e.ctx, e.end = context.WithCancelCause(w.ctx)
	defer e.end(nil)
	sub, err := w.bus.Conn().Subscribe(e.inbox+".*", e.receive)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection, and then it is over anyway
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	w.log.Debug("epoch begins", "pin", e.pin)
	if w.commits() {
		w.lanes.Go(e.watchStreams)
	}
	err = e.live(sub)
	e.end(err)
	e.mu.Lock()
	e.closed = true // a message that is just being received starts no lane any more
	e.mu.Unlock()
	e.settle()
	w.remember(e)
	if errors.Is(err, errDrained) {
		w.unpin()
	}
	return err
}

// settled is how long an epoch lives before the trouble that ended the one before counts as over.
const settled = 5 * time.Second

// live asks for events, keeps the server informed and waits for the end.
func (e *epoch) live(sub *nats.Subscription) error {
	tick := time.NewTicker(e.w.handler.PullExpiry / 4)
	defer tick.Stop()
	began, swept := time.Now(), time.Now()
	for {
		if err := e.pull(); err != nil {
			return err
		}
		select {
		case <-e.ctx.Done():
			return context.Cause(e.ctx)
		case <-e.w.draining:
			return e.drain(sub)
		case <-e.wake:
		case now := <-tick.C:
			if e.w.bus.Conn().Stats().Reconnects != e.reconnects {
				return errReconnected
			}
			e.keepAlive(now)
			if now.Sub(began) > settled {
				e.w.outage.over("work")
				e.w.stats.trouble.Store(nil)
			}
			e.releaseRedone()
			e.countWaiting()
			if now.Sub(swept) > time.Second {
				swept = now
				e.sweep(now)
			}
		}
	}
}

// receive takes what the server sends: deliveries have an acknowledgement subject, everything else is a status. A published
// event may carry a header that looks like a status or like a pin; neither is read here.
func (e *epoch) receive(m *nats.Msg) {
	if e.ctx.Err() != nil {
		return
	}
	if !strings.HasPrefix(m.Reply, "$JS.ACK.") {
		e.status(m)
		return
	}
	meta, err := m.Metadata()
	if err != nil {
		e.end(fmt.Errorf("read events: %w", err))
		return
	}
	event, key, why := decode(m.Subject, m.Header, m.Data, meta.Sequence.Stream, meta.Timestamp)

	e.mu.Lock()
	defer e.mu.Unlock()
	e.owed--
	switch {
	case e.closed:
		return
	case bus.LastHeader(m.Header, headerPin) != e.pin:
		e.end(errPinLost)
		return
	case meta.Sequence.Consumer != e.next:
		e.end(fmt.Errorf("%w: got number %d, expected %d", errGap, meta.Sequence.Consumer, e.next))
		return
	}
	e.next++
	e.heard = time.Now()
	sequence := meta.Sequence.Stream
	if sequence <= e.highest {
		e.again(sequence, m.Reply)
		return
	}
	e.highest = sequence
	e.enqueue(key, &item{sequence: sequence, reply: m.Reply, progress: e.heard, event: event, why: why})
}

// again is a redelivery within the epoch: of an event still here it renews the acknowledgement's subject, of a finished one the
// acknowledgement was lost.
func (e *epoch) again(sequence uint64, reply string) {
	e.w.stats.redelivered.Add(1)
	if it := e.items[sequence]; it != nil {
		it.reply, it.progress = reply, time.Now()
		return
	}
	e.w.reply(reply, acknowledged.payload())
}

// finish acknowledges an item, and counts it for its tenant.
func (e *epoch) finish(it *item, ack acknowledgement, t *tally) {
	e.mu.Lock()
	delete(e.items, it.sequence)
	if it.held {
		e.held -= len(it.event.Payload)
	}
	room := e.room() >= e.enough()
	reply := it.reply
	e.mu.Unlock()
	e.w.reply(reply, ack.payload())
	t.ends[ack.end].Add(1)
	e.w.stats.handled.Add(1)
	if room {
		signal(e.wake)
	}
	signal(e.idle)
}

// keepAlive tells the server of every event that is still being worked on, or waits its turn.
func (e *epoch) keepAlive(now time.Time) {
	var replies []string
	e.mu.Lock()
	for _, it := range e.items {
		if now.Sub(it.progress) > e.w.handler.AckWait/2 {
			it.progress = now
			replies = append(replies, it.reply)
		}
	}
	e.mu.Unlock()
	for _, r := range replies {
		e.w.reply(r, []byte("+WPI"))
	}
}

// drain takes no more and waits until everything taken is finished, then writes the checkpoints.
func (e *epoch) drain(sub *nats.Subscription) error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	if err := sub.Unsubscribe(); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	tick := time.NewTicker(e.w.handler.AckWait / 6)
	defer tick.Stop()
	for {
		e.mu.Lock()
		left := len(e.items)
		e.mu.Unlock()
		if left == 0 {
			e.sweep(time.Time{})
			e.wg.Wait()
			return errDrained
		}
		select {
		case <-e.ctx.Done():
			return context.Cause(e.ctx)
		case <-e.idle:
		case now := <-tick.C:
			e.keepAlive(now)
		}
	}
}

// settle waits for the lanes to notice that the epoch is over; a handler that does not return is left to itself, the fences
// make it harmless.
func (e *epoch) settle() {
	over := make(chan struct{})
	e.w.lanes.Go(func() {
		e.wg.Wait()
		close(over)
	})
	t := time.NewTimer(breakOff)
	defer t.Stop()
	select {
	case <-over:
	case <-t.C:
		e.w.log.Warn("a handler does not return though its context ended, going on without it")
	}
}

func (e *epoch) countWaiting() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.w.stats.waiting.Store(int64(len(e.items)))
}

// releaseRedone tells the server, once, that what an unclean stop may have cost has been made good.
func (e *epoch) releaseRedone() {
	if e.w.release == nil {
		return
	}
	e.mu.Lock()
	due := e.highest >= e.w.redoUntil
	for s := range e.items {
		due = due && s > e.w.redoUntil
	}
	e.mu.Unlock()
	if due {
		e.w.release()
		e.w.release = nil
		e.w.log.Info("the latest events agree with what was delivered again")
	}
}

// remember keeps where the work would go on if the durable had to be created again.
func (w *Worker) remember(e *epoch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.highest == 0 {
		return
	}
	at := e.highest + 1
	for s := range e.items {
		at = min(at, s)
	}
	w.resumeAt = at
}

// reply publishes an acknowledgement. It may get lost: then the event comes again and is acknowledged again.
func (w *Worker) reply(subject string, payload []byte) {
	if err := w.bus.Conn().Publish(subject, payload); err != nil {
		w.outage.report("acknowledgements", err)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// pendingOf reads how many messages a pull request still waited for when it ended.
func pendingOf(m *nats.Msg) int {
	n, err := strconv.Atoi(m.Header.Get("Nats-Pending-Messages"))
	if err != nil {
		return 0
	}
	return n
}
