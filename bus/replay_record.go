package bus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/subjects"
)

// ReplayState is how a replay stands.
type ReplayState string

// The states. A replay that is recorded as running and does not answer was broken off; see Bus.ReplayRuns.
const (
	ReplayRunning ReplayState = "running"
	ReplayStopped ReplayState = "stopped" // somebody ended it early, it can go on
	ReplayFailed  ReplayState = "failed"  // see Error, it can go on once that is mended
	ReplayDone    ReplayState = "done"
)

// Errors about replays that callers branch on.
var (
	ErrNoReplay      = errors.New("no such replay")
	ErrReplayExists  = errors.New("there is a replay of this id already")
	ErrReplayDone    = errors.New("the replay is done")
	ErrReplayRunning = errors.New("the replay runs")
	ErrReplayTaken   = errors.New("somebody else has gone on with the replay")
	// ErrReplayUnclear is returned where it can no longer be told how far a replay came.
	ErrReplayUnclear = errors.New("how far the replay came cannot be told")
	// ErrReplayUnrecorded is returned where no record of a replay can be written.
	ErrReplayUnrecorded = errors.New("the replay cannot be recorded")
)

// ReplayRecord is what CIM_REPLAYS tells of a replay: all of it, each record replaces the one before.
type ReplayRecord struct {
	ID        string          `json:"id"`
	State     ReplayState     `json:"state"`
	Operator  string          `json:"operator"` // who began it
	Target    string          `json:"target"`   // as file:/tmp/x, for people and for who goes on with it
	Pace      string          `json:"pace"`     // as Pace writes it
	Selection ReplaySelection `json:"selection"`
	Follow    bool            `json:"follow"`
	Stream    string          `json:"stream"` // identity of CIM_EVENTS, which may be made anew
	First     uint64          `json:"first"`  // the stretch of CIM_EVENTS that is replayed
	Last      uint64          `json:"last"`
	Started   time.Time       `json:"started"`
	Updated   time.Time       `json:"updated"`
	Opened    bool            `json:"opened"`   // the target was taken: what it has now is this replay's
	Done      uint64          `json:"done"`     // every selected event up to this sequence is at the target
	Events    uint64          `json:"events"`   // how many these were
	LeftOut   uint64          `json:"left_out"` // and how many of them the target had no use for
	Mark      uint64          `json:"mark"`     // where the target was then: bytes of a file, a stream's last sequence
	Error     string          `json:"error"`
	Runs      []ReplayTurn    `json:"runs"`

	at uint64 // its sequence in CIM_REPLAYS, 0 = it is not stored
}

// ReplayTurn is one run of a replay: the first, or one that went on with it.
type ReplayTurn struct {
	Operator string     `json:"operator"`
	Began    time.Time  `json:"began"`
	Ended    *time.Time `json:"ended"` // nil while it runs, and where it was broken off
	After    uint64     `json:"after"` // it went on after this sequence
	Events   uint64     `json:"events"`
}

// ReplaySelection is an EventSelection as records keep it, the stretch as it was asked for.
type ReplaySelection struct {
	Tenant       string   `json:"tenant"`       // "" = any
	Channel      *string  `json:"channel"`      // nil = any, "" = events of none
	Events       []string `json:"events"`       // none = any
	Conversation *string  `json:"conversation"` // nil = any, "" = events of none
	ID           string   `json:"event_id"`     // "" = any
	From         string   `json:"from"`         // "" = the beginning
	Until        string   `json:"until"`        // "" = what was there at the start
}

func recordedSelection(s EventSelection) ReplaySelection {
	name := func(m subjects.Match) *string {
		if m == subjects.Any {
			return nil
		}
		v := m.Name()
		return &v
	}
	return ReplaySelection{
		Tenant: s.Tenant.Name(), Channel: name(s.Channel), Events: append([]string{}, s.Events...), Conversation: name(s.Conversation), ID: s.ID,
		From: s.From.String(), Until: s.Until.String(),
	}
}

// Selects is the selection but for its stretch, which is the record's.
func (s ReplaySelection) Selects() EventSelection {
	match := func(name *string) subjects.Match {
		if name == nil {
			return subjects.Any
		}
		return subjects.Is(*name)
	}
	sel := EventSelection{Channel: match(s.Channel), Events: s.Events, Conversation: match(s.Conversation), ID: s.ID}
	if s.Tenant != "" {
		sel.Tenant = subjects.Is(s.Tenant)
	}
	return sel
}

// Replays lists the records of replays, the one that began last at the end.
func (b *Bus) Replays(ctx context.Context) ([]ReplayRecord, error) {
	var all []ReplayRecord
	for m, err := range b.Read(ctx, Range{Stream: StreamReplays, Filter: subjects.AllReplays}) {
		if err != nil {
			return nil, fmt.Errorf("replays: %w", err)
		}
		r, err := readReplay(m)
		if err != nil {
			// One record that nobody can read must not hide the others.
			b.log.Warn("record of a replay left out", "sequence", m.Sequence, "error", err)
			continue
		}
		// It may have been replaced while the others were read.
		all = slices.DeleteFunc(all, func(old ReplayRecord) bool { return old.ID == r.ID })
		all = append(all, r)
	}
	slices.SortFunc(all, func(x, y ReplayRecord) int { return cmp.Or(x.Started.Compare(y.Started), cmp.Compare(x.ID, y.ID)) })
	return all, nil
}

// Replay reads the record of a replay from the leader; ErrNoReplay where there is none.
func (b *Bus) Replay(ctx context.Context, id string) (ReplayRecord, error) {
	subject, err := subjects.Replay{ID: id}.Subject()
	if err != nil {
		return ReplayRecord{}, err
	}
	m, err := b.LastMessage(ctx, StreamReplays, subject)
	if errors.Is(err, ErrNoMessage) {
		return ReplayRecord{}, fmt.Errorf("replay %q: %w", id, ErrNoReplay)
	}
	if err != nil {
		return ReplayRecord{}, fmt.Errorf("replay %q: %w", id, err)
	}
	return readReplay(m)
}

func readReplay(m *jetstream.RawStreamMsg) (ReplayRecord, error) {
	var r ReplayRecord
	if err := json.Unmarshal(m.Data, &r); err != nil {
		return r, fmt.Errorf("record %q: %w", m.Subject, err)
	}
	name, err := subjects.ParseReplay(m.Subject)
	if err != nil {
		return r, err
	}
	r.ID, r.at = name.ID, m.Sequence
	return r, nil
}

// recordReplay stores a record behind the one it was read from; errRecordOvertaken where that is no longer the last one.
func (b *Bus) recordReplay(ctx context.Context, r *ReplayRecord) error {
	subject, err := subjects.Replay{ID: r.ID}.Subject()
	if err != nil {
		return err
	}
	r.Updated = time.Now().UTC()
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record of replay %q: %w", r.ID, err)
	}
	at, err := b.publishRecord(ctx, record{of: "the replay", stream: StreamReplays, family: subjects.AllReplays, subject: subject, body: body, expected: r.at})
	if err != nil {
		return err
	}
	r.at = at
	return nil
}
