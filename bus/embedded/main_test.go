package embedded_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cimbus/cimbus/bus/embedded"
)

// storeEnv makes the test binary a server on the folder it names, to be killed.
const storeEnv = "CIMBUS_EMBEDDED_TEST_STORE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(storeEnv); dir != "" {
		if err := serveUntilKilled(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func serveUntilKilled(dir string) error {
	s, err := embedded.Start(context.Background(), embedded.Options{StoreDir: dir})
	if err != nil {
		return err
	}
	nc, err := s.Connect()
	if err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx := context.Background()
	if _, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		return err
	}
	if _, err := js.Publish(ctx, "s", []byte("kept")); err != nil {
		return err
	}
	fmt.Println("ready")
	select {}
}

// serveInProcess runs a server on dir in a process of its own, up to the first
// message it has stored.
func serveInProcess(t *testing.T, dir string) (kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), storeEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	killed := false
	kill = func() {
		if !killed {
			killed = true
			require.NoError(t, cmd.Process.Kill())
			require.Error(t, cmd.Wait())
		}
	}
	t.Cleanup(kill)
	ready := make([]byte, len("ready\n"))
	_, err = out.Read(ready)
	require.NoError(t, err, "the server in the other process is not ready")
	return kill
}

// start starts a server that is shut down with the test.
func start(t *testing.T, o embedded.Options) *embedded.Server {
	t.Helper()
	if o.StoreDir == "" {
		o.StoreDir = t.TempDir()
	}
	s, err := embedded.Start(context.Background(), o)
	require.NoError(t, err)
	t.Cleanup(func() { shutdown(t, s) })
	return s
}

func shutdown(t *testing.T, s *embedded.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	require.NoError(t, s.Shutdown(ctx))
}

func connect(t *testing.T, s *embedded.Server) jetstream.JetStream {
	t.Helper()
	nc, err := s.Connect()
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	return js
}

func requireFailed(t *testing.T, s *embedded.Server) {
	t.Helper()
	select {
	case <-s.Failed():
		require.ErrorIs(t, s.Err(), embedded.ErrFailed)
	case <-time.After(20 * time.Second):
		require.Fail(t, "the server's failure is not told")
	}
}
