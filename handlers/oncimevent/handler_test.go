package oncimevent_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

func translate(t *testing.T, o oncimevent.Options, body []byte, audience ...handlers.Recipient) []handlers.Delivery {
	t.Helper()
	e, err := cim.Decode(body, "")
	require.NoError(t, err)
	out, err := oncimevent.New(o).Handle(context.Background(), handlers.Event{Event: e, Payload: body, Audience: audience})
	require.NoError(t, err)
	return out
}

func TestEveryRecipientGetsThePublishedBytes(t *testing.T) {
	files, err := filepath.Glob("../../bus/cim/testdata/events/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			body, err := os.ReadFile(file)
			require.NoError(t, err)
			out := translate(t, oncimevent.Options{}, body,
				handlers.Recipient{Agent: "ada", Event: true}, handlers.Recipient{Agent: "ben", Event: true})
			require.Len(t, out, 2)
			for i, agent := range []string{"ada", "ben"} {
				require.Equal(t, agent, out[i].Agent)
				require.Equal(t, oncimevent.Type, out[i].Type)
				var parts struct {
					CimEvent json.RawMessage `json:"cimEvent"`
				}
				require.NoError(t, json.Unmarshal(out[i].Payload, &parts))
				require.Equal(t, strings.TrimSpace(string(body)), string(parts.CimEvent))
			}
		})
	}
}

func TestDocumentedPageIsTranslatedAsDocumented(t *testing.T) {
	body, err := os.ReadFile("../../bus/cim/testdata/page.json")
	require.NoError(t, err)
	out := translate(t, oncimevent.Options{}, body, handlers.Recipient{Agent: "ada", Event: true})
	require.Len(t, out, 1)
	var page, got map[string]any
	require.NoError(t, json.Unmarshal(body, &page))
	require.NoError(t, json.Unmarshal(out[0].Payload, &got))
	require.Equal(t, page["cimEvent"], got["cimEvent"])
	require.Equal(t, page["conversationId"], got["conversationId"])
	event := page["cimEvent"].(map[string]any)
	require.Equal(t, event["id"], got["id"])
	session := event["data"].(map[string]any)["header"].(map[string]any)["channelSession"].(map[string]any)
	require.Equal(t, session, got["channelSession"])
	require.Equal(t, "STARTED", got["status"])
	require.NotEmpty(t, got["listId"])
	require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`, got["time"])
}

func TestBareDeliveryLeavesThePropertiesOut(t *testing.T) {
	out := translate(t, oncimevent.Options{Bare: true},
		[]byte(`{"id":"1","name":"HAND_RAISED","conversationId":"c1","roomInfo":{"id":"r1"}}`), handlers.Recipient{Agent: "ada", Event: true})
	require.JSONEq(t, `{"cimEvent":{"id":"1","name":"HAND_RAISED","conversationId":"c1","roomInfo":{"id":"r1"}},"conversationId":"c1","roomInfo":{"id":"r1"}}`,
		string(out[0].Payload))
}

func TestLeaverGetsItsNoticeAfterTheEvent(t *testing.T) {
	body := []byte(`{"id":"1","name":"TOPIC_STATE_CHANGE_EVENT","conversationId":"c1","data":{"state":"CLOSED"}}`)
	out := translate(t, oncimevent.Options{}, body, handlers.Recipient{Agent: "ada", Event: true, Left: true, Reason: "CONVERSATION_CLOSED"})
	require.Len(t, out, 2)
	require.Equal(t, oncimevent.Type, out[0].Type)
	require.Equal(t, oncimevent.Notice, out[1].Type)
	require.JSONEq(t, `{"task":"topicUnsubscription","reason":"CONVERSATION_CLOSED","conversationId":"c1","roomInfo":null,"statusCode":200}`,
		string(out[1].Payload))
}

func TestTypingIsTransient(t *testing.T) {
	out := translate(t, oncimevent.Options{}, []byte(`{"id":"1","name":"TYPING_INDICATOR","conversationId":"c1"}`), handlers.Recipient{Agent: "ada", Event: true})
	require.True(t, out[0].Transient)
}
