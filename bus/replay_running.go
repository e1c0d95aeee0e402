package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cimbus/cimbus/subjects"
)

// replayWord is what a running replay is asked.
type replayWord struct {
	Stop bool `json:"stop"`
}

const (
	replayAsking   = 2 * time.Second  // how long a running replay has to answer
	replayStopping = 30 * time.Second // and to stop
)

// answer has the replay answer for as long as it runs. Whoever asks hears at once that nobody answers where it was killed: the server
// knows. It returns what ends that.
func (r *Replay) answer(stop func()) (end func(), err error) {
	if r.unrecorded {
		return func() {}, nil
	}
	subject, err := subjects.Replay{ID: r.record.ID}.Running()
	if err != nil {
		return nil, err
	}
	nc := r.b.nc
	// A reply subject is input: only an inbox is answered, or who may ask could have anything published.
	own := nc.NewInbox()
	own = own[:strings.LastIndexByte(own, '.')+1]
	sub, err := nc.Subscribe(subject, func(m *nats.Msg) {
		if !strings.HasPrefix(m.Reply, own) && !strings.HasPrefix(m.Reply, nats.InboxPrefix) {
			return
		}
		var word replayWord
		if json.Unmarshal(m.Data, &word) == nil && word.Stop {
			stop()
		}
		_ = m.Respond(nil) // who does not hear it asks again
	})
	if err != nil {
		return nil, err
	}
	return func() { _ = sub.Unsubscribe() }, nil // fails only on a closed connection
}

// ReplayRuns tells whether a replay is being carried out right now, by whatever process.
func (b *Bus) ReplayRuns(ctx context.Context, id string) bool {
	return b.askReplay(ctx, id, replayWord{}) == nil
}

// askReplay says something to a running replay; nats.ErrNoResponders where it does not run.
func (b *Bus) askReplay(ctx context.Context, id string, word replayWord) error {
	subject, err := subjects.Replay{ID: id}.Running()
	if err != nil {
		return err
	}
	body, err := json.Marshal(word)
	if err != nil {
		return err
	}
	// A connection that was closed a moment ago may still be asked, and not answer: the server knows better the second time.
	for range 2 {
		asking, cancel := context.WithTimeout(ctx, replayAsking)
		_, err = b.nc.RequestWithContext(asking, subject, body)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	if !word.Stop {
		return nil // it is there, and does not answer: it may go on at any time
	}
	return err
}

// StopReplay has a running replay stop and waits until it is recorded as it then is. One that was broken off is recorded as stopped
// already by nobody; its record is returned as it is.
func (b *Bus) StopReplay(ctx context.Context, id string) (ReplayRecord, error) {
	record, err := b.Replay(ctx, id)
	if err != nil {
		return record, err
	}
	if record.State != ReplayRunning {
		return record, fmt.Errorf("replay %q does not run: it is %s", id, record.State)
	}
	err = b.askReplay(ctx, id, replayWord{Stop: true})
	if errors.Is(err, nats.ErrNoResponders) {
		return record, fmt.Errorf("replay %q does not run: it was broken off", id)
	}
	if err != nil {
		return record, fmt.Errorf("replay %q does not answer: %w", id, err)
	}
	ctx, cancel := context.WithTimeout(ctx, replayStopping)
	defer cancel()
	for record.State == ReplayRunning {
		select {
		case <-ctx.Done():
			return record, fmt.Errorf("replay %q was asked to stop and still runs: %w", id, ctx.Err())
		case <-time.After(retryPause / 5):
		}
		if record, err = b.Replay(ctx, id); err != nil {
			return record, err
		}
	}
	return record, nil
}
