package main

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
)

// joined is a daemon with the agent ann in conversation c1, who has got the event of it.
func joined(t *testing.T) served {
	t.Helper()
	d := serve(t)
	d.do(t, "", "conversation", "join", "--tenant", "acme", "--conversation", "c1", "--agent", "ann")
	d.receive(t, "0", 1)
	return d
}

// receive runs the agent command until it has count deliveries.
func (s served) receive(t *testing.T, after string, count int) []deliveryLine {
	t.Helper()
	got := s.do(t, "", "agent", "--tenant", "acme", "--agent", "ann", "--after", after, "--count", fmt.Sprint(count))
	return lines[deliveryLine](t, got)
}

func TestAnAgentGetsEverythingStoredInTheDocumentedForm(t *testing.T) {
	d := joined(t)
	const body = `{"id":"7", "name":"CUSTOMER_MESSAGE","conversationId":"c1","n":90071992547409931234.50,"html":"<b>&",
		"channelSession":{"id":"s1","channel":{"channelType":{"name":"WEB"}}}}`
	d.do(t, body, "publish", "--tenant", "acme")
	got := d.do(t, "", "agent", "--tenant", "acme", "--agent", "ann", "--after", "0", "--count", "2")
	all := lines[deliveryLine](t, got)
	require.Len(t, all, 2)
	second := all[1]
	require.NotNil(t, second.Sequence)
	require.Equal(t, uint64(2), *second.Sequence)
	require.NotEmpty(t, second.Position)
	want := fmt.Sprintf(`{"position":%q,"sequence":2,"subject":"cim-agent.acme.ann.onCimEvent.c1","event":"onCimEvent","conversation":"c1","payload":`+
		`{"cimEvent":{"id":"7","name":"CUSTOMER_MESSAGE","conversationId":"c1","n":90071992547409931234.50,"html":"<b>&",`+
		`"channelSession":{"id":"s1","channel":{"channelType":{"name":"WEB"}}}},"conversationId":"c1","id":"7",`+
		`"channelSession":{"id":"s1","channel":{"channelType":{"name":"WEB"}}},"status":null,"listId":null,"time":null}}`+"\n", second.Position)
	require.Contains(t, got, want)
}

func TestAnAgentResumesBehindThePositionItPrinted(t *testing.T) {
	d := joined(t)
	d.do(t, message("1")+message("2")+message("3"), "publish", "--tenant", "acme")
	first := d.receive(t, "0", 2)
	rest := d.receive(t, first[1].Position, 2)
	var sequences []uint64
	for _, l := range append(first, rest...) {
		sequences = append(sequences, *l.Sequence)
	}
	require.Equal(t, []uint64{1, 2, 3, 4}, sequences)
	require.Equal(t, rest[1].Position, d.receive(t, "3", 1)[0].Position, "people may give a plain number")
}

func TestWithoutAPositionAnAgentIsLiveOnceItSaysSo(t *testing.T) {
	d := joined(t)
	r := start(t, d.on("agent", "--tenant", "acme", "--agent", "ann", "--count", "2")...)
	r.saw(&r.stderr, "{\"live\":true}\n")
	d.do(t, message("1")+message("2"), "publish", "--tenant", "acme")
	require.Zero(t, r.wait())
	require.Equal(t, "{\"live\":true}\n", r.stderr.String())
	all := lines[deliveryLine](t, r.stdout.String())
	require.Len(t, all, 2)
	require.Equal(t, []uint64{2, 3}, []uint64{*all[0].Sequence, *all[1].Sequence})
}

func TestAnInterruptedAgentEndsWithZero(t *testing.T) {
	d := joined(t)
	live := start(t, d.on("agent", "--tenant", "acme", "--agent", "ann")...)
	live.saw(&live.stderr, `{"live":true}`)
	live.interrupt()
	require.Zero(t, live.wait())

	// One that waits for a daemon, too.
	waiting := start(t, "agent", "--tenant", "acme", "--agent", "ann", "--server", jetStream(t, nil))
	waiting.saw(&waiting.stderr, "no control service answers")
	waiting.interrupt()
	require.Zero(t, waiting.wait())
}

func TestAgentScopedAndTransientDeliveriesHaveNoSequence(t *testing.T) {
	d := joined(t)
	r := start(t, d.on("agent", "--tenant", "acme", "--agent", "ann", "--count", "3")...)
	r.saw(&r.stderr, `{"live":true}`)
	nc, err := nats.Connect(d.NATS)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	_, err = js.Publish(t.Context(), "cim-agent.acme.ann.taskRequest._", []byte("{\n  \"task\": 1\n}"))
	require.NoError(t, err)
	_, err = js.Publish(t.Context(), "cim-agent.acme.ann.agentPresence._", []byte("not \"json\"\n"))
	require.NoError(t, err)
	d.do(t, event("t", "TYPING_INDICATOR", "c1"), "publish", "--tenant", "acme")
	require.Zero(t, r.wait(), r.stderr.String())
	all := lines[deliveryLine](t, r.stdout.String())
	require.Len(t, all, 3)
	for i, want := range []deliveryLine{
		{Subject: "cim-agent.acme.ann.taskRequest._", Event: "taskRequest", Payload: json.RawMessage(`{"task":1}`)},
		{Subject: "cim-agent.acme.ann.agentPresence._", Event: "agentPresence", Payload: json.RawMessage(`"not \"json\"\n"`)},
		{Subject: "cim-agent.acme.ann.onCimEvent.c1", Event: "onCimEvent", Conversation: "c1", Payload: all[2].Payload},
	} {
		want.Position = all[i].Position
		require.Equal(t, want, all[i])
	}
	require.Contains(t, r.stdout.String(), `"sequence":null`)
}

func TestAnExpiredPositionIsAnErrorThatSaysWhatIsLeft(t *testing.T) {
	d := joined(t)
	for position, advice := range map[string]string{
		"another-1-0": `; the store was made anew since: cimbus agent --after \S+-0-0 goes on with what is left`,
		"900": `; no delivery has that number yet, or the store was restored from an older copy: ` +
			`cimbus agent --after \S+-1-\w+ goes on with what comes next, --after \S+-0-0 with everything stored`,
	} {
		got := invoke(t, "", d.on("agent", "--tenant", "acme", "--agent", "ann", "--after", position, "--count", "1")...)
		require.Equal(t, exitFailed, got.code)
		require.Contains(t, got.stderr, "position has expired")
		require.Regexp(t, advice+`\n$`, got.stderr)
		require.Empty(t, got.stdout)
	}
}

func TestWhatCanBeDoneAboutAnExpiredPositionDependsOnWhy(t *testing.T) {
	e := bus.ExpiredError{From: bus.Position{Sequence: 3}, To: bus.Position{Sequence: 9}}
	for reason, advice := range map[string]string{
		bus.ExpiredDeleted:   "; what was between is gone: cimbus agent --after 3 goes on with what is left",
		bus.ExpiredLimit:     "; what was between is gone: cimbus agent --after 3 goes on with what is left",
		bus.ExpiredRestored:  "; the store was restored from an older copy: cimbus agent --after 3 goes on with what is left",
		bus.ExpiredRecreated: "; the store was made anew since: cimbus agent --after 3 goes on with what is left",
	} {
		e.Reason = reason
		err := told(&e)
		require.ErrorIs(t, err, &e)
		require.Equal(t, e.Error()+advice, err.Error())
	}
}

// An agent's user may do nothing but what the road of an agent needs; the command must not need more.
func TestAnAgentNeedsNoMoreThanAnAgentsPermissions(t *testing.T) {
	url := jetStream(t, users)
	r := start(t, "serve", "--nats-url", as("bus", url), "--http-addr", "")
	r.saw(&r.stdout, `{"ready":true,"nats":"`+url+`","websocket":"","http":"","store":"","durability":"external"}`+"\n")
	onBus := func(args ...string) result {
		return invoke(t, message("1"), append(args, "--server", as("bus", url))...)
	}
	require.Zero(t, onBus("conversation", "join", "--tenant", "acme", "--conversation", "c1", "--agent", "ann").code)
	require.Zero(t, onBus("publish", "--tenant", "acme").code)

	got := invoke(t, "", "agent", "--tenant", "acme", "--agent", "ann", "--after", "0", "--count", "2", "--server", as("ann", url))
	require.Zero(t, got.code, got.stderr)
	require.Len(t, lines[deliveryLine](t, got.stdout), 2)
	require.Empty(t, got.stderr)

	got = invoke(t, message("2"), "publish", "--tenant", "acme", "--server", as("ann", url))
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.stderr, "NATS server refused the credentials at "+url+": this command needs a user who may ask JetStream")
	r.interrupt()
	require.Zero(t, r.wait(), r.stderr.String())
}

func TestPositionsAreTheBusesOwn(t *testing.T) {
	d := joined(t)
	p, err := bus.ParsePosition(d.receive(t, "0", 1)[0].Position)
	require.NoError(t, err)
	require.Equal(t, uint64(1), p.Sequence)
	require.NotEmpty(t, p.Identity)
}
