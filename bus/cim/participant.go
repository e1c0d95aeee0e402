package cim

// Participant is the agent an event of membership speaks of.
type Participant struct {
	// Agent is the agent's id: participant.keycloakUser.id, else participant.id.
	Agent string
	// Role is PRIMARY, ASSISTANT, SILENT_MONITOR, WHISPER, WRAP_UP or another one; empty if it is no string.
	Role string
	// Realm is the agent's identity realm, which is the tenant; empty if it is no string.
	Realm string
	// Raw is the participant object as it stands in the event, aliasing its Body.
	Raw []byte
}

// Participant is data.agentParticipant of AGENT_SUBSCRIBED and AGENT_UNSUBSCRIBED, data.conversationParticipant of
// PARTICIPANT_ROLE_CHANGED. For every other event, and where no agent id is found, the error is an [*Error] with
// [ReasonNoParticipant].
func (e *Event) Participant() (Participant, error) {
	var key string
	switch e.Name {
	case AgentSubscribed, AgentUnsubscribed:
		key = "agentParticipant"
	case ParticipantRoleChanged:
		key = "conversationParticipant"
	default:
		return Participant{}, &Error{
			Reason: ReasonNoParticipant, Field: "name", Problem: "is of an event that has no participant",
			Remedy: "ask only " + AgentSubscribed + ", " + AgentUnsubscribed + " and " + ParticipantRoleChanged,
		}
	}
	raw := lookup(e.Body, "data", key)
	if raw.kind() != '{' {
		return Participant{}, noParticipant("data."+key, raw, "an object")
	}
	inner := lookup(raw, "participant")
	user := lookup(inner, "keycloakUser")
	p := Participant{
		Agent: first(lookup(user, "id").text(), lookup(inner, "id")),
		Role:  lookup(raw, "role").text(),
		Realm: lookup(user, "realm").text(),
		Raw:   raw,
	}
	if p.Agent == "" {
		return p, noParticipant("data."+key+".participant.keycloakUser.id", lookup(user, "id"), "the agent's id, a non-empty string")
	}
	return p, nil
}

func noParticipant(field string, got value, want string) error {
	problem := "is " + kindName(got.kind())
	switch {
	case got == nil:
		problem = "is missing"
	case string(got) == `""`:
		problem = "is empty"
	}
	return &Error{Reason: ReasonNoParticipant, Field: field, Problem: problem, Remedy: "set it to " + want}
}

// Reason is data.reason, empty if it is no string.
func (e *Event) Reason() string { return lookup(e.Body, "data", "reason").text() }

// TopicState is the conversation's state in a TOPIC_STATE_CHANGE_EVENT: CREATED, ACTIVE, INACTIVE, ON_HOLD, CUSTOMER_LEFT,
// WRAP_UP, CLOSING, CLOSED or another one; empty for every other event and where there is none.
func (e *Event) TopicState() string {
	if e.Name != TopicStateChangeEvent {
		return ""
	}
	return stateName(lookup(e.Body, "data", "state"))
}
