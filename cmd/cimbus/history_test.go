package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus/bustest"
)

// handled waits until a conversation has so many events in its index.
func (s served) handled(t *testing.T, conversation string, n int) {
	t.Helper()
	bustest.Eventually(t, patience, func() error {
		got := invoke(t, "", s.on("history", "--tenant", "acme", "--conversation", conversation, "--newest")...)
		if rows := strings.Count(got.stdout, "\n") - 1; rows < n {
			return fmt.Errorf("%d events: %s", rows, got.stderr)
		}
		return nil
	})
}

func TestHistoryListsAConversationsEventsWithTheirOutcome(t *testing.T) {
	d := joined(t)
	d.do(t, event("1", "A", "c1")+event("x", "A", "other")+event("2", "B", "c1")+event("3", "B", "c1"), "publish", "--tenant", "acme", "--channel", "web")
	d.handled(t, "c1", 4)
	of := func(args string) []string {
		return append([]string{"history", "--tenant", "acme", "--conversation", "c1"}, strings.Fields(args)...)
	}
	sequence := map[string]uint64{}
	for _, l := range lines[seenLine](t, d.do(t, "", of("--json")...)) {
		sequence[l.ID] = *l.Sequence
	}
	require.Len(t, sequence, 4)

	got := invoke(t, "", d.on(of("--newest --limit 1")...)...)
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, fmt.Sprintf(`TIME                     SEQUENCE  EVENT                         ID                    CHANNEL     OUTCOME
2026-01-31 12:00:00.000  %8d  B                             3                     web         delivered
`, sequence["3"]), golden(got.stdout))
	require.Equal(t, "1 event of conversation \"c1\" of tenant \"acme\" in 1 ms; there may be more than --limit\n", golden(got.stderr))

	for args, want := range map[string]string{
		"":                                       "123",
		"--newest":                               "321",
		"--newest --from today --limit 2":        "32",
		fmt.Sprintf("--after %d", sequence["1"]): "23",
		fmt.Sprintf("--from %d --until %d", sequence["1"], sequence["2"]): "12",
		fmt.Sprintf("--newest --until %d", sequence["2"]):                 "21",
		fmt.Sprintf("--newest --after %d", sequence["1"]):                 "32",
	} {
		ids := ""
		for _, l := range lines[seenLine](t, d.do(t, "", append(of(args), "--json")...)) {
			require.Equal(t, "c1", l.Conversation)
			if len(l.ID) == 1 {
				ids += l.ID
				require.Equal(t, strings.TrimSpace(event(l.ID, l.Event, "c1")), string(l.Payload))
			}
		}
		require.Equal(t, want, ids, args)
	}
	require.Contains(t, d.do(t, "", of("--json")...), `"outcome":"delivered"}`)
	require.Contains(t, d.do(t, "", of("--payload --newest --limit 1")...), "\n    {\n      \"id\": \"3\",\n      \"name\": \"B\",\n")

	for args, problem := range map[string]string{
		"--after 99":          `no event of conversation "c1" of tenant "acme" there; its last one is `,
		"--until yesterday":   `no event of conversation "c1" of tenant "acme" there; its last one is `,
		"--from 99":           "sequence 99 is beyond the end: CIM_EVENTS holds 1 (",
		"--conversation gone": `no event of conversation "gone" of tenant "acme" was handled; check both names. There is CIM_EVENTS 1 (`,
	} {
		got := invoke(t, "", d.on(of(args)...)...)
		require.Equal(t, exitFailed, got.code)
		require.Contains(t, got.stderr, problem)
		require.Empty(t, got.stdout)
	}
	for args, problem := range map[string]string{"--limit -1": "give at least 1", "--conversation=": "--conversation is empty", "--after x": `--after "x": give a whole number`} {
		got := invoke(t, "", d.on(of(args)...)...)
		require.Equal(t, exitUsage, got.code)
		require.Contains(t, got.stderr, problem)
	}
}

func TestHistoryListsWhatTheStreamDoesNotKeepAnyMore(t *testing.T) {
	d := joined(t)
	var in strings.Builder
	const n = 40
	for i := range n {
		in.WriteString(event(fmt.Sprintf("m%02d", i), "A", "c1"))
	}
	d.do(t, in.String(), "publish", "--tenant", "acme")
	d.handled(t, "c1", n+1)
	purgeEvents(t, d.NATS, 38)
	all := lines[struct {
		seenLine
		Outcome string `json:"outcome"`
		Expired bool   `json:"expired"`
	}](t, d.do(t, "", "history", "--tenant", "acme", "--conversation", "c1", "--json"))
	require.Len(t, all, n+1)
	for i, l := range all {
		require.Equal(t, uint64(i+1), *l.Sequence)
		require.Equal(t, "delivered", l.Outcome)
		require.Equal(t, i+1 < 38, l.Expired)
		require.Equal(t, l.Expired, string(l.Payload) == "null")
	}
	text := d.do(t, "", "history", "--tenant", "acme", "--conversation", "c1", "--payload")
	require.Equal(t, 37, strings.Count(text, "    the stream does not keep it any more\n"))
}
