package bus

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// ReplayTarget takes the events of a replay. One goroutine uses it.
type ReplayTarget interface {
	// Open makes the target ready before the first event. Where the replay goes on it finds out what the target has beyond the record:
	// either all up to some event, which it returns, or Put leaves out what is there.
	Open(ctx context.Context, r OpenReplay) (Ahead, error)
	// Put takes an event, and may keep it until Flush. It reports whether the target had a use for it.
	Put(ctx context.Context, e StoredEvent) (used bool, err error)
	// Flush makes sure of everything that was put, and says where the target is then: bytes of a file, a stream's last sequence. What
	// it has of events that were not put yet is behind that.
	Flush(ctx context.Context) (mark uint64, err error)
	// Close lets go of the target; what was not flushed may be lost.
	Close() error
}

// OpenReplay is what a target has to know of the replay.
type OpenReplay struct {
	Record  ReplayRecord
	Resumed bool
	Unclear bool // the run before was broken off: the target may have more than the record says
}

// Ahead is what a target has beyond the record of its replay. The zero value is nothing.
type Ahead struct {
	Done   uint64 // every selected event up to this sequence
	Events uint64 // how many of them are beyond the record
	// Recount: the target has less than was recorded, and Done and Events tell all that it has.
	Recount bool
}

const (
	checkpointEvery = time.Second
	progressEvery   = 100 * time.Millisecond
	// replayEnd is how long an ending replay has to flush its target and to record how far it is.
	replayEnd = 15 * time.Second
	// worthFlushing is the shortest wait for the pace before which the target is flushed.
	worthFlushing = 5 * time.Millisecond
)

// ErrReplayStopped is the error of a replay that somebody stopped.
var ErrReplayStopped = errors.New("the replay was stopped")

// To carries the replay out: everything that is selected goes to the target in the order of CIM_EVENTS. It returns the record of how
// far it came, and ErrReplayStopped where ctx ended or somebody asked for that. What went to the target before an error is in the
// record, or the target itself tells when the replay goes on: then it repeats nothing that was flushed.
func (r *Replay) To(ctx context.Context, t ReplayTarget) (ReplayRecord, error) {
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	end, err := r.answer(func() { stop(ErrReplayStopped) })
	if err != nil {
		return r.end(ctx, t, err)
	}
	defer end()
	err = r.carry(running, t)
	if err != nil && running.Err() != nil && !errors.Is(err, ErrReplayTaken) {
		stopped := fmt.Errorf("replay %q: %w", r.record.ID, ErrReplayStopped)
		if !errors.Is(err, context.Canceled) {
			stopped = errors.Join(stopped, err)
		}
		err = stopped
	}
	return r.end(ctx, t, err)
}

// carry is the way of the events. Only what was flushed is recorded as done.
func (r *Replay) carry(ctx context.Context, t ReplayTarget) error {
	ahead, err := t.Open(ctx, OpenReplay{Record: r.record, Resumed: r.resumed, Unclear: r.unclear})
	if err != nil {
		return err
	}
	switch {
	case ahead.Recount:
		r.record.Done, r.record.Events, r.record.LeftOut = ahead.Done, ahead.Events, 0
	case ahead.Done > r.record.Done:
		r.record.Done = ahead.Done
		r.record.Events += ahead.Events
	}
	if !r.record.Opened {
		// From here on what the target has may be this replay's.
		r.record.Opened = true
		if err := r.checkpoint(ctx, t, r.record); err != nil {
			return err
		}
	}
	p := &passage{Replay: r, target: t, now: r.record, pace: pacer{Pace: r.pace}, noted: time.Now()}
	err = p.events(ctx, r.stored(ctx), false)
	if err == nil {
		p.now.Done = max(p.now.Done, p.now.Last)
		if p.now.Follow {
			if err = r.checkpoint(ctx, t, p.now); err == nil {
				err = p.events(ctx, r.later(ctx), true)
			}
		}
	}
	if errors.Is(err, ErrReplayTaken) {
		return err
	}
	// However it ended, what was put is made sure of.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), replayEnd)
	defer cancel()
	mark, flushErr := t.Flush(ending)
	if flushErr == nil {
		r.keep(p.now, mark)
	}
	return errors.Join(err, flushErr)
}

// passage is the way of events from the stream to the target.
type passage struct {
	*Replay
	target ReplayTarget
	now    ReplayRecord // with what was put, flushed or not
	pace   pacer
	noted  time.Time // last checkpoint
	told   time.Time // last progress
}

// events puts events one after the other. Of live ones nobody knows when the next comes: they do not wait for it.
func (p *passage) events(ctx context.Context, events iter.Seq2[StoredEvent, error], live bool) error {
	for e, err := range events {
		if err == nil {
			err = ctx.Err() // what was read ahead comes all the same
		}
		if err == nil && p.pace.Pace != (Pace{}) {
			err = p.await(ctx, p.target, p.now, p.pace.due(e.Time))
		}
		if err != nil {
			return err
		}
		used, err := p.target.Put(ctx, e)
		if err != nil {
			return err
		}
		p.now.Done = e.Sequence
		p.now.Events++
		if !used {
			p.now.LeftOut++
		}
		if live {
			if _, err := p.target.Flush(ctx); err != nil {
				return err
			}
		}
		at := time.Now()
		if at.Sub(p.told) >= progressEvery {
			p.told = at
			p.tell(p.now)
		}
		if at.Sub(p.noted) >= checkpointEvery {
			p.noted = at
			if err := p.checkpoint(ctx, p.target, p.now); err != nil {
				return err
			}
		}
	}
	return nil
}

// await waits until an event is due. What was put before is at the target meanwhile.
func (r *Replay) await(ctx context.Context, t ReplayTarget, now ReplayRecord, due time.Time) error {
	wait := time.Until(due)
	if wait <= 0 {
		return ctx.Err()
	}
	if wait >= worthFlushing {
		var err error
		if wait >= checkpointEvery {
			err = r.checkpoint(ctx, t, now)
			r.tell(now)
		} else {
			_, err = t.Flush(ctx)
		}
		if err != nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(due)):
		return nil
	}
}

// checkpoint makes sure of what was put, then records it.
func (r *Replay) checkpoint(ctx context.Context, t ReplayTarget, now ReplayRecord) error {
	mark, err := t.Flush(ctx)
	if err != nil {
		return err
	}
	r.keep(now, mark)
	return r.note(ctx)
}

// keep takes over what is at the target for sure.
func (r *Replay) keep(now ReplayRecord, mark uint64) {
	turn := &r.record.Runs[len(r.record.Runs)-1]
	turn.Events += now.Events - r.record.Events
	r.record.Done, r.record.Events, r.record.LeftOut, r.record.Mark = now.Done, now.Events, now.LeftOut, mark
}

func (r *Replay) note(ctx context.Context) error {
	if r.unrecorded {
		return nil
	}
	err := r.b.recordReplay(ctx, &r.record)
	if errors.Is(err, errRecordOvertaken) {
		return fmt.Errorf("replay %q: %w", r.record.ID, ErrReplayTaken)
	}
	return err
}

func (r *Replay) tell(now ReplayRecord) {
	if r.Progress != nil {
		r.Progress(now)
	}
}

// end records how the replay ended.
func (r *Replay) end(ctx context.Context, t ReplayTarget, err error) (ReplayRecord, error) {
	err = errors.Join(err, t.Close())
	switch {
	case errors.Is(err, ErrReplayTaken):
		return r.record, err // the record is somebody else's now
	case err == nil:
		r.record.State = ReplayDone
	case errors.Is(err, ErrReplayStopped):
		r.record.State = ReplayStopped
	default:
		r.record.State, r.record.Error = ReplayFailed, err.Error()
	}
	at := time.Now().UTC()
	r.record.Runs[len(r.record.Runs)-1].Ended = &at
	r.tell(r.record)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), replayEnd)
	defer cancel()
	return r.record, errors.Join(err, r.note(ctx))
}
