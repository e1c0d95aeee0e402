//go:build unix

package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus/bustest"
)

// What only the built binary shows: signals, exit codes, and what a second process sees.
func TestTheBinary(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "cimbus")
	out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	b := built(binary)

	t.Run("ends with 0 at SIGTERM and at SIGINT, within ten seconds, with everything stored", func(t *testing.T) {
		store := t.TempDir()
		for i, signal := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
			d := b.serve(t, store)
			code, stdout, stderr := b.run(t, message(string(rune('1'+i))), "publish", "--tenant", "acme", "--server", d.NATS)
			require.Zero(t, code, stderr)
			require.Contains(t, stdout, `"stream":"CIM_EVENTS","seq":`+string(rune('1'+i))+`,`)
			began := time.Now()
			require.NoError(t, d.cmd.Process.Signal(signal))
			require.NoError(t, d.cmd.Wait(), d.stderr.String())
			require.Less(t, time.Since(began), 10*time.Second)
			require.Equal(t, 1, strings.Count(d.stdout.String(), "\n"), d.stdout.String())
		}
	})

	t.Run("refuses a store that another process has open", func(t *testing.T) {
		store := t.TempDir()
		d := b.serve(t, store)
		code, stdout, stderr := b.run(t, "", "serve", "--store", store, "--nats-addr", "127.0.0.1:0", "--websocket-addr", "", "--http-addr", "")
		require.Equal(t, exitFailed, code)
		require.Empty(t, stdout)
		require.Contains(t, stderr, "store folder is in use by another server: "+store)
		require.NoError(t, d.cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, d.cmd.Wait(), d.stderr.String())
	})

	t.Run("finds, lists and traces an event on an external server, and watches until it is interrupted", func(t *testing.T) {
		server := bustest.Process(t)
		d := start(t, "serve", "--nats-url", server.URL(), "--http-addr", "")
		d.saw(&d.stdout, "\n")
		on := served{d, announcement{NATS: server.URL()}}
		tail := exec.CommandContext(t.Context(), string(b), on.on("tail", "--json")...)
		var seen, told bustest.Buffer
		tail.Stdout, tail.Stderr, tail.Env = &seen, &told, []string{}
		require.NoError(t, tail.Start())
		require.Eventually(t, func() bool { return strings.Contains(told.String(), `"live":true`) }, patience, 2*time.Millisecond)
		code, _, stderr := b.run(t, message("m1"), on.on("publish", "--tenant", "acme")...)
		require.Zero(t, code, stderr)
		on.handled(t, "c1", 1)
		for _, args := range [][]string{{"find", "--id", "m1"}, {"history", "--tenant", "acme", "--conversation", "c1"}, {"trace", "m1"}} {
			code, stdout, stderr := b.run(t, "", on.on(append(args, "--json")...)...)
			require.Zero(t, code, stderr)
			require.Contains(t, stdout, `"id":"m1"`)
			require.Regexp(t, ` in [\d.]+ m?s`, stderr)
		}
		require.Eventually(t, func() bool { return strings.Contains(seen.String(), `"id":"m1"`) }, patience, 2*time.Millisecond)
		require.NoError(t, tail.Process.Signal(os.Interrupt))
		require.NoError(t, tail.Wait(), told.String())
		require.Contains(t, told.String(), "1 event in ")
	})

	t.Run("exits with 2 for a mistake on the command line", func(t *testing.T) {
		code, stdout, stderr := b.run(t, "", "agent", "--tenant", "acme")
		require.Equal(t, exitUsage, code)
		require.Empty(t, stdout)
		require.Contains(t, stderr, "cimbus agent: ")
	})

	t.Run("leaves nothing of a snapshot that the disk has no room for", func(t *testing.T) {
		d := b.serve(t, t.TempDir())
		noise := make([]byte, 60<<10)
		_, err := rand.Read(noise)
		require.NoError(t, err)
		code, _, stderr := b.run(t, `{"id":"1","name":"CUSTOMER_MESSAGE","conversationId":"c1","data":"`+base64.StdEncoding.EncodeToString(noise)+`"}`,
			"publish", "--tenant", "acme", "--server", d.NATS)
		require.Zero(t, code, stderr)
		parent := t.TempDir()
		out, err := exec.Command("sh", "-c", `ulimit -f 32; exec "$0" "$@"`, binary, "streams", "snapshot", filepath.Join(parent, "s"), "--server", d.NATS).CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, "%s", out)
		require.Equal(t, exitFailed, exit.ExitCode(), "%s", out)
		require.Contains(t, string(out), "file too large")
		left, err := os.ReadDir(parent)
		require.NoError(t, err)
		require.Empty(t, left)
		require.NoError(t, d.cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, d.cmd.Wait(), d.stderr.String())
	})

	t.Run("exports to a file what it imports on another server, embedded or external, and exports there again", func(t *testing.T) {
		from, embedded, external := b.serve(t, t.TempDir()), b.serve(t, t.TempDir()), bustest.Process(t).URL()
		code, _, stderr := b.run(t, message("1")+message("2"), "publish", "--tenant", "acme", "--server", from.NATS)
		require.Zero(t, code, stderr)
		file := filepath.Join(t.TempDir(), "events.ndjson")
		code, _, stderr = b.run(t, "", "export", "--tenant", "acme", file, "--server", from.NATS)
		require.Zero(t, code, stderr)
		require.Contains(t, stderr, "exported 2 events, ")
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		code, _, stderr = b.run(t, "", "streams", "apply", "--server", external)
		require.Zero(t, code, stderr)
		for _, to := range []string{embedded.NATS, external} {
			code, _, stderr = b.run(t, "", "import", file, "--server", to)
			require.Equal(t, exitFailed, code)
			require.Contains(t, stderr, "nothing was done: add --yes to store 2 events as history")
			code, _, stderr = b.run(t, "", "import", file, "--yes", "--server", to)
			require.Zero(t, code, stderr)
			code, again, stderr := b.run(t, "", "export", "--server", to)
			require.Zero(t, code, stderr)
			require.Equal(t, contents(t, string(text)), contents(t, again))
		}
	})

	t.Run("goes on after a kill", func(t *testing.T) {
		store := t.TempDir()
		d := b.serve(t, store)
		code, _, stderr := b.run(t, "", "conversation", "join", "--tenant", "acme", "--conversation", "c1", "--agent", "ann", "--server", d.NATS)
		require.Zero(t, code, stderr)
		require.NoError(t, d.cmd.Process.Kill())
		require.Error(t, d.cmd.Wait())

		d = b.serve(t, store)
		code, stdout, stderr := b.run(t, "", "agent", "--tenant", "acme", "--agent", "ann", "--after", "0", "--count", "1", "--server", d.NATS)
		require.Zero(t, code, stderr)
		require.Contains(t, stdout, `"sequence":1,"subject":"cim-agent.acme.ann.onCimEvent.c1"`)
		require.NoError(t, d.cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, d.cmd.Wait(), d.stderr.String())
	})

	t.Run("logs more at SIGUSR1 and as configured at SIGUSR2", func(t *testing.T) {
		d := b.serve(t, t.TempDir())
		for i, step := range []struct {
			signal os.Signal
			line   string
		}{
			{syscall.SIGUSR1, "from=info to=debug by=SIGUSR1"}, {syscall.SIGUSR1, "from=debug to=trace by=SIGUSR1"},
			{syscall.SIGUSR2, "from=trace to=info by=SIGUSR2"},
		} {
			require.NoError(t, d.cmd.Process.Signal(step.signal))
			require.Eventually(t, func() bool { return strings.Contains(d.stderr.String(), "log level changed: "+step.line) }, patience, 2*time.Millisecond)
			require.Equal(t, i+1, strings.Count(d.stderr.String(), "log level changed"), d.stderr.String())
		}
		require.NoError(t, d.cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, d.cmd.Wait(), d.stderr.String())
	})

	t.Run("takes the same signal twice in a moment for one, as timeout sends it", func(t *testing.T) {
		d := b.serve(t, t.TempDir())
		tail := exec.CommandContext(t.Context(), string(b), "tail", "--server", d.NATS)
		var told bustest.Buffer
		tail.Stderr, tail.Env = &told, []string{}
		require.NoError(t, tail.Start())
		require.Eventually(t, func() bool { return strings.Contains(told.String(), `"live":true`) }, patience, 2*time.Millisecond)
		for range 50 {
			if tail.Process.Signal(syscall.SIGTERM) != nil {
				break // it has ended
			}
		}
		require.NoError(t, tail.Wait(), told.String())
		require.Contains(t, told.String(), "0 events in ")
		require.NoError(t, d.cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, d.cmd.Wait(), d.stderr.String())
	})

	t.Run("leaves a replay that goes on where nobody reads any more", func(t *testing.T) {
		d := b.serve(t, t.TempDir())
		code, _, stderr := b.run(t, message("1")+message("2"), "publish", "--tenant", "acme", "--server", d.NATS)
		require.Zero(t, code, stderr)
		reading, writing, err := os.Pipe()
		require.NoError(t, err)
		require.NoError(t, reading.Close())
		replay := exec.CommandContext(t.Context(), string(b), "replay", "--replay-id", "again", "--server", d.NATS)
		var told bytes.Buffer
		replay.Stdout, replay.Stderr, replay.Env = writing, &told, []string{}
		var exit *exec.ExitError
		require.ErrorAs(t, replay.Run(), &exit, told.String())
		require.NoError(t, writing.Close())
		require.Equal(t, exitFailed, exit.ExitCode(), told.String())
		require.Contains(t, told.String(), "broken pipe; once that is mended go on with: cimbus replay resume again")
		code, stdout, stderr := b.run(t, "", "replay", "resume", "again", "--server", d.NATS)
		require.Zero(t, code, stderr)
		require.Equal(t, 2, strings.Count(stdout, "\n"), stdout)
		require.NoError(t, d.cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, d.cmd.Wait(), d.stderr.String())
	})

	t.Run("is ended at once by a second signal", func(t *testing.T) {
		d := b.serve(t, t.TempDir())
		require.NoError(t, d.cmd.Process.Signal(syscall.SIGSTOP)) // both arrive before it can end by the first
		require.NoError(t, d.cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, d.cmd.Process.Signal(os.Interrupt))
		require.NoError(t, d.cmd.Process.Signal(syscall.SIGCONT))
		err := d.cmd.Wait()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, exitFailed, exit.ExitCode())
	})
}

// built is the path of the binary.
type built string

func (b built) run(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), string(b), args...)
	var o, e bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = strings.NewReader(stdin), &o, &e, []string{}
	_ = cmd.Run() // the exit code tells
	return cmd.ProcessState.ExitCode(), o.String(), e.String()
}

// process is a daemon of its own.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr *bustest.Buffer
	announcement
}

func (b built) serve(t *testing.T, store string) process {
	t.Helper()
	p := process{stdout: &bustest.Buffer{}, stderr: &bustest.Buffer{}}
	p.cmd = exec.CommandContext(t.Context(), string(b), "serve", "--store", store, "--durability", "balanced",
		"--nats-addr", "127.0.0.1:0", "--websocket-addr", "", "--http-addr", "127.0.0.1:0")
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Env = p.stdout, p.stderr, []string{}
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	})
	require.Eventually(t, func() bool { return strings.HasSuffix(p.stdout.String(), "\n") }, patience, 2*time.Millisecond)
	require.NoError(t, json.Unmarshal([]byte(p.stdout.String()), &p.announcement), p.stderr.String())
	require.True(t, p.Ready)
	return p
}
