package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/subjects"
)

// recovery makes the streams agree again after a power cut in balanced durability, where each reached the disk at its own
// time. Two things can be wrong. Events may stand there whose deliveries, index entries or member records were lost: all
// events of the last seconds are done again, by the fences alone. And what was derived from events may stand there though the
// events themselves were lost: such orphans are removed, for the lost sequences are given out again, and an orphan would pass for
// the mark of the new event.
type recovery struct {
	w     *Worker
	since time.Time // what was stored before reached the disk
	last  uint64    // of CIM_EVENTS

	events map[uint64]time.Time // when each was stored, as far as asked; zero = it is gone
}

// planRecovery finds out what is to be done again, removes the orphans and sets the durable back. It must run before anything is
// handled.
func (w *Worker) planRecovery(ctx context.Context) error {
	srv := w.bus.Server()
	// Whatever the durability is now: it may have been balanced when the power was cut.
	if srv == nil || !srv.Unclean() {
		return nil
	}
	release := srv.HoldUnclean()
	stream, err := w.js.Stream(ctx, bus.StreamEvents)
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	state := stream.CachedInfo().State
	r := recovery{w: w, since: state.LastTime.Add(-balancedHoldback), last: state.LastSeq, events: map[uint64]time.Time{}}
	from, err := r.firstSince(ctx, stream)
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	w.redoFrom, w.redoUntil, w.release = max(from, 1), state.LastSeq, release
	orphans := 0
	if w.commits() {
		if orphans, err = r.removeOrphans(ctx); err != nil {
			return fmt.Errorf("recover: %w", err)
		}
	}
	w.log.Warn("the last run ended without a shutdown, comparing the latest events with what was delivered",
		"from", w.redoFrom, "to", w.redoUntil, "without_event", orphans)
	return nil
}

// rewind sets the durable back to where the events begin that are done again. Its floor may lie even above the last event.
func (w *Worker) rewind(ctx context.Context) error {
	if w.release == nil {
		return nil
	}
	c, err := w.js.Consumer(ctx, bus.StreamEvents, w.handler.durable())
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	info := c.CachedInfo()
	to := max(w.redoFrom, info.Config.OptStartSeq)
	if info.AckFloor.Stream < to {
		return w.reset(ctx) // what it has handed out may be above the last event, too
	}
	if _, err := w.js.ResetConsumerToSequence(ctx, bus.StreamEvents, w.handler.durable(), to); err != nil {
		return fmt.Errorf("recover: set consumer %s back to %d: %w", w.handler.durable(), to, err)
	}
	return nil
}

// firstSince is the first sequence of a stream whose message is not older than since; one above the last where all are.
func (r recovery) firstSince(ctx context.Context, stream jetstream.Stream) (uint64, error) {
	info := stream.CachedInfo()
	low, high := info.State.FirstSeq, info.State.LastSeq+1
	for low < high {
		mid := low + (high-low)/2
		m, err := r.w.bus.NextMessage(ctx, info.Config.Name, mid, ">")
		switch {
		case errors.Is(err, bus.ErrNoMessage):
			high = mid
		case err != nil:
			return 0, err
		case m.Time.Before(r.since):
			low = m.Sequence + 1
		default:
			high = mid
		}
	}
	return low, nil
}

// removeOrphans deletes what names an event that is not there: none has its sequence, or another one has it that was stored later.
func (r recovery) removeOrphans(ctx context.Context) (int, error) {
	removed := 0
	members := map[subjects.MemberKey]bool{}
	for _, name := range []string{bus.StreamDeliveries, bus.StreamIndex, bus.StreamDeadLetters, bus.StreamMembers, bus.StreamConversations} {
		stream, err := r.w.js.Stream(ctx, name)
		if err != nil {
			return removed, err
		}
		from, err := r.firstSince(ctx, stream)
		if err != nil {
			return removed, err
		}
		for m, err := range r.w.bus.Read(ctx, bus.Range{Stream: name, Filter: ">", From: from}) {
			if err != nil {
				return removed, err
			}
			orphan, err := r.orphan(ctx, m)
			if err != nil {
				return removed, err
			}
			if !orphan {
				continue
			}
			if err := remove(ctx, stream, m); err != nil {
				return removed, fmt.Errorf("delete message %d of %s: %w", m.Sequence, name, err)
			}
			removed++
			if key, err := subjects.ParseMemberKey(memberKey(m.Subject)); name == bus.StreamMembers && err == nil {
				members[key] = true
			}
		}
	}
	return removed, r.restoreMembers(ctx, members)
}

// remove deletes a message; a bucket's, which may not be deleted, by purging its key, of which it is the only one.
func remove(ctx context.Context, stream jetstream.Stream, m *jetstream.RawStreamMsg) error {
	if stream.CachedInfo().Config.DenyDelete {
		return stream.Purge(ctx, jetstream.WithPurgeSubject(m.Subject))
	}
	return stream.DeleteMsg(ctx, m.Sequence)
}

func (r recovery) orphan(ctx context.Context, m *jetstream.RawStreamMsg) (bool, error) {
	s := bus.SequenceOf(m.Header)
	if s == 0 || s < r.w.redoFrom {
		return false, nil
	}
	if s > r.last {
		return true, nil
	}
	made := bus.LastHeader(m.Header, bus.HeaderSourceTime)
	if made == "" {
		return false, nil // a checkpoint; it covers only what is older
	}
	stored, asked := r.events[s]
	if !asked {
		event, err := r.w.bus.MessageAt(ctx, bus.StreamEvents, s)
		if err == nil {
			stored = event.Time
		} else if !errors.Is(err, bus.ErrNoMessage) {
			return false, err
		}
		r.events[s] = stored
	}
	// One that was there and is gone, by age or by hand, leaves no orphans.
	return !stored.IsZero() && made != sourceTime(stored), nil
}

// restoreMembers writes again the records that orphans had replaced: as they were before the events that are done again, which
// then go on from there.
func (r recovery) restoreMembers(ctx context.Context, members map[subjects.MemberKey]bool) error {
	keys := make([]subjects.MemberKey, 0, len(members))
	for key := range members {
		keys = append(keys, key)
	}
	sort.Slice(keys, func(i, j int) bool { return keys[i].Conversation < keys[j].Conversation })
	for _, key := range keys {
		l := loader{
			bus: r.w.bus, log: r.w.log, newState: r.w.handler.NewState, key: laneKey{key.Tenant, key.Conversation}, before: r.w.redoFrom,
		}
		state, err := l.load(ctx, mark{})
		if err != nil {
			return err
		}
		record, known := state.Member(key.Agent)
		if !known {
			continue
		}
		if err := r.writeMember(ctx, key, record); err != nil {
			return err
		}
	}
	return nil
}

func (r recovery) writeMember(ctx context.Context, key subjects.MemberKey, record MemberChange) error {
	subject, err := key.Subject()
	if err != nil {
		return err
	}
	body, err := json.Marshal(bus.Member{Role: record.Role, Since: record.Since})
	if err != nil {
		return err
	}
	_, err = r.w.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: body, Header: nats.Header{
		bus.HeaderSequence: []string{strconv.FormatUint(record.Since, 10)},
	}})
	return err
}

// memberKey is the key in a subject of the members' bucket.
func memberKey(subject string) string {
	const prefix = "$KV." + bus.BucketMembers + "."
	return subject[min(len(prefix), len(subject)):]
}
