//go:build unix

package handlers_test

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// binaryEnv names a binary that is built already.
const binaryEnv = "CHAOS_BINARY"

// chaosBinary is the binary as it is built from this tree.
func chaosBinary(t testing.TB) string {
	t.Helper()
	if binary := os.Getenv(binaryEnv); binary != "" {
		return binary
	}
	binary := filepath.Join(t.TempDir(), "cimbus")
	out, err := exec.Command("go", "build", "-o", binary, "github.com/cimbus/cimbus/cmd/cimbus").CombinedOutput()
	require.NoError(t, err, "build the binary: %s", out)
	return binary
}

// serving is a `cimbus serve` process that is started again and again, on the same store or server and the same address.
type serving struct {
	binary, store, addr, natsURL string

	cmd    *exec.Cmd
	stdout *bufio.Reader
	isUp   bool
	log    *os.File
	before []string // put before the command line
}

func newServing(t testing.TB) *serving {
	t.Helper()
	binary := chaosBinary(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	s := &serving{binary: binary, store: filepath.Join(dir, "store"), addr: l.Addr().String(), log: log}
	t.Cleanup(func() {
		s.kill()
		text, err := os.ReadFile(log.Name())
		require.NoError(t, err)
		require.NoError(t, log.Close())
		if t.Failed() {
			t.Logf("end of the daemon's log:\n%s", text[max(0, len(text)-8000):])
		}
		require.NotContains(t, string(text), "panic:")
	})
	return s
}

func (s *serving) url() string {
	if s.natsURL != "" {
		return s.natsURL
	}
	return "nats://" + s.addr
}

// start starts the process without waiting for it.
func (s *serving) start(t testing.TB, durability string) {
	t.Helper()
	args := append(append([]string{}, s.before...), s.binary, "serve", "--http-addr", "", "--websocket-addr", "")
	if s.natsURL != "" {
		args = append(args, "--nats-url", s.natsURL)
	} else {
		args = append(args, "--store", s.store, "--nats-addr", s.addr, "--durability", durability)
	}
	s.cmd = exec.Command(args[0], args[1:]...)
	s.cmd.Stderr, s.cmd.Env = s.log, []string{}
	stdout, err := s.cmd.StdoutPipe()
	require.NoError(t, err)
	s.stdout, s.isUp = bufio.NewReader(stdout), false
	require.NoError(t, s.cmd.Start())
}

// ready waits for the ready line.
func (s *serving) ready(t testing.TB) {
	t.Helper()
	if s.isUp {
		return
	}
	tooLong := time.AfterFunc(90*time.Second, func() { _ = s.cmd.Process.Kill() })
	line, err := s.stdout.ReadString('\n')
	tooLong.Stop()
	require.NoError(t, err, "the daemon is not ready in time")
	s.isUp = true
	require.True(t, strings.HasPrefix(line, `{"ready":true`), line)
}

func (s *serving) signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	require.NoError(t, s.cmd.Process.Signal(signal))
}

// kill ends the process as kill -9 does.
func (s *serving) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill() // fails only when it is gone
		_ = s.cmd.Wait()         // how it ended is known
		s.cmd = nil
	}
}

func TestChaosNothingIsLostOrRepeatedWhenTheDaemonIsKilledAtRandomMoments(t *testing.T) {
	rng, seed := chaos(t)
	d := newServing(t)
	durability := func() string { return []string{"strict", "balanced"}[rng.IntN(2)] }
	d.start(t, durability())
	d.ready(t)
	c := startCrowd(t, crowdOptions{url: d.url(), seed: seed, every: 4 * time.Millisecond})
	began := time.Now()
	rounds := shortOrLong(3, 200)
	for range rounds {
		switch rng.IntN(4) {
		case 0: // while it starts
		case 1: // while everybody comes back
			d.ready(t)
			elapse(between(rng, 0, 300*time.Millisecond))
		default: // at work
			d.ready(t)
			c.more(t, rng.Int64N(200))
			elapse(between(rng, 0, 20*time.Millisecond))
		}
		d.kill()
		d.start(t, durability())
		elapse(between(rng, 0, 300*time.Millisecond))
	}
	d.ready(t)
	c.more(t, 100)
	c.end(t)
	b := onlooker(t, d.url())
	t.Logf("%d kills in %v, after which %d events wait", rounds, time.Since(began).Round(time.Second), consumer(t, b).NumPending)
	began = time.Now()
	drained(t, b)
	t.Logf("none after %v", time.Since(began).Round(time.Second))
	c.account(t, b, 0)
}

func TestChaosNothingIsLostOrRepeatedWhenTheDaemonIsShutDownUnderLoad(t *testing.T) {
	rng, seed := chaos(t)
	d := newServing(t)
	d.start(t, "balanced")
	d.ready(t)
	c := startCrowd(t, crowdOptions{url: d.url(), seed: seed, every: 4 * time.Millisecond})
	var took []time.Duration
	forced := 0
	for range shortOrLong(4, 60) {
		c.more(t, 20+rng.Int64N(200))
		began := time.Now()
		d.signal(t, syscall.SIGTERM)
		if rng.IntN(4) == 0 { // somebody cannot wait
			elapse(between(rng, 0, 50*time.Millisecond))
			_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
			_ = d.cmd.Wait()                          // either way
			forced++
		} else {
			require.NoError(t, d.cmd.Wait())
			took = append(took, time.Since(began))
		}
		d.cmd = nil
		d.start(t, "balanced")
		d.ready(t)
	}
	c.more(t, 100)
	c.end(t)
	t.Logf("%d shut down, %d of them forced by a second signal; the others took %v at most", len(took)+forced, forced, slices.Max(append(took, 0)))
	c.account(t, onlooker(t, d.url()), 0)
}
