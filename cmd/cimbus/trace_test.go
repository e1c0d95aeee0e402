package main

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// traced runs trace and returns its steps.
func (s served) traced(t *testing.T, args ...string) []traceLine {
	t.Helper()
	return lines[traceLine](t, s.do(t, "", append([]string{"trace", "--json"}, args...)...))
}

func kinds(steps []traceLine) string {
	var all []string
	for _, s := range steps {
		all = append(all, s.Step)
	}
	return strings.Join(all, " ")
}

func TestTraceTellsTheJourneyOfADeliveredEvent(t *testing.T) {
	d := joined(t)
	const body = `{"id":"m 1","name":"CUSTOMER_MESSAGE","conversationId":"c1","timestamp":"2026-01-31T12:00:00Z","eventEmitter":{"id":"a1","type":"AGENT","senderName":"Ada \u001b[31m"}}`
	d.do(t, body, "publish", "--tenant", "acme", "--channel", "web")
	d.receive(t, "0", 2)
	d.handled(t, "c1", 2)

	want := golden(`EVENT         2
subject       cim.acme.web.CUSTOMER_MESSAGE
id            m 1
conversation  c1
outcome       delivered

TIME                     AFTER    STEP       WHAT
2026-01-31 12:00:00.000  -        published  by AGENT a1 ("Ada \x1b[31m"), as acme:CUSTOMER_MESSAGE:m=201, by its own time 1 d before it was stored
2026-01-31 12:00:00.000  +0.0 ms  stored     in CIM_EVENTS at 2, 167 B
2026-01-31 12:00:00.000  +0.7 ms  delivered  onCimEvent to ann, delivery 2
2026-01-31 12:00:00.000  +0.8 ms  committed  delivered, index entry 2
`)
	for _, args := range [][]string{{"m 1"}, {"m 1", "--tenant", "acme", "--day", "today"}, {"m 1", "--tenant", "acme", "--conversation", "c1", "--from", "1h"}, {"--sequence", "2"}} {
		got := invoke(t, "", d.on(append([]string{"trace"}, args...)...)...)
		require.Zero(t, got.code, got.stderr)
		require.Equal(t, squeezed(want), squeezed(golden(got.stdout)), "%v", args)
		require.Equal(t, "1 event, 4 steps in 1 ms\n", golden(got.stderr))
	}
	steps := d.traced(t, "m 1")
	require.Equal(t, "published stored delivered committed", kinds(steps))
	for _, s := range steps {
		require.Equal(t, []any{uint64(2), "acme", "m 1", "c1"}, []any{s.Event, s.Tenant, s.ID, s.Conversation})
		require.Equal(t, s.Step == "published", s.AfterMS == nil)
	}
	require.Equal(t, "acme:CUSTOMER_MESSAGE:m=201", steps[0].MessageID)
	require.Equal(t, traceEmitter{"a1", "AGENT", "Ada \x1b[31m"}, *steps[0].Emitter)
	require.Equal(t, "WEB", strings.ToUpper(steps[0].Headers.Get("Cim-Channel")))
	require.Equal(t, len(body), steps[1].Size)
	require.Equal(t, []string{"ann", "onCimEvent"}, []string{steps[2].Agent, steps[2].Type})
	require.Contains(t, d.do(t, "", "find", "--deliveries", "--from", steps[2].Position, "--limit", "1", "--json"), `"id":"m 1"`)
	require.Equal(t, "cim-index.acme.c1", steps[3].Subject)

	require.Equal(t, "published stored member delivered committed", kinds(d.traced(t, "--sequence", "1")))
	d.do(t, "", "conversation", "leave", "--tenant", "acme", "--conversation", "c1", "--agent", "ann")
	d.handled(t, "c1", 3)
	left := d.traced(t, "--sequence", "3")
	require.Equal(t, "published stored left delivered committed", kinds(left))
	require.Equal(t, []string{"ann", "topicUnsubscription"}, []string{left[2].Agent, left[3].Type})
	require.Equal(t, "published stored delivered committed", kinds(d.traced(t, "--sequence", "1")), "the record tells of the end now")
}

// squeezed takes away how wide columns came out.
func squeezed(text string) string {
	for strings.Contains(text, "  ") {
		text = strings.ReplaceAll(text, "  ", " ")
	}
	return text
}

func TestTraceTellsOfDeadLettersAndWhatBecameOfTheirRedrives(t *testing.T) {
	d := joined(t)
	d.poison(t, "cim.acme.web.AGENT_MESSAGE", `{"id":"esc\u001b[31m","name":"OTHER"}`)
	d.do(t, "", "dlq", "redrive", "--all", "--yes", "--operator", "ann")
	d.await(t, 2)
	d.handled(t, "c1", 3)
	steps := d.traced(t, "--sequence", "2")
	require.Equal(t, "published stored dead-letter committed redrive redrive published stored dead-letter committed", kinds(steps))
	require.Equal(t, []any{uint64(1), "onCimEvent", "subject-mismatch", 1}, []any{steps[2].DeadLetter, steps[2].Handler, steps[2].Reason, steps[2].Attempts})
	require.NotNil(t, steps[2].FirstAttempt)
	require.NotEmpty(t, steps[2].Error)
	require.Equal(t, "dead-letter", steps[3].Outcome)
	require.Equal(t, []any{"started", "ann", uint64(0)}, []any{steps[4].State, steps[4].Operator, steps[4].NewEvent})
	require.Equal(t, []any{"redriven", "ann", uint64(3)}, []any{steps[5].State, steps[5].Operator, steps[5].NewEvent})
	require.Equal(t, []any{uint64(3), "1"}, []any{steps[6].Event, steps[6].RedriveOf})

	require.Equal(t, steps, d.traced(t, "esc\x1b[31m"), "by its id it is the same")
	text := d.do(t, "", "trace", "esc\x1b[31m")
	require.NotContains(t, text, "\x1b")
	require.Contains(t, text, `id            "esc\x1b[31m"`)
	require.Contains(t, text, "redrive of dead letter 1 for handler onCimEvent")
	require.Contains(t, text, "of dead letter 1 redriven by ann, as event 3")
}

func TestTraceTellsWhatIsLeftOfAnEventThatHasExpired(t *testing.T) {
	d := joined(t)
	d.do(t, event("m1", "A", "c1")+event("m2", "A", "c1"), "publish", "--tenant", "acme")
	d.receive(t, "0", 3)
	d.handled(t, "c1", 3)
	purgeEvents(t, d.NATS, 3)
	steps := d.traced(t, "m1")
	require.Equal(t, "stored delivered committed", kinds(steps))
	require.True(t, steps[0].Expired)
	require.NotNil(t, steps[1].AfterMS)
	require.Contains(t, d.do(t, "", "trace", "m1"), "expired       CIM_EVENTS does not keep it any more")

	gone := invoke(t, "", d.on("trace", "--sequence", "2")...)
	require.Equal(t, exitFailed, gone.code)
	require.Contains(t, gone.stderr, "sequence 2 has expired: CIM_EVENTS holds 3 (")
}

func TestTraceSaysWhereItLookedForWhatIsNotThere(t *testing.T) {
	d := joined(t)
	d.do(t, event("m1", "A", "c1"), "publish", "--tenant", "acme")
	for _, c := range []struct {
		args, problem string
		code          int
	}{
		{"m7", `no event with the id "m7" of any tenant in CIM_EVENTS 1 (`, exitFailed},
		{"m1 --tenant other", `of tenant "other"`, exitFailed},
		{"m1 --tenant acme --conversation c2", `no event with the id "m1" of conversation "c2" of tenant "acme" in`, exitFailed},
		{"m1 --day yesterday", "CIM_EVENTS, which has nothing there", exitFailed},
		{"--sequence 9", "sequence 9 is beyond the end: CIM_EVENTS holds 1 (", exitFailed},
		{"m1 --from 2100-01-01", "is in the future", exitFailed},
		{"", "name the event: give its id, or --sequence", exitUsage},
		{"m1 --sequence 1", "one of them names the event", exitUsage},
		{"m1 --from 2 --until 1", "give the earlier one first", exitUsage},
		{"m1 --tenant=", "--tenant is empty", exitUsage},
		{"m1 --day today --from 1h", "a day has both ends", exitUsage},
		{"m1 --day never", "--day \"never\": give a day", exitUsage},
		{"m1 m2", `unexpected argument "m2"`, exitUsage},
		{"--sequence " + strconv.Itoa(-1), `--sequence "-1": give a whole number`, exitUsage},
	} {
		got := invoke(t, "", d.on(append([]string{"trace"}, strings.Fields(c.args)...)...)...)
		require.Equal(t, c.code, got.code, "%s: %s", c.args, got.stderr)
		require.Contains(t, got.stderr, c.problem)
		require.Empty(t, got.stdout)
	}
	got := invoke(t, "", "trace", "m1", "--server", jetStream(t, nil))
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.stderr, "there is no bus at ")
}

func TestTraceTellsOfReplaysThatReachedAnAgent(t *testing.T) {
	d := joined(t)
	d.do(t, event("m1", "A", "c1")+event("m2", "B", "c1"), "publish", "--tenant", "acme")
	d.receive(t, "0", 3)
	d.handled(t, "c1", 3)
	d.do(t, "", "replay", "--tenant", "acme", "--event", "A", "--to", "agent:ann", "--replay-id", "r1", "--operator", "bob", "--yes")
	d.receive(t, "0", 4)
	steps := d.traced(t, "m1", "--tenant", "acme")
	require.Equal(t, "published stored delivered committed replay replayed", kinds(steps))
	require.Equal(t, []string{"r1", "bob", "agent:ann", "done"}, []string{steps[4].Replay, steps[4].Operator, steps[4].Target, steps[4].State})
	require.Equal(t, []string{"r1", "ann", "replay"}, []string{steps[5].Replay, steps[5].Agent, steps[5].Type})
	require.Equal(t, "published stored delivered committed", kinds(d.traced(t, "m2")), "it was not selected")
	require.Contains(t, d.do(t, "", "trace", "m1"), "replayed   replay to ann, delivery 4, replay r1\n")
}
