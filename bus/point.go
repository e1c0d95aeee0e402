package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Point is a place in a stream, by one of: a sequence, a moment, or an agent's position. The zero value is none.
type Point struct {
	Sequence uint64
	Time     time.Time
	Position Position
}

// IsZero tells whether no place is named.
func (p Point) IsZero() bool {
	return p.Sequence == 0 && p.Time.IsZero() && p.Position == Position{}
}

// String is the point as people give it, "" for none.
func (p Point) String() string {
	switch {
	case p.Sequence != 0:
		return strconv.FormatUint(p.Sequence, 10)
	case !p.Time.IsZero():
		return p.Time.UTC().Format(time.RFC3339Nano)
	case p.Position != Position{}:
		return p.Position.String()
	}
	return ""
}

// RangeError says that a point is not within what a stream holds.
type RangeError struct {
	Stream    string
	Problem   string // about the point, as "sequence 12 has expired"
	First     uint64 // what the stream holds: its sequences and their times; First above Last = nothing
	Last      uint64
	FirstTime time.Time
	LastTime  time.Time
}

// Error names the point, and the range there is.
func (e *RangeError) Error() string {
	if e.First > e.Last {
		return fmt.Sprintf("%s: %s holds nothing", e.Problem, e.Stream)
	}
	return fmt.Sprintf("%s: %s holds %d (%s) to %d (%s)", e.Problem, e.Stream,
		e.First, e.FirstTime.UTC().Format(time.RFC3339), e.Last, e.LastTime.UTC().Format(time.RFC3339))
}

// ErrForeignPosition is returned for a position that is not one of the stream asked for: of another bus, or of one that was made anew.
var ErrForeignPosition = errors.New("position of another stream")

// Span is a stretch of a stream, both ends included. One without messages has First above Last.
type Span struct {
	Stream string
	First  uint64
	Last   uint64
}

// Span finds the sequences of a stretch of StreamEvents or StreamDeliveries. Where from is zero it begins with the first message there
// is, where until is zero it ends with the last one that the leader has now; both points are included. A moment stands for the first
// message stored then or later, at the end for the last one stored then or before. A position stands for its delivery and, in
// StreamEvents, for the event that was made of. A point that cannot be in the stream is a *RangeError: in the future, beyond the last
// message, or a sequence that has expired; a moment before the first message is none.
func (b *Bus) Span(ctx context.Context, stream string, from, until Point) (Span, error) {
	s := Span{Stream: stream}
	info, err := b.streamInfo(ctx, stream)
	if err != nil {
		return s, fmt.Errorf("stream %s: %w", stream, err)
	}
	state := info.State
	ranged := &RangeError{Stream: stream, First: state.FirstSeq, Last: state.LastSeq, FirstTime: state.FirstTime, LastTime: state.LastTime}
	if state.Msgs == 0 {
		ranged.First = state.LastSeq + 1
	}
	if from, err = b.placed(ctx, stream, from); err != nil {
		return s, err
	}
	if until, err = b.placed(ctx, stream, until); err != nil {
		return s, err
	}
	for _, p := range []Point{from, until} {
		switch {
		case p.Sequence > ranged.Last:
			ranged.Problem = fmt.Sprintf("sequence %d is beyond the end", p.Sequence)
			return s, ranged
		case p.Sequence != 0 && p.Sequence < ranged.First:
			ranged.Problem = fmt.Sprintf("sequence %d has expired", p.Sequence)
			return s, ranged
		case p.Time.After(time.Now().Add(clockSkew)):
			ranged.Problem = fmt.Sprintf("%s is in the future", p.Time.Format(time.RFC3339))
			return s, ranged
		}
	}
	s.First, s.Last = max(from.Sequence, ranged.First), ranged.Last
	if until.Sequence != 0 {
		s.Last = until.Sequence
	}
	if !from.Time.IsZero() {
		if s.First, err = b.firstSince(ctx, ranged, from.Time); err != nil {
			return s, err
		}
	}
	if !until.Time.IsZero() {
		next, err := b.firstSince(ctx, ranged, until.Time.Add(1))
		if err != nil {
			return s, err
		}
		s.Last = next - 1
	}
	return s, nil
}

// placed is a point without position: the sequence that stands for it.
func (b *Bus) placed(ctx context.Context, stream string, p Point) (Point, error) {
	if (p.Position == Position{}) {
		return p, nil
	}
	info, err := b.streamInfo(ctx, StreamDeliveries)
	if err != nil {
		return p, fmt.Errorf("stream %s: %w", StreamDeliveries, err)
	}
	copied, restored := lineageOf(info.Config.Metadata).last(p.Position.Identity)
	if p.Position.Identity != "" && p.Position.Identity != streamIdentity(info.Created) && (!restored || p.Position.Sequence > copied) {
		return p, fmt.Errorf("position %s: %w: %s was made anew since, or belongs to another bus", p.Position, ErrForeignPosition, StreamDeliveries)
	}
	m, err := b.MessageAt(ctx, StreamDeliveries, p.Position.Sequence)
	if errors.Is(err, ErrNoMessage) {
		return p, &RangeError{
			Stream: StreamDeliveries, Problem: fmt.Sprintf("the delivery at position %s is not there", p.Position),
			First: info.State.FirstSeq, Last: info.State.LastSeq, FirstTime: info.State.FirstTime, LastTime: info.State.LastTime,
		}
	}
	if err != nil {
		return p, fmt.Errorf("position %s: %w", p.Position, err)
	}
	if at := p.Position.Stored; !at.IsZero() && !at.Equal(m.Time) {
		return p, fmt.Errorf("position %s: %w: %s is an older copy that was restored, and gave the sequence out again", p.Position, ErrForeignPosition, StreamDeliveries)
	}
	switch s := SequenceOf(m.Header); {
	case stream == StreamDeliveries:
		return Point{Sequence: m.Sequence}, nil
	case s == 0:
		return Point{Time: m.Time}, nil // what concerns the agent alone was made of no event
	default:
		return Point{Sequence: s}, nil
	}
}

// firstSince is the sequence of the first message stored at or after a moment, the one behind the last if there is none. Times grow
// along a stream, and mostly evenly: so every other guess is where the moment should be, and the others halve what is left. Each costs a
// read at another place of the stream.
func (b *Bus) firstSince(ctx context.Context, r *RangeError, at time.Time) (uint64, error) {
	found := r.Last + 1
	low, high := max(r.First, 1), r.Last // the first one is in [low, high], or found
	lowTime, highTime := r.FirstTime, r.LastTime
	for guess := true; low <= high; guess = !guess {
		middle := low + (high-low)/2
		if share := at.Sub(lowTime).Seconds() / highTime.Sub(lowTime).Seconds(); guess && !lowTime.IsZero() && share >= 0 && share < 1 {
			middle = min(low+uint64(share*float64(high-low)), high)
		}
		m, err := b.NextMessage(ctx, r.Stream, middle, ">")
		switch {
		case errors.Is(err, ErrNoMessage):
			high = middle - 1
			continue
		case err != nil:
			return 0, fmt.Errorf("find %s in stream %s: %w", at.Format(time.RFC3339), r.Stream, err)
		}
		if m.Time.Before(at) {
			low, lowTime = m.Sequence+1, m.Time
		} else {
			found, high, highTime = min(found, m.Sequence), middle-1, m.Time
		}
	}
	return found, nil
}
