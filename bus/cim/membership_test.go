package cim

import (
	"cmp"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func fixture(t *testing.T, name string) Event {
	t.Helper()
	body, err := os.ReadFile("testdata/events/" + name + ".json")
	require.NoError(t, err)
	return decode(t, string(body))
}

func TestTheParticipantIsTheAgentTheEventSpeaksOf(t *testing.T) {
	for name, role := range map[string]string{
		AgentSubscribed: "SILENT_MONITOR", AgentUnsubscribed: "WRAP_UP", ParticipantRoleChanged: "WHISPER",
	} {
		e := fixture(t, name)
		p, err := e.Participant()
		require.NoError(t, err)
		require.Equal(t, role, p.Role)
		require.Equal(t, "acme", p.Realm)
		require.Equal(t, p.Agent, lookup(p.Raw, "participant", "id").text())
		require.Contains(t, string(e.Body), string(p.Raw))
		require.True(t, IsMembership(e.Name))
	}
}

func TestTheAgentIsTheUsersIdElseTheParticipants(t *testing.T) {
	for name, c := range map[string]struct{ participant, agent, problem string }{
		"both":             {`{"id":"p","keycloakUser":{"id":"k"}}`, "k", ""},
		"no user":          {`{"id":"p"}`, "p", ""},
		"user is null":     {`{"id":"p","keycloakUser":null}`, "p", ""},
		"user's id is not": {`{"id":"p","keycloakUser":{"id":5}}`, "p", ""},
		"last one wins":    {`{"id":"p","keycloakUser":{"id":"no","\u0069d":"k"}}`, "k", ""},
		"no id":            {`{"keycloakUser":{"username":"u"}}`, "", "data.agentParticipant.participant.keycloakUser.id is missing"},
		"empty id":         {`{"keycloakUser":{"id":""}}`, "", "keycloakUser.id is empty"},
		"id is a number":   {`{"id":1,"keycloakUser":{"id":12}}`, "", "keycloakUser.id is a number: set it to the agent's id"},
		"none":             {`null`, "", "keycloakUser.id is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			e := decode(t, `{"id":"1","name":"AGENT_SUBSCRIBED","data":{"agentParticipant":{"participant":`+c.participant+`}}}`)
			p, err := e.Participant()
			require.Equal(t, c.agent, p.Agent)
			if c.problem == "" {
				require.NoError(t, err)
				return
			}
			var invalid *Error
			require.ErrorAs(t, err, &invalid)
			require.Equal(t, ReasonNoParticipant, invalid.Reason)
			require.ErrorContains(t, err, c.problem)
		})
	}
}

func TestWhatHasNoParticipantSaysSo(t *testing.T) {
	for body, problem := range map[string]string{
		`{"id":"1","name":"AGENT_SUBSCRIBED"}`:                                              "data.agentParticipant is missing",
		`{"id":"1","name":"AGENT_UNSUBSCRIBED","data":{"agentParticipant":"a"}}`:            "data.agentParticipant is a string",
		`{"id":"1","name":"PARTICIPANT_ROLE_CHANGED","data":{"agentParticipant":{"id":1}}}`: "data.conversationParticipant is missing",
		`{"id":"1","name":"CUSTOMER_MESSAGE","data":{"agentParticipant":{"id":1}}}`:         "name is of an event that has no participant",
	} {
		e := decode(t, body)
		_, err := e.Participant()
		require.ErrorContains(t, err, problem)
	}
}

func TestReasonAndTopicState(t *testing.T) {
	e := fixture(t, AgentUnsubscribed)
	require.Equal(t, "UNSUBSCRIBED", e.Reason())
	require.Empty(t, e.TopicState(), "the participant's state is none of the conversation's")
	e = fixture(t, TopicStateChangeEvent)
	require.Equal(t, "ACTIVE", e.TopicState())
	e = decode(t, `{"id":"1","name":"TOPIC_STATE_CHANGE_EVENT","data":{"state":"CLOSED","reason":null}}`)
	require.Equal(t, "CLOSED", e.TopicState())
	require.Empty(t, e.Reason())
	e = decode(t, `{"id":"1","name":"TOPIC_STATE_CHANGE_EVENT","data":[]}`)
	require.Empty(t, e.TopicState())
}

func TestOnlyFourEventsAreMembershipAndOneIsTransient(t *testing.T) {
	for _, name := range []string{AgentSubscribed, AgentUnsubscribed, ParticipantRoleChanged, TopicStateChangeEvent} {
		require.True(t, IsMembership(name))
		require.False(t, IsTransient(name))
	}
	for _, name := range []string{CustomerMessage, BotSubscribed, AdvisorSubscribed, "", "agent_subscribed", "AGENT_SUBSCRIBED "} {
		require.False(t, IsMembership(name))
		require.False(t, IsTransient(name))
	}
	require.True(t, IsTransient(TypingIndicator))
}

// shape collects the paths of all keys of a JSON object.
func shape(raw []byte, path string, into map[string]bool) {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		return
	}
	for key, value := range members {
		into[path+key] = true
		shape(value, path+key+".", into)
	}
}

func TestMembershipEventsHaveTheShapeOfThePlatforms(t *testing.T) {
	m := Membership{
		ID: "e-1", Time: time.UnixMilli(1700000000123), Conversation: "c-1", Agent: "a-1", Username: "noor", Realm: "acme",
		Role: "PRIMARY", Reason: "JOINED", RoomInfo: []byte(`{"id":"r","mode":"CONTACT_CENTER"}`),
	}
	require.Equal(t, `{"id":"e-1","name":"AGENT_SUBSCRIBED","type":"NOTIFICATION","timestamp":1700000000123,"conversationId":"c-1",`+
		`"eventEmitter":{"id":"cimbus","type":"SYSTEM","senderName":"CIMBUS","additionalDetail":null},"channelSession":null,`+
		`"data":{"agentParticipant":{"id":"a-1","type":"AGENT","role":"PRIMARY","participant":{"id":"a-1","participantType":"CCUser",`+
		`"keycloakUser":{"id":"a-1","username":"noor","firstName":"noor","lastName":"","realm":"acme","roles":[]}},`+
		`"conversationId":"c-1","state":"SUBSCRIBED"},"reason":"JOINED"},"roomInfo":{"id":"r","mode":"CONTACT_CENTER"}}`,
		string(Subscribed(m)))

	theirs, ours := map[string]bool{}, map[string]bool{}
	e := fixture(t, AgentUnsubscribed)
	shape(e.Body, "", theirs)
	shape(Unsubscribed(m), "", ours)
	for path := range ours {
		require.True(t, theirs[path], "%s is in none of the platform's events", path)
	}
}

func TestWhatIsNotGivenIsLeftOutOfAMembershipEvent(t *testing.T) {
	for _, room := range []string{"", "null", " null ", "{", "\"\xff\""} {
		e := decode(t, string(Unsubscribed(Membership{ID: "1", Agent: "a", RoomInfo: []byte(room)})))
		require.Equal(t, AgentUnsubscribed, e.Name)
		require.Nil(t, e.RoomInfo)
		require.True(t, e.Time.IsZero())
		require.Equal(t, "null", string(lookup(e.Body, "data", "reason")))
		require.Equal(t, "a", lookup(e.Body, "data", "agentParticipant", "participant", "keycloakUser", "username").text())
	}
}

func TestAMembershipEventDecodesToWhatItWasMadeOf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`["\\{}\[\],:/<&\x00-\x1f\x{2028}]*`))
		m := Membership{
			ID: text.Draw(t, "id") + "i", Agent: text.Draw(t, "agent") + "a", Conversation: text.Draw(t, "conversation"),
			Username: text.Draw(t, "username"), Realm: text.Draw(t, "realm"), Role: text.Draw(t, "role"), Reason: text.Draw(t, "reason"),
			Time:     time.UnixMilli(rapid.Int64Range(firstMilli, lastMilli).Draw(t, "time")).UTC(),
			RoomInfo: []byte(`{"id":` + marshal(text.Draw(t, "room")) + `}`),
		}
		build, name := Subscribed, AgentSubscribed
		if rapid.Bool().Draw(t, "leaves") {
			build, name = Unsubscribed, AgentUnsubscribed
		}
		e, err := Decode(build(m), "")
		require.NoError(t, err)
		p, err := e.Participant()
		require.NoError(t, err)
		require.Equal(t, name, e.Name)
		require.Equal(t, "NOTIFICATION", e.Type)
		shown := cmp.Or(m.Username, m.Agent)
		require.Equal(t, shown, lookup(p.Raw, "participant", "keycloakUser", "username").text())
		read := Membership{
			ID: e.ID, Time: e.Time, Conversation: e.Conversation, Agent: p.Agent, Username: m.Username, Realm: p.Realm, Role: p.Role,
			Reason: e.Reason(), RoomInfo: e.RoomInfo,
		}
		require.Equal(t, m, read)
	})
}
