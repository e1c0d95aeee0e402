package bus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/subjects"
)

// Member is an agent's record in a conversation, {"role","since","left"} in the bucket CIM_MEMBERS. The conversation's worker
// writes it before the deliveries of the event that changed it.
type Member struct {
	Agent        string `json:"-"`
	Conversation string `json:"-"`
	Role         string `json:"role"`
	Since        uint64 `json:"since"` // Cim-Sequence of the event that made it a member
	Left         uint64 `json:"left"`  // Cim-Sequence of the event that ended the membership, 0 = it is a member
}

// ErrNotMember is returned for an agent that is not, or no longer, a member of a conversation.
var ErrNotMember = errors.New("not a member of the conversation")

// Member reads an agent's membership from the leader. An agent that never joined, or left, gives ErrNotMember; the record of
// one that left comes with the error.
func (b *Bus) Member(ctx context.Context, tenant, agent, conversation string) (Member, error) {
	key := subjects.MemberKey{Tenant: tenant, Agent: agent, Conversation: conversation}
	subject, err := key.Subject()
	if err != nil {
		return Member{}, fmt.Errorf("member: %w", err)
	}
	m, err := b.LastMessage(ctx, StreamMembers, subject)
	if errors.Is(err, ErrNoMessage) {
		return Member{}, fmt.Errorf("agent %q in %q: %w", agent, conversation, ErrNotMember)
	}
	if err != nil {
		return Member{}, fmt.Errorf("member: %w", err)
	}
	record, err := decodeMember(m)
	if err == nil && record.Left != 0 {
		err = fmt.Errorf("agent %q in %q: %w", agent, conversation, ErrNotMember)
	}
	return record, err
}

// Members lists the agents that are members of a conversation, by agent.
func (b *Bus) Members(ctx context.Context, tenant, conversation string) ([]Member, error) {
	return b.listMembers(ctx, subjects.MemberFilter{Tenant: subjects.Is(tenant), Conversation: subjects.Is(conversation)})
}

// Memberships lists the conversations an agent is a member of, by conversation.
func (b *Bus) Memberships(ctx context.Context, tenant, agent string) ([]Member, error) {
	return b.listMembers(ctx, subjects.MemberFilter{Tenant: subjects.Is(tenant), Agent: subjects.Is(agent)})
}

// listMembers reads in batches, an agent has records of eight days of conversations. A replica that is behind holds what the
// leader held some time ago; the reading ends with what the leader has stored since, so a record that was replaced meanwhile
// comes again and wins.
func (b *Bus) listMembers(ctx context.Context, f subjects.MemberFilter) ([]Member, error) {
	filter, err := f.Subject()
	if err != nil {
		return nil, fmt.Errorf("members: %w", err)
	}
	found := map[string]Member{}
	for m, err := range b.Read(ctx, Range{Stream: StreamMembers, Filter: filter}) {
		if err != nil {
			return nil, fmt.Errorf("members: %w", err)
		}
		record, err := decodeMember(m)
		if errors.Is(err, ErrNotMember) || err == nil && record.Left != 0 {
			delete(found, m.Subject)
			continue
		}
		if err != nil {
			// One record that nobody can read must not hide the others.
			b.log.Warn("member record left out", "sequence", m.Sequence, "error", err)
			continue
		}
		found[m.Subject] = record
	}
	members := make([]Member, 0, len(found))
	for _, m := range found {
		members = append(members, m)
	}
	slices.SortFunc(members, func(x, y Member) int {
		return cmp.Or(strings.Compare(x.Agent, y.Agent), strings.Compare(x.Conversation, y.Conversation))
	})
	return members, nil
}

// decodeMember reads a record; a key that was deleted, or has expired, gives ErrNotMember.
func decodeMember(m *jetstream.RawStreamMsg) (Member, error) {
	key, err := subjects.ParseMemberKey(strings.TrimPrefix(m.Subject, "$KV."+BucketMembers+"."))
	if err != nil {
		return Member{}, fmt.Errorf("member record: %w", err)
	}
	record := Member{Agent: key.Agent, Conversation: key.Conversation}
	if len(m.Data) == 0 {
		return record, fmt.Errorf("agent %q in %q: %w", key.Agent, key.Conversation, ErrNotMember)
	}
	if err := json.Unmarshal(m.Data, &record); err != nil {
		return Member{}, fmt.Errorf("member record %q: %w", m.Subject, err)
	}
	return record, nil
}
