package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
)

// finding is the one of a check, about of.
func finding(t *testing.T, found []bus.Finding, check, of string) bus.Finding {
	t.Helper()
	for _, f := range found {
		if f.Check == check && f.Of == of {
			return f
		}
	}
	require.FailNow(t, "not found", "%s %s in %v", check, of, found)
	return bus.Finding{}
}

func TestADoctorFindsNothingWrongWithADaemonThatIsWell(t *testing.T) {
	d := joined(t)
	got := invoke(t, "", d.on("doctor", "--store", d.Store, "--http", d.HTTP, "--json")...)
	require.Zero(t, got.code, got.stderr+got.stdout)
	found := lines[bus.Finding](t, got.stdout)
	for _, f := range found {
		require.Equal(t, bus.LevelOK, f.Level, f)
	}
	require.Equal(t, "balanced: a power cut can cost the last second", finding(t, found, "durability", "").Found)
	require.Contains(t, finding(t, found, "disk", "").Found, " are free")
	require.Contains(t, finding(t, found, "daemon", "").Found, "ready at "+d.HTTP)
	require.Contains(t, finding(t, found, "server", "").Found, "NATS server 2.")
	require.Equal(t, "all 7 are as declared", finding(t, found, "streams", "").Found)
	finding(t, found, "lag", "handler-onCimEvent")

	shown := invoke(t, "", d.on("doctor", "--store", d.Store, "--http", d.HTTP)...)
	require.Equal(t, fmt.Sprintf("%d checks: all well\n", len(found)), shown.stderr)
	text := shown.stdout
	require.Equal(t, len(found), strings.Count(text, "\n"), "one line each")
	for each := range strings.Lines(text) {
		require.Regexp(t, `^ok    \S.*\. Why it matters: .*\.\n$`, each)
	}
}

func TestADoctorSaysWhatItCannotKnowAndWhereToLook(t *testing.T) {
	d := serve(t)
	other := serve(t)
	for name, args := range map[string][]string{
		"no HTTP":              {"--http", "http://127.0.0.1:1"},
		"HTTP of another":      {"--http", other.HTTP},
		"something else there": {"--http", d.HTTP + "/nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			got := invoke(t, "", append(d.on("doctor", "--json", "--store", t.TempDir()), args...)...)
			require.Zero(t, got.code, "warnings are no failure")
			found := lines[bus.Finding](t, got.stdout)
			f := finding(t, found, "durability", "")
			require.Equal(t, bus.LevelWarn, f.Level)
			require.Contains(t, f.Found, "not known")
			require.Contains(t, f.Remedy, "--http")
			f = finding(t, found, "disk", "")
			require.Equal(t, bus.LevelWarn, f.Level)
			require.Contains(t, f.Remedy, "--store")
		})
	}
}

func TestAnExternalServersDurabilityIsExplainedAndNotGuessed(t *testing.T) {
	url := jetStream(t, nil)
	require.Zero(t, invoke(t, "", "streams", "apply", "--server", url).code)
	got := invoke(t, "", "doctor", "--server", url, "--json")
	require.Zero(t, got.code, got.stdout)
	found := lines[bus.Finding](t, got.stdout)
	f := finding(t, found, "durability", "")
	require.Equal(t, bus.LevelWarn, f.Level)
	require.Contains(t, f.Found, "every 2 minutes")
	require.Contains(t, f.Remedy, "sync_interval: always")
	require.Contains(t, finding(t, found, "lag", "").Found, "no handler has ever run here")
	require.Contains(t, finding(t, found, "disk", "").Found, "is the server's to watch")
}

func TestADoctorFailsWithItsReasonWhereSomethingDoes(t *testing.T) {
	url := jetStream(t, nil)
	require.Zero(t, invoke(t, "", "streams", "apply", "--server", url).code)
	deleteStream(t, url, "CIM_INDEX")
	for name, c := range map[string]struct {
		args       []string
		check, of  string
		found, fix string
	}{
		"no server":      {[]string{"--server", "nats://me:secret@127.0.0.1:1"}, "server", "", "no NATS server reachable at nats://127.0.0.1:1", "start cimbus serve"},
		"no JetStream":   {[]string{"--server", withoutJetStream(t)}, "jetstream", "", "has no JetStream", "(-js)"},
		"missing stream": {[]string{"--server", url}, "streams", "CIM_INDEX", "is missing", "cimbus streams apply"},
	} {
		t.Run(name, func(t *testing.T) {
			got := invoke(t, "", append([]string{"doctor", "--json"}, c.args...)...)
			require.Equal(t, exitFailed, got.code)
			require.NotContains(t, got.stdout+got.stderr, "secret")
			f := finding(t, lines[bus.Finding](t, got.stdout), c.check, c.of)
			require.Equal(t, bus.LevelFail, f.Level)
			require.Contains(t, f.Found, c.found)
			require.Contains(t, f.Remedy, c.fix)
			text := invoke(t, "", append([]string{"doctor"}, c.args...)...).stdout
			require.Contains(t, text, "fail  "+strings.TrimSpace(c.check+" "+c.of))
			require.Contains(t, text, ". What to do: ")
		})
	}
}

func TestAStreamThatIsAcknowledgedBeforeItIsWrittenIsAFailure(t *testing.T) {
	url := jetStream(t, nil)
	require.Zero(t, invoke(t, "", "streams", "apply", "--server", url).code)
	nc, err := nats.Connect(url)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	s, err := js.Stream(t.Context(), "CIM_EVENTS")
	require.NoError(t, err)
	c := s.CachedInfo().Config
	require.NoError(t, js.DeleteStream(t.Context(), c.Name))
	c.PersistMode = jetstream.AsyncPersistMode
	_, err = js.CreateStream(t.Context(), c)
	require.NoError(t, err)
	got := invoke(t, "", "doctor", "--server", url, "--json")
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, finding(t, lines[bus.Finding](t, got.stdout), "replicas", "CIM_EVENTS").Found, "persist mode async")
}

func TestAProofKillsADaemonOfItsOwnAndLosesNothing(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "cimbus")
	buildTo(t, binary)
	for _, mode := range []string{"strict", "balanced"} {
		t.Run(mode, func(t *testing.T) {
			here := t.TempDir()
			t.Chdir(here)
			code, stdout, stderr := built(binary).run(t, "", "doctor", "--prove-durability", "--durability", mode, "--json")
			require.Zero(t, code, stderr+stdout)
			found := lines[bus.Finding](t, stdout)
			require.Len(t, found, 3)
			kill := finding(t, found, "kill", "").Found
			require.Regexp(t, `^`+mode+`, killed hard with [1-9]\d* events? on their way: [1-9]\d* acknowledged before, 0 of them lost; .* published again 0 are missing; 0 stored twice$`, kill)
			require.Contains(t, finding(t, found, "deliveries", "").Found, " 0 were not delivered to their agent, 0 twice, 0 out of order")
			power := finding(t, found, "power", "").Found
			require.Contains(t, power, map[string]string{"strict": "could cost nothing", "balanced": "of the last second, at this rate about "}[mode])
			left, err := os.ReadDir(here)
			require.NoError(t, err)
			require.Empty(t, left, "a proof leaves nothing where it is started")
		})
	}
}

func TestWhatADoctorIsNotAskedRightIsAUsageError(t *testing.T) {
	for _, c := range [][]string{
		{"doctor", "--durability", "strict"},
		{"doctor", "--prove-durability", "--durability", "mostly"},
		{"doctor", "everything"},
	} {
		got := invoke(t, "", c...)
		require.Equal(t, exitUsage, got.code, c)
		require.Empty(t, got.stdout)
	}
}

func withoutJetStream(t *testing.T) string {
	t.Helper()
	return jetStream(t, func(o *server.Options) { o.JetStream = false })
}

func buildTo(t *testing.T, path string) {
	t.Helper()
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
}
