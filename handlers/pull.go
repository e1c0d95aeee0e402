package handlers

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cimbus/cimbus/bus"
)

// The pull loop is ours, not nats.go's Consume, for two reasons: a published event may carry a Nats-Pin-Id header of its own,
// of which Consume reads the first value and loses the pin for it; and an epoch must know which request a message answers, so
// that nothing of an earlier one gets in.

// headerPin names the pinned worker on each delivery; the server's own value is the last.
const headerPin = "Nats-Pin-Id"

// The status codes that end a pull request.
const (
	statusNoMessages   = "404"
	statusTimeout      = "408"
	statusConflict     = "409"
	statusPinMismatch  = "423"
	statusNoResponders = "503"
)

// answerGrace is how much longer than its life a pull request may go unanswered.
const answerGrace = 2 * time.Second

// How much is asked for. ● The server sends what was asked for without waiting for the client to read it, and cuts the connection when
// more than its max_pending of 64 MiB is on its way: a backlog of 16,384 events of 6 KB, asked for at once, did that.
const (
	pullBatch = 256 // how much room there must be before more is asked for
	maxPulls  = 3   // requests under way: together they bring no more than the server may have on the way
	// pullBytes is the most one request may bring, unless a single message can be larger. It is a prime: the server ends a request
	// whose bytes are used up to the last without a word, and events of one size would do that again and again.
	pullBytes = 1<<23 + 9
)

type pullRequest struct {
	Batch    int           `json:"batch"`
	MaxBytes int           `json:"max_bytes"`
	Expires  time.Duration `json:"expires"`
	Group    string        `json:"group"`
	ID       string        `json:"id,omitempty"`
}

// pull is one request under way. Which request a delivery answers cannot be told, only how many are owed in all: the status that
// ends a request names it and what it did not get.
type pull struct {
	batch    int
	deadline time.Time
}

func (w *Worker) sendPull(inbox string, batch int, pin string) error {
	body, err := json.Marshal(pullRequest{
		Batch: batch, MaxBytes: max(pullBytes, 2*int(w.bus.Conn().MaxPayload())), Expires: w.handler.PullExpiry, Group: pinGroup, ID: pin,
	})
	if err != nil {
		return fmt.Errorf("pull request: %w", err)
	}
	subject := "$JS.API.CONSUMER.MSG.NEXT." + bus.StreamEvents + "." + w.handler.durable()
	if err := w.bus.Conn().PublishRequest(subject, inbox, body); err != nil {
		return fmt.Errorf("pull request: %w", err)
	}
	return nil
}

// holds tells whether the server still knows this worker by its pin. Asked before a reset, which would disturb another one.
func (w *Worker) holds(pin string) (bool, error) {
	if pin == "" {
		return false, nil
	}
	info, err := w.lookUp()
	if err != nil {
		return false, err
	}
	for _, g := range info.PriorityGroups {
		if g.Group == pinGroup {
			return g.PinnedClientID == pin, nil
		}
	}
	return false, nil
}

// acquire stands by until this worker is the pinned one. The message that says so is not used: the epoch begins with a reset
// and gets it again.
func (w *Worker) acquire() (string, error) {
	conn := w.bus.Conn()
	inbox := conn.NewInbox()
	answers := make(chan *nats.Msg, 16)
	sub, err := conn.ChanSubscribe(inbox, answers)
	if err != nil {
		return "", fmt.Errorf("stand by: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	for {
		if err := w.sendPull(inbox, 1, ""); err != nil {
			return "", err
		}
		timeout := time.NewTimer(w.handler.PullExpiry + answerGrace)
		select {
		case <-w.ctx.Done():
			timeout.Stop()
			return "", w.ctx.Err()
		case <-w.draining:
			timeout.Stop()
			return "", errDrained
		case <-timeout.C:
			w.outage.report("consumer "+w.handler.durable(), errSilence)
			return "", errSilence
		case m := <-answers:
			timeout.Stop()
			w.outage.over("consumer " + w.handler.durable())
			if strings.HasPrefix(m.Reply, "$JS.ACK.") {
				if pin := bus.LastHeader(m.Header, headerPin); pin != "" {
					return pin, nil
				}
				return "", fmt.Errorf("consumer %s pins nobody: it was created with other settings", w.handler.durable())
			}
			if err := statusError(m); err != nil && !errors.Is(err, errPinLost) {
				return "", err
			}
			// Another one has the work, or there is none.
			w.outage.over("work")
			w.stats.trouble.Store(nil)
		}
	}
}

// pull asks for as many events as there is room for, and at least once per PullExpiry for one: a worker that does not ask is
// taken for dead.
func (e *epoch) pull() error {
	now := time.Now()
	e.mu.Lock()
	if e.silentLocked(now) {
		e.mu.Unlock()
		return errSilence
	}
	batch := e.room()
	due := now.Sub(e.lastPull) >= e.w.handler.PullExpiry
	if len(e.pulls) >= maxPulls || batch < e.enough() && (!due || e.owed > 0) {
		e.mu.Unlock()
		return nil
	}
	batch = max(batch, 1)
	e.pullID++
	inbox := e.inbox + "." + strconv.FormatUint(e.pullID, 36)
	e.pulls[inbox] = pull{batch: batch, deadline: now.Add(e.w.handler.PullExpiry + answerGrace)}
	e.owed += batch
	e.lastPull = now
	e.mu.Unlock()
	return e.w.sendPull(inbox, batch, e.pin)
}

// silentLocked drops the requests whose time is over, which were answered in full, and tells whether the server did not answer: more
// is owed than the others can account for, and nothing was heard for as long. Where something was, a request ended without a word.
func (e *epoch) silentLocked(now time.Time) bool {
	open := 0
	for inbox, p := range e.pulls {
		if now.After(p.deadline) {
			delete(e.pulls, inbox)
			continue
		}
		open += p.batch
	}
	if e.owed > open && now.Sub(e.heard) > e.w.handler.PullExpiry+answerGrace {
		return true
	}
	e.owed = min(e.owed, open)
	return false
}

// room is how many more events may be asked for. The lock is held.
func (e *epoch) room() int { return e.w.handler.MaxAckPending - len(e.items) - e.owed }

// enough is how much room there must be before more is asked for.
func (e *epoch) enough() int { return min(pullBatch, e.w.handler.MaxAckPending/4+1) }

// status is the end of a pull request, or of the epoch.
func (e *epoch) status(m *nats.Msg) {
	if err := statusError(m); err != nil {
		e.end(err)
		return
	}
	e.mu.Lock()
	e.heard = time.Now()
	if _, ours := e.pulls[m.Subject]; ours {
		delete(e.pulls, m.Subject)
		e.owed -= pendingOf(m)
	}
	e.mu.Unlock()
	signal(e.wake)
}

// statusError tells what a status means for the epoch: nil for the ordinary end of a request.
func statusError(m *nats.Msg) error {
	description := m.Header.Get("Description")
	switch code := m.Header.Get("Status"); code {
	case statusTimeout, statusNoMessages, "100":
		return nil
	case statusPinMismatch:
		return errPinLost
	case statusNoResponders:
		return fmt.Errorf("%w: nobody answers for stream %s", errSilence, bus.StreamEvents)
	case statusConflict:
		switch lower := strings.ToLower(description); {
		case strings.Contains(lower, "batch completed"), strings.Contains(lower, "exceeds maxbytes"):
			return nil
		case strings.Contains(lower, "consumer deleted"):
			return errConsumerGone
		}
		return fmt.Errorf("pull request ended: %s", description)
	default:
		return fmt.Errorf("pull request refused: %s %s", code, description)
	}
}
