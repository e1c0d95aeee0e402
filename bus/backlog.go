package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ExpiredError says that a position cannot be resumed from: messages after it may be gone, or it was taken of another stream.
// What is left is what follows From, up to To; going on from there is the caller's decision.
type ExpiredError struct {
	From   Position // resume after this position to get everything that is left
	To     Position // the last position there is
	Reason string   // one of the Expired constants
}

// The reasons of an ExpiredError.
const (
	ExpiredRecreated = "recreated" // the stream was deleted and made again since
	ExpiredRestored  = "restored"  // the stream was restored from an older copy, in which the message with this sequence is another one or none
	ExpiredAhead     = "ahead"     // the stream does not reach this sequence: it was restored from an older copy
	ExpiredDeleted   = "deleted"   // messages after the position were deleted, by age or for want of space
	ExpiredLimit     = "limit"     // a conversation had more messages after the position than are kept of one
)

// Error names the reason and what is left.
func (e *ExpiredError) Error() string {
	return fmt.Sprintf("position has expired (%s): resume after %s to get everything up to %s", e.Reason, e.From, e.To)
}

// deliveryLog is CIM_DELIVERIES as its leader described it at one time.
type deliveryLog struct {
	identity   string
	lineage    lineage // of what it is a restored copy
	metadata   map[string]string
	first      uint64 // first sequence that is stored
	last       uint64 // last sequence that was given out
	firstTime  time.Time
	lastTime   time.Time
	replicas   int
	perSubject int64 // messages kept of one subject, ≤ 0 = all
}

var errBeingRestored = errors.New("stream " + StreamDeliveries + " is being restored from a snapshot")

// describeDeliveries asks the leader, which alone answers for a stream.
func (b *Bus) describeDeliveries(ctx context.Context) (deliveryLog, error) {
	stream, err := b.js.Stream(ctx, StreamDeliveries)
	if err != nil {
		return deliveryLog{}, fmt.Errorf("stream %s: %w", StreamDeliveries, err)
	}
	info := stream.CachedInfo()
	if info.Config.Metadata[metadataRestoring] != "" {
		return deliveryLog{}, errBeingRestored // what is not there yet is neither missed nor expired
	}
	return deliveryLog{
		identity: streamIdentity(info.Created), lineage: lineageOf(info.Config.Metadata), metadata: info.Config.Metadata,
		first: info.State.FirstSeq, last: info.State.LastSeq, firstTime: info.State.FirstTime, lastTime: info.State.LastTime,
		replicas: info.Config.Replicas, perSubject: info.Config.MaxMsgsPerSubject,
	}, nil
}

// end is the position of the last message, of whichever agent: an agent's position moves with the stream, or that of one
// that hears nothing for three days would expire without anything of it being lost.
func (l deliveryLog) end() Position { return l.at(l.last, l.lastTime) }

func (l deliveryLog) at(seq uint64, t time.Time) Position {
	p := Position{Identity: l.identity, Sequence: seq}
	if t.UnixNano() > 0 {
		p.Stored = t
	}
	return p
}

// beginning is the position before everything that is left.
func (l deliveryLog) beginning() Position { return l.at(max(l.first, 1)-1, time.Time{}) }

func (l deliveryLog) expired(reason string) *ExpiredError {
	return &ExpiredError{From: l.beginning(), To: l.end(), Reason: reason}
}

// deleted is the answer to a position that was overtaken.
func (l deliveryLog) deleted(filter string) *ExpiredError {
	e := l.expired(ExpiredDeleted)
	if purged := purgedBefore(l.metadata, tenantToken(filter)); purged > l.first {
		e.From = l.at(purged-1, time.Time{})
	}
	return e
}

// overtaken reports whether messages after p were deleted from the front of the stream, or from the front of what the filter's tenant has
// there. They may have been of other agents; nobody can tell any more. The plain number 0 asks for what there is and never expires.
func (l deliveryLog) overtaken(filter string, p Position) bool {
	first := max(l.first, purgedBefore(l.metadata, tenantToken(filter)))
	return p.Sequence+1 < first && (p.Identity != "" || p.Sequence != 0)
}

// vet makes sure that a reading of l after p misses nothing; otherwise it returns an *ExpiredError. A plain number carries no
// proof of the stream it was taken of and is believed.
func (b *Bus) vet(ctx context.Context, l deliveryLog, filter string, p Position) error {
	if p.Identity != "" && p.Identity != l.identity {
		copied, restored := l.lineage.last(p.Identity)
		switch {
		case !restored:
			return l.expired(ExpiredRecreated)
		case p.Sequence > copied:
			return l.expired(ExpiredRestored)
		}
	}
	switch {
	case p.Sequence > l.last:
		return l.expired(ExpiredAhead)
	case l.overtaken(filter, p):
		return l.deleted(filter)
	case p.Stored.IsZero() || p.Sequence == 0 || p.Sequence < l.first:
		return nil
	}
	m, err := b.MessageAt(ctx, StreamDeliveries, p.Sequence)
	switch {
	case errors.Is(err, ErrNoMessage):
		return nil // deleted since, nothing says it was another one
	case err != nil:
		return err
	case !m.Time.Equal(p.Stored):
		return l.expired(ExpiredRestored)
	}
	return nil
}

// page is what a reading after a position found.
type page struct {
	last Position // read up to here: resume after it
	upto Position // the stream's end when the reading began
	more bool     // last is short of upto
}

// pageLimits bound one page.
type pageLimits struct {
	messages int
	bytes    int
}

// deliveriesAfter hands the messages on filter after p to take, in order, within limits (one message is always taken), and
// returns how far it came: up to the end that the leader told at the beginning, unless more is set. An *ExpiredError after
// messages were taken means that some between them may be missing.
func (b *Bus) deliveriesAfter(ctx context.Context, filter string, p Position, limits pageLimits, take func(*jetstream.RawStreamMsg) error) (page, error) {
	l, err := b.describeDeliveries(ctx)
	if err != nil {
		return page{}, err
	}
	if err := b.vet(ctx, l, filter, p); err != nil {
		return page{}, err
	}
	out := page{last: l.end(), upto: l.end()}
	if p.Sequence == l.last {
		return out, nil
	}
	n, bytes := 0, 0
	last := p
	for m, err := range b.Read(ctx, Range{
		Stream: StreamDeliveries, Filter: filter, From: p.Sequence + 1, Upto: l.last,
		Batch: min(limits.messages, maxPage), MaxBytes: min(limits.bytes, maxPageBytes),
	}) {
		if err != nil {
			return page{}, err
		}
		size := len(m.Data) + headerSize(m.Header)
		if n > 0 && bytes+size > limits.bytes {
			out.more = true
			break
		}
		if err := take(m); err != nil {
			return page{}, err
		}
		n, bytes = n+1, bytes+size
		last = l.at(m.Sequence, m.Time)
		if n == limits.messages {
			out.more = m.Sequence < l.last
			break
		}
	}
	if out.more {
		out.last = last
	}
	return out, b.intact(ctx, filter, p, n, out.more)
}

// intact makes sure that what was read after p was not deleted under the reader's hands, nor before it for the limit of
// messages of one subject. The latter leaves no trace in the stream's state; but it takes that many messages after p, so only
// when there are about as many is the leader asked how many each subject has.
func (b *Bus) intact(ctx context.Context, filter string, p Position, n int, more bool) error {
	l, err := b.describeDeliveries(ctx)
	if err != nil {
		return err
	}
	if l.overtaken(filter, p) {
		return l.deleted(filter)
	}
	if p.Identity == "" || l.perSubject <= 0 {
		return nil
	}
	// A replica's count may be a little behind, hence the half.
	near := uint64(l.perSubject+1) / 2
	if uint64(n) < near && !more {
		return nil
	}
	if pending, err := b.pendingFrom(ctx, StreamDeliveries, filter, p.Sequence+1); err != nil || pending < near {
		return err
	}
	return b.withinLimit(ctx, l, filter, p)
}

// withinLimit returns an *ExpiredError if a subject has as many messages as are kept of one, all of them after p: older ones,
// after p too, may have been deleted.
func (b *Bus) withinLimit(ctx context.Context, l deliveryLog, filter string, p Position) error {
	stream, err := b.js.Stream(ctx, StreamDeliveries)
	if err != nil {
		return fmt.Errorf("stream %s: %w", StreamDeliveries, err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(filter))
	if err != nil {
		return fmt.Errorf("subjects of stream %s: %w", StreamDeliveries, err)
	}
	for subject, count := range info.State.Subjects {
		if count < uint64(l.perSubject) {
			continue
		}
		first, err := b.NextMessage(ctx, StreamDeliveries, 1, subject)
		if errors.Is(err, ErrNoMessage) {
			continue
		}
		if err != nil {
			return err
		}
		if first.Sequence > p.Sequence {
			e := l.expired(ExpiredLimit)
			e.From = Position{Sequence: p.Sequence} // a plain number is believed: what the other subjects have is still there
			return e
		}
	}
	return nil
}

// countTries is how often a count is taken again because deliveries of the agent came in meanwhile.
const countTries = 3

// countPage bounds what is read to be counted: a count short of the end is as good, the next one goes on from there.
func countPage() pageLimits { return pageLimits{messages: 4096, bytes: 32 << 20} }

// countAfter counts the messages on filter after p and up to the position it returns; more says that this is short of the
// stream's end. Nothing that a replica says alone is taken for the count: one that is behind misses the same tail that an
// agent may have missed.
func (b *Bus) countAfter(ctx context.Context, filter string, p Position) (upto Position, count uint64, more bool, err error) {
	for try := 1; ; try++ {
		l, err := b.describeDeliveries(ctx)
		if err != nil {
			return Position{}, 0, false, err
		}
		if err := b.vet(ctx, l, filter, p); err != nil {
			return Position{}, 0, false, err
		}
		if p.Sequence == l.last {
			return l.end(), 0, false, nil
		}
		if l.replicas > 1 || try > countTries {
			return b.countByReading(ctx, filter, p)
		}
		count, err := b.pendingFrom(ctx, StreamDeliveries, filter, p.Sequence+1)
		if err != nil {
			return b.countByReading(ctx, filter, p)
		}
		// The count is as of some moment after l; it is that of (p, l.last] if nothing on filter follows l.last even now.
		after, err := b.pendingFrom(ctx, StreamDeliveries, filter, l.last+1)
		if err != nil || after != 0 {
			continue
		}
		now, err := b.describeDeliveries(ctx)
		if err != nil {
			return Position{}, 0, false, err
		}
		if now.overtaken(filter, p) || now.identity != l.identity {
			continue
		}
		return l.end(), count, false, nil
	}
}

func (b *Bus) countByReading(ctx context.Context, filter string, p Position) (upto Position, count uint64, more bool, err error) {
	page, err := b.deliveriesAfter(ctx, filter, p, countPage(), func(*jetstream.RawStreamMsg) error { count++; return nil })
	if err != nil {
		return Position{}, 0, false, err
	}
	return page.last, count, page.more, nil
}

func headerSize(h map[string][]string) int {
	n := 0
	for k, values := range h {
		for _, v := range values {
			n += len(k) + len(v) + 4
		}
	}
	return n
}
