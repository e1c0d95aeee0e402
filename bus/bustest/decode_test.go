package bustest

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

func TestCheckerReadsAnEventByTheDesign(t *testing.T) {
	const subject = "cim.acme.web.BOT_MESSAGE"
	good := func(rest string) string { return `{"id":"i","name":"BOT_MESSAGE"` + rest + `}` }
	for name, c := range map[string]struct {
		body, header          string
		conversation, invalid string
	}{
		"bare":                   {body: good(`,"conversationId":"c1"`), conversation: "c1"},
		"topic":                  {body: good(`,"topicId":"c1"`), conversation: "c1"},
		"header wins":            {body: good(`,"conversationId":"c1"`), header: "c2", conversation: "c2"},
		"session":                {body: good(`,"channelSession":{"conversationId":"c1"}`), conversation: "c1"},
		"session of data":        {body: good(`,"data":{"channelSession":{"topicId":"c1"}}`), conversation: "c1"},
		"session of data.header": {body: good(`,"data":{"header":{"channelSession":{"conversationId":"c1"}}}`), conversation: "c1"},
		"last of a repeated key": {body: good(`,"conversationId":"c1","conversationId":"c2"`), conversation: "c2"},
		"keys are exact":         {body: good(`,"ConversationID":"c1"`), invalid: "no conversation"},
		"wrapped":                {body: `{"cimEvent":` + good("") + `,"conversationId":"c1"}`, conversation: "c1"},
		"wrapped as a string":    {body: `{"cimEvent":"{\"id\":\"i\",\"name\":\"BOT_MESSAGE\",\"topicId\":\"c1\"}"}`, conversation: "c1"},
		"wrapper before event":   {body: `{"cimEvent":` + good(`,"conversationId":"c2"`) + `,"topicId":"c1"}`, conversation: "c1"},
		"no id":                  {body: `{"name":"BOT_MESSAGE","topicId":"c1"}`, conversation: "c1", invalid: "no id"},
		"no name":                {body: `{"id":"i","name":7,"topicId":"c1"}`, conversation: "c1", invalid: "no name"},
		"another name":           {body: `{"id":"i","name":"AGENT_MESSAGE","topicId":"c1"}`, conversation: "c1", invalid: "subject of another event"},
		"not JSON, header":       {body: "{", header: "c1", conversation: "c1", invalid: "not a JSON object"},
		"not UTF-8":              {body: good(`,"topicId":"c1","x":"` + "\xff" + `"`), invalid: "not a JSON object"},
		"null":                   {body: "null", invalid: "not a JSON object"},
		"long conversation":      {body: good(`,"topicId":"` + strings.Repeat("x", 129) + `"`), invalid: "conversation"},
		"deep":                   {body: good(`,"topicId":"c1","x":` + strings.Repeat("[", 511) + strings.Repeat("]", 511)), conversation: "c1"},
		"too deep":               {body: good(`,"topicId":"c1","x":` + strings.Repeat("[", 512) + strings.Repeat("]", 512)), invalid: "not a JSON object"},
		"brackets in a string":   {body: good(`,"topicId":"c1","x":"` + strings.Repeat(`[\"`, 600) + `"`), conversation: "c1"},
	} {
		t.Run(name, func(t *testing.T) {
			header := nats.Header{}
			if c.header != "" {
				header["Cim-Conversation-Id"] = []string{"forged", c.header}
			}
			e := decodeEvent(subject, header, []byte(c.body), 7)
			require.Equal(t, c.conversation, e.Conversation)
			require.Equal(t, c.invalid, e.Invalid)
		})
	}
}

// FuzzCheckerReadsEventsAsTheBusDoes holds the two readers, written apart from
// each other, against each other.
func FuzzCheckerReadsEventsAsTheBusDoes(f *testing.F) {
	for _, seed := range []string{
		`{"id":"i","name":"BOT_MESSAGE","conversationId":"c1"}`,
		`{"cimEvent":{"id":"i","name":"BOT_MESSAGE"},"topicId":"c\u00e4"}`,
		`{"cimEvent":"{\"id\":\"i\",\"name\":\"BOT_MESSAGE\"}","conversationId":"c1"}`,
		`{"id":"i","name":"AGENT_SUBSCRIBED","data":{"agentParticipant":{"role":"PRIMARY","participant":{"keycloakUser":{"id":"ada"},"id":"x"}}},"topicId":"c"}`,
		`{"id":"i","name":"PARTICIPANT_ROLE_CHANGED","data":{"conversationParticipant":{"role":1,"participant":{"id":"x"}}},"topicId":"c"}`,
		`{"id":"i","name":"TOPIC_STATE_CHANGE_EVENT","data":{"state":{"name":"CLOSED"},"header":{"channelSession":{"topicId":"c"}}}}`,
		`{"id":"i","id":"","name":"X","channelSession":null,"data":{"channelSession":{"conversationId":"c"}}}`,
	} {
		f.Add([]byte(seed), "")
		f.Add([]byte(seed), "c2")
	}
	f.Fuzz(func(t *testing.T, body []byte, conversation string) {
		header := nats.Header{}
		if conversation != "" {
			header["Cim-Conversation-Id"] = []string{conversation}
		}
		theirs, err := cim.Decode(body, conversation)
		subject, nameErr := subjects.Event{Tenant: "acme", Event: theirs.Name}.Subject()
		if nameErr != nil {
			subject = "cim.acme._.BOT_MESSAGE"
		}
		ours := decodeEvent(subject, header, body, 1)

		if _, err := subjects.Encode(theirs.Conversation); err != nil {
			require.Empty(t, ours.Conversation)
			require.NotEmpty(t, ours.Invalid)
			return
		}
		require.Equal(t, theirs.Conversation, ours.Conversation)
		if err != nil || nameErr != nil {
			require.NotEmpty(t, ours.Invalid)
			return
		}
		require.Equal(t, theirs.ID, ours.ID)
		switch theirs.Name {
		case eventJoin, eventLeave, eventRole:
			p, err := theirs.Participant()
			if _, tokenErr := subjects.Encode(p.Agent); err != nil || tokenErr != nil {
				require.NotEmpty(t, ours.Invalid)
				return
			}
			require.Equal(t, []string{p.Agent, p.Role}, []string{ours.Agent, ours.Role})
		case eventState:
			require.Equal(t, theirs.TopicState() == stateClosed, ours.Closed)
		}
		require.Empty(t, ours.Invalid)
	})
}
