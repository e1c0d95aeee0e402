package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// golden is a table with what differs from run to run made the same.
func golden(text string) string {
	for _, r := range []struct{ pattern, with string }{
		{`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}`, "2026-01-31 12:00:00.000"},
		{`\d+ d( \d+ h)?\b`, "1 d"},
		{`[+-]?\d+(\.\d+)? m?s\b`, "1 ms"},
		{` +1 ms`, " 1 ms"},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllString(text, r.with)
	}
	return text
}

func TestFindShowsWhatIsAskedForAsTheyAreStoredAndTheNewestFirst(t *testing.T) {
	d := serve(t)
	for i := range 6 {
		d.do(t, fmt.Sprintf(`{"id":"m%d","name":"CUSTOMER_MESSAGE","conversationId":"c%d","data":{"n":%d,"text":"colour \u001b[31m"}}`, i+1, i%2, i), "publish", "--tenant", "acme", "--channel", "web")
	}
	d.do(t, `{"id":"esc\u001b[31m\n","name":"AGENT_NOTE","conversationId":"ev\til"}`, "publish", "--tenant", "em.ca")

	got := invoke(t, "", d.on("find", "--tenant", "acme", "--event", "CUSTOMER_*", "--json-path", "data.n=4", "--text", "colour \x1b[31m", "--since", "1h")...)
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, `TIME                     SEQUENCE  SUBJECT                               ID                    CONVERSATION              SIZE
2026-01-31 12:00:00.000         5  cim.acme.web.CUSTOMER_MESSAGE         m5                    c0                       101 B
`, golden(got.stdout))
	require.Equal(t, "found 1 of 6 looked at in 1 ms; searched CIM_EVENTS 1 (2026-01-31 12:00:00.000) to 7 (2026-01-31 12:00:00.000)\n", golden(got.stderr))

	for _, c := range []struct {
		args string
		want []string
	}{
		{"", []string{"m1", "m2", "m3", "m4", "m5", "m6", "esc\x1b[31m\n"}},
		{"--newest", []string{"esc\x1b[31m\n", "m6", "m5", "m4", "m3", "m2", "m1"}},
		{"--newest --limit 2 --tenant acme", []string{"m6", "m5"}},
		{"--tenant acme --conversation c1 --newest", []string{"m6", "m4", "m2"}},
		{"--tenant acme --conversation c1 --limit 1", []string{"m2"}},
		{"--conversation c1 --from 3", []string{"m4", "m6"}},
		{"--from 3 --until 4", []string{"m3", "m4"}},
		{"--from 0 --until 2", []string{"m1", "m2"}},
		{"--until today --from yesterday --id m1", nil},
		{"--from today --id m1", []string{"m1"}},
		{"--tenant em.ca --channel -", []string{"esc\x1b[31m\n"}},
		{"--event CUSTOMER_MESSAGE --event NONE --channel WEB --id m6", []string{"m6"}},
	} {
		got := invoke(t, "", d.on(append([]string{"find", "--json"}, strings.Fields(c.args)...)...)...)
		var ids []string
		for _, l := range lines[seenLine](t, got.stdout) {
			require.WithinDuration(t, time.Now(), l.Time, time.Minute)
			ids = append(ids, l.ID)
		}
		require.Equal(t, c.want, ids, "%s: %s", c.args, got.stderr)
		if c.want == nil {
			require.Equal(t, exitFailed, got.code)
			require.Regexp(t, `^found 0 of \d+ looked at in .*; searched CIM_EVENTS`, got.stderr)
			continue
		}
		require.Zero(t, got.code, got.stderr)
		require.Regexp(t, fmt.Sprintf(`^found %d of \d+ looked at in `, len(c.want)), got.stderr)
	}
	table := d.do(t, "", "find", "--tenant", "em.ca")
	require.NotContains(t, table, "\x1b")
	require.Contains(t, table, `"esc\x1b[31m\n"`)
	require.Equal(t, 2, strings.Count(table, "\n"))
}

func TestFindShowsDeliveriesWithTheirPositions(t *testing.T) {
	d := joined(t)
	d.do(t, event("1", "A", "c1")+event("2", "B", "c1"), "publish", "--tenant", "acme")
	d.receive(t, "0", 3)
	got := invoke(t, "", d.on("find", "--deliveries", "--agent", "ann", "--event", "[AB]", "--newest", "--json")...)
	require.Zero(t, got.code, got.stderr)
	all := lines[seenLine](t, got.stdout)
	require.Len(t, all, 2)
	require.Equal(t, []string{"2", "1"}, []string{all[0].ID, all[1].ID})
	require.Equal(t, uint64(3), *all[0].Sequence)
	require.Equal(t, "onCimEvent", all[0].Type)

	// A position leads to the delivery, and to its event.
	from := d.do(t, "", "find", "--deliveries", "--from", all[0].Position)
	require.Equal(t, 2, strings.Count(from, "\n"))
	require.Contains(t, from, "cim-agent.acme.ann.onCimEvent.c1")
	require.Equal(t, uint64(3), *lines[seenLine](t, d.do(t, "", "find", "--from", all[0].Position, "--json"))[0].Sequence)

	foreign := invoke(t, "", d.on("find", "--from", "abc-1-0")...)
	require.Equal(t, exitFailed, foreign.code)
	require.Contains(t, foreign.stderr, "position of another stream")
	require.Equal(t, "TIME                     POSITION  SEQUENCE  SUBJECT                                       EVENT                 ID                        SIZE\n"+
		"2026-01-31 12:00:00.000         2         2  cim-agent.acme.ann.onCimEvent.c1              A                     1                        149 B\n",
		golden(d.do(t, "", "find", "--deliveries", "--id", "1")))
}

func TestFindSaysWhatCannotBeSearched(t *testing.T) {
	d := serve(t)
	empty := invoke(t, "", d.on("find")...)
	require.Equal(t, exitFailed, empty.code)
	require.Contains(t, empty.stderr, "found 0 of 0 looked at in")
	require.Contains(t, empty.stderr, "searched CIM_EVENTS, which has nothing there")

	d.do(t, message("1")+message("2"), "publish", "--tenant", "acme")
	for _, c := range []struct {
		args, problem string
		code          int
	}{
		{"--from 3", "sequence 3 is beyond the end: CIM_EVENTS holds 1 (", exitFailed},
		{"--from 2100-01-01", "is in the future: CIM_EVENTS holds 1 (", exitFailed},
		{"--deliveries --from 1", "sequence 1 is beyond the end: CIM_DELIVERIES holds nothing", exitFailed},
		{"--from sometime", `--from "sometime": give a sequence, an age`, exitUsage},
		{"--from 2 --until 1", "--from 2 is behind --until 1: give the earlier one first", exitUsage},
		{"--from 1h --until 2h", "give the earlier one first", exitUsage},
		{"--until 0", "--until 0: sequences begin at 1", exitUsage},
		{"--tenant=", "--tenant is empty: say which, or leave it out", exitUsage},
		{"--text=", "--text is empty", exitUsage},
		{"--agent ann", "add --deliveries", exitUsage},
		{"--event [", "write a name, or a pattern", exitUsage},
		{"--json-path x", "write PATH=VALUE", exitUsage},
		{"--limit -1", "--limit -1: give at least 1", exitUsage},
		{"--colour blue", "unknown flag: --colour", exitUsage},
	} {
		got := invoke(t, "", d.on(append([]string{"find"}, strings.Fields(c.args)...)...)...)
		require.Equal(t, c.code, got.code, "%s: %s", c.args, got.stderr)
		require.Contains(t, got.stderr, c.problem)
		require.Empty(t, got.stdout)
	}
	for _, args := range [][]string{{"find"}, {"find", "--deliveries"}, {"find", "--tenant", "t", "--conversation", "c"}} {
		got := invoke(t, "", append(args, "--server", jetStream(t, nil))...)
		require.Equal(t, exitFailed, got.code)
		require.Contains(t, got.stderr, "there is no bus at ")
	}
}

func TestTailShowsFirstWhatIsStoredSinceAPlaceAndNothingTwice(t *testing.T) {
	d := joined(t)
	d.do(t, event("1", "A", "c1")+event("2", "B", "c1"), "publish", "--tenant", "acme")
	d.receive(t, "0", 3)
	events := start(t, d.on("tail", "--from", "2", "--event", "[AB]", "--json")...)
	deliveries := start(t, d.on("tail", "--deliveries", "--agent", "ann", "--from", "1h", "--json")...)
	events.saw(&events.stdout, `"id":"2"`)
	deliveries.saw(&deliveries.stdout, `"id":"2"`)
	d.do(t, event("3", "A", "c1")+event("4", "C", "c1")+event("5", "B", "c1"), "publish", "--tenant", "acme")
	events.saw(&events.stdout, `"id":"5"`)
	deliveries.saw(&deliveries.stdout, `"id":"5"`)
	events.interrupt()
	deliveries.interrupt()
	require.Zero(t, events.wait(), events.stderr.String())
	require.Zero(t, deliveries.wait(), deliveries.stderr.String())
	ids := func(text string) (ids []string) {
		for _, l := range lines[seenLine](t, text) {
			ids = append(ids, l.ID)
		}
		return ids
	}
	require.Equal(t, []string{"1", "2", "3", "5"}, ids(events.stdout.String()))
	require.Equal(t, []string{"1", "2", "3", "4", "5"}, ids(deliveries.stdout.String())[1:], "behind that of having joined")
	require.Contains(t, events.stderr.String(), "4 events in ")
	require.Contains(t, deliveries.stderr.String(), "6 deliveries in ")
}
