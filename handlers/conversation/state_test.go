package conversation_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/conversation"
)

// event decodes a body as the runtime does.
func event(t require.TestingT, sequence uint64, body []byte) *handlers.Event {
	e, err := cim.Decode(body, "c1")
	require.NoError(t, err)
	return &handlers.Event{Event: e, Sequence: sequence}
}

func joined(t require.TestingT, s uint64, agent, role string) *handlers.Event {
	return event(t, s, cim.Subscribed(cim.Membership{ID: fmt.Sprint(s), Time: time.UnixMilli(1767000000000), Conversation: "c1", Agent: agent, Role: role}))
}

func left(t require.TestingT, s uint64, agent, reason string) *handlers.Event {
	return event(t, s, cim.Unsubscribed(cim.Membership{ID: fmt.Sprint(s), Conversation: "c1", Agent: agent, Role: "PRIMARY", Reason: reason}))
}

func said(t require.TestingT, s uint64) *handlers.Event {
	return event(t, s, fmt.Appendf(nil, `{"id":"%d","name":"CUSTOMER_MESSAGE","channelSession":{"id":"s1","customer":{"_id":"k1","firstName":"Noor"},
		"channel":{"channelType":{"name":"WhatsApp"}}},"data":{"body":"hello"}}`, s))
}

func roleChanged(t require.TestingT, s uint64, agent, role string) *handlers.Event {
	return event(t, s, fmt.Appendf(nil, `{"id":"%d","name":"PARTICIPANT_ROLE_CHANGED","data":{"conversationParticipant":{"type":"AGENT","role":%q,
		"participant":{"id":%q,"keycloakUser":{"id":%q}}}}}`, s, role, agent, agent))
}

func topicState(t require.TestingT, s uint64, state string) *handlers.Event {
	return event(t, s, fmt.Appendf(nil, `{"id":"%d","name":"TOPIC_STATE_CHANGE_EVENT","data":{"state":%s}}`, s, state))
}

func fold(t require.TestingT, s handlers.State, e *handlers.Event) []handlers.MemberChange {
	changes, err := s.Fold(e)
	require.NoError(t, err)
	return changes
}

func TestJoinerReceivesItsOwnJoin(t *testing.T) {
	s := conversation.New("acme", "c1")
	e := joined(t, 1, "ada", "PRIMARY")
	require.Equal(t, []handlers.MemberChange{{Agent: "ada", Role: "PRIMARY", Since: 1}}, fold(t, s, e))
	require.Equal(t, []handlers.Recipient{{Agent: "ada", Role: "PRIMARY", Event: true}}, s.Audience(e))
}

func TestEveryMemberReceivesWhateverItsRole(t *testing.T) {
	s := conversation.New("acme", "c1")
	for i, role := range []string{"PRIMARY", "ASSISTANT", "SILENT_MONITOR", "WHISPER", "WRAP_UP", ""} {
		fold(t, s, joined(t, uint64(i+1), fmt.Sprintf("agent-%d", i), role))
	}
	e := said(t, 9)
	require.Empty(t, fold(t, s, e))
	require.Len(t, s.Audience(e), 6)
}

func TestLeaverGetsTheNoticeAndNothingAfterIt(t *testing.T) {
	s := conversation.New("acme", "c1")
	fold(t, s, joined(t, 1, "ada", "PRIMARY"))
	fold(t, s, joined(t, 2, "ben", "ASSISTANT"))
	e := left(t, 3, "ada", "TRANSFERRED")
	require.Equal(t, []handlers.MemberChange{{Agent: "ada", Role: "PRIMARY", Since: 1, Left: 3}}, fold(t, s, e))
	require.Equal(t, []handlers.Recipient{
		{Agent: "ben", Role: "ASSISTANT", Event: true},
		{Agent: "ada", Role: "PRIMARY", Left: true, Reason: "TRANSFERRED"},
	}, s.Audience(e))

	e = said(t, 4)
	fold(t, s, e)
	require.Equal(t, []handlers.Recipient{{Agent: "ben", Role: "ASSISTANT", Event: true}}, s.Audience(e))
}

func TestMembersOfAClosedConversationGetTheEventThenTheNotice(t *testing.T) {
	for _, state := range []string{`"CLOSED"`, `{"name":"CLOSED"}`} {
		s := conversation.New("acme", "c1")
		fold(t, s, joined(t, 1, "ada", "PRIMARY"))
		fold(t, s, joined(t, 2, "ben", "PRIMARY"))
		e := topicState(t, 3, state)
		require.Len(t, fold(t, s, e), 2)
		require.Equal(t, []handlers.Recipient{
			{Agent: "ada", Role: "PRIMARY", Event: true, Left: true, Reason: conversation.ReasonClosed},
			{Agent: "ben", Role: "PRIMARY", Event: true, Left: true, Reason: conversation.ReasonClosed},
		}, s.Audience(e))
		e = said(t, 4)
		fold(t, s, e)
		require.Empty(t, s.Audience(e))
	}
}

func TestRepeatedMembershipEventsChangeNothing(t *testing.T) {
	s := conversation.New("acme", "c1")
	require.Empty(t, fold(t, s, left(t, 1, "ada", "")), "a stranger leaves")
	require.Empty(t, fold(t, s, roleChanged(t, 2, "ada", "WHISPER")), "a stranger's role changes")
	fold(t, s, joined(t, 3, "ada", "PRIMARY"))
	require.Empty(t, fold(t, s, joined(t, 4, "ada", "PRIMARY")), "it joins again")
	require.Empty(t, fold(t, s, joined(t, 5, "ada", "")), "it joins again without a role")
	fold(t, s, left(t, 6, "ada", ""))
	e := left(t, 7, "ada", "")
	require.Empty(t, fold(t, s, e), "it leaves again")
	require.Empty(t, s.Audience(e), "and gets no second notice")
}

func TestRoleChangeKeepsTheMembershipsBeginning(t *testing.T) {
	s := conversation.New("acme", "c1")
	fold(t, s, joined(t, 1, "ada", "SILENT_MONITOR"))
	require.Equal(t, []handlers.MemberChange{{Agent: "ada", Role: "PRIMARY", Since: 1}}, fold(t, s, roleChanged(t, 2, "ada", "PRIMARY")))
	require.Equal(t, []handlers.MemberChange{{Agent: "ada", Role: "WHISPER", Since: 1}}, fold(t, s, joined(t, 3, "ada", "WHISPER")))
}

func TestInvalidMembershipEventLeavesTheStateAsItWas(t *testing.T) {
	s := conversation.New("acme", "c1")
	fold(t, s, joined(t, 1, "ada", "PRIMARY"))
	before, err := s.MarshalBinary()
	require.NoError(t, err)
	_, err = s.Fold(event(t, 2, []byte(`{"id":"x","name":"AGENT_SUBSCRIBED","data":{"agentParticipant":{}}}`)))
	require.Error(t, err)
	after, err := s.MarshalBinary()
	require.NoError(t, err)
	require.Equal(t, before, after)
}

func TestCheckpointOfAnotherConversationIsRefused(t *testing.T) {
	data, err := conversation.New("acme", "c1").MarshalBinary()
	require.NoError(t, err)
	require.Error(t, conversation.New("acme", "c2").UnmarshalBinary(data))
	require.Error(t, conversation.New("other", "c1").UnmarshalBinary(data))
}

// A worker that takes over reads a checkpoint and folds on: it must know the same, and see the same audiences, as the one that folded all along.
func TestFoldContinuedFromACheckpointGivesTheSameStateAndAudiences(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		agents := []string{"ada", "ben", "cleo"}
		whole := conversation.New("acme", "c1")
		resumed := conversation.New("acme", "c1")
		for s := range uint64(rapid.IntRange(1, 40).Draw(t, "events")) {
			sequence, agent := s+1, rapid.SampledFrom(agents).Draw(t, "agent")
			role := rapid.SampledFrom([]string{"PRIMARY", "WHISPER", ""}).Draw(t, "role")
			var e *handlers.Event
			switch rapid.IntRange(0, 9).Draw(t, "kind") {
			case 0, 1:
				e = joined(t, sequence, agent, role)
			case 2:
				e = left(t, sequence, agent, "")
			case 3:
				e = roleChanged(t, sequence, agent, role)
			case 4:
				e = topicState(t, sequence, rapid.SampledFrom([]string{`"ACTIVE"`, `"CLOSED"`}).Draw(t, "state"))
			case 5:
				e = said(t, sequence)
			default:
				e = event(t, sequence, fmt.Appendf(nil, `{"id":"%d","name":%q,"channelSession":%s}`, sequence,
					rapid.SampledFrom([]string{"CUSTOMER_MESSAGE", "CUSTOMER_MESSAGE", "CHANNEL_SESSION_ENDED"}).Draw(t, "name"),
					rapid.SampledFrom([]string{
						`{"id":"s1","customer":{"_id":"k1"}}`, `{"id":"s1","customer":{"_id":"k2"}}`, `{"id":"s2","customer":{"_id":"k2"}}`,
						`{"customer":{"_id":"k3"}}`, `{"id":"s2"}`, `null`,
					}).Draw(t, "session")))
			}
			require.Equal(t, fold(t, whole, e), fold(t, resumed, e))
			require.Equal(t, whole.Audience(e), resumed.Audience(e))
			data, err := resumed.MarshalBinary()
			require.NoError(t, err)
			same, err := whole.MarshalBinary()
			require.NoError(t, err)
			require.JSONEq(t, string(same), string(data))
			if rapid.Bool().Draw(t, "checkpoint") {
				resumed = conversation.New("acme", "c1")
				require.NoError(t, resumed.UnmarshalBinary(data))
			}
		}
	})
}

func TestStateKnowsCustomerChannelAndRunningSessions(t *testing.T) {
	s := conversation.New("acme", "c1").(*conversation.State)
	fold(t, s, said(t, 1))
	require.Equal(t, "WhatsApp", s.Channel)
	require.JSONEq(t, `{"_id":"k1","firstName":"Noor"}`, string(s.Customer))
	require.Contains(t, s.Sessions, "s1")
	fold(t, s, event(t, 2, []byte(`{"id":"2","name":"CHANNEL_SESSION_ENDED","channelSession":{"id":"s1"}}`)))
	require.Empty(t, s.Sessions)
}
