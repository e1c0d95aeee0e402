package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nuid"

	"github.com/cimbus/cimbus/bus/cim"
)

// The people of the demo. They are made up.
const (
	demoTenant = "acme"
	ada        = "ada"
	ben        = "ben"
	noor       = "Noor" // the customer
	bot        = "bot"
)

// What may happen between two events.
const (
	cutBen    = "cut"    // ben's connection is closed
	resumeBen = "resume" // he is back, and goes on where he was
)

// scripted is an event of the live conversation. Who is to get it is written by hand: the demo holds what arrives against this,
// not against what the bus thinks.
type scripted struct {
	name   string
	from   string
	says   string
	to     []string // who is to receive onCimEvent
	notice string   // who is to receive topicUnsubscription with it
	before string   // what happens first
}

// script is the live conversation. ada is a member when it begins.
func script() []scripted {
	both := []string{ada, ben}
	return []scripted{
		{name: cim.CustomerMessage, from: noor, says: "It was due this morning.", to: []string{ada}},
		{name: cim.BotMessage, from: bot, says: "An agent will be with you at once.", to: []string{ada}},
		{name: cim.AgentMessage, from: ada, says: "Good morning, Noor. Let me look.", to: []string{ada}},
		{name: cim.AgentSubscribed, from: ben, says: "joins as ASSISTANT", to: both},
		{name: cim.WhisperMessage, from: ada, says: "Ben, which van has Quay Street today?", to: both},
		{name: cim.CustomerMessage, from: noor, says: "I have to leave at four!", to: both, before: cutBen},
		{name: cim.BotSuggestion, from: bot, says: "Offer the parcel shop as well.", to: both},
		{name: cim.ParticipantRoleChanged, from: ben, says: "becomes PRIMARY", to: both},
		{name: cim.WhisperMessage, from: ben, says: "Van 12. I take it from here.", to: both, before: resumeBen},
		{name: cim.AgentMessage, from: ben, says: "Half past three, before you leave.", to: both},
		{name: cim.AgentUnsubscribed, from: ada, says: "leaves", to: []string{ben}, notice: ada},
		{name: cim.CustomerMessage, from: noor, says: "Perfect. Thank you both!", to: []string{ben}},
	}
}

// scene is what all events of the conversation share.
type scene struct {
	conversation string
	session      json.RawMessage // of the channel
}

type demoEvent struct {
	ID             string          `json:"id"`
	Name           string          `json:"name"`
	Type           string          `json:"type"`
	Timestamp      int64           `json:"timestamp"`
	ConversationID string          `json:"conversationId"`
	EventEmitter   sender          `json:"eventEmitter"`
	ChannelSession json.RawMessage `json:"channelSession"`
	Data           any             `json:"data"`
}

type sender struct {
	ID         string `json:"id"`
	Type       string `json:"type"`
	SenderName string `json:"senderName"`
}

type text struct {
	Type         string `json:"type"`
	MarkdownText string `json:"markdownText"`
}

// body writes an event as a service would.
func (s scene) body(e scripted) ([]byte, error) {
	member := cim.Membership{ID: nuid.Next(), Time: time.Now(), Conversation: s.conversation, Agent: e.from, Realm: demoTenant}
	switch e.name {
	case cim.AgentSubscribed:
		member.Role = "ASSISTANT"
		return cim.Subscribed(member), nil
	case cim.AgentUnsubscribed:
		member.Role, member.Reason = "PRIMARY", "AGENT_LEFT"
		return cim.Unsubscribed(member), nil
	}
	event := demoEvent{
		ID: member.ID, Name: e.name, Type: "MESSAGE", Timestamp: member.Time.UnixMilli(), ConversationID: s.conversation,
		EventEmitter: sender{ID: e.from, Type: emitter(e.from), SenderName: e.from}, ChannelSession: s.session,
	}
	header := map[string]any{"sender": event.EventEmitter, "conversationId": s.conversation, "timestamp": event.Timestamp}
	said := text{Type: "PLAIN", MarkdownText: e.says}
	switch e.name {
	case cim.ParticipantRoleChanged:
		user := map[string]any{"id": e.from, "username": e.from, "realm": demoTenant, "roles": []string{"agent"}}
		event.Type = "NOTIFICATION"
		event.Data = map[string]any{"conversationParticipant": map[string]any{
			"type": "AGENT", "role": "PRIMARY", "conversationId": s.conversation,
			"participant": map[string]any{"id": e.from, "participantType": "CCUser", "keycloakUser": user},
		}}
	case cim.BotSuggestion:
		event.Type = "SUGGESTION"
		event.Data = map[string]any{"id": nuid.Next(), "header": header, "suggestions": []any{map[string]any{"messageBody": said, "confidenceLevel": 0.7}}}
	default:
		event.Data = map[string]any{"id": nuid.Next(), "header": header, "body": said}
	}
	body, err := json.Marshal(event)
	if err != nil {
		return nil, fmt.Errorf("event %s of the demo: %w", e.name, err)
	}
	return body, nil
}

func emitter(who string) string {
	switch who {
	case noor:
		return "CUSTOMER"
	case bot:
		return "BOT"
	}
	return "AGENT"
}

// documentedEvent reads the documented event: its body as published, and the scene it is set in.
func documentedEvent() (body []byte, s scene, err error) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, demoSample); err != nil {
		return nil, s, fmt.Errorf("sample event: %w", err)
	}
	e, err := cim.Decode(compact.Bytes(), "")
	if err != nil {
		return nil, s, fmt.Errorf("sample event: %w", err)
	}
	return compact.Bytes(), scene{conversation: e.Conversation, session: e.Session}, nil
}
