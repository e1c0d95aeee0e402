package handlers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// rebuildMembers writes the member records as they are by what is committed: of the members, by the conversations' states, and of those
// who left, as far back as the events go.
func (w *Worker) rebuildMembers(ctx context.Context, floor uint64) (int, error) {
	changes, err := w.membershipChanges(ctx)
	if err != nil {
		return 0, err
	}
	keys, err := w.conversations(ctx)
	if err != nil {
		return 0, err
	}
	written := 0
	for _, key := range keys {
		l := loader{bus: w.bus, log: w.log, newState: w.handler.NewState, key: key, before: math.MaxUint64}
		state, err := l.load(ctx, mark{})
		if err != nil {
			return written, err
		}
		records := memberships(state, changes[key])
		for _, agent := range slices.Sorted(maps.Keys(records)) {
			d, err := w.memberRecord(key, records[agent])
			if err == nil {
				err = newConversation(w, key).publish(ctx, max(floor, 1), d)
			}
			// A record that is there already was written by somebody who knew more.
			if err != nil && !errors.Is(err, errOvertaken) {
				return written, err
			}
			written++
		}
	}
	return written, nil
}

// membershipChanges are the last change of every membership that the stored and committed events tell of.
func (w *Worker) membershipChanges(ctx context.Context) (map[laneKey]map[string]membership, error) {
	states := map[laneKey]State{}
	committed := map[laneKey]uint64{}
	changes := map[laneKey]map[string]membership{}
	for m, err := range w.bus.Read(ctx, bus.Range{Stream: bus.StreamEvents, Filter: subjects.AllEvents}) {
		if err != nil {
			return nil, err
		}
		if source, err := subjects.ParseEvent(m.Subject); err != nil || !cim.IsMembership(source.Event) {
			continue
		}
		e, key, why := decode(m.Subject, m.Header, m.Data, m.Sequence, m.Time)
		if why != nil {
			continue
		}
		others, err := newConversation(w, key).redrivenForOthers(ctx, &e)
		if err != nil {
			return nil, err
		}
		if others {
			continue
		}
		if states[key] == nil {
			states[key], changes[key] = w.handler.NewState(key.tenant, key.conversation), map[string]membership{}
			last, err := w.lastEntry(ctx, key)
			if err != nil {
				return nil, err
			}
			committed[key] = last.sequence
		}
		if e.Sequence > committed[key] {
			continue
		}
		changed, err := fold(states[key], &e)
		if err != nil {
			continue // a dead letter
		}
		for _, c := range changed {
			changes[key][c.Agent] = membership{MemberChange: c, sequence: e.Sequence, stored: e.Stored}
		}
	}
	return changes, nil
}

// memberships are a conversation's records: of the members its state has, and of those who left by what changed.
func memberships(state State, changes map[string]membership) map[string]membership {
	records := map[string]membership{}
	for agent, r := range changes {
		if r.Left != 0 {
			records[agent] = r
		}
	}
	for _, recipient := range state.Audience(&Event{}) {
		m, member := state.Member(recipient.Agent)
		if !member {
			continue
		}
		records[m.Agent] = membership{MemberChange: m, sequence: m.Since}
		if r := changes[m.Agent]; r.MemberChange == m {
			records[m.Agent] = r
		}
	}
	return records
}

// lastEntry is the last index entry of a conversation.
func (w *Worker) lastEntry(ctx context.Context, key laneKey) (mark, error) {
	subject, err := subjects.Index{Tenant: key.tenant, Conversation: key.conversation}.Subject()
	if err != nil {
		return mark{}, fmt.Errorf("index of conversation: %w", err)
	}
	return lastOn(ctx, w.bus, bus.StreamIndex, subject)
}

// conversations are all that the index or a checkpoint tells of.
func (w *Worker) conversations(ctx context.Context) ([]laneKey, error) {
	keys := map[laneKey]bool{}
	for _, from := range []struct {
		stream, filter string
		parse          func(string) (laneKey, error)
	}{
		{bus.StreamIndex, subjects.AllIndex, func(s string) (laneKey, error) {
			i, err := subjects.ParseIndex(s)
			return laneKey{i.Tenant, i.Conversation}, err
		}},
		{bus.StreamConversations, subjects.AllConversations, func(s string) (laneKey, error) {
			c, err := subjects.ParseConversationKey(strings.TrimPrefix(s, "$KV."+bus.BucketConversations+"."))
			return laneKey{c.Tenant, c.Conversation}, err
		}},
	} {
		stream, err := w.js.Stream(ctx, from.stream)
		if err != nil {
			return nil, err
		}
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(from.filter))
		if err != nil {
			return nil, err
		}
		for subject := range info.State.Subjects {
			if key, err := from.parse(subject); err == nil {
				keys[key] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(keys), func(x, y laneKey) int {
		return cmp.Or(strings.Compare(x.tenant, y.tenant), strings.Compare(x.conversation, y.conversation))
	}), nil
}
