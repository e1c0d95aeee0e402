package main

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

func TestADaemonsStreamsNeedNothingDone(t *testing.T) {
	d := serve(t)
	got := d.do(t, "", "streams", "plan")
	require.Equal(t, len(declaredStreams()), strings.Count(got, ": keep\n"), got)
	require.True(t, strings.HasSuffix(got, "nothing to do\n"), got)
	require.Equal(t, len(declaredStreams()), strings.Count(d.do(t, "", "streams", "apply"), ": as declared\n"))
}

// unsized is a golden text without its sizes.
func unsized(text string) string {
	return squeezed(regexp.MustCompile(`\d+(\.\d+)? (B|KiB)\b`).ReplaceAllString(golden(text), "1 B"))
}

func TestInfoShowsEveryStreamAndHandler(t *testing.T) {
	d := spoken(t)
	d.publishPlain(t, "cim.acme.web.BROKEN", nil, "{")
	d.await(t, 1)
	var got result
	bustest.Eventually(t, patience, func() error { // until the checkpoints are written: then nothing more is
		got = invoke(t, "", d.on("streams", "info")...)
		if !regexp.MustCompile(`KV_CIM_CONVERSATIONS +2 `).MatchString(got.stdout) {
			return errors.New(got.stdout + got.stderr)
		}
		return nil
	})
	require.Zero(t, got.code, got.stderr)
	// How often a key was written depends on how long this took.
	table := regexp.MustCompile(`(KV_CIM_\w+ 2 1 B 205 MiB) \d+ \d+`).ReplaceAllString(unsized(got.stdout), "$1 1 2")
	require.Equal(t, `STREAM MESSAGES BYTES OF FIRST LAST OLDEST KEPT DISTINCT MEMORY CONSUMERS REPLICAS SUBJECTS
CIM_EVENTS 5 1 B 5.0 GiB 1 5 1 ms 1 d 4 1 B 1 1 cim.*.*.*
CIM_DELIVERIES 4 1 B 3.5 GiB 1 4 1 ms 1 d 3 1 B 0 1 cim-agent.>
CIM_INDEX 5 1 B 512 MiB 1 5 1 ms 1 d 3 1 B 0 1 cim-index.>
CIM_DEAD_LETTERS 1 1 B 512 MiB 1 1 1 ms 1 d 1 1 B 0 1 cim-dead.>, cim-redrive.>
CIM_REPLAYS 0 1 B 102 MiB 0 0 - 1 d 0 1 B 0 1 cim-replay.>
KV_CIM_MEMBERS 2 1 B 205 MiB 1 2 1 ms no limit 2 1 B 0 1 $KV.CIM_MEMBERS.>
KV_CIM_CONVERSATIONS 2 1 B 205 MiB 1 2 1 ms 1 d 2 1 B 0 1 $KV.CIM_CONVERSATIONS.>

HANDLER WORKER WAITING OLDEST IN WORK REDELIVERED PAUSED DEAD LETTERS
onCimEvent acts 0 - 0 0 - 1
`, table)
	require.Equal(t, "7 streams: 19 messages, 1 B; 15 distinct subjects, about 1 B of memory; 1 dead letter; "+
		"the account uses 1 B on disk and 1 B in memory\n", unsized(got.stderr))

	all := lines[streamLine](t, d.do(t, "", "streams", "info", "--json"))
	require.Len(t, all, len(declaredStreams()))
	for i, name := range declaredStreams() {
		require.Equal(t, name, all[i].Stream)
		require.True(t, all[i].Exists)
		require.Equal(t, all[i].Distinct*230, all[i].Memory)
		require.Positive(t, all[i].Account.Storage)
	}
	require.Equal(t, uint64(5), all[0].Messages)
	require.Equal(t, "onCimEvent", all[0].Handlers[0].Handler)
	require.Equal(t, uint64(1), all[0].Handlers[0].DeadLetters)
	require.Nil(t, all[4].FirstTime)

	require.Equal(t, `STREAM CIM_EVENTS
subjects cim.*.*.*
created 2026-01-31 12:00:00.000
messages 5, 1 to 5
bytes 1 B, limit: 5.0 GiB
age oldest 1 ms, limit: 1 d
distinct subjects 4, about 1 B of memory
lost 0 messages
replicas 1
leader cimbus

CONSUMER DURABLE LAG WAITING IN WORK REDELIVERED DONE UP TO
handler-onCimEvent yes 0 0 0 0 5
`, unsized(d.do(t, "", "streams", "info", "CIM_EVENTS")))
	wrong := invoke(t, "", d.on("streams", "info", "CIM_EVENT")...)
	require.Equal(t, exitUsage, wrong.code)
	require.Contains(t, wrong.stderr, `"CIM_EVENT" is no stream of the bus; there are CIM_EVENTS, `)
}

func TestApplyMakesMissingStreamsAndRefusesToLoseData(t *testing.T) {
	url := jetStream(t, nil)
	at := func(environ []string, args ...string) result {
		return invokeIn(t, environ, "", append(args, "--server", url)...)
	}
	require.Equal(t, len(declaredStreams()), strings.Count(at(nil, "streams", "info").stdout, "missing"))
	require.Equal(t, len(declaredStreams()), strings.Count(at(nil, "streams", "info", "--json").stdout, `"exists":false`))
	require.True(t, strings.HasSuffix(at(nil, "streams", "plan").stdout, "apply makes these changes\n"))
	require.Equal(t, len(declaredStreams()), strings.Count(at(nil, "streams", "apply").stdout, ": created\n"))

	short := []string{"CIMBUS_STREAMS_EVENTS_MAX_AGE=24h"}
	planned := lines[bus.StreamPlan](t, at(short, "streams", "plan", "--json").stdout)
	require.Equal(t, bus.ActionUpdate, planned[0].Action)
	require.Equal(t, "max age", planned[0].Differences[0].Field)
	require.Contains(t, at(short, "streams", "apply").stdout, "CIM_EVENTS: updated\n  max age: ")

	discardOld(t, url)
	got := at(short, "streams", "plan")
	require.Zero(t, got.code)
	require.Contains(t, got.stdout, "CIM_DELIVERIES: refuse\n")
	require.Contains(t, got.stdout, "apply refuses unless forced")
	got = at(short, "streams", "apply")
	require.Equal(t, exitFailed, got.code)
	require.Empty(t, got.stdout)
	require.Contains(t, got.stderr, "streams differ from what is declared, nothing was changed:\n  CIM_DELIVERIES discard: ")
	require.Contains(t, got.stderr, "cimbus streams apply --force")

	// A daemon that is started there refuses in the same words.
	refused := invokeIn(t, short, "", "serve", "--nats-url", url, "--http-addr", "")
	require.Equal(t, exitFailed, refused.code)
	require.Contains(t, refused.stderr, "CIM_DELIVERIES discard: ")
	require.Empty(t, refused.stdout)

	got = at(short, "streams", "apply", "--force")
	require.Zero(t, got.code, got.stderr)
	require.Contains(t, got.stdout, "CIM_DELIVERIES: changed by force\n")
	require.True(t, strings.HasSuffix(at(short, "streams", "plan").stdout, "nothing to do\n"))
}

// discardOld makes CIM_DELIVERIES refuse what it should drop, and the declaration's wish to change that destructive.
func discardOld(t *testing.T, url string) {
	t.Helper()
	nc, err := nats.Connect(url)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	s, err := js.Stream(t.Context(), bus.StreamDeliveries)
	require.NoError(t, err)
	c := s.CachedInfo().Config
	c.Discard = jetstream.DiscardNew
	_, err = js.UpdateStream(t.Context(), c)
	require.NoError(t, err)
}

func TestTheConfigurationSaysWhereTheStreamsAreAndHowTheyAreDeclared(t *testing.T) {
	url := jetStream(t, nil)
	file := write(t, "cimbus.yaml", "nats: {url: '"+url+"'}\nstreams: {index: {max_age: 48h}}\n")
	require.Equal(t, len(declaredStreams()), strings.Count(invoke(t, "", "streams", "apply", "--config", file).stdout, ": created\n"))
	all := lines[streamLine](t, invoke(t, "", "streams", "info", "--json", "--server", url).stdout)
	require.Equal(t, 48*3600.0, all[2].MaxAge)

	got := invoke(t, "", "streams", "plan", "--config", write(t, "bad.yaml", "streams: {replicas: 9}\n"))
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.stderr, "streams.replicas")
}
