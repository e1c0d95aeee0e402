package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// TypeReplay is the type of deliveries that a replay makes. They are never among an agent's live ones.
const TypeReplay = "replay"

// ReplayAgents are the agents that a replay reaches, and how.
type ReplayAgents struct {
	Tenant string
	Agents []string
	Bare   bool // leave the properties out of the deliveries, as delivery.properties: false does
}

// ReplayToAgents delivers events to agents again: on cim-agent.<tenant>.<agent>.replay.<conversation>, with the body and the headers of
// an onCimEvent delivery, the event's own Cim-Sequence among them, and Cim-Replay-Id. Each agent gets each event once, those of a
// conversation in order. An event of a conversation that an agent is and was no member of ends the replay with ErrNotMember; PlanReplay
// tells before. Left out are copies that were made for one handler alone, what is transient, and what is no valid event.
func (b *Bus) ReplayToAgents(a ReplayAgents) (ReplayTarget, error) {
	t := &agentTarget{ReplayAgents: a, members: map[[2]string]bool{}}
	if len(a.Agents) == 0 {
		return nil, errors.New("replay to agents: name one")
	}
	t.lanes = lanes{
		b: b, stream: StreamDeliveries, fenced: true, of: SequenceOf,
		lane: func(subject string, _ nats.Header) string { return subject },
	}
	for _, agent := range a.Agents {
		subject, err := subjects.DeliveryFilter{Tenant: subjects.Is(a.Tenant), Agent: subjects.Is(agent), Type: subjects.Is(TypeReplay)}.Subject()
		if err != nil {
			return nil, fmt.Errorf("replay to agents: %w", err)
		}
		if slices.Contains(t.filter, subject) {
			return nil, fmt.Errorf("replay to agents: agent %q is named twice", agent)
		}
		t.filter = append(t.filter, subject)
	}
	return t, nil
}

type agentTarget struct {
	lanes
	ReplayAgents
	members map[[2]string]bool // agent and conversation
}

func (t *agentTarget) Open(ctx context.Context, r OpenReplay) (Ahead, error) {
	if r.Record.Follow {
		return Ahead{}, fmt.Errorf("agents: %w: they get new events anyway, so there is nothing to follow", ErrReplayRefused)
	}
	return Ahead{}, t.open(ctx, r)
}

func (t *agentTarget) Put(ctx context.Context, e StoredEvent) (used bool, err error) {
	t.torn = true
	if used, err = t.deliver(ctx, e); err == nil {
		t.torn = false
	}
	return used, err
}

func (t *agentTarget) deliver(ctx context.Context, e StoredEvent) (bool, error) {
	event, why := replayable(e)
	if why != "" {
		return false, nil
	}
	header := DerivedHeader(e.Header, Source{
		Conversation: event.Conversation, Channel: cmp.Or(event.Channel, LastHeader(e.Header, HeaderChannel), e.Name.Channel),
		ID: event.ID, Name: event.Name, Sequence: e.Sequence, Subject: e.Subject, Stored: e.Time,
	})
	header[HeaderReplayID] = []string{t.id}
	header[jetstream.ExpectedStreamHeader] = []string{StreamDeliveries}
	body := cim.AppendDelivery(nil, &event, event.Conversation, !t.Bare)
	for _, agent := range t.Agents {
		if err := t.member(ctx, e.Name.Tenant, agent, event.Conversation); err != nil {
			return false, fmt.Errorf("event %d: %w", e.Sequence, err)
		}
		subject, err := subjects.Delivery{Tenant: t.Tenant, Agent: agent, Type: TypeReplay, Conversation: event.Conversation}.Subject()
		if err != nil {
			return false, fmt.Errorf("event %d: %w", e.Sequence, err)
		}
		if err := t.put(ctx, e.Sequence, &nats.Msg{Subject: subject, Header: cloned(header), Data: body}); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (t *agentTarget) member(ctx context.Context, tenant, agent, conversation string) error {
	if tenant != t.Tenant {
		return fmt.Errorf("it is of tenant %q, the agents are of %q: %w", tenant, t.Tenant, ErrReplayRefused)
	}
	key := [2]string{agent, conversation}
	if t.members[key] {
		return nil
	}
	ever, err := t.b.everMember(ctx, tenant, agent, conversation)
	if err != nil {
		return err
	}
	if !ever {
		return fmt.Errorf("agent %q in %q: %w, and never was", agent, conversation, ErrNotMember)
	}
	t.members[key] = true
	return nil
}

func (t *agentTarget) Flush(ctx context.Context) (uint64, error) { return t.flush(ctx) }
func (t *agentTarget) Close() error                              { return nil }

// everMember tells whether an agent is a member of a conversation, or was one.
func (b *Bus) everMember(ctx context.Context, tenant, agent, conversation string) (bool, error) {
	m, err := b.Member(ctx, tenant, agent, conversation)
	if errors.Is(err, ErrNotMember) {
		return m.Since != 0, nil
	}
	return err == nil, err
}

// Why an event is not replayed to agents.
const (
	leftOutCopy      = "copies made for one handler by a redrive or a replay"
	leftOutTransient = "transient"
	leftOutInvalid   = "no valid events"
)

// replayable reads an event as its worker would, and tells why it goes to no agent.
func replayable(e StoredEvent) (event cim.Event, why string) {
	if isCopy(e.Header) {
		return event, leftOutCopy
	}
	event, err := cim.Decode(e.Data, LastHeader(e.Header, HeaderConversation))
	if err != nil || event.Conversation == "" || event.Name != e.Name.Event {
		return event, leftOutInvalid
	}
	if _, err := subjects.Encode(event.Conversation); err != nil {
		return event, leftOutInvalid
	}
	if cim.IsTransient(event.Name) {
		return event, leftOutTransient
	}
	return event, ""
}
