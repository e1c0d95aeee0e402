package cim

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// FuzzDecode: no input panics; what is accepted is JSON, and so is the delivery made of it, with the event's own bytes in it;
// and the grammar is that of encoding/json.
func FuzzDecode(f *testing.F) {
	const session = `{"conversationId":"c","topicId":"t","state":{"name":"STARTED"},"channel":{"channelType":{"name":"WEB"},` +
		`"channelConfig":{"routingPolicy":{"routingMode":"PULL","routingObjectId":"l"}}}}`
	for _, body := range []string{ // small ones: the search takes long over long ones
		`{"id":"1","name":"X","type":"CALL","timestamp":1e12,"roomInfo":{},"channelSession":` + session + `}`,
		`{"id":"1","name":"X","data":{"channelSession":5,"header":{"channelSession":` + session + `}}}`,
		`{"cimEvent":"{\"id\":\"1\",\"n\\u0061me\":\"X\"}","conversationId":"c"}`,
		`{"cimEvent":{"cimEvent":1},"cimEvent":" [{}] "}`,
		`{"id":"\ud800\ud83d\ude00","name":"X","name":"Y"}`,
		`{"id":"1","name":"AGENT_SUBSCRIBED","data":{"agentParticipant":{"participant":{"keycloakUser":{"id":"a"}}}}}`,
		"[0.5e-1,-0,true,false,null,\"\"]", "\ufeff{}", "{\"a\":\"\x00\"}", "\xff",
	} {
		f.Add([]byte(body), "c\xff\"")
		f.Add([]byte(body), "")
	}
	f.Fuzz(func(t *testing.T, body []byte, conversation string) {
		e, err := Decode(body, conversation)
		var invalid *Error
		if err != nil {
			require.ErrorAs(t, err, &invalid)
			require.NotEmpty(t, invalid.Error())
			require.LessOrEqual(t, invalid.Offset, int64(len(body)))
		}
		if invalid == nil || invalid.Reason != ReasonTooDeep {
			refused := invalid != nil && invalid.Reason == ReasonNotJSON && invalid.Field == "body"
			require.Equal(t, json.Valid(body) && utf8.Valid(body), !refused)
		}
		if e.Body == nil { // nothing could be read
			require.Error(t, err)
			return
		}
		require.True(t, json.Valid(e.Body))
		for _, properties := range []bool{true, false} {
			delivery := AppendDelivery(nil, &e, conversation, properties)
			require.True(t, json.Valid(delivery), "%s", delivery)
			require.True(t, utf8.Valid(delivery))
			require.Equal(t, string(e.Body), string(field(t, delivery, "cimEvent")))
		}
		if lookup(e.Body, "cimEvent") == nil {
			again, problem := Decode(e.Body, e.Conversation)
			require.Equal(t, e, again)
			require.Equal(t, err, problem)
		}
		p, err := e.Participant()
		require.True(t, err != nil || p.Agent != "" && json.Valid(p.Raw))
		_, _ = e.Reason(), e.TopicState()
	})
}

// FuzzTimestamp: every value gives the zero time or one that RFC 3339 can write.
func FuzzTimestamp(f *testing.F) {
	for _, raw := range []string{
		"1706273976836", "-1", "1e12", "1e999", `"2024-01-26T12:59:36.836+00:00"`, `"2024-01-26T12:59:36+0000"`, "null",
		`"9999-12-31T23:59:59-23:59"`,
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		at := timestamp(lookup(value(raw)))
		if at.IsZero() {
			return
		}
		written, err := at.MarshalJSON()
		require.NoError(t, err)
		require.True(t, at.Equal(timestamp(value(written))), raw)
	})
}
