package bus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"
)

// catchUp reads a page after the verified position and hands out what was not.
func (f *feed) catchUp(ctx context.Context) error {
	page, messages, err := f.back.resume(ctx, f.verified, f.gap)
	if err == nil {
		err = f.sameLog(page.last)
	}
	if err != nil {
		return f.refused(ctx, err)
	}
	f.failures, f.gap = 0, false
	var waiting *Delivery // its position moves past what follows it and was handed out before
	for _, m := range messages {
		missed := m.Sequence > f.verified.Sequence && !f.has(m.Sequence)
		if missed {
			if waiting != nil {
				if err := f.hand(ctx, waiting); err != nil {
					return err
				}
			}
			waiting = delivery(m)
			f.handed[m.Sequence] = m.Time.UnixNano()
		}
		// What was handed out before the break moves the position on and never back: resumed from there it would come again.
		if missed || m.Sequence > f.position.Sequence {
			f.position = f.at(m.Sequence, m.Time)
		}
	}
	if waiting != nil {
		if err := f.hand(ctx, waiting); err != nil {
			return err
		}
	}
	stuck := page.last.Sequence == f.verified.Sequence
	f.confirm(page.last)
	if page.more {
		return nil
	}
	f.behind, f.unsure = false, false
	f.nextCheck = time.Now().Add(f.o.CheckEvery)
	if f.held != nil && stuck {
		// The log does not reach the live message yet, nor what is before it: its leader changed.
		return f.pause(ctx, minRetryWait, nil)
	}
	return nil
}

// makeSure asks the log before anything further is handed out.
func (f *feed) makeSure(ctx context.Context) error {
	upto, count, more, err := f.back.check(ctx, &f.verified)
	if err == nil {
		err = f.sameLog(upto)
	}
	if err != nil {
		return f.refused(ctx, err)
	}
	f.failures = 0
	f.unsure = false
	if count != f.handedUpto(upto) {
		f.behind, f.gap = true, true
		return nil
	}
	f.confirm(upto)
	f.unsure = more
	return nil
}

// routineCheck asks the log while deliveries go on: what it counts may be on its way.
func (f *feed) routineCheck(ctx context.Context) error {
	upto, count, more, err := f.back.check(ctx, &f.verified)
	if err == nil {
		err = f.sameLog(upto)
	}
	if err != nil {
		var expired *ExpiredError
		if errors.As(err, &expired) || !transientFailure(err) {
			return f.refused(ctx, err)
		}
		f.failures++
		f.nextCheck = time.Now().Add(f.backoff())
		return ctx.Err()
	}
	f.failures = 0
	f.nextCheck = time.Now().Add(f.o.CheckEvery)
	if more {
		f.nextCheck = time.Now()
	}
	for late := time.Now().Add(min(lateLive, f.o.CheckEvery)); f.handedUpto(upto) < count && time.Until(late) > 0; {
		if f.notice(); f.behind || f.unsure {
			return nil
		}
		if m := f.live.pop(); m != nil {
			if err := f.receive(ctx, m); err != nil {
				return err
			}
		} else if err := f.pause(ctx, time.Until(late), f.wake); err != nil {
			return err
		}
	}
	if f.handedUpto(upto) != count {
		f.log.Debug("deliveries were missed, reading them from the log")
		f.behind, f.gap = true, true
		return nil
	}
	f.confirm(upto)
	return nil
}

// sameLog refuses a log that was restored from a copy while this stream went on: what was handed out after the verified position may be in
// it under other sequences, or not at all.
func (f *feed) sameLog(upto Position) error {
	if upto.Identity == f.identity {
		return nil
	}
	return &ExpiredError{From: Position{Identity: upto.Identity, Sequence: f.verified.Sequence}, To: upto, Reason: ExpiredRestored}
}

// handedUpto counts what was handed out after the verified position and up to p.
func (f *feed) handedUpto(p Position) uint64 {
	n := uint64(0)
	for seq := range f.handed {
		if seq <= p.Sequence {
			n++
		}
	}
	return n
}

// refused deals with a request that failed while nothing may be handed out.
func (f *feed) refused(ctx context.Context, err error) error {
	var expired *ExpiredError
	if errors.As(err, &expired) && f.o.SkipExpired {
		f.skip(expired)
		return nil
	}
	return f.wait(ctx, err)
}

// wait waits to try again what failed with err; it returns err itself when that is of no use.
func (f *feed) wait(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	if !transientFailure(err) {
		return err
	}
	if f.failures++; f.failures == 1 {
		f.log.Warn("the log of deliveries cannot be asked, trying again", "error", err)
	}
	if waitErr := f.pause(ctx, f.backoff(), nil); waitErr != nil {
		return fmt.Errorf("%w: %w", waitErr, err)
	}
	return nil
}

// transientFailure reports whether a request may succeed later: all but what the service says is wrong with it, and an
// expired position.
func transientFailure(err error) bool {
	var expired *ExpiredError
	var told *ControlError
	switch {
	case errors.As(err, &expired), errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrBadSubscription):
		return false
	case errors.As(err, &told):
		return told.Code == CodeUnavailable || told.Code == CodeInternal
	}
	return true
}

// backoff grows with the failures in a row, with jitter: after an outage every agent asks.
func (f *feed) backoff() time.Duration {
	d := min(minRetryWait<<min(f.failures, 10), maxRetryWait)
	return d/2 + rand.N(d/2)
}

// pause waits for d, for wake, or until the connection changes.
func (f *feed) pause(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-wake:
	case <-f.moved:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
