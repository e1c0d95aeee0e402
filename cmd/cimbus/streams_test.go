package main

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
)

func TestADaemonsStreamsNeedNothingDone(t *testing.T) {
	d := serve(t)
	got := d.do(t, "", "streams", "plan")
	require.Equal(t, len(declaredStreams()), strings.Count(got, ": keep\n"), got)
	require.True(t, strings.HasSuffix(got, "nothing to do\n"), got)
	require.Equal(t, len(declaredStreams()), strings.Count(d.do(t, "", "streams", "apply"), ": as declared\n"))
}

func TestInfoShowsEveryStream(t *testing.T) {
	d := serve(t)
	d.do(t, message("1"), "publish", "--tenant", "acme")
	got := d.do(t, "", "streams", "info")
	rows := strings.Split(strings.TrimSpace(got), "\n")
	require.Len(t, rows, 1+len(declaredStreams()))
	require.Regexp(t, `^STREAM +MESSAGES +BYTES +OF +FIRST +LAST +OLDEST +KEPT +CONSUMERS +REPLICAS +SUBJECTS$`, rows[0])
	require.Regexp(t, `^CIM_EVENTS +1 +\d+ B +5\.0 GiB +1 +1 +\d+ ms +7 d +1 +1 +cim\.\*\.\*\.\*$`, rows[1])

	all := lines[streamLine](t, d.do(t, "", "streams", "info", "--json"))
	require.Len(t, all, len(declaredStreams()))
	for i, name := range declaredStreams() {
		require.Equal(t, name, all[i].Stream)
		require.True(t, all[i].Exists)
	}
	require.Equal(t, uint64(1), all[0].Messages)
	require.Nil(t, all[3].FirstTime)
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
