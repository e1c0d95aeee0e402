//go:build unix

package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

// replayed are the sequences that a replay brought to an agent, by conversation.
func replayed(t *testing.T, url string) map[string][]uint64 {
	t.Helper()
	nc, err := nats.Connect(url)
	require.NoError(t, err)
	defer nc.Close()
	b, err := bus.Open(t.Context(), bus.Options{Conn: nc, LeaveStreams: true})
	require.NoError(t, err)
	all := map[string][]uint64{}
	for m, err := range b.Scan(t.Context(), bus.Scan{Stream: bus.StreamDeliveries, Subjects: []string{"cim-agent.acme.ann.replay.*"}}) {
		require.NoError(t, err)
		all[m.Subject] = append(all[m.Subject], bus.SequenceOf(m.Header))
	}
	require.NoError(t, b.Close(t.Context()))
	return all
}

// brokenOff runs the binary until it is hit by signals at random moments, goes on with what it left, and returns once all is done.
func (b built) brokenOff(t *testing.T, rng *rand.Rand, url string, args ...string) {
	t.Helper()
	args = append(args, "--server", url, "--yes", "--replay-id", "again")
	for turn := 0; ; turn++ {
		require.Less(t, turn, 200, "it does not get on")
		cmd := exec.CommandContext(t.Context(), string(b), args...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr, cmd.Env = &stdout, &stderr, []string{}
		require.NoError(t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		signal := []os.Signal{os.Interrupt, os.Kill, syscall.SIGTERM}[rng.IntN(3)]
		select {
		case err := <-ended:
			require.NoError(t, err, "%s", stderr.String())
			return
		case <-time.After(time.Duration(20+rng.IntN(250)) * time.Millisecond):
			_ = cmd.Process.Signal(signal) // it may have ended meanwhile
			if err := <-ended; err == nil {
				return
			}
			if signal != os.Kill && strings.Contains(stderr.String(), "stopped behind") {
				require.Contains(t, stderr.String(), "go on with: cimbus replay resume again")
			}
		}
		code, list, complaint := b.run(t, "", "replay", "ls", "--server", url)
		require.Zero(t, code, complaint)
		if strings.Contains(list, "again") {
			args = []string{"replay", "resume", "again", "--yes", "--server", url}
		}
	}
}

func TestTheBinaryRepeatsNothingHoweverOftenItIsStoppedAndKilled(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "cimbus")
	out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	b := built(binary)
	const n = 1500
	var input strings.Builder
	for i := range n {
		input.WriteString(event(fmt.Sprint("m", i), "CUSTOMER_MESSAGE", fmt.Sprint("c", i%3)) + "\n")
	}
	for name, url := range map[string]func(t *testing.T) string{
		"embedded": func(t *testing.T) string { return b.serve(t, t.TempDir()).NATS },
		"external": func(t *testing.T) string {
			url := bustest.Process(t).URL()
			r := start(t, "serve", "--nats-url", url, "--http-addr", "")
			r.saw(&r.stdout, "\n")
			return url
		},
	} {
		for seed := range uint64(killSeeds) {
			t.Run(fmt.Sprintf("%s/%d", name, seed), func(t *testing.T) {
				at := url(t)
				rng := rand.New(rand.NewPCG(seed, 11))
				for i := range 3 {
					bustest.Eventually(t, patience, func() error {
						code, _, stderr := b.run(t, "", "conversation", "join", "--tenant", "acme", "--conversation", fmt.Sprint("c", i), "--agent", "ann", "--server", at)
						if code != 0 {
							return fmt.Errorf("%s", stderr)
						}
						return nil
					})
				}
				code, _, stderr := b.run(t, input.String(), "publish", "--tenant", "acme", "--channel", "web", "--server", at)
				require.Zero(t, code, stderr)
				code, _, stderr = b.run(t, "", "agent", "--tenant", "acme", "--agent", "ann", "--after", "0", "--count", fmt.Sprint(n+3), "--server", at)
				require.Zero(t, code, stderr)

				path := filepath.Join(t.TempDir(), "events")
				b.brokenOff(t, rng, at, "replay", "--to", "file:"+path, "--pace", "2000/s")
				text, err := os.ReadFile(path)
				require.NoError(t, err)
				got := sequences(t, string(text))
				want := make([]uint64, n+3)
				for i := range want {
					want[i] = uint64(i + 1)
				}
				require.Equal(t, want, got)
				deleteRecord(t, at, "again")

				b.brokenOff(t, rng, at, "replay", "--tenant", "acme", "--to", "agent:ann", "--pace", "2000/s")
				var all []uint64
				for subject, lane := range replayed(t, at) {
					require.True(t, slices.IsSorted(lane), subject)
					all = append(all, lane...)
				}
				slices.Sort(all)
				require.Equal(t, want, all)
			})
		}
	}
}

// deleteRecord has an id be used again.
func deleteRecord(t *testing.T, url, id string) {
	t.Helper()
	nc, err := nats.Connect(url)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	s, err := js.Stream(t.Context(), bus.StreamReplays)
	require.NoError(t, err)
	require.NoError(t, s.Purge(t.Context(), jetstream.WithPurgeSubject("cim-replay."+id)))
}

func TestAFullDiskEndsAReplayThatGoesOnLater(t *testing.T) {
	d := played(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	require.NoError(t, err)
	defer full.Close()
	var stderr bustest.Buffer
	code := run(t.Context(), d.on("replay", "--replay-id", "again"), strings.NewReader(""), full, &stderr, nil)
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr.String(), "no space left on device; once that is mended go on with: cimbus replay resume again")
	require.Equal(t, []uint64{1, 2, 3, 4, 5, 6, 7, 8}, sequences(t, d.do(t, "", "replay", "resume", "again")))

	// Whoever reads knows better what arrived.
	code = run(t.Context(), d.on("replay", "--replay-id", "more"), strings.NewReader(""), full, &stderr, nil)
	require.Equal(t, exitFailed, code)
	require.Equal(t, []uint64{6, 7, 8}, sequences(t, d.do(t, "", "replay", "resume", "more", "--after", "5")))
}
