package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// seenLine is a line of find and tail.
type seenLine struct {
	Position     string              `json:"position"`
	Time         time.Time           `json:"time"`
	Sequence     *uint64             `json:"sequence"`
	Subject      string              `json:"subject"`
	Tenant       string              `json:"tenant"`
	Agent        string              `json:"agent"`
	Type         string              `json:"type"`
	Channel      string              `json:"channel"`
	Event        string              `json:"event"`
	ID           string              `json:"id"`
	Conversation string              `json:"conversation"`
	Transient    bool                `json:"transient"`
	Size         int                 `json:"size"`
	Headers      map[string][]string `json:"headers"`
	Payload      json.RawMessage     `json:"payload"`
}

func TestTailShowsTheEventsAskedFor(t *testing.T) {
	d := serve(t)
	d.do(t, message("0"), "publish", "--tenant", "acme")
	all := start(t, d.on("tail", "--json")...)
	one := start(t, d.on("tail", "--tenant", "acme", "--channel", "WEB", "--event", "B", "--conversation", "c 2")...)
	all.saw(&all.stderr, `{"live":true,"filter":"cim.>"}`)
	one.saw(&one.stderr, `{"live":true,"filter":"cim.acme.web.B"}`)

	d.do(t, event("1", "A", "c 1")+event("2", "B", "c 1")+event("3", "B", "c 2"), "publish", "--tenant", "acme", "--channel", "WEB")
	d.do(t, event("4", "B", "c 2"), "publish", "--tenant", "acme")
	d.do(t, event("5", "B", "c 2"), "publish", "--tenant", "emca", "--channel", "Web")
	all.saw(&all.stdout, `"tenant":"emca"`)
	one.saw(&one.stdout, "\n")
	all.interrupt()
	one.interrupt()
	require.Zero(t, all.wait(), all.stderr.String())
	require.Zero(t, one.wait(), one.stderr.String())

	require.Regexp(t, `^TIME +SEQUENCE  SUBJECT +ID +CONVERSATION +SIZE\n\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}         \d  cim\.acme\.web\.B +3 +c 2 +44 B\n$`, one.stdout.String())
	require.Regexp(t, `(?m)^1 event in `, one.stderr.String())
	shown := map[string]seenLine{}
	for _, s := range lines[seenLine](t, all.stdout.String()) {
		require.NotZero(t, s.Time)
		require.NotZero(t, s.Sequence)
		require.Equal(t, len(s.Payload), s.Size)
		shown[s.ID] = s
	}
	require.Len(t, shown, 5)
	last := shown["5"]
	require.Equal(t, seenLine{
		Time: last.Time, Sequence: last.Sequence, Subject: "cim.emca.web.B", Tenant: "emca", Channel: "web", Event: "B", ID: "5",
		Conversation: "c 2", Size: 44, Headers: last.Headers, Payload: []byte(event("5", "B", "c 2")),
	}, last)
}

func TestTailShowsDeliveriesTransientOnesIncluded(t *testing.T) {
	d := joined(t)
	d.do(t, "", "conversation", "join", "--tenant", "acme", "--conversation", "c1", "--agent", "bob")
	d.receive(t, "1", 1)
	ann := start(t, d.on("tail", "--deliveries", "--agent", "ann", "--json")...)
	ann.saw(&ann.stderr, `{"live":true,"filter":"cim-live.*.ann.>"}`)
	web := start(t, d.on("tail", "--deliveries", "--channel", "web", "--event", "A")...)
	web.saw(&web.stderr, `{"live":true,"filter":"cim-live.>"}`)

	const typing = `{"id":"2","name":"TYPING_INDICATOR","conversationId":"c1"}`
	d.do(t, event("1", "A", "c1"), "publish", "--tenant", "acme", "--channel", "WEB")
	d.do(t, typing+event("3", "A", "c1"), "publish", "--tenant", "acme")
	ann.saw(&ann.stdout, `"event":"A","id":"3"`)
	web.saw(&web.stdout, "cim-agent.acme.bob.")
	ann.interrupt()
	web.interrupt()
	require.Zero(t, ann.wait(), ann.stderr.String())
	require.Zero(t, web.wait(), web.stderr.String())

	got := lines[seenLine](t, ann.stdout.String())
	require.Len(t, got, 3)
	require.Equal(t, []string{"1", "2", "3"}, []string{got[0].ID, got[1].ID, got[2].ID})
	require.Equal(t, uint64(3), *got[0].Sequence)
	require.Equal(t, "cim-agent.acme.ann.onCimEvent.c1", got[0].Subject)
	require.Equal(t, "onCimEvent", got[0].Type)
	require.True(t, got[1].Transient)
	require.Nil(t, got[1].Sequence)
	require.Regexp(t, `(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} +\d+         3  cim-agent\.acme\.ann\.onCimEvent\.c1  +A  +1  +\d+ B$`, web.stdout.String())
}

func TestTailWithoutItsStreamSaysWhatToDo(t *testing.T) {
	got := invoke(t, "", "tail", "--server", jetStream(t, nil))
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.stderr, "stream CIM_EVENTS")
	require.Contains(t, got.stderr, "cimbus serve")
}
