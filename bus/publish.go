package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	defaultAckWait  = 5 * time.Second
	defaultRetryFor = 30 * time.Second
	// firstAckWait is how long one Publish awaits its first answer. It is short because a connection lost at the wrong moment tells
	// nobody that the answer will not come; every further try waits twice as long.
	firstAckWait = time.Second
	// retryPause is the wait before an event is sent again that nobody took, or that the connection could not take.
	retryPause = 250 * time.Millisecond
	// noResponders is how often in a row nobody may take an event before it is asked whether the stream exists at all; it has no
	// leader during an election.
	noResponders = 2
)

// Publish stores an event and waits for the acknowledgement: a Receipt means it is stored. Within ctx, and 30 seconds where ctx has no
// deadline, it tries again after every failure that may pass, with the same message id. Errors: ErrInvalidEvent, ErrTooLarge,
// ErrStoreFull, ErrNoStream, ErrUnauthorized, ErrUnreachable and ErrClosed say that the event is not stored; ErrUnknownOutcome says
// that it may be. Calls do not wait for each other: two at once are stored in either order.
func (b *Bus) Publish(ctx context.Context, e Event) (Receipt, error) {
	msg, err := e.message()
	if err != nil {
		b.published.count(e.Tenant, Receipt{}, err)
		return Receipt{}, err
	}
	span := b.startPublish(ctx, &e, msg)
	receipt, err := b.publish(ctx, msg)
	endPublish(span, receipt, err)
	b.published.count(e.Tenant, receipt, err)
	return receipt, err
}

func (b *Bus) publish(ctx context.Context, msg *nats.Msg) (Receipt, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultRetryFor)
		defer cancel()
	}
	p := syncPublish{b: b, msg: msg}
	for {
		receipt, done, err := p.try(ctx)
		if done {
			return receipt, err
		}
		select {
		case <-ctx.Done():
			return Receipt{}, p.giveUp(ctx.Err())
		case <-b.closed:
			return Receipt{}, p.giveUp(ErrClosed)
		case <-time.After(retryPause):
		}
	}
}

// syncPublish is one Publish on its way.
type syncPublish struct {
	b         *Bus
	msg       *nats.Msg
	tries     int
	unknown   time.Time // when a try was made whose outcome is not known, zero if there is none
	unheard   int       // tries in a row that nobody took
	lastError error
}

// try sends the event once, unless the connection is down. It reports whether that decided its fate.
func (p *syncPublish) try(ctx context.Context) (receipt Receipt, done bool, err error) {
	nc := p.b.nc
	switch {
	case nc.IsClosed(), p.b.ctx.Err() != nil:
		return Receipt{}, true, p.giveUp(ErrClosed)
	case !nc.IsConnected():
		// Nothing is left to the connection's own buffer: it would go out at some later time, whatever is said here.
		p.lastError = ErrUnreachable
		return Receipt{}, false, nil
	case !p.unknown.IsZero() && time.Since(p.unknown) > p.b.resendFor():
		// The server may have forgotten the message id and store the event twice.
		return Receipt{}, true, p.giveUp(nil)
	}
	started := time.Now()
	wait, cancel := context.WithTimeout(ctx, min(firstAckWait<<min(p.tries, maxBackoff), defaultAckWait))
	defer cancel()
	p.tries++
	answer, err := nc.RequestMsgWithContext(wait, p.msg)
	var kind answerKind
	if err != nil {
		kind, err = readFailure(err)
	} else {
		receipt, kind, err = readAnswer(p.msg.Subject, answer)
	}
	p.lastError = err
	switch kind {
	case answerStored:
		receipt.Duplicate = receipt.Duplicate && p.tries == 1
		return receipt, true, nil
	case answerRefused:
		return Receipt{}, true, fmt.Errorf("publish %s: %w", p.msg.Subject, err)
	case answerAgain:
		if p.nobody(ctx) {
			return Receipt{}, true, p.giveUp(jetstream.ErrStreamNotFound)
		}
		return Receipt{}, false, nil
	}
	if err := denied(nc, p.msg.Subject); err != nil {
		return Receipt{}, true, fmt.Errorf("publish: %w", err)
	}
	if p.unknown.IsZero() {
		p.unknown = started
	}
	return Receipt{}, false, nil
}

// nobody counts tries that found no stream and reports whether there is none.
func (p *syncPublish) nobody(ctx context.Context) bool {
	if !errors.Is(p.lastError, nats.ErrNoResponders) {
		p.unheard = 0
		return false
	}
	p.unheard++
	return p.unheard >= noResponders && p.b.eventsMissing(ctx)
}

// giveUp is the error of a publish that found no better answer.
func (p *syncPublish) giveUp(cause error) error {
	return publishError(p.msg.Subject, !p.unknown.IsZero(), p.lastError, cause)
}

// publishError is the error of an event that got no answer that decides: unknown if a try of it may have been stored.
func publishError(subject string, unknown bool, last, cause error) error {
	outcome := ErrUnreachable
	switch {
	case unknown:
		outcome = ErrUnknownOutcome
	case errors.Is(cause, ErrClosed):
		outcome = ErrClosed
	case errors.Is(last, nats.ErrNoResponders), errors.Is(cause, nats.ErrNoResponders):
		outcome = ErrNoStream
	}
	err := fmt.Errorf("publish %s: %w", subject, outcome)
	for _, more := range []error{last, cause} {
		if more != nil && !errors.Is(err, more) {
			err = fmt.Errorf("%w: %w", err, more)
		}
	}
	return err
}

// eventsMissing reports whether the server says for sure that there is no CIM_EVENTS.
func (b *Bus) eventsMissing(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := b.js.Stream(ctx, StreamEvents)
	return errors.Is(err, jetstream.ErrStreamNotFound)
}

// resendFor is how long after a try with unknown outcome the event may be sent again: the server must still know its message id.
func (b *Bus) resendFor() time.Duration { return b.streams.withDefaults().DuplicateWindow / 2 }
