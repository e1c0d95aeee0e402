package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

var verbs = []string{bus.VerbResume, bus.VerbCheck, bus.VerbJoin, bus.VerbLeave, bus.VerbPublish, bus.VerbHistory}

// hostile are reply subjects that an answer must never go to.
var hostile = []string{
	"", "cim.acme.web.X", "cim.acme.web.AGENT_SUBSCRIBED", "cim-agent.acme.ada.onCimEvent.c", "cim-live.acme.ada.onCimEvent.c", "cim-index.acme.c",
	"$JS.API.STREAM.PURGE.CIM_EVENTS", "$JS.API.STREAM.DELETE.CIM_EVENTS", "$KV.CIM_MEMBERS.acme.ada.c", "$SRV.PING",
	"cim-ctl.acme.ben.join", "cim-inbox.acme.ben.1", "cim-inbox.other.ada.1", "cim-inbox.acme.ada", "cim-inbox.acme.adam.1",
	"cim-inbox.acme.*.1", "cim-inbox.acme.ada.*", "cim-inbox.acme.ada.>", "cim-inbox.acme.ada..1", "cim-inbox.acme.ada.1.", "cim-inbox.acme.ada.é",
	"_INBOX.abc", "_INBOX.abc.1",
}

func TestNoAnswerGoesAnywhereButToTheCallersInbox(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.member("ada", "c", 1, 0)
	r.deliver("ada", "c", r.event("c", "e1"))
	control := r.serve(bus.ControlOptions{})

	spy, err := r.connect("bus").SubscribeSync(">")
	require.NoError(t, err)
	require.NoError(t, spy.SetPendingLimits(-1, -1))
	attacker := r.connect("bus", nats.SkipSubjectValidation()) // no permission of its own stands in the way
	before := map[string]uint64{}
	streams := []string{bus.StreamEvents, bus.StreamDeliveries, bus.StreamIndex, bus.StreamMembers}
	for _, s := range streams {
		before[s] = r.last(s)
	}
	bodies := []string{
		"", "{", `{"after":"0"}`, `{"after":1e99}`, `{"conversation":"c"}`,
		`{"event":{"id":"x","name":"CUSTOMER_MESSAGE","conversationId":"c"}}`, `{"after":"zz-1-1"}`,
	}
	sent := uint64(0)
	for _, reply := range hostile {
		for _, verb := range verbs {
			for _, body := range bodies {
				require.NoError(t, attacker.PublishRequest("cim-ctl.acme.ada."+verb, reply, []byte(body)))
				sent++
			}
		}
	}
	require.NoError(t, attacker.PublishRequest("cim-ctl.acme.a%.check", "cim-inbox.acme.a%.1", nil))
	sent++
	require.NoError(t, attacker.Flush())
	bustest.Eventually(t, 20*time.Second, func() error {
		if n := control.Dropped(); n != sent {
			return fmt.Errorf("%d of %d dropped", n, sent)
		}
		return nil
	})
	for _, s := range streams {
		require.Equal(t, before[s], r.last(s), "stored in %s", s)
	}
	require.NoError(t, r.bus.Conn().Flush())
	require.NoError(t, spy.SetPendingLimits(-1, -1))
	for {
		m, err := spy.NextMsg(200 * time.Millisecond)
		if errors.Is(err, nats.ErrTimeout) {
			break
		}
		require.NoError(t, err)
		if m.Header.Get(bus.HeaderStatus) != "" || m.Header.Get("Nats-Service-Error-Code") != "" {
			t.Fatalf("answer on %s: %s", m.Subject, m.Data)
		}
	}
}

func TestOpenInboxesTakeThePlainPrefixAndNothingElse(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	control := r.serve(bus.ControlOptions{OpenInboxes: true})
	nc := r.connect("bus", nats.SkipSubjectValidation())
	m, err := nc.Request("cim-ctl.acme.ada.check", nil, 5*time.Second)
	require.NoError(t, err)
	require.Contains(t, string(m.Data), `"upto"`)
	n := uint64(0)
	for _, reply := range append(hostile[:len(hostile)-2:len(hostile)-2], "_INBOX", "_INBOX.", "_INBOX.*", "_INBOX.a.>", "_INBOX.a..b", "_INBOXES.a", "_INBOX.a.") {
		require.NoError(t, nc.PublishRequest("cim-ctl.acme.ada.check", reply, nil))
		n++
	}
	bustest.Eventually(t, 5*time.Second, func() error {
		if control.Dropped() != n {
			return fmt.Errorf("%d of %d dropped", control.Dropped(), n)
		}
		return nil
	})
}

func TestAnAgentsUserReachesNothingButItsOwnControl(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.serve(bus.ControlOptions{})
	ada := r.caller("ada")
	_, end := ada.ask(bus.VerbCheck, "")
	require.Contains(t, end, `"upto"`)
	// Discovery is for operators: an agent cannot ask for it, nor anything of another.
	for _, subject := range []string{"$SRV.PING", "$SRV.INFO.cimbus", "cim-ctl.acme.ben.check", "$JS.API.INFO"} {
		require.NoError(t, ada.nc.PublishRequest(subject, ada.inbox+"x", nil))
	}
	require.NoError(t, ada.nc.Flush())
	_, err := ada.sub.NextMsg(200 * time.Millisecond)
	require.ErrorIs(t, err, nats.ErrTimeout)
}

func TestErrorsHaveStableCodes(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.member("ada", "mine", 1, 0)
	r.member("ada", "left", 1, 5)
	r.serve(bus.ControlOptions{Allow: func(_ context.Context, j bus.JoinRequest) error {
		if j.Conversation == "closed" {
			return errors.New("closed is not for " + j.Agent)
		}
		return nil
	}})
	ada := r.caller("ada")
	event := func(name, conversation string) string {
		return fmt.Sprintf(`{"event":{"id":"e","name":%q,"conversationId":%q}}`, name, conversation)
	}
	for _, c := range []struct{ verb, body, code, message string }{
		{bus.VerbResume, ``, bus.CodeBadRequest, "after is missing"},
		{bus.VerbResume, `[]`, bus.CodeBadRequest, "body is a JSON array: send one JSON object"},
		{bus.VerbResume, `{`, bus.CodeBadRequest, "body is not JSON (unexpected end of JSON input): send one JSON object"},
		{bus.VerbResume, `{"after":"x"}`, bus.CodeBadRequest, `position "x"`},
		{bus.VerbResume, `{"after":-1}`, bus.CodeBadRequest, "position"},
		{bus.VerbResume, `{"after":1.5}`, bus.CodeBadRequest, "position"},
		{bus.VerbResume, `{"after":{}}`, bus.CodeBadRequest, "position"},
		{bus.VerbResume, `{"after":0,"max":257}`, bus.CodeBadRequest, "give 1 to 256"},
		{bus.VerbResume, `{"after":0,"max":-1}`, bus.CodeBadRequest, "give 1 to 256"},
		{bus.VerbResume, `{"after":0,"max":"many"}`, bus.CodeBadRequest, "max is a string: give a whole number"},
		{bus.VerbResume, `{"after":0,"max":1.5}`, bus.CodeBadRequest, "max is 1.5: give a whole number"},
		{bus.VerbResume, `{"after":0,"max_bytes":[]}`, bus.CodeBadRequest, "max_bytes is an array: give a whole number"},
		{bus.VerbHistory, `{"conversation":"mine","max":true}`, bus.CodeBadRequest, "max is a boolean: give a whole number"},
		{bus.VerbJoin, `"mine"`, bus.CodeBadRequest, "body is a JSON string: send one JSON object"},
		{bus.VerbJoin, `7`, bus.CodeBadRequest, "body is a JSON number: send one JSON object"},
		{bus.VerbJoin, `{"conversation":7}`, bus.CodeBadRequest, "conversation is a number: give a string"},
		{bus.VerbLeave, `{"conversation":{}}`, bus.CodeBadRequest, "conversation is an object: give a string"},
		{bus.VerbResume, `{"after":0,"max_bytes":4194305}`, bus.CodeBadRequest, "give 1 to 4194304"},
		{bus.VerbCheck, `{"after":"a-b"}`, bus.CodeBadRequest, "position"},
		{bus.VerbJoin, `{}`, bus.CodeBadRequest, "conversation is missing"},
		{bus.VerbJoin, `{"conversation":"` + strings.Repeat("x", 129) + `"}`, bus.CodeBadRequest, "conversation"},
		{bus.VerbJoin, `{"conversation":"closed"}`, bus.CodeForbidden, "closed is not for ada"},
		{bus.VerbLeave, `{"conversation":"theirs"}`, bus.CodeNotMember, "not a member"},
		{bus.VerbLeave, `{"conversation":"left"}`, bus.CodeNotMember, "not a member"},
		{bus.VerbLeave, `{}`, bus.CodeBadRequest, "conversation is missing"},
		{bus.VerbPublish, `{}`, bus.CodeBadRequest, "event is missing"},
		{bus.VerbPublish, `{"event":7}`, bus.CodeBadRequest, "invalid event: body is a number, not an event"},
		{bus.VerbPublish, `{"event":{"name":"AGENT_MESSAGE","conversationId":"mine"}}`, bus.CodeBadRequest, "id"},
		{bus.VerbPublish, `{"event":{"name":"AGENT_MESSAGE","id":"1"}}`, bus.CodeNoConversation, "invalid event: conversationId is missing"},
		{bus.VerbPublish, event("AGENT_MESSAGE", "theirs"), bus.CodeNotMember, "not a member"},
		{bus.VerbPublish, event("AGENT_MESSAGE", "left"), bus.CodeNotMember, "not a member"},
		{bus.VerbPublish, event("AGENT_SUBSCRIBED", "mine"), bus.CodeForbidden, "join"},
		{bus.VerbPublish, event("AGENT_UNSUBSCRIBED", "mine"), bus.CodeForbidden, "join"},
		{bus.VerbPublish, event("PARTICIPANT_ROLE_CHANGED", "mine"), bus.CodeForbidden, "join"},
		{bus.VerbPublish, event("TOPIC_STATE_CHANGE_EVENT", "mine"), bus.CodeForbidden, "join"},
		{bus.VerbPublish, `{"event":{"id":"e","name":"AGENT_MESSAGE","na\u006de":"AGENT_SUBSCRIBED","conversationId":"mine"}}`, bus.CodeForbidden, "join"},
		{bus.VerbPublish, `{"event":{"id":"e","name":"AGENT_MESSAGE","conversationId":"mine","conversationId":"theirs"}}`, bus.CodeNotMember, "theirs"},
		{bus.VerbHistory, `{}`, bus.CodeBadRequest, "conversation is missing"},
		{bus.VerbHistory, `{"conversation":"theirs"}`, bus.CodeNotMember, "not a member"},
		{bus.VerbHistory, `{"conversation":"mine","after":"abc-1-1"}`, bus.CodeBadRequest, "Cim-Sequence"},
	} {
		messages, end := ada.ask(c.verb, c.body)
		require.Empty(t, messages)
		var answer struct{ Error bus.ControlError }
		require.NoError(t, json.Unmarshal([]byte(end), &answer), end)
		require.Equal(t, c.code, answer.Error.Code, "%s %s: %s", c.verb, c.body, end)
		require.Contains(t, answer.Error.Message, c.message, "%s %s", c.verb, c.body)
	}
	require.Zero(t, r.last(bus.StreamEvents))
}

func TestJoinAndLeaveAreEventsOnTheChannelLastKnown(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.index("c", 1, bus.HeaderChannel, "WhatsApp")
	r.index("c", 2)
	r.member("ada", "c", 1, 0)
	r.serve(bus.ControlOptions{})
	ada := r.caller("ada")
	for i, c := range []struct{ verb, body, subject, has string }{
		{bus.VerbJoin, `{"conversation":"c"}`, "cim.acme.whatsapp.AGENT_SUBSCRIBED", `"role":"PRIMARY"`},
		{bus.VerbJoin, `{"conversation":"c","role":"ASSISTANT"}`, "cim.acme.whatsapp.AGENT_SUBSCRIBED", `"role":"ASSISTANT"`},
		{bus.VerbLeave, `{"conversation":"c"}`, "cim.acme.whatsapp.AGENT_UNSUBSCRIBED", `"name":"AGENT_UNSUBSCRIBED"`},
		{bus.VerbJoin, `{"conversation":"new one"}`, "cim.acme._.AGENT_SUBSCRIBED", `"conversationId":"new one"`},
	} {
		_, end := ada.ask(c.verb, c.body)
		require.JSONEq(t, fmt.Sprintf(`{"subject":%q,"stream":"CIM_EVENTS","seq":%d,"duplicate":false}`, c.subject, i+1), end)
		m, err := r.bus.MessageAt(t.Context(), bus.StreamEvents, uint64(i+1))
		require.NoError(t, err)
		require.Equal(t, c.subject, m.Subject)
		require.Contains(t, string(m.Data), c.has)
		require.Contains(t, string(m.Data), `"id":"ada"`)
	}
}

func TestTheChannelLastKnownIsLookedForInTheLastEntriesOnly(t *testing.T) {
	for entries, channel := range map[int]string{1: "whatsapp", 64: "whatsapp", 65: "_"} {
		t.Run(fmt.Sprint(entries, " entries"), func(t *testing.T) {
			r := newRoad(t, bus.StreamOptions{})
			r.index("c", 1, bus.HeaderChannel, "WhatsApp")
			for i := 1; i < entries; i++ {
				r.index("other", uint64(2*i), bus.HeaderChannel, "WEB")
				r.index("c", uint64(2*i+1))
			}
			receipt, err := r.bus.Join(t.Context(), "acme", "c", "ada", "PRIMARY")
			require.NoError(t, err)
			require.Equal(t, "cim.acme."+channel+".AGENT_SUBSCRIBED", receipt.Subject)
		})
	}
}

func TestAPublishedEventBelongsToTheConversationThatWasChecked(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.member("ada", "mine", 1, 0)
	r.index("mine", 1, bus.HeaderChannel, "WEB")
	r.serve(bus.ControlOptions{})
	ada := r.caller("ada")
	body := `{"id":"e1", "name":"AGENT_MESSAGE","conversationId":"mine","topicId":"theirs","data":{"big":12345678901234567890}}`
	m := nats.NewMsg("cim-ctl.acme.ada.publish")
	m.Reply, m.Data = ada.inbox+"p", []byte(`{"event":`+body+`}`)
	m.Header = nats.Header{
		"traceparent": {"00-1"}, "Nats-Msg-Id": {"forged"}, "Nats-Expected-Stream": {"OTHER"}, "Nats-Rollup": {"all"}, "cim-sequence": {"9"},
		"Cim-Conversation-Id": {"theirs"}, "Cim-Redrive-Handler": {"x"},
	}
	require.NoError(t, ada.nc.PublishMsg(m))
	end, err := ada.sub.NextMsg(5 * time.Second)
	require.NoError(t, err)
	require.JSONEq(t, `{"subject":"cim.acme.web.AGENT_MESSAGE","stream":"CIM_EVENTS","seq":1,"duplicate":false}`, string(end.Data))
	stored, err := r.bus.MessageAt(t.Context(), bus.StreamEvents, 1)
	require.NoError(t, err)
	require.Equal(t, body, string(stored.Data))
	require.Equal(t, "mine", bus.LastHeader(stored.Header, bus.HeaderConversation))
	require.Equal(t, []string{"mine"}, stored.Header[bus.HeaderConversation])
	require.Equal(t, "00-1", stored.Header.Get("traceparent"))
	require.Equal(t, []string{"acme:AGENT_MESSAGE:e1"}, stored.Header[jetstream.MsgIDHeader])
	for _, key := range []string{"Nats-Rollup", "cim-sequence", "Cim-Redrive-Handler"} {
		require.NotContains(t, stored.Header, key)
	}
	_, again := ada.ask(bus.VerbPublish, `{"event":`+body+`}`)
	require.Contains(t, again, `"duplicate":true`)
}

func TestAPageOfHistoryIsReadFromWhereItBegins(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	for s := range uint64(100) {
		r.index("c", 10*(s+1))
		r.index("other", 10*(s+1))
	}
	for _, c := range []struct{ after, upto, first, last uint64 }{
		{0, 0, 10, 1000}, {10, 0, 20, 1000}, {5, 0, 10, 1000}, {949, 990, 950, 990}, {950, 0, 960, 1000}, {990, 0, 1000, 1000}, {1000, 0, 0, 0}, {5000, 0, 0, 0},
	} {
		requests, err := r.bus.Conn().SubscribeSync("$JS.API.DIRECT.GET." + bus.StreamIndex)
		require.NoError(t, err)
		var got []uint64
		for e, err := range r.bus.History(t.Context(), "acme", "c", c.after, c.upto) {
			require.NoError(t, err)
			got = append(got, e.Sequence)
		}
		if c.first == 0 {
			require.Empty(t, got)
			require.NoError(t, requests.Unsubscribe())
			continue
		}
		require.Len(t, got, int(c.last-c.first)/10+1)
		require.Equal(t, []uint64{c.first, c.last}, []uint64{got[0], got[len(got)-1]})
		m, err := requests.NextMsg(5 * time.Second)
		require.NoError(t, err)
		var batch struct{ Seq uint64 }
		require.NoError(t, json.Unmarshal(m.Data, &batch))
		require.Equal(t, 2*(c.first/10)-1, batch.Seq, "after %d", c.after)
		require.NoError(t, requests.Unsubscribe())
	}
}

func TestHistoryIsReadByCimSequenceInPages(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.member("ada", "c", 1, 0)
	var want []uint64
	for i := range 10 {
		s := r.event("c", fmt.Sprint("e", i))
		r.index("c", s, bus.HeaderEventName, "CUSTOMER_MESSAGE", bus.HeaderChannel, "WEB")
		want = append(want, s)
		r.event("other", fmt.Sprint("o", i))
	}
	r.serve(bus.ControlOptions{})
	ada := r.caller("ada")
	var got []uint64
	page := struct {
		Last, Upto string
		More       bool
	}{Last: "0", More: true}
	for pages := 0; page.More; pages++ {
		require.Less(t, pages, 5)
		messages, end := ada.ask(bus.VerbHistory, fmt.Sprintf(`{"conversation":"c","after":%q,"max":4}`, page.Last))
		for _, m := range messages {
			got = append(got, bus.SequenceOf(m.Header))
			require.Equal(t, bus.StreamEvents, m.Header.Get("Nats-Stream"))
			require.Equal(t, "WEB", m.Header.Get(bus.HeaderChannel))
			require.Contains(t, string(m.Data), `"conversationId":"c"`)
		}
		require.NoError(t, json.Unmarshal([]byte(end), &page))
	}
	require.Equal(t, want, got)
	require.Equal(t, page.Upto, page.Last)
}

func TestRequestsOfOneAgentDoNotHoldUpAnothers(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	block := make(chan struct{})
	r.serve(bus.ControlOptions{Allow: func(ctx context.Context, j bus.JoinRequest) error {
		if j.Agent == "ada" {
			<-block
		}
		return nil
	}})
	defer close(block)
	ada, ben := r.caller("ada"), r.caller("ben")
	for range 10 {
		require.NoError(t, ada.nc.PublishRequest("cim-ctl.acme.ada.join", ada.inbox+"j", []byte(`{"conversation":"c"}`)))
	}
	// Those above the number one agent may have are refused at once.
	for range 6 {
		m, err := ada.sub.NextMsg(5 * time.Second)
		require.NoError(t, err)
		require.Contains(t, string(m.Data), bus.CodeUnavailable)
	}
	_, end := ben.ask(bus.VerbJoin, `{"conversation":"c"}`)
	require.Contains(t, end, `"seq":1`)
}

func TestAClosedServiceAnswersNothingAndTwoShareTheWork(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	first, second := r.serve(bus.ControlOptions{}), r.serve(bus.ControlOptions{})
	ada := r.caller("ada")
	for range 20 {
		_, end := ada.ask(bus.VerbCheck, `{}`)
		require.Contains(t, end, `"upto"`)
	}
	_, err := ada.sub.NextMsg(100 * time.Millisecond)
	require.ErrorIs(t, err, nats.ErrTimeout, "a request was answered twice")
	require.NoError(t, first.Close())
	require.NoError(t, first.Close())
	_, end := ada.ask(bus.VerbCheck, `{}`)
	require.Contains(t, end, `"upto"`)
	require.NoError(t, second.Close())
	require.NoError(t, ada.nc.PublishRequest("cim-ctl.acme.ada.check", ada.inbox+"late", nil))
	_, err = ada.sub.NextMsg(5 * time.Second)
	require.ErrorIs(t, err, nats.ErrNoResponders)
}
