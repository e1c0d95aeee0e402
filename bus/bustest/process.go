//go:build unix

package bustest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// processTimeout is how long a server process may take to be ready, its elections included.
const processTimeout = 60 * time.Second

// NATSServer is a nats-server in a process of its own, of the version this
// module uses, with JetStream on a temporary store. Its methods are for one
// goroutine.
type NATSServer struct {
	t      testing.TB
	binary string
	dir    string
	addr   string
	cmd    *exec.Cmd // nil while it does not run
}

// Process builds the server, once per version and machine, and starts it with
// its defaults and the given lines of configuration ("max_payload: 64KB").
func Process(t testing.TB, config ...string) *NATSServer {
	t.Helper()
	s := newProcess(t, config)
	s.Restart()
	return s
}

// newProcess prepares a server; nothing runs yet.
func newProcess(t testing.TB, config []string) *NATSServer {
	t.Helper()
	s := &NATSServer{t: t, binary: natsServerBinary(t), dir: t.TempDir(), addr: address(t)}
	lines := append([]string{
		fmt.Sprintf("listen: %q", s.addr),
		fmt.Sprintf("jetstream { store_dir: %q }", filepath.Join(s.dir, "store")),
		fmt.Sprintf("log_file: %q", s.logFile()),
	}, config...)
	require.NoError(t, os.WriteFile(s.configFile(), []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("log of nats-server:\n%s", s.Log())
		}
	})
	return s
}

func (s *NATSServer) configFile() string { return filepath.Join(s.dir, "nats-server.conf") }
func (s *NATSServer) logFile() string    { return filepath.Join(s.dir, "nats-server.log") }

// URL is where the server listens, the same after every restart.
func (s *NATSServer) URL() string { return "nats://" + s.addr }

// Kill ends the process at once, as kill -9 does.
func (s *NATSServer) Kill() { s.end(syscall.SIGKILL) }

// Terminate asks the process to end, as an operator does, and waits.
func (s *NATSServer) Terminate() { s.end(syscall.SIGTERM) }

func (s *NATSServer) end(signal syscall.Signal) {
	s.t.Helper()
	if s.cmd == nil {
		return
	}
	s.signal(signal)
	_ = s.cmd.Wait() // how it ended is what was asked for
	s.cmd = nil
}

// Freeze stops the process where it is, as SIGSTOP does, until Thaw; its
// connections stay open and silent.
func (s *NATSServer) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw ends Freeze.
func (s *NATSServer) Thaw() { s.signal(syscall.SIGCONT) }

func (s *NATSServer) signal(signal syscall.Signal) {
	s.t.Helper()
	require.NotNil(s.t, s.cmd, "nats-server does not run")
	require.NoError(s.t, s.cmd.Process.Signal(signal))
}

// Restart kills the process if it runs, starts it on its store and address,
// and waits until it is ready.
func (s *NATSServer) Restart() {
	s.t.Helper()
	s.start()
	s.waitReady()
}

func (s *NATSServer) start() {
	s.t.Helper()
	s.Kill()
	cmd := exec.Command(s.binary, "-c", s.configFile())
	require.NoError(s.t, cmd.Start())
	s.cmd = cmd
}

func (s *NATSServer) waitReady() {
	s.t.Helper()
	Eventually(s.t, processTimeout, func() error { return ready(s.URL()) })
}

// ready asks whatever listens there whether its streams can be used; one that
// wants credentials has got far enough to say so.
func ready(url string) error {
	nc, err := nats.Connect(url, nats.MaxReconnects(0))
	switch {
	case errors.Is(err, nats.ErrAuthorization):
		return nil
	case err != nil:
		return err
	}
	defer nc.Close()
	_, err = nc.Request("$JS.API.INFO", nil, time.Second)
	return err
}

// Log is what the server has logged.
func (s *NATSServer) Log() string {
	log, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(log)
}

// natsServerBinary builds nats-server from the module's own tool dependency. A
// binary that an earlier test built serves this one too.
func natsServerBinary(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("cimbus-nats-server-%d", os.Getuid()))
	binary := filepath.Join(dir, fmt.Sprintf("nats-server-%s-%s-%s", server.VERSION, runtime.GOOS, runtime.GOARCH))
	if _, err := os.Stat(binary); err == nil {
		return binary
	}
	require.NoError(t, os.MkdirAll(dir, 0o700))
	fresh, err := os.MkdirTemp(dir, "build-")
	require.NoError(t, err)
	defer func() { require.NoError(t, os.RemoveAll(fresh)) }()
	built := filepath.Join(fresh, "nats-server")
	out, err := exec.Command("go", "build", "-o", built, "github.com/nats-io/nats-server/v2").CombinedOutput()
	require.NoError(t, err, "build nats-server: %s", out)
	// Renaming is the one step: two test binaries may build at the same time.
	require.NoError(t, os.Rename(built, binary))
	return binary
}
