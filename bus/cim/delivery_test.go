package cim

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// field is a member of a JSON object, raw.
func field(t require.TestingT, object []byte, key string) json.RawMessage {
	var members map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(object, &members))
	return members[key]
}

func unmarshalText(t require.TestingT, raw []byte) (text string) {
	require.NoError(t, json.Unmarshal(raw, &text))
	return text
}

func TestADeliveryHasTheDocumentedForm(t *testing.T) {
	const session = `{"state":{"name":"STARTED"},"channel":{"channelConfig":{"routingPolicy":{"routingMode":"PULL","routingObjectId":"list-7"}}}}`
	for name, c := range map[string]struct {
		event      string
		properties bool
		want       string
	}{
		"everything": {
			`{"id":"1","name":"X","timestamp":1700000000120,"channelSession":` + session + `,"roomInfo":{"id":"r"}}`, true,
			`,"conversationId":"c","id":"1","channelSession":` + session +
				`,"status":"STARTED","listId":"list-7","time":"2023-11-14T22:13:20.120Z","roomInfo":{"id":"r"}}`,
		},
		"nothing": {
			`{"id":"1","name":"X"}`, true,
			`,"conversationId":"c","id":"1","channelSession":null,"status":null,"listId":null,"time":null}`,
		},
		"without properties": {
			`{"id":"1","name":"X","channelSession":` + session + `,"roomInfo":{"id":"r"}}`, false,
			`,"conversationId":"c","roomInfo":{"id":"r"}}`,
		},
		"without properties and room": {`{"id":"1","name":"X","roomInfo":null}`, false, `,"conversationId":"c"}`},
		"times are cut to milliseconds, in UTC": {
			`{"id":"1","name":"X","timestamp":"2024-01-26T14:59:36.8369+02:00"}`, true,
			`,"conversationId":"c","id":"1","channelSession":null,"status":null,"listId":null,"time":"2024-01-26T12:59:36.836Z"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := decode(t, c.event)
			require.Equal(t, `>{"cimEvent":`+c.event+c.want, string(AppendDelivery([]byte(">"), &e, "c", c.properties)))
		})
	}
}

// The page of the documentation gives cimEvent and conversationId in its sample, and a table of five properties.
func TestTheDocumentedSampleGivesTheDocumentedDelivery(t *testing.T) {
	page, err := os.ReadFile("testdata/page.json")
	require.NoError(t, err)
	e, err := Decode(page, "")
	require.NoError(t, err)
	delivery := AppendDelivery(nil, &e, e.Conversation, true)

	require.Equal(t, string(field(t, page, "cimEvent")), string(field(t, delivery, "cimEvent")))
	require.Equal(t, string(field(t, page, "conversationId")), string(field(t, delivery, "conversationId")))

	event := field(t, page, "cimEvent")
	session := field(t, field(t, field(t, event, "data"), "header"), "channelSession")
	require.Equal(t, string(session), string(field(t, delivery, "channelSession")))
	require.Equal(t, string(field(t, event, "id")), string(field(t, delivery, "id")))
	require.Equal(t, `"STARTED"`, string(field(t, delivery, "status")))
	require.Equal(t, `"`+e.ListID()+`"`, string(field(t, delivery, "listId")))
	require.Len(t, e.ListID(), 24)
	at, err := time.Parse(time.RFC3339, unmarshalText(t, field(t, delivery, "time")))
	require.NoError(t, err)
	require.Equal(t, string(field(t, event, "timestamp")), marshal(at.UnixMilli()))
	require.Nil(t, field(t, delivery, "roomInfo"))

	bare, err := Decode(event, "")
	require.NoError(t, err)
	require.Equal(t, e, bare, "without the wrapper the conversation stands only in the session's topicId")
}
