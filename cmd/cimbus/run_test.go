package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus/bustest"
)

// patience is how long a test waits for what has to happen.
const patience = 20 * time.Second

// running is a command on its way, in this process.
type running struct {
	t              *testing.T
	stdout, stderr bustest.Buffer
	interrupt      context.CancelFunc
	ended          chan struct{}
	code           int
}

// start runs a command until it ends or the test does.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	return startIn(t, nil, args...)
}

func startIn(t *testing.T, environ []string, args ...string) *running {
	t.Helper()
	r := &running{t: t, ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	r.interrupt = cancel
	go func() {
		defer close(r.ended)
		r.code = run(ctx, args, strings.NewReader(""), &r.stdout, &r.stderr, environ)
	}()
	t.Cleanup(func() {
		cancel()
		<-r.ended
	})
	return r
}

// wait returns the exit code.
func (r *running) wait() int {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(patience):
		require.FailNow(r.t, "the command does not end", "stdout %s\nstderr %s", r.stdout.String(), r.stderr.String())
	}
	return r.code
}

// saw waits until b holds text.
func (r *running) saw(b *bustest.Buffer, text string) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		select {
		case <-r.ended:
			return true
		default:
			return strings.Contains(b.String(), text)
		}
	}, patience, 2*time.Millisecond)
	require.Contains(r.t, b.String(), text, "stderr: %s", r.stderr.String())
}

// result is what a command left behind.
type result struct {
	code           int
	stdout, stderr string
}

// invoke runs a command to its end.
func invoke(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	return invokeIn(t, nil, stdin, args...)
}

func invokeIn(t *testing.T, environ []string, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	var stdout, stderr bustest.Buffer
	code := run(ctx, args, strings.NewReader(stdin), &stdout, &stderr, environ)
	require.NoError(t, ctx.Err(), "stderr: %s", stderr.String())
	return result{code, stdout.String(), stderr.String()}
}

// lines decodes NDJSON.
func lines[T any](t *testing.T, text string) []T {
	t.Helper()
	var all []T
	for each := range strings.Lines(text) {
		var v T
		require.NoError(t, json.Unmarshal([]byte(each), &v), each)
		all = append(all, v)
	}
	return all
}

// served is a daemon in this process.
type served struct {
	*running
	announcement
}

// serve starts a daemon on free ports and returns once it is ready.
func serve(t *testing.T, args ...string) served {
	t.Helper()
	r := start(t, append([]string{"serve", "--store", t.TempDir(), "--durability", "balanced",
		"--nats-addr", "127.0.0.1:0", "--websocket-addr", "", "--http-addr", "127.0.0.1:0"}, args...)...)
	r.saw(&r.stdout, "\n")
	return served{r, lines[announcement](t, r.stdout.String())[0]}
}

// on adds the daemon's address to a command line.
func (s served) on(args ...string) []string { return append(args, "--server", s.NATS) }

// do runs a command against the daemon, which must succeed, and returns its stdout.
func (s served) do(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	got := invoke(t, stdin, s.on(args...)...)
	require.Zero(t, got.code, "%v: %s", args, got.stderr)
	return got.stdout
}

func TestWhatTheCommandLineDoesNotAllowIsAUsageErrorThatSaysWhy(t *testing.T) {
	for _, c := range []struct {
		args    []string
		message string
	}{
		{nil, "cimbus: name a command, one of agent, "},
		{[]string{"nonsense"}, `cimbus: unknown command "nonsense"; there are agent, `},
		{[]string{"publis", "--tenant", "acme"}, `unknown command "publis"; did you mean publish?`},
		{[]string{"--json"}, "cimbus: --json stands before a command, and there is none"},
		{[]string{"conversation"}, "cimbus conversation: name a command, one of join, leave, members, show"},
		{[]string{"conversation", "joim", "--tenant", "acme"}, `unknown command "joim"; did you mean join?`},
		{[]string{"help", "nonsense"}, `no help about "nonsense"`},
		{[]string{"version", "more"}, `unexpected argument "more"`},
		{[]string{"version", "--jsn"}, "unknown flag: --jsn"},
		{[]string{"version", "--json=maybe"}, `--json "maybe": give true or false`},
		{[]string{"publish"}, `"tenant" not set`},
		{[]string{"publish", "--tenant", ""}, "is empty"},
		{[]string{"publish", "--tenant", strings.Repeat("x", 200)}, "is too long"},
		{[]string{"agent", "--tenant", "acme"}, `"agent" not set`},
		{[]string{"agent", "--tenant", "acme", "--agent", ""}, "--agent is empty"},
		{[]string{"agent", "--tenant", "", "--agent", "ann"}, "is empty"},
		{[]string{"agent", "--tenant", "acme", "--agent", "ann", "--after", "yesterday"}, `--after: position "yesterday"`},
		{[]string{"agent", "--tenant", "acme", "--agent", "ann", "--count", "0"}, "--count 0: give at least 1"},
		{[]string{"agent", "--tenant", "acme", "--agent", "ann", "--count", "two"}, `--count "two": give a whole number`},
		{[]string{"conversation", "join", "--tenant", "acme", "--agent", "ann"}, `"conversation" not set`},
		{[]string{"conversation", "join", "--tenant", "acme", "--agent", "ann", "--conversation", ""}, "--conversation is empty"},
		{[]string{"conversation", "leave", "--tenant", "acme", "--agent", "", "--conversation", "c"}, "is empty"},
		{[]string{"conversation", "show", "--tenant", "", "--conversation", "c"}, "is empty"},
		{[]string{"conversation", "members", "--tenant", "acme", "--conversation", ""}, "--conversation is empty"},
		{[]string{"tail", "--agent", "ann"}, "add --deliveries"},
		{[]string{"tail", "--channel", strings.Repeat("x", 200)}, "is too long"},
		{[]string{"streams", "apply", "--frce"}, "unknown flag: --frce"},
		{[]string{"serve", "--durability", "mostly"}, "write strict or balanced"},
		{[]string{"serve", "--nats-addr", "4222"}, "is not host:port"},
		{[]string{"serve", "--server", "nats://127.0.0.1:4222"}, "--nats-url"},
	} {
		got := invoke(t, "", c.args...)
		require.Equal(t, exitUsage, got.code, "%v: %s", c.args, got.stderr)
		require.Contains(t, got.stderr, c.message)
		require.Contains(t, got.stderr, "--help' for what it takes\n")
		require.Empty(t, got.stdout)
	}
}

func TestHelpIsAnAnswerAndGoesToStdout(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"help"}, {"help", "conversation", "join"}, {"conversation", "--help"}, {"serve", "-h"}, {"conversation", "-h", "join"}} {
		got := invoke(t, "", args...)
		require.Zero(t, got.code, "%v", args)
		require.Contains(t, got.stdout, "Usage:\n  cimbus ")
		require.Empty(t, got.stderr)
	}
}

func TestVersionNamesTheBuild(t *testing.T) {
	got := invoke(t, "", "version")
	require.Zero(t, got.code)
	require.Regexp(t, `^cimbus \S+, go1\.\S+, \w+/\w+, NATS server \S+\n$`, got.stdout)

	got = invoke(t, "", "version", "--json")
	require.Zero(t, got.code)
	b := lines[build](t, got.stdout)
	require.Len(t, b, 1)
	require.Equal(t, readBuild(), b[0])
}
