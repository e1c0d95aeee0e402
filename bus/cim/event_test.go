package cim

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func decode(t *testing.T, body string) Event {
	t.Helper()
	e, err := Decode([]byte(body), "")
	require.NoError(t, err)
	return e
}

func TestEveryAcceptedFormGivesTheSameEvent(t *testing.T) {
	const event = `{"id":"1","name":"X","type":"CALL","timestamp":1700000000123,"conversationId":"c","roomInfo":{"id":"r"},
		"channelSession":{"state":"STARTED","channel":{"channelType":{"name":"WEB"}}},"data":{"text":"\"ö\" \u00f6 \\ \/ \ud83d\ude00"}}`
	quoted, err := json.Marshal(event)
	require.NoError(t, err)
	for name, body := range map[string]string{
		"bare":                event,
		"bare with space":     " \n" + event + "\t\r\n",
		"wrapper":             `{"cimEvent":` + event + `}`,
		"wrapper, more keys":  `{"agentId":"a","id":"no","name":"no","channelSession":{"channel":{"channelType":{"name":"no"}}},"cimEvent": ` + event + ` ,"data":[1]}`,
		"string":              `{"cimEvent":` + string(quoted) + `}`,
		"string with space":   `{"cimEvent":"  ` + string(quoted[1:len(quoted)-1]) + `\n"}`,
		"string, all escaped": `{"cimEvent":"` + escapeAll(event) + `"}`,
		"string after object": `{"cimEvent":{"id":"2","name":"Y"},"cimEvent":` + string(quoted) + `}`,
		"object after string": `{"cimEvent":"{}","cimEvent":` + event + `}`,
		"escaped key":         `{"cim\u0045vent":` + event + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			e := decode(t, body)
			require.Equal(t, event, string(e.Body))
			require.Equal(t, Event{
				ID: "1", Name: "X", Type: "CALL", Time: time.UnixMilli(1700000000123).UTC(), Conversation: "c", Channel: "WEB",
				Body: []byte(event), RoomInfo: []byte(`{"id":"r"}`),
				Session: []byte(`{"state":"STARTED","channel":{"channelType":{"name":"WEB"}}}`),
			}, e)
		})
	}
}

// escapeAll writes every character of text as \uXXXX.
func escapeAll(text string) string {
	var b strings.Builder
	for _, r := range text {
		b.WriteString(`\u00`)
		b.WriteByte("0123456789abcdef"[r>>4])
		b.WriteByte("0123456789ABCDEF"[r&15])
	}
	return b.String()
}

func TestTheBodyKeepsEveryByte(t *testing.T) {
	const event = `{ "zz" : 9007199254740993 , "a":1.0e+02,"name":"X", "unknown":{"b":[ ],"a":"\u0041\/"},"id":"1","a":-0 }`
	require.Equal(t, event, string(decode(t, "\n"+event+"\n").Body))
	require.Equal(t, event, string(decode(t, `{"conversationId":"c","cimEvent":`+event+`}`).Body))
}

func TestBodySessionAndRoomAliasTheInput(t *testing.T) {
	in := []byte(`{"id":"1","name":"X","channelSession":{"state":"A"},"roomInfo":{"id":"r"}}`)
	e, err := Decode(in, "")
	require.NoError(t, err)
	copy(in, strings.ReplaceAll(string(in), "X", "Y"))
	require.Equal(t, "X", e.Name, "strings are copies")
	require.Contains(t, string(e.Body), `"Y"`)
	copy(in, strings.ReplaceAll(string(in), `"A"`, `"B"`))
	require.Equal(t, `{"state":"B"}`, string(e.Session))
	require.Equal(t, "B", e.Status())
}

func TestTheConversationIsTheFirstOfItsChain(t *testing.T) {
	chain := []struct{ key, value string }{
		{`"wrapper-conversation"`, "1"}, {`"wrapper-topic"`, "2"}, {`"event-conversation"`, "3"}, {`"event-topic"`, "4"},
		{`"session-conversation"`, "5"}, {`"session-topic"`, "6"}, {`"data-conversation"`, "7"}, {`"data-topic"`, "8"},
		{`"header-conversation"`, "9"}, {`"header-topic"`, "10"},
	}
	body := `{"topicId":"wrapper-topic","cimEvent":{"id":"1","name":"X",
		"data":{"conversationId":"no","header":{"topicId":"header-topic","channelSession":{"topicId":"header-topic","conversationId":"header-conversation"}},
			"channelSession":{"topicId":"data-topic","conversationId":"data-conversation"}},
		"channelSession":{"topicId":"session-topic","conversationId":"session-conversation"},
		"topicId":"event-topic","conversationId":"event-conversation"},"conversationId":"wrapper-conversation"}`
	e, err := Decode([]byte(body), "header")
	require.NoError(t, err)
	require.Equal(t, "header", e.Conversation)
	nothing := []string{`""`, `null`, `5`, `true`, `["x"]`, `{"id":"x"}`}
	for i, link := range chain {
		e := decode(t, body)
		require.Equal(t, strings.Trim(link.key, `"`), e.Conversation)
		body = strings.ReplaceAll(body, link.key, nothing[i%len(nothing)])
	}
	e = decode(t, body)
	require.Empty(t, e.Conversation)
	var invalid *Error
	require.ErrorAs(t, e.RequireConversation(), &invalid)
	require.Equal(t, ReasonNoConversation, invalid.Reason)
	e.Conversation = "c"
	require.NoError(t, e.RequireConversation())
}

func TestSessionAndChannelAreTheFirstOfTheirChains(t *testing.T) {
	const none = `null`
	with := func(channel string) string { return `{"channel":{"channelType":{"name":"` + channel + `"}}}` }
	for name, c := range map[string]struct{ event, data, header, session, channel string }{
		"event":                           {with("A"), with("B"), with("C"), with("A"), "A"},
		"data":                            {none, with("B"), with("C"), with("B"), "B"},
		"header":                          {none, none, with("C"), with("C"), "C"},
		"none":                            {none, none, none, "", ""},
		"a session without a channel":     {`{"channel":{}}`, with("B"), none, `{"channel":{}}`, "B"},
		"only an object is a session":     {`"text"`, `[]`, with("c C"), with("c C"), "c C"},
		"a channel type that is no name":  {`{"channel":{"channelType":"A"}}`, none, none, `{"channel":{"channelType":"A"}}`, ""},
		"an empty channel type is none":   {with(""), with("B"), none, with(""), "B"},
		"the last of a repeated channel":  {`{"channel":{"channelType":{"name":"A"}},"channel":5}`, none, with("C"), `{"channel":{"channelType":{"name":"A"}},"channel":5}`, "C"},
		"the last of a repeated type":     {`{"channel":{"channelType":{"name":"A","name":null}}}`, none, none, `{"channel":{"channelType":{"name":"A","name":null}}}`, ""},
		"spelled as the platform does it": {with("Cx_Voice"), none, none, with("Cx_Voice"), "Cx_Voice"},
	} {
		t.Run(name, func(t *testing.T) {
			e := decode(t, `{"id":"1","name":"X","channelSession":`+c.event+`,"data":{"channelSession":`+c.data+
				`,"header":{"channelSession":`+c.header+`}}}`)
			require.Equal(t, c.session, string(e.Session))
			require.Equal(t, c.channel, e.Channel)
		})
	}
}

func TestTheLastOfARepeatedKeyWinsAtEveryLevel(t *testing.T) {
	e := decode(t, `{"name":"NO","id":"no","data":{"header":{"channelSession":{"conversationId":"no"}}},"n\u0061me":"YES",
		"data":{"header":{"channelSession":{"conversationId":"no"}},"header":{"channelSession":{"topicId":"no"},
		"channelSession":{"topicId":"no","topic\u0049d":"yes","state":"no","state":{"name":"no","name":"yes"}}}},"id":"yes"}`)
	require.Equal(t, "YES", e.Name)
	require.Equal(t, "yes", e.ID)
	require.Equal(t, "yes", e.Conversation)
	require.Equal(t, "yes", e.Status())

	e = decode(t, `{"name":"X","id":"1","conversationId":"no","conversationId":null,"channelSession":{"topicId":"no"},"channelSession":7,
		"data":{"channelSession":{"topicId":"no"}},"data":null,"roomInfo":{},"roomInfo":null}`)
	require.Empty(t, e.Conversation)
	require.Nil(t, e.Session)
	require.Nil(t, e.RoomInfo)
}

func TestStatusAndListIDOfASession(t *testing.T) {
	for name, c := range map[string]struct{ session, status, list string }{
		"no session":        {`null`, "", ""},
		"state is a string": {`{"state":"STARTED"}`, "STARTED", ""},
		"state is an object": {
			`{"state":{"reasonCode":"CUSTOMER","name":"STARTED"}}`, "STARTED", "",
		},
		"state is a number": {`{"state":5}`, "", ""},
		"pull":              {`{"channel":{"channelConfig":{"routingPolicy":{"routingMode":"PULL","routingObjectId":"l"}}}}`, "", "l"},
		"push":              {`{"channel":{"channelConfig":{"routingPolicy":{"routingMode":"PUSH","routingObjectId":"q"}}}}`, "", ""},
		"pull from nowhere": {`{"channel":{"channelConfig":{"routingPolicy":{"routingMode":"PULL","routingObjectId":null}}}}`, "", ""},
		"no policy":         {`{"channel":{"channelConfig":{"routingPolicy":null}}}`, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := decode(t, `{"id":"1","name":"X","channelSession":`+c.session+`}`)
			require.Equal(t, c.status, e.Status())
			require.Equal(t, c.list, e.ListID())
		})
	}
}

func TestTheSessionsIdAndCustomerAreReadRaw(t *testing.T) {
	for session, want := range map[string][2]string{
		`{"id":"no","customer":{"_id":"no"},"customer":{"_id": "1"},"\u0069d":"s"}`: {"s", `{"_id": "1"}`},
		`{"id":5,"customer":"text"}`: {"", ""},
		`{}`:                         {"", ""},
		`null`:                       {"", ""},
	} {
		e := decode(t, `{"id":"1","name":"X","channelSession":`+session+`}`)
		id, customer := e.SessionParts()
		require.Equal(t, want, [2]string{id, string(customer)})
	}
}

func TestAnEventPutTogetherWronglyIsReadAsEmpty(t *testing.T) {
	for _, broken := range []string{`{"state":"`, `{"state":"\`, `{"state":{"name":"\u12`, `{"data":{"reason":"`, `{`, `x`, `""`} {
		e := Event{Name: TopicStateChangeEvent, Session: []byte(broken), Body: []byte(broken)}
		require.Empty(t, e.Status()+e.ListID()+e.Reason()+e.TopicState())
		e.Name = AgentSubscribed
		_, err := e.Participant()
		require.Error(t, err)
	}
}

func TestEveryShapeOfThePlatformIsRead(t *testing.T) {
	files, err := filepath.Glob("testdata/events/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			body, err := os.ReadFile(file)
			require.NoError(t, err)
			e := decode(t, string(body))
			require.Equal(t, strings.TrimSpace(string(body)), string(e.Body))
			require.Equal(t, name, e.Name)
			require.Equal(t, route(t, body, ""), routed(&e))
			require.NoError(t, e.RequireConversation())
			require.False(t, e.Time.IsZero())
			require.NotNil(t, e.RoomInfo)
			require.JSONEq(t, string(body), string(field(t, AppendDelivery(nil, &e, "c", true), "cimEvent")))
		})
	}
}
