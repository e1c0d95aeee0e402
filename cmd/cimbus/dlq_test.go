package main

import (
	"bytes"
	"encoding/json"
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

// poison publishes what can only become a dead letter, and waits until all of it has.
func (s served) poison(t *testing.T, subject string, bodies ...string) {
	t.Helper()
	before := s.list(t)
	s.publishPlain(t, subject, nats.Header{bus.HeaderConversation: {"c1"}, "X-Mine": {"\x1b[31mred"}}, bodies...)
	s.await(t, len(before)+len(bodies))
}

// publishPlain publishes as a service without our library does.
func (s served) publishPlain(t *testing.T, subject string, header nats.Header, bodies ...string) {
	t.Helper()
	nc, err := nats.Connect(s.NATS)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	for _, body := range bodies {
		_, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: subject, Data: []byte(body), Header: header})
		require.NoError(t, err)
	}
}

func (s served) list(t *testing.T, args ...string) []deadLetterLine {
	t.Helper()
	return lines[deadLetterLine](t, s.do(t, "", append([]string{"dlq", "ls", "--json"}, args...)...))
}

// await waits until there are n dead letters.
func (s served) await(t *testing.T, n int) []deadLetterLine {
	t.Helper()
	var all []deadLetterLine
	bustest.Eventually(t, patience, func() error {
		if all = s.list(t); len(all) != n {
			return fmt.Errorf("%d dead letters, not %d", len(all), n)
		}
		return nil
	})
	return all
}

func TestDeadLettersAreListedShownRedrivenAndDroppedByFilter(t *testing.T) {
	d := serve(t)
	none := invoke(t, "", d.on("dlq", "ls")...)
	require.Equal(t, result{exitDone, "", "no dead letters\n"}, none)
	d.poison(t, "cim.acme.web.AGENT_MESSAGE", `{"id":"1"`, `{"id":"2","name":"OTHER","big":9007199254740993}`)
	d.poison(t, "cim.globex._.X", "\x1b[2Jnot JSON at all")

	got := d.do(t, "", "dlq", "ls")
	require.Regexp(t, `^SEQ  TIME +TENANT  CHANNEL  EVENT +CONVERSATION  HANDLER +REASON +ATTEMPTS  REDRIVEN\n`+
		`  1  \S+ \S+  acme    web      AGENT_MESSAGE  c1            onCimEvent  not-json +1 +-\n`+
		`  2  \S+ \S+  acme    web      AGENT_MESSAGE  c1            onCimEvent  subject-mismatch +1 +-\n`+
		`  3  \S+ \S+  globex  -        X              c1            onCimEvent  not-json +1 +-\n$`, got)
	for filter, want := range map[string]int{
		"--tenant=acme": 2, "--channel=WEB": 2, "--event=X": 1, "--conversation=c1": 3, "--conversation=c2": 0, "--conversation=-": 0, "--channel=-": 1, "--handler=onCimEvent": 3, "--handler=h": 0,
		"--reason=not-json": 2, "--older-than=1h": 0, "--newer-than=7d": 3, "2": 1,
	} {
		require.Len(t, d.list(t, filter), want, filter)
	}
	require.Equal(t, uint64(2), d.list(t, "--tenant", "acme", "--reason", "subject-mismatch")[0].Sequence)

	var shown deadLetterView
	require.NoError(t, json.Unmarshal([]byte(d.do(t, "", "dlq", "show", "2", "--json")), &shown))
	require.Equal(t, `{"id":"2","name":"OTHER","big":9007199254740993}`, string(shown.Payload))
	require.Equal(t, []string{"\x1b[31mred"}, shown.Headers["X-Mine"])
	text := d.do(t, "", "dlq", "show", "3")
	require.Contains(t, text, `\u001b[2Jnot JSON at all`)
	require.Contains(t, text, `"\x1b[31mred"`)
	require.NotContains(t, text, "\x1b")

	// The plan comes first, and nothing more without a yes.
	got2 := invoke(t, "", d.on("dlq", "redrive", "--tenant", "acme")...)
	require.Equal(t, exitFailed, got2.code)
	require.Contains(t, got2.stdout, "HANDLER     ENTRIES\nonCimEvent        2\n")
	require.Contains(t, got2.stdout, "2 of 2 dead letters to redrive\n")
	require.Equal(t, "nothing was done: add --yes to redrive 2 dead letters\n", got2.stderr)
	require.Nil(t, d.list(t)[0].Redriven)

	got2 = invoke(t, "", d.on("dlq", "redrive", "--tenant", "acme", "--yes", "--operator", "ann")...)
	require.Equal(t, exitDone, got2.code, got2.stderr)
	require.Equal(t, "2 dead letters: 2 redriven\n", got2.stderr)
	all := d.await(t, 5)
	for i := range 2 {
		require.Equal(t, "ann", all[i].Redriven.Operator)
		require.Equal(t, all[i].Sequence, *all[3+i].RedriveOf, "it failed again, in the same order")
		require.Equal(t, *all[i].Redriven.Event, all[3+i].SourceSequence)
	}
	require.Regexp(t, `REDRIVE  TIME +OPERATOR  STATE     EVENT  BECAME\n +1  \S+ \S+  ann       started +-  -\n +1  \S+ \S+  ann       redriven +\d  dead letter \d+\n`,
		d.do(t, "", "dlq", "show", "1"))

	// By a filter what was redriven is left out; by number it is refused; forced it goes.
	got2 = invoke(t, "", d.on("dlq", "redrive", "--tenant", "acme", "--older-than", "0s", "--reason", "subject-mismatch", "--yes")...)
	require.Equal(t, exitDone, got2.code, got2.stderr)
	require.Equal(t, "2 dead letters: 1 redriven, 1 refused\n", got2.stderr)
	d.await(t, 6)
	got2 = invoke(t, "", d.on("dlq", "redrive", "1", "--yes", "--json")...)
	require.Equal(t, exitFailed, got2.code)
	refused := lines[resultLine](t, got2.stdout)
	require.Len(t, refused, 1)
	require.Equal(t, bus.RefusedRedriven, refused[0].Refused)
	require.Equal(t, all[0].Redriven.Event, refused[0].EventSeq)
	require.Zero(t, invoke(t, "", d.on("dlq", "redrive", "1", "--yes", "--force")...).code)
	d.await(t, 7)

	got2 = invoke(t, "", d.on("dlq", "drop", "--tenant", "globex", "--json")...)
	require.Equal(t, exitFailed, got2.code)
	plan := lines[planLine](t, got2.stdout)
	require.Equal(t, []planLine{{
		Plan: "drop", Entries: 1, ToDo: 1, Handlers: []countLine{{"onCimEvent", 1}}, Reasons: []countLine{{"not-json", 1}},
		Conversations: []conversationCount{{"globex", "c1", 1}}, Refused: []countLine{},
	}}, plan)
	got2 = invoke(t, "", d.on("dlq", "drop", "1", "3", "99", "--yes", "--operator", "bob")...)
	require.Equal(t, exitFailed, got2.code, "one of them is not there")
	require.Contains(t, got2.stderr, "dead letter 99 is not there")
	require.Contains(t, got2.stderr, "2 dead letters: 2 dropped\n")
	require.Len(t, d.list(t), 5)
	got2 = invoke(t, "", d.on("dlq", "show", "3")...)
	require.Equal(t, exitFailed, got2.code)
	require.Regexp(t, `dead letter 3 is not there: bob dropped it at \S+ \S+; it was event 3 of tenant globex, which handler onCimEvent gave up as not-json\n$`, got2.stderr)
	require.Contains(t, invoke(t, "", d.on("dlq", "show", "99")...).stderr, "dead letter 99 is not there: it has expired, or never was")
	dropped := lines[droppedLine](t, d.do(t, "", "dlq", "ls", "--dropped", "--json"))
	require.Len(t, dropped, 2)
	require.Equal(t, "bob", dropped[0].Operator)
	require.Regexp(t, `^SEQ  DROPPED +BY   TENANT  CHANNEL  EVENT  CONVERSATION  HANDLER     REASON    REDRIVEN\n  3  \S+ \S+  bob  globex  -        X      c1            onCimEvent  not-json  -\n$`,
		d.do(t, "", "dlq", "ls", "--dropped", "--tenant", "globex"))
	require.Equal(t, result{exitDone, "", "no dropped dead letters pass this filter\n"}, invoke(t, "", d.on("dlq", "ls", "--dropped", "--reason", "stuck")...))
	got2 = invoke(t, "", d.on("dlq", "drop", "--reason", "none-such", "--yes")...)
	require.Equal(t, result{exitDone, "", "no dead letters pass this filter: nothing to drop\n"}, got2)
}

func TestWhatDlqIsToldWrongIsAUsageErrorThatSaysWhy(t *testing.T) {
	for message, args := range map[string][]string{
		"name a command, one of drop, ls, redrive, show":        {},
		`"first" is not the number of an entry`:                 {"redrive", "first"},
		`"0" is not the number of an entry`:                     {"ls", "0"},
		"give the number of one entry":                          {"show"},
		"give the number of one entry, as":                      {"show", "1", "2"},
		`--older-than "week": give an age as 90m, 24h or 7d`:    {"ls", "--older-than", "week"},
		`--newer-than "-1h": give an age`:                       {"drop", "--newer-than", "-1h"},
		"--older-than 2h and --newer-than 1h: no entry is both": {"ls", "--older-than", "2h", "--newer-than", "1h"},
		"--tenant is empty: say which, or leave it out for any": {"drop", "--tenant", "", "--yes"},
		"--newer-than is empty":                                 {"ls", "--newer-than="},
		"nothing is selected: give numbers, a filter, or --all": {"drop", "--yes"},
		"nothing is selected: give numbers":                     {"redrive"},
		"--all is every dead letter there is: leave it out":     {"drop", "--all", "--tenant", "acme"},
		"--all is every dead letter there is":                   {"redrive", "--all", "1"},
		"is too long":                                           {"ls", "--tenant", strings.Repeat("x", 200)},
	} {
		got := invoke(t, "", append([]string{"dlq"}, args...)...)
		require.Equal(t, exitUsage, got.code, "%v: %s", args, got.stderr)
		require.Contains(t, got.stderr, message)
		require.Empty(t, got.stdout)
	}
}

func TestWithoutABusDlqSaysHowToGetOne(t *testing.T) {
	url := jetStream(t, nil)
	for _, args := range [][]string{{"ls"}, {"show", "1"}, {"redrive", "--yes", "--all"}, {"drop", "--yes", "--all"}} {
		got := invoke(t, "", append(append([]string{"dlq"}, args...), "--server", url)...)
		require.Equal(t, exitFailed, got.code)
		require.Contains(t, got.stderr, "there is no bus at "+url+" yet: start a daemon with cimbus serve")
	}
}

func TestOnATerminalOnlyAYesIsAYes(t *testing.T) {
	for answer, agreed := range map[string]bool{"y\n": true, "YES\n": true, "n\n": false, "\n": false, "": false, "yes please\n": false} {
		var stderr bytes.Buffer
		c := &dlqCommand{app: &app{stdin: strings.NewReader(answer), stderr: &stderr}}
		err := c.app.confirm(t.Context(), "drop 2 dead letters")
		if agreed {
			require.NoError(t, err, "%q", answer)
			require.Equal(t, "drop 2 dead letters? [y/N] ", stderr.String())
		} else {
			require.ErrorIs(t, err, errReported, "%q", answer)
			require.True(t, strings.HasPrefix(stderr.String(), "drop 2 dead letters? [y/N] nothing was done"), stderr.String())
			require.Equal(t, answer == "", strings.Contains(stderr.String(), "add --yes to drop 2 dead letters"))
		}
	}
}

func TestTheOperatorIsWhoeverRunsItUnlessItSaysOtherwise(t *testing.T) {
	for want, environ := range map[string][]string{
		"ann@host": {"USER=ann", "LOGNAME=bob"}, "bob@host": {"LOGNAME=bob"}, "somebody@host": nil,
	} {
		require.Equal(t, want, (&app{environ: environ}).operatorName("host"))
	}
	require.Equal(t, "ann@unknown", (&app{environ: []string{"USER=ann"}}).operatorName(""))
}

// deadSample is a dead letter with everything in it, at times that read the same in every zone.
func deadSample() bus.DeadLetter {
	at := func(s int) time.Time { return time.Date(2026, 3, 1, 10, 0, s, 0, time.Local) }
	return bus.DeadLetter{
		Sequence: 12, Time: at(7), Handler: "onCimEvent", Tenant: "acme", Channel: "web", Event: "AGENT_MESSAGE", Conversation: "c1", EventID: "m1",
		Reason: "handler-failed", Error: "no answer from the tariff service", Attempts: 3, First: at(1), Last: at(6),
		SourceSubject: "cim.acme.web.AGENT_MESSAGE", SourceSequence: 4711, SourceTime: at(0), RedriveOf: 9,
		Header: nats.Header{"Cim-Reason": {"handler-failed"}, "X-Mine": {"a", "b"}}, Size: 48,
		Payload: []byte("{\"id\":\"m1\",\"text\":\"a\u009bb\u202ec\",\"n\":9007199254740993}"),
		Redrive: &bus.Redrive{Attempt: 1, State: bus.RedriveDone, Operator: "ann@desk", Time: at(9), Event: 4800},
	}
}

func TestTablesOfDeadLettersReadAsTheyAlwaysDid(t *testing.T) {
	table := dlqTable()
	d := deadSample()
	dlqRow(&table, d)
	d.Sequence, d.Channel, d.Conversation, d.Redrive = 9, "", "two\nlines", nil
	dlqRow(&table, d)
	d.Redrive = &bus.Redrive{State: bus.RedriveFailed}
	dlqRow(&table, d)
	d.Redrive = &bus.Redrive{State: bus.RedriveStarted}
	dlqRow(&table, d)
	var b bytes.Buffer
	require.NoError(t, table.write(&b))
	require.Equal(t, ""+
		"SEQ  TIME                     TENANT  CHANNEL  EVENT          CONVERSATION  HANDLER     REASON          ATTEMPTS  REDRIVEN\n"+
		" 12  2026-03-01 10:00:07.000  acme    web      AGENT_MESSAGE  c1            onCimEvent  handler-failed         3  as event 4800\n"+
		"  9  2026-03-01 10:00:07.000  acme    -        AGENT_MESSAGE  \"two\\nlines\"  onCimEvent  handler-failed         3  -\n"+
		"  9  2026-03-01 10:00:07.000  acme    -        AGENT_MESSAGE  \"two\\nlines\"  onCimEvent  handler-failed         3  failed\n"+
		"  9  2026-03-01 10:00:07.000  acme    -        AGENT_MESSAGE  \"two\\nlines\"  onCimEvent  handler-failed         3  not finished\n", b.String())
}

func TestADeadLetterIsShownWhole(t *testing.T) {
	d := deadSample()
	again := uint64(15)
	v := deadLetterView{
		deadLetterLine: describeDeadLetter(d), Headers: d.Header, raw: d.Payload,
		Redrives: []redriveView{{redriveLine: *describeRedrive(d.Redrive), Fate: bus.FateDeadLetter, DeadLetter: &again}},
	}
	var b bytes.Buffer
	require.NoError(t, v.write(&b))
	require.Equal(t, `DEAD LETTER    12
time           2026-03-01 10:00:07.000
handler        onCimEvent
reason         handler-failed
error          no answer from the tariff service
attempts       3
first attempt  2026-03-01 10:00:01.000
last attempt   2026-03-01 10:00:06.000
tenant         acme
channel        web
event          AGENT_MESSAGE
id             m1
conversation   c1
published on   cim.acme.web.AGENT_MESSAGE
as event       4711
stored         2026-03-01 10:00:00.000
redrive of     dead letter 9

REDRIVE  TIME                     OPERATOR  STATE     EVENT  BECAME
      1  2026-03-01 10:00:09.000  ann@desk  redriven   4800  dead letter 15

HEADER  VALUE
X-Mine  a
X-Mine  b

PAYLOAD  48 B
{
  "id": "m1",
  "text": "a\u009bb\u202ec",
  "n": 9007199254740993
}
`, b.String())

	v.LeftOut, v.Redrives, v.Headers, v.RedriveOf = true, nil, nil, nil
	b.Reset()
	require.NoError(t, v.write(&b))
	require.True(t, strings.HasSuffix(b.String(), "\n\nPAYLOAD  48 B\nleft out: it was too large; the event has it as long as CIM_EVENTS keeps it\n"), b.String())
}

func TestAPlanCountsByHandlerReasonAndConversationAndSaysWhatIsRefusedAndWhy(t *testing.T) {
	var plan bus.DeadLetterPlan
	add := func(n int, handler, reason, conversation string, refused bus.Refusal) {
		for range n {
			plan.Entries = append(plan.Entries, bus.PlannedDeadLetter{Refused: refused, DeadLetter: bus.DeadLetter{
				Handler: handler, Reason: reason, Tenant: "acme", Conversation: conversation,
			}})
		}
	}
	add(2, "h", "panic", "c1", "")
	add(3, "onCimEvent", "stuck", "c2", bus.RefusedRedriven)
	add(1, "onCimEvent", "stuck", "", bus.RefusedSubject)
	for i := range 9 {
		add(1, "h", "panic", fmt.Sprint("d", i), "")
	}
	shown := func(force bool) string {
		var b bytes.Buffer
		c := &dlqCommand{app: &app{stdout: &b}, force: force}
		require.NoError(t, c.showPlan("redrive", plan, plan.Redrivable(force)))
		return b.String()
	}
	require.Equal(t, `HANDLER     ENTRIES
h                11
onCimEvent        4

REASON  ENTRIES
panic        11
stuck         4

TENANT  CONVERSATION              ENTRIES
acme    c2                              3
acme    c1                              2
acme    -                               1
acme    d0                              1
acme    d1                              1
acme    d2                              1
acme    d3                              1
acme    d4                              1
acme    d5                              1
acme    d6                              1
        and 2 conversations more        2

REFUSED           ENTRIES  WHY
already-redriven        3  redriven before; --force does it all the same
bad-subject             1  the subject it was published on is none: publish its payload on a proper one, cimbus dlq show has it

11 of 15 dead letters to redrive
`, shown(false))
	require.Contains(t, shown(true), "already-redriven        3  redriven before; forced\n")
	require.Contains(t, shown(true), "\n14 of 15 dead letters to redrive\n")
}
