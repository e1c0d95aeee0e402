package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// LoadState returns what the log says of a conversation now: its last checkpoint, and the committed events after it folded in.
// newState is the committing handler's. The second result is the sequence of the last committed event, 0 if there is none.
func LoadState(ctx context.Context, b *bus.Bus, newState func(tenant, conversation string) State, tenant, conversation string) (State, uint64, error) {
	subject, err := subjects.Index{Tenant: tenant, Conversation: conversation}.Subject()
	if err != nil {
		return nil, 0, fmt.Errorf("load conversation: %w", err)
	}
	last, err := lastOn(ctx, b, bus.StreamIndex, subject)
	if err != nil {
		return nil, 0, fmt.Errorf("load conversation: %w", err)
	}
	l := loader{bus: b, log: b.Logger(), newState: newState, key: laneKey{tenant, conversation}, before: math.MaxUint64}
	state, err := l.load(ctx, last)
	if err != nil {
		return nil, 0, fmt.Errorf("load conversation: %w", err)
	}
	return state, last.sequence, nil
}

// Checkpoint writes down the state of a conversation as its committed events make it, unless that is written already. What is before the
// checkpoint is then not needed any more to load the state. newState is the committing handler's; a worker may run meanwhile. In balanced
// durability what was committed in the last seconds is left out: the checkpoint may outlive a power cut, and that may not.
func Checkpoint(ctx context.Context, b *bus.Bus, newState func(tenant, conversation string) State, tenant, conversation string) error {
	subject, err := subjects.Index{Tenant: tenant, Conversation: conversation}.Subject()
	if err != nil {
		return fmt.Errorf("checkpoint of conversation: %w", err)
	}
	last, err := lastOn(ctx, b, bus.StreamIndex, subject)
	if hold := holdback(b); err == nil && hold > 0 {
		last, err = lastEntryBefore(ctx, b, subject, time.Now().Add(-hold))
	}
	if err != nil || last.stream == 0 {
		return err
	}
	l := loader{bus: b, log: b.Logger(), newState: newState, key: laneKey{tenant, conversation}, before: last.sequence + 1}
	state, err := l.load(ctx, last)
	if err != nil || l.checkpoint.sequence >= last.sequence {
		return err
	}
	data, err := state.MarshalBinary()
	if err != nil {
		return fmt.Errorf("checkpoint of conversation: %w", err)
	}
	_, err = b.JetStream().PublishMsg(ctx, &nats.Msg{Subject: l.subject, Data: data, Header: nats.Header{
		bus.HeaderSequence:      []string{strconv.FormatUint(last.sequence, 10)},
		bus.HeaderIndexSequence: []string{strconv.FormatUint(last.stream, 10)},
		headerExpected:          []string{strconv.FormatUint(l.checkpoint.stream, 10)},
	}})
	if conflict(err) {
		return nil // the worker was faster
	}
	return err
}

// lastEntryBefore is a conversation's last index entry that was stored before a time.
func lastEntryBefore(ctx context.Context, b *bus.Bus, subject string, before time.Time) (mark, error) {
	last := mark{known: true}
	for m, err := range b.Read(ctx, bus.Range{Stream: bus.StreamIndex, Filter: subject}) {
		if err != nil || !m.Time.Before(before) {
			return last, err
		}
		last.stream, last.sequence = m.Sequence, bus.SequenceOf(m.Header)
	}
	return last, nil
}

// loader brings a conversation's state to where it was before one event: the checkpoint, then the index entries after it with
// their events.
type loader struct {
	bus      *bus.Bus
	log      hclog.Logger
	newState func(tenant, conversation string) State
	key      laneKey
	before   uint64 // events from this sequence on stay out
	long     bool   // how it was long ago is asked for: of a membership whose event can be folded, the record says what became of it since

	subject    string // of the checkpoint
	checkpoint mark   // the last message there
	ahead      bool   // it covers what is done again: events before it may be gone
}

// load reads up to last, the conversation's last index entry.
func (l *loader) load(ctx context.Context, last mark) (State, error) {
	state, covered, next, err := l.readCheckpoint(ctx)
	if err != nil {
		return nil, err
	}
	if last.sequence > covered && last.stream < next {
		next = 1 // the index was made anew since the checkpoint
	}
	return state, l.foldIndex(ctx, state, covered, next)
}

// readCheckpoint returns the checkpointed state, the sequence it covers and where in the index its successors begin. A
// checkpoint that is missing, unreadable or covers too much leaves an empty state: the whole index is folded then.
func (l *loader) readCheckpoint(ctx context.Context) (state State, covered, next uint64, err error) {
	fresh := func() State { return l.newState(l.key.tenant, l.key.conversation) }
	l.subject, err = subjects.ConversationKey{Tenant: l.key.tenant, Conversation: l.key.conversation}.Subject()
	if err != nil {
		return nil, 0, 0, fmt.Errorf("checkpoint of conversation: %w", err)
	}
	m, err := l.bus.LastMessage(ctx, bus.StreamConversations, l.subject)
	if errors.Is(err, bus.ErrNoMessage) {
		l.checkpoint = mark{known: true}
		return fresh(), 0, 1, nil
	}
	if err != nil {
		return nil, 0, 0, err
	}
	covered = bus.SequenceOf(m.Header)
	l.checkpoint = mark{known: true, stream: m.Sequence, sequence: covered}
	if covered >= l.before {
		l.ahead = true
		return fresh(), 0, 1, nil
	}
	indexSeq, err := strconv.ParseUint(bus.LastHeader(m.Header, bus.HeaderIndexSequence), 10, 64)
	state = fresh()
	if err == nil {
		err = state.UnmarshalBinary(m.Data)
	}
	if err != nil {
		l.log.Warn("unreadable checkpoint, folding the conversation from its index", "tenant", l.key.tenant, "sequence", covered, "error", err)
		return fresh(), 0, 1, nil
	}
	return state, covered, indexSeq + 1, nil
}

// foldIndex folds the events of the index entries from next on that lie above covered. An event that is gone, by age or because
// CIM_EVENTS was made anew, stays out; who is a member is then taken from the member records, which were written before the entry.
func (l *loader) foldIndex(ctx context.Context, state State, covered, next uint64) error {
	subject, err := subjects.Index{Tenant: l.key.tenant, Conversation: l.key.conversation}.Subject()
	if err != nil {
		return fmt.Errorf("index of conversation: %w", err)
	}
	gone := l.ahead
	for {
		entry, err := l.bus.NextMessage(ctx, bus.StreamIndex, next, subject)
		if errors.Is(err, bus.ErrNoMessage) {
			if gone {
				return l.readMembers(ctx, state)
			}
			return nil
		}
		if err != nil {
			return err
		}
		next = entry.Sequence + 1
		sequence := bus.SequenceOf(entry.Header)
		if sequence <= covered || sequence >= l.before {
			continue
		}
		there, err := l.foldEvent(ctx, state, sequence, bus.LastHeader(entry.Header, bus.HeaderSourceTime))
		if err != nil {
			return err
		}
		gone = gone || !there
	}
}

// foldEvent folds a committed event, of which its index entry says when it was stored, and tells whether it is still there.
func (l *loader) foldEvent(ctx context.Context, state State, sequence uint64, made string) (there bool, err error) {
	m, err := l.bus.MessageAt(ctx, bus.StreamEvents, sequence)
	if errors.Is(err, bus.ErrNoMessage) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if made != "" && made != sourceTime(m.Time) {
		return true, fmt.Errorf("%w (index entry of event %d)", errWentBack, sequence)
	}
	e, _, why := decode(m.Subject, m.Header, m.Data, m.Sequence, m.Time)
	if why == nil && !cim.IsTransient(e.Name) {
		if _, err := fold(state, &e); err != nil {
			l.log.Trace("an invalid event stays out of the state", "sequence", sequence, "error", err)
		}
	}
	return true, nil
}

// readMembers sets the state's memberships right by their records. One that the event before or a later one made says how it was then
// where it can: who left by that event was a member.
func (l *loader) readMembers(ctx context.Context, state State) error {
	filter, err := subjects.MemberFilter{Tenant: subjects.Is(l.key.tenant), Conversation: subjects.Is(l.key.conversation)}.Subject()
	if err != nil {
		return fmt.Errorf("members of conversation: %w", err)
	}
	for m, err := range l.bus.Read(ctx, bus.Range{Stream: bus.StreamMembers, Filter: filter}) {
		if err != nil {
			return err
		}
		key, err := subjects.ParseMemberKey(memberKey(m.Subject))
		record := bus.Member{}
		if err == nil && len(m.Data) > 0 {
			err = json.Unmarshal(m.Data, &record)
		}
		if err != nil || record.Since >= l.before {
			continue
		}
		if l.long {
			_, err := l.bus.MessageAt(ctx, bus.StreamEvents, record.Since)
			if err == nil {
				continue
			}
			if !errors.Is(err, bus.ErrNoMessage) {
				return err
			}
		}
		if record.Left >= l.before {
			record.Left = 0
		}
		state.Restore(MemberChange{Agent: key.Agent, Role: record.Role, Since: record.Since, Left: record.Left})
	}
	return nil
}
