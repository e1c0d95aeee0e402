package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// laneWindow is how many messages of a replay may be without an acknowledgement.
const laneWindow = 256

// lanes publish what a replay makes to a stream, exactly once: in order inside of a lane, in parallel across. Of a lane one message is
// under way at a time, so what is stored of it is always the beginning of what was to be, and its highest Cim-Sequence tells how far
// it is.
type lanes struct {
	b      *Bus
	stream string
	filter []string // of what the replay stores there
	id     string   // of the replay
	fenced bool     // a lane is a subject, and each message expects the last one there to be the one known
	lane   func(subject string, h nats.Header) string
	of     func(h nats.Header) uint64 // the event that a message was made of

	under []laned
	busy  map[string]bool
	has   map[string]uint64 // what was stored before this run and is not recorded, by lane
	marks map[string]uint64 // last stream sequence by subject, where it is known
	mark  uint64            // everything of the replay that is acknowledged is at or below it in the stream
	floor uint64            // nothing that is under way is at or below it
	known uint64            // up to where the stream was read back
	last  uint64            // the last event that was put
	ahead uint64            // the last event of which an earlier run stored something
	told  uint64            // what flush said last
	torn  bool              // of the last event only a part was put
	lost  error             // of a message that can never be stored
}

// laned is a message under way.
type laned struct {
	lane   string
	msg    *nats.Msg
	of     uint64
	future jetstream.PubAckFuture
	err    error // it could not be sent
}

func (l *lanes) open(ctx context.Context, r OpenReplay) error {
	if err := l.readBack(ctx, r); err != nil {
		return err
	}
	l.floor, l.known = l.mark, l.mark
	return nil
}

// readBack finds what the stream has of the replay beyond its record.
func (l *lanes) readBack(ctx context.Context, r OpenReplay) error {
	l.id, l.busy, l.has, l.marks = r.Record.ID, map[string]bool{}, map[string]uint64{}, map[string]uint64{}
	info, err := l.b.streamInfo(ctx, l.stream)
	if err != nil {
		return fmt.Errorf("stream %s: %w", l.stream, err)
	}
	state := info.State
	if !r.Record.Opened {
		l.mark, l.told = state.LastSeq, state.LastSeq
		return nil
	}
	l.mark, l.told = r.Record.Mark, r.Record.Mark
	if state.LastSeq < l.mark {
		return fmt.Errorf("%w: %s ends at %d, before what was recorded of it, so it was made anew: start a new replay", ErrReplayUnclear, l.stream, state.LastSeq)
	}
	if r.Unclear && state.FirstSeq > l.mark+1 {
		return fmt.Errorf("%w: it was broken off, and %s no longer has what was stored then: start a new replay behind event %d or later", ErrReplayUnclear, l.stream, r.Record.Done)
	}
	if r.Unclear {
		// What was on its way when the run before was killed comes to rest.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryPause):
		}
	}
	for m, err := range l.b.Scan(ctx, Scan{Stream: l.stream, Subjects: l.filter, From: l.mark + 1, HeadersOnly: true, Name: "cimbus-replay"}) {
		if err != nil {
			return err
		}
		if LastHeader(m.Header, HeaderReplayID) == l.id {
			l.found(l.lane(m.Subject, m.Header), l.of(m.Header))
			l.mark = m.Sequence
		}
	}
	return nil
}

// found notes that a lane has what was made of an event, and so of all before it.
func (l *lanes) found(lane string, of uint64) {
	l.has[lane] = max(l.has[lane], of)
	l.ahead = max(l.ahead, of)
}

// put sends a message made of an event, unless it is stored already.
func (l *lanes) put(ctx context.Context, of uint64, m *nats.Msg) error {
	lane := l.lane(m.Subject, m.Header)
	l.last = of
	if l.has[lane] >= of {
		return nil
	}
	for l.busy[lane] || len(l.under) >= laneWindow {
		if err := l.settle(ctx); err != nil {
			return err
		}
	}
	if l.fenced {
		if err := l.learn(ctx, m.Subject); err != nil {
			return err
		}
		if l.has[lane] >= of {
			return nil
		}
	}
	l.send(lane, of, m)
	return nil
}

// learn finds the last message of a subject. What an earlier run had still on its way when this one began may have come since.
func (l *lanes) learn(ctx context.Context, subject string) error {
	if _, known := l.marks[subject]; known {
		return nil
	}
	last, err := l.b.LastMessage(ctx, l.stream, subject)
	if errors.Is(err, ErrNoMessage) {
		l.marks[subject] = 0
		return nil
	}
	if err != nil {
		return err
	}
	if last.Sequence > l.known {
		for m, err := range l.b.Scan(ctx, Scan{Stream: l.stream, Subjects: []string{subject}, From: l.known + 1, Upto: last.Sequence, HeadersOnly: true, Name: "cimbus-replay"}) {
			if err != nil {
				return err
			}
			if LastHeader(m.Header, HeaderReplayID) == l.id {
				l.found(subject, l.of(m.Header))
			}
		}
	}
	l.marks[subject] = last.Sequence
	return nil
}

func (l *lanes) send(lane string, of uint64, m *nats.Msg) {
	if l.fenced {
		m.Header[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(l.marks[m.Subject], 10)}
	}
	next := laned{lane: lane, msg: m, of: of}
	next.future, next.err = l.b.js.PublishMsgAsync(m)
	l.under = append(l.under, next)
	l.busy[lane] = true
}

// settle waits for the oldest message under way to be stored.
func (l *lanes) settle(ctx context.Context) error {
	if l.lost != nil {
		return l.lost
	}
	m := l.under[0]
	err := m.err
	if err == nil {
		timeout := time.NewTimer(defaultAckWait)
		select {
		case ack := <-m.future.Ok():
			l.stored(m.msg.Subject, ack.Sequence)
		case err = <-m.future.Err():
		case <-timeout.C:
			err = nats.ErrTimeout
		case <-ctx.Done():
			err = ctx.Err()
		}
		timeout.Stop()
	}
	if err != nil {
		err = l.again(ctx, m, err)
	}
	if err != nil {
		return err
	}
	l.under = l.under[1:]
	delete(l.busy, m.lane)
	return nil
}

func (l *lanes) stored(subject string, sequence uint64) {
	l.mark = max(l.mark, sequence)
	if l.fenced {
		l.marks[subject] = sequence
	}
}

// again brings a message home whose publish failed or was not answered. What the stream has of it decides, not the error: a lost answer
// and a lost message look the same. Its message id, or the fence, keeps it from being stored twice where one is still on its way.
func (l *lanes) again(ctx context.Context, m laned, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, defaultRetryFor)
	defer cancel()
	for {
		l.lost = denied(l.b.nc, m.msg.Subject)
		if l.lost == nil && (refusedForGood(cause) || errors.Is(cause, nats.ErrMaxPayload)) {
			l.lost = fmt.Errorf("event %d to %s: %w", m.of, m.msg.Subject, cause)
		}
		if l.lost != nil {
			return l.lost
		}
		found, err := l.find(ctx, m)
		if err == nil && found {
			return nil
		}
		if err == nil {
			again := &nats.Msg{Subject: m.msg.Subject, Header: cloned(m.msg.Header), Data: m.msg.Data}
			if l.fenced {
				again.Header[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(l.marks[m.msg.Subject], 10)}
			}
			try, cancel := context.WithTimeout(ctx, defaultAckWait)
			ack, published := l.b.js.PublishMsg(try, again)
			cancel()
			if published == nil {
				l.stored(m.msg.Subject, ack.Sequence)
				return nil
			}
			err = published
		}
		cause = err
		select {
		case <-ctx.Done():
			return fmt.Errorf("event %d to %s: %w", m.of, m.msg.Subject, cause)
		case <-time.After(retryPause):
		}
	}
}

// find looks for a message of the replay in what was stored on its subject since the last one known.
func (l *lanes) find(ctx context.Context, m laned) (bool, error) {
	from := l.floor
	if l.fenced {
		from = l.marks[m.msg.Subject]
	}
	found := false
	for stored, err := range l.b.Scan(ctx, Scan{Stream: l.stream, Subjects: []string{m.msg.Subject}, From: from + 1, HeadersOnly: true, Name: "cimbus-replay"}) {
		if err != nil {
			return false, err
		}
		if l.fenced {
			l.marks[m.msg.Subject] = stored.Sequence // somebody else's messages are before ours then
		}
		if LastHeader(stored.Header, HeaderReplayID) == l.id && l.of(stored.Header) == m.of {
			found = true
		}
	}
	return found, nil
}

// flush waits for all that is under way, and returns a place in the stream behind which everything is that it has of events not put yet.
func (l *lanes) flush(ctx context.Context) (uint64, error) {
	for len(l.under) > 0 {
		if err := l.settle(ctx); err != nil {
			return 0, err
		}
	}
	l.floor = l.mark
	// As long as the stream has something of events that are still to come, what is recorded is before that.
	if !l.torn && l.last >= l.ahead {
		l.told = l.mark
	}
	return l.told, nil
}

func cloned(h nats.Header) nats.Header {
	out := make(nats.Header, len(h))
	for k, v := range h {
		out[k] = append([]string(nil), v...)
	}
	return out
}
