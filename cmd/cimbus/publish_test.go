package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

// event is a small CIM event.
func event(id, name, conversation string) string {
	return fmt.Sprintf(`{"id":%q,"name":%q,"conversationId":%q}`, id, name, conversation)
}

func message(id string) string { return event(id, "CUSTOMER_MESSAGE", "c1") }

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestPublishTakesEveryFormOfInputAndPrintsAReceiptForEachInOrder(t *testing.T) {
	d := serve(t)
	array := write(t, "array.json", "[\n"+message("a1")+",\n"+message("a2")+"]")
	pretty := write(t, "pretty.json", "{\n  \"id\": \"p1\",\n  \"name\": \"BOT_MESSAGE\",\n  \"conversationId\": \"c2\"\n}\n{\n\"id\": \"p2\", \"name\": \"BOT_MESSAGE\", \"conversationId\": \"c2\"}")
	ndjson := message("n1") + "\n" + `{"cimEvent":` + event("n2", "AGENT_MESSAGE", "") + `,"conversationId":"c3"}` + "\n"

	got := invoke(t, ndjson, d.on("publish", "--tenant", "acme", array, "-", pretty)...)
	require.Zero(t, got.code, got.stderr)
	require.Empty(t, got.stderr)
	var subjects []string
	for _, r := range lines[bus.Receipt](t, got.stdout) {
		require.Equal(t, bus.Receipt{Subject: r.Subject, Stream: "CIM_EVENTS", Sequence: r.Sequence}, r)
		subjects = append(subjects, r.Subject)
	}
	require.Equal(t, []string{
		"cim.acme._.CUSTOMER_MESSAGE", "cim.acme._.CUSTOMER_MESSAGE", "cim.acme._.CUSTOMER_MESSAGE", "cim.acme._.AGENT_MESSAGE",
		"cim.acme._.BOT_MESSAGE", "cim.acme._.BOT_MESSAGE",
	}, subjects)
	require.True(t, strings.HasPrefix(got.stdout, `{"subject":"cim.acme._.CUSTOMER_MESSAGE","stream":"CIM_EVENTS","seq":1,"duplicate":false}`+"\n"), got.stdout)
}

func TestPublishFailsForOneBadItemAndStoresTheOthers(t *testing.T) {
	d := serve(t)
	for _, c := range []struct{ name, input, complaint string }{
		{"array", `[` + message("1") + `,{"id":"2","name":"CUSTOMER_MESSAGE"},` + message("3") + `]`, "stdin: item 2, line 1: "},
		{"lines", message("4") + "\n{\"id\":\n" + message("6") + "\n", "stdin: item 2, line 2: "},
		{"pretty", message("7") + "\n{\n\"id\": \"8\",\n\"name\" \"x\"}\n" + message("9"), "stdin: item 2, line 4: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := invoke(t, c.input, d.on("publish", "--tenant", "acme")...)
			require.Equal(t, exitFailed, got.code)
			require.Len(t, lines[bus.Receipt](t, got.stdout), 2)
			require.True(t, strings.HasPrefix(got.stderr, c.complaint), got.stderr)
			require.True(t, strings.HasSuffix(got.stderr, "cimbus publish: 1 problem, told above; 2 events stored\n"), got.stderr)
		})
	}
}

func TestPublishNamesFieldAndRemedyOfEveryBadItem(t *testing.T) {
	d := serve(t)
	got := invoke(t, strings.Join([]string{
		`not json at all`, `7`, `[[` + message("1") + `]]`,
		`{"id":"1","conversationId":"c"}`, `{"name":"A","conversationId":"c"}`, `{"id":"1","name":"A"}`,
		event("1", strings.Repeat("x", 200), "c"), event("1", "A", strings.Repeat("x", 200)),
		`{"id":"1","name":"A","conversationId":"c","text":"` + strings.Repeat("x", 2<<20) + `"}`,
		`{"id":"1","name":"A","conversationId":"c","text":"` + strings.Repeat("x", 5<<20) + `"}`,
	}, "\n"), d.on("publish", "--tenant", "acme", "-", "missing.json")...)
	require.Equal(t, exitFailed, got.code)
	require.Empty(t, got.stdout)
	complaints := strings.Split(strings.TrimSpace(got.stderr), "\n")
	require.Len(t, complaints, 12)
	for i, want := range []string{
		"body is not JSON", "body is a number, not an event", "body is an array, not an event: publish the items of an array one by one",
		"name is missing", "id is missing", "conversationId is missing: set it in",
		`"… is too long`, `"… is too long`,
		"event is too large", "event is too large",
		"missing.json: no such file or directory: give the path",
		"cimbus publish: 11 problems, told above; 0 events stored",
	} {
		require.Contains(t, complaints[i], want)
		if i < 10 {
			require.Contains(t, complaints[i], fmt.Sprintf("stdin: item %d, line %d: ", i+1, i+1))
		}
	}
}

func TestADuplicateIsASuccess(t *testing.T) {
	d := serve(t)
	first := d.do(t, message("1"), "publish", "--tenant", "acme")
	again := d.do(t, message("1")+message("2"), "publish", "--tenant", "acme")
	require.Contains(t, first, `"seq":1,"duplicate":false`)
	receipts := lines[bus.Receipt](t, again)
	require.Equal(t, []uint64{1, 2}, []uint64{receipts[0].Sequence, receipts[1].Sequence})
	require.Equal(t, []bool{true, false}, []bool{receipts[0].Duplicate, receipts[1].Duplicate})
}

func TestPublishChoosesTheChannelAndDemandsTheName(t *testing.T) {
	d := serve(t)
	require.Contains(t, d.do(t, message("1"), "publish", "--tenant", "acme", "--channel", "CX VOICE", "--event", "CUSTOMER_MESSAGE"),
		`"cim.acme.cx=20voice.CUSTOMER_MESSAGE"`)
	got := invoke(t, message("2"), d.on("publish", "--tenant", "acme", "--event", "BOT_MESSAGE")...)
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.stderr, `name is "CUSTOMER_MESSAGE", to be published as "BOT_MESSAGE"`)
}

func TestManyEventsOfManyConversationsKeepTheOrderOfTheirReceipts(t *testing.T) {
	d := serve(t)
	const n = 3000
	var in strings.Builder
	for i := range n {
		in.WriteString(event(strconv.Itoa(i), "E"+strconv.Itoa(i), "c"+strconv.Itoa(i%7)) + "\n")
	}
	receipts := lines[bus.Receipt](t, d.do(t, in.String(), "publish", "--tenant", "acme"))
	require.Len(t, receipts, n)
	for i, r := range receipts {
		require.Equal(t, "cim.acme._.E"+strconv.Itoa(i), r.Subject)
	}
}

func TestNoInputIsToldAndIsNoFailure(t *testing.T) {
	d := serve(t)
	got := invoke(t, " [] \n", d.on("publish", "--tenant", "acme")...)
	require.Zero(t, got.code)
	require.Equal(t, "cimbus publish: the input holds no events\n", got.stderr)
}

// endless is an input that is written to as long as anybody reads, and never ends.
type endless struct{ read chan struct{} }

func (e endless) Read(p []byte) (int, error) {
	select {
	case e.read <- struct{}{}:
		return copy(p, message("1")+"\n"), nil
	default:
		select {} // as stdin does
	}
}

func TestAnInterruptedPublishEndsThoughItsInputDoesNot(t *testing.T) {
	d := serve(t)
	ctx, interrupt := context.WithCancel(context.Background())
	var stdout, stderr bustest.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, d.on("publish", "--tenant", "acme"), endless{make(chan struct{}, 1)}, &stdout, &stderr, nil)
	}()
	require.Eventually(t, func() bool { return strings.Contains(stdout.String(), `"seq":1`) }, patience, time.Millisecond)
	interrupt()
	require.Equal(t, exitFailed, <-ended)
	require.Equal(t, "cimbus publish: interrupted: 1 event stored\n", stderr.String())
}

func TestPublishGivesUpWhereThereIsNothingToPublishTo(t *testing.T) {
	url := jetStream(t, nil)
	got := invoke(t, message("1")+message("2"), "publish", "--tenant", "acme", "--server", url)
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.stderr, "no stream CIM_EVENTS takes the event")
	require.Contains(t, got.stderr, "start a daemon with cimbus serve")
	require.Contains(t, got.stderr, "cimbus publish: gave up, the rest of the input was not read; 0 events stored")
}
