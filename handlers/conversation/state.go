// Package conversation folds the events of one conversation into its state: who is a member and in what role, the channel
// sessions, the customer, the status, the channel used last. It decides who receives an event.
//
// A state is a pure fold: the same events in the same order give the same state and the same audiences, in whatever process and
// however often. That is what lets a worker that takes over, or an event that comes twice, arrive at the same deliveries.
package conversation

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/subjects"
)

// Closed is the status after which a conversation has no members.
const Closed = "CLOSED"

// ReasonClosed and ReasonUnsubscribed are the reasons of a notice where the event itself gives none.
const (
	ReasonClosed       = "CONVERSATION_CLOSED"
	ReasonUnsubscribed = "UNSUBSCRIBED"
)

// State is a conversation's state after the event Sequence. Its JSON form is the checkpoint, and what `conversation show` prints.
// It is not safe for concurrent use.
type State struct {
	Tenant   string                     `json:"tenant"`
	ID       string                     `json:"conversation"`
	Sequence uint64                     `json:"sequence"` // in CIM_EVENTS, of the event folded last
	Status   string                     `json:"status,omitempty"`
	Channel  string                     `json:"channel,omitempty"` // used last, original spelling
	Customer json.RawMessage            `json:"customer,omitempty"`
	Sessions map[string]json.RawMessage `json:"channelSessions,omitempty"` // running ones, by id
	RoomInfo json.RawMessage            `json:"roomInfo,omitempty"`
	Members  map[string]Member          `json:"members,omitempty"` // by agent

	left    []handlers.Recipient // whose membership the event Sequence ended
	session json.RawMessage      // the running one that was folded last, as it is in Sessions
}

// Member is an agent in the conversation.
type Member struct {
	Role        string          `json:"role"`
	Since       uint64          `json:"since"` // sequence of the event that made it one
	Participant json.RawMessage `json:"participant,omitempty"`
}

// New is a conversation before its first event; it is a handlers.Handler's NewState.
func New(tenant, id string) handlers.State {
	return &State{Tenant: tenant, ID: id}
}

var _ handlers.State = (*State)(nil)

// Fold takes the next event in. Joining twice, leaving twice and the change of a stranger's role change nothing.
func (s *State) Fold(e *handlers.Event) ([]handlers.MemberChange, error) {
	changes, err := s.foldMembership(e)
	if err != nil {
		return nil, err
	}
	s.Sequence = e.Sequence
	s.Channel = cmp.Or(e.Channel, bus.LastHeader(e.Header, bus.HeaderChannel), e.Source.Channel, s.Channel)
	if e.RoomInfo != nil {
		s.RoomInfo = bytes.Clone(e.RoomInfo)
	}
	s.foldSession(e)
	return changes, nil
}

func (s *State) foldMembership(e *handlers.Event) ([]handlers.MemberChange, error) {
	var changes []handlers.MemberChange
	switch e.Name {
	case cim.AgentSubscribed, cim.AgentUnsubscribed, cim.ParticipantRoleChanged:
		p, err := e.Participant()
		if err != nil {
			return nil, fmt.Errorf("read the participant: %w", err)
		}
		if _, err := subjects.Encode(p.Agent); err != nil {
			return nil, fmt.Errorf("agent of the participant: %w", err)
		}
		s.left = nil
		switch e.Name {
		case cim.AgentSubscribed:
			changes = s.join(p, e.Sequence)
		case cim.AgentUnsubscribed:
			changes = s.leave(p.Agent, e.Sequence, cmp.Or(e.Reason(), ReasonUnsubscribed))
		default:
			changes = s.changeRole(p)
		}
		return changes, nil
	case cim.TopicStateChangeEvent:
		s.left = nil
		status := e.TopicState()
		s.Status = cmp.Or(status, s.Status)
		if status == Closed {
			for _, agent := range s.agents() {
				changes = append(changes, s.leave(agent, e.Sequence, cmp.Or(e.Reason(), ReasonClosed))...)
			}
			for i := range s.left {
				s.left[i].Event = true
			}
		}
		return changes, nil
	}
	s.left = nil
	return nil, nil
}

func (s *State) join(p cim.Participant, sequence uint64) []handlers.MemberChange {
	m, member := s.Members[p.Agent]
	if !member {
		m = Member{Since: sequence}
	}
	before := m.Role
	m.Role = cmp.Or(p.Role, m.Role)
	m.Participant = bytes.Clone(p.Raw)
	if s.Members == nil {
		s.Members = map[string]Member{}
	}
	s.Members[p.Agent] = m
	if member && before == m.Role {
		return nil
	}
	return []handlers.MemberChange{{Agent: p.Agent, Role: m.Role, Since: m.Since}}
}

func (s *State) leave(agent string, sequence uint64, reason string) []handlers.MemberChange {
	m, member := s.Members[agent]
	if !member {
		return nil
	}
	delete(s.Members, agent)
	s.left = append(s.left, handlers.Recipient{Agent: agent, Role: m.Role, Left: true, Reason: reason})
	return []handlers.MemberChange{{Agent: agent, Role: m.Role, Since: m.Since, Left: sequence}}
}

func (s *State) changeRole(p cim.Participant) []handlers.MemberChange {
	m, member := s.Members[p.Agent]
	if !member || p.Role == "" || p.Role == m.Role {
		return nil
	}
	m.Role = p.Role
	m.Participant = bytes.Clone(p.Raw)
	s.Members[p.Agent] = m
	return []handlers.MemberChange{{Agent: p.Agent, Role: m.Role, Since: m.Since}}
}

// foldSession keeps the running channel sessions and the customer they belong to.
func (s *State) foldSession(e *handlers.Event) {
	ends := e.Name == cim.ChannelSessionEnded || e.Name == cim.ChannelSessionExpired || e.Name == cim.RemoveChannelSession
	if e.Session == nil || !ends && bytes.Equal(e.Session, s.session) {
		return // as it mostly is
	}
	s.session = nil
	id, customer := e.SessionParts()
	if customer != nil && !bytes.Equal(customer, s.Customer) {
		s.Customer = bytes.Clone(customer)
	}
	if id == "" {
		return
	}
	if ends {
		delete(s.Sessions, id)
		return
	}
	if !bytes.Equal(s.Sessions[id], e.Session) {
		if s.Sessions == nil {
			s.Sessions = map[string]json.RawMessage{}
		}
		s.Sessions[id] = bytes.Clone(e.Session)
	}
	s.session = s.Sessions[id]
}

// Audience is every member, the publisher included, in the order of their names, and those whose membership e ended. An agent
// that e made a member receives it; one that left gets its notice and not the event, unless the conversation was closed under it.
func (s *State) Audience(e *handlers.Event) []handlers.Recipient {
	out := make([]handlers.Recipient, 0, len(s.Members)+len(s.left))
	for _, agent := range s.agents() {
		out = append(out, handlers.Recipient{Agent: agent, Role: s.Members[agent].Role, Event: true})
	}
	if e.Sequence == s.Sequence {
		out = append(out, s.left...)
	}
	return out
}

// Member returns the record of an agent that is a member.
func (s *State) Member(agent string) (handlers.MemberChange, bool) {
	m, member := s.Members[agent]
	if !member {
		return handlers.MemberChange{}, false
	}
	return handlers.MemberChange{Agent: agent, Role: m.Role, Since: m.Since}, true
}

// Restore makes an agent a member, or none, by its record.
func (s *State) Restore(m handlers.MemberChange) {
	if m.Left != 0 || m.Since == 0 {
		delete(s.Members, m.Agent)
		return
	}
	if s.Members == nil {
		s.Members = map[string]Member{}
	}
	s.Members[m.Agent] = Member{Role: m.Role, Since: m.Since, Participant: s.Members[m.Agent].Participant}
}

// LastChannel is the channel of the last event that had one.
func (s *State) LastChannel() string { return s.Channel }

func (s *State) agents() []string {
	names := make([]string, 0, len(s.Members))
	for agent := range s.Members {
		names = append(names, agent)
	}
	slices.Sort(names)
	return names
}

// MarshalBinary writes the checkpoint.
func (s *State) MarshalBinary() ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("write conversation state: %w", err)
	}
	return b, nil
}

// UnmarshalBinary reads a checkpoint of the same conversation.
func (s *State) UnmarshalBinary(data []byte) error {
	read := State{}
	if err := json.Unmarshal(data, &read); err != nil {
		return fmt.Errorf("read conversation state: %w", err)
	}
	if read.Tenant != s.Tenant || read.ID != s.ID {
		return fmt.Errorf("read conversation state: it is of conversation %.80q of tenant %.80q", read.ID, read.Tenant)
	}
	*s = read
	return nil
}
