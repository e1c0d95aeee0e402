package bus

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nuid"
)

// NewReplay says what is to be replayed, how, and who wants it.
type NewReplay struct {
	ID        string // default: a new one
	Operator  string // recorded; required
	Target    string // recorded, for people and for who goes on with it; required
	Selection EventSelection
	// Span is the stretch that is replayed, see Bus.Span: From and Until of the selection are only recorded.
	Span Span
	// Follow goes on with what is stored later, until ctx ends.
	Follow bool
	Pace   Pace
	// Unrecorded replays without a record, so that nobody hears of it and nobody can go on with it: for those who may only read.
	Unrecorded bool
}

// Replay is a replay that this process is to carry out.
type Replay struct {
	b          *Bus
	record     ReplayRecord
	selection  EventSelection
	pace       Pace
	resumed    bool
	unclear    bool // the run before was broken off: the target may have more than the record says
	unrecorded bool
	// Progress is told how far the replay is, about every tenth of a second, and at the end. It must return soon.
	Progress func(ReplayRecord)
}

// Record is how far the replay is.
func (r *Replay) Record() ReplayRecord { return r.record }

// StartReplay records a new replay. It fails with ErrReplayExists for an id that was used, and with ErrReplayUnrecorded where no
// record can be written.
func (b *Bus) StartReplay(ctx context.Context, n NewReplay) (*Replay, error) {
	if n.Operator == "" || n.Target == "" {
		return nil, errors.New("replay: say who replays, and where to: operator and target are required")
	}
	if err := n.Selection.Validate(); err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	info, err := b.streamInfo(ctx, StreamEvents)
	if err != nil {
		return nil, fmt.Errorf("replay: stream %s: %w", StreamEvents, err)
	}
	now := time.Now().UTC()
	r := &Replay{b: b, selection: n.Selection, pace: n.Pace, unrecorded: n.Unrecorded, record: ReplayRecord{
		ID: n.ID, State: ReplayRunning, Operator: n.Operator, Target: n.Target, Pace: n.Pace.String(),
		Selection: recordedSelection(n.Selection), Follow: n.Follow, Stream: streamIdentity(info.Created),
		First: n.Span.First, Last: n.Span.Last, Started: now, Done: max(n.Span.First, 1) - 1,
	}}
	if r.record.ID == "" {
		r.record.ID = nuid.Next()
	}
	r.turn(n.Operator)
	if err := r.begin(ctx, ErrReplayExists); err != nil {
		return nil, err
	}
	return r, nil
}

// ResumeReplay takes up a replay where it stopped, failed or was broken off. What is replayed, where to and how fast is as it was
// recorded. It fails with ErrNoReplay, ErrReplayDone, and ErrReplayRunning where the replay still answers.
func (b *Bus) ResumeReplay(ctx context.Context, id, operator string) (*Replay, error) {
	record, err := b.Replay(ctx, id)
	if err != nil {
		return nil, err
	}
	running := b.ReplayRuns(ctx, id)
	switch {
	case running:
		return nil, fmt.Errorf("replay %q: %w: stop it first with cimbus replay stop %s", id, ErrReplayRunning, id)
	case record.State == ReplayDone:
		return nil, fmt.Errorf("replay %q: %w: start a new one", id, ErrReplayDone)
	}
	info, err := b.streamInfo(ctx, StreamEvents)
	if err != nil {
		return nil, fmt.Errorf("replay %q: stream %s: %w", id, StreamEvents, err)
	}
	if record.Stream != streamIdentity(info.Created) {
		return nil, fmt.Errorf("replay %q: %s was made anew since, its events are others now: start a new one", id, StreamEvents)
	}
	r := &Replay{b: b, record: record, selection: record.Selection.Selects(), resumed: true, unclear: record.State == ReplayRunning}
	if r.pace, err = ParsePace(record.Pace); err != nil {
		return nil, fmt.Errorf("replay %q: %w", id, err)
	}
	r.record.State, r.record.Error = ReplayRunning, ""
	r.turn(operator)
	if err := r.begin(ctx, ErrReplayTaken); err != nil {
		return nil, err
	}
	return r, nil
}

// Resumed tells whether the replay goes on where an earlier run ended.
func (r *Replay) Resumed() bool { return r.resumed }

// Expired is the last event of what is still to be replayed that has expired since, 0 if all of it is there.
func (r *Replay) Expired(ctx context.Context) (uint64, error) {
	info, err := r.b.streamInfo(ctx, StreamEvents)
	if err != nil {
		return 0, err
	}
	if first := info.State.FirstSeq; first > r.record.Done+1 && r.record.Done < r.record.Last {
		return min(first-1, r.record.Last), nil
	}
	return 0, nil
}

// GoOnAfter has a replay whose target cannot be read back go on after a sequence, which who reads the target knows better than the
// record does.
func (r *Replay) GoOnAfter(sequence uint64) error {
	if sequence+1 < r.record.First || sequence > r.record.Last && !r.record.Follow {
		return fmt.Errorf("sequence %d is not within the replay, which is from %d to %d", sequence, r.record.First, r.record.Last)
	}
	r.record.Done = sequence
	return nil
}

func (r *Replay) turn(operator string) {
	r.record.Runs = append(r.record.Runs, ReplayTurn{Operator: operator, Began: time.Now().UTC(), After: r.record.Done})
}

// begin takes the replay: of several who try, one does.
func (r *Replay) begin(ctx context.Context, taken error) error {
	if r.unrecorded {
		return nil
	}
	err := r.b.recordReplay(ctx, &r.record)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errRecordOvertaken):
		return fmt.Errorf("replay %q: %w", r.record.ID, taken)
	}
	return fmt.Errorf("replay %q: %w: %w", r.record.ID, ErrReplayUnrecorded, err)
}

// stored are the events still to be replayed of those that were there when it began.
func (r *Replay) stored(ctx context.Context) iter.Seq2[StoredEvent, error] {
	if r.record.Done >= r.record.Last {
		return func(func(StoredEvent, error) bool) {}
	}
	return r.b.EventsIn(ctx, r.selection, Span{Stream: StreamEvents, First: r.record.Done + 1, Last: r.record.Last})
}

// later are the events that are stored after that, until ctx ends.
func (r *Replay) later(ctx context.Context) iter.Seq2[StoredEvent, error] {
	return func(yield func(StoredEvent, error) bool) {
		filters, err := r.selection.Subjects()
		if err != nil {
			yield(StoredEvent{}, err)
			return
		}
		from := max(r.record.Done, r.record.Last) + 1
		for m, err := range r.b.Scan(ctx, Scan{Stream: StreamEvents, Subjects: filters, From: from, Follow: true, Name: "cimbus-replay"}) {
			if err != nil {
				yield(StoredEvent{}, err)
				return
			}
			if e, ok := r.selection.Read(m); ok && !yield(e, nil) {
				return
			}
		}
	}
}
