package bus

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nuid"

	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// DefaultRole is the role of an agent that joins without naming one.
const DefaultRole = "PRIMARY"

// Join makes an agent a member of a conversation: it publishes AGENT_SUBSCRIBED and returns once that is stored. The
// conversation's worker makes the membership of it, so the agent is a member a moment later. Joining twice is harmless. role ""
// is PRIMARY. Nobody's policy is asked, see ControlOptions.Allow.
func (b *Bus) Join(ctx context.Context, tenant, conversation, agent, role string) (Receipt, error) {
	m := cim.Membership{Conversation: conversation, Agent: agent, Realm: tenant, Role: cmp.Or(role, DefaultRole)}
	receipt, err := b.changeMembership(ctx, cim.AgentSubscribed, cim.Subscribed, m)
	if err != nil {
		return Receipt{}, fmt.Errorf("join: %w", err)
	}
	return receipt, nil
}

// Leave ends an agent's membership: it publishes AGENT_UNSUBSCRIBED and returns once that is stored. Leaving a conversation
// twice, or one the agent is not in, changes nothing; its members still receive the event.
func (b *Bus) Leave(ctx context.Context, tenant, conversation, agent string) (Receipt, error) {
	m := cim.Membership{Conversation: conversation, Agent: agent, Realm: tenant, Role: DefaultRole}
	receipt, err := b.changeMembership(ctx, cim.AgentUnsubscribed, cim.Unsubscribed, m)
	if err != nil {
		return Receipt{}, fmt.Errorf("leave: %w", err)
	}
	return receipt, nil
}

func (b *Bus) changeMembership(ctx context.Context, name string, body func(cim.Membership) []byte, m cim.Membership) (Receipt, error) {
	if m.Conversation == "" || m.Agent == "" {
		return Receipt{}, fmt.Errorf("conversation %q, agent %q: name both", m.Conversation, m.Agent)
	}
	// The names become tokens of the agent's subjects only when the event is worked on; refuse what could not.
	if _, err := (subjects.MemberKey{Tenant: m.Realm, Agent: m.Agent, Conversation: m.Conversation}).Key(); err != nil {
		return Receipt{}, err
	}
	channel, err := b.lastChannel(ctx, m.Realm, m.Conversation)
	if err != nil {
		return Receipt{}, err
	}
	m.ID, m.Time = nuid.Next(), time.Now()
	return b.Publish(ctx, Event{Tenant: m.Realm, Channel: channel, Name: name, Conversation: m.Conversation, ID: m.ID, Body: body(m)})
}
