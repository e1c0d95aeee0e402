//go:build chaos && linux

package handlers_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

// traced is the command that records everything that is done to files.
func traced(trace string) []string {
	return []string{
		"strace", "--seccomp-bpf", "-f", "-ttt", "-xx", "-s", "16777216", "-e", "signal=none", "-o", trace, "-e",
		"trace=openat,close,lseek,write,pwrite64,pwritev,pwritev2,fsync,fdatasync,sync_file_range,ftruncate,truncate,rename,renameat," +
			"renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,fallocate,copy_file_range",
	}
}

// killTraced ends the traced process as a power cut does; strace then ends by itself, with the trace whole.
func (s *serving) killTraced(t testing.TB) {
	t.Helper()
	pid := s.cmd.Process.Pid
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	require.NoError(t, err)
	child, err := strconv.Atoi(strings.TrimSpace(string(children)))
	require.NoError(t, err)
	p, err := os.FindProcess(child)
	require.NoError(t, err)
	require.NoError(t, p.Kill())
	_ = s.cmd.Wait() // it was killed
	s.cmd = nil
}

// TestChaosPowerCuts records every write and sync of a daemon at work and starts another one from what a power cut at some moment
// would have left. Needs strace.
func TestChaosPowerCuts(t *testing.T) {
	_, err := exec.LookPath("strace")
	require.NoError(t, err, "install strace")
	for _, c := range []struct {
		name, before, after string
		mayLose             time.Duration // of what was acknowledged
	}{
		{"strict", "strict", "strict", 0},
		// The second, and what two busy cores add to the rhythm of the syncs.
		{"balanced", "balanced", "balanced", 2 * time.Second},
		{"balanced, then strict", "balanced", "strict", 2 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			rng, seed := chaos(t)
			run := record(t, seed, c.before)
			moments := make([]time.Time, shortOrLong(4, 15))
			for i := range moments {
				moments[i] = run.began.Add(between(rng, 0, run.ended.Sub(run.began)))
			}
			slices.SortFunc(moments, time.Time.Compare)
			lost, oldest := 0, time.Duration(0)
			for _, names := range []string{"journaled names", "strict names"} {
				d := newDisk(run.daemon.store, names == "strict names")
				require.NoError(t, d.replay(run.trace, moments, func(at time.Time) error {
					for _, part := range []*rand.Rand{nil, rng} {
						n, age := run.startFrom(t, d, at, part, c.after, fmt.Sprintf("%s, part %t", names, part != nil))
						lost += n
						oldest = max(oldest, age)
					}
					return nil
				}))
			}
			t.Logf("%d power cuts: %d acknowledged events lost, the oldest %v before its cut", 4*len(moments), lost, oldest)
			require.LessOrEqual(t, oldest, c.mayLose)
			if c.mayLose == 0 {
				require.Zero(t, lost)
			}
		})
	}
}

// recording is a daemon's work and its trace.
type recording struct {
	daemon       *serving
	trace        string
	crowd        *crowd
	began, ended time.Time
	strict       bool
}

func record(t *testing.T, seed uint64, durability string) *recording {
	t.Helper()
	r := &recording{daemon: newServing(t), trace: filepath.Join(t.TempDir(), "trace"), strict: durability == "strict"}
	r.daemon.before = traced(r.trace)
	r.daemon.start(t, durability)
	r.daemon.ready(t)
	r.crowd = startCrowd(t, crowdOptions{url: r.daemon.url(), seed: seed, every: 8 * time.Millisecond})
	r.crowd.more(t, 1)
	r.began = time.Now()
	elapse(shortOrLong(3*time.Second, 6*time.Second))
	r.ended = time.Now()
	r.crowd.end(t)
	r.crowd.leave()
	r.daemon.killTraced(t)
	t.Logf("recorded %v of work, %d events", r.ended.Sub(r.began).Round(time.Millisecond), r.crowd.acknowledged())
	return r
}

// startFrom starts a daemon from what the disk holds and counts: how many acknowledged events are gone, and how long before the
// moment the oldest of them was acknowledged. Everything that is there must agree.
func (r *recording) startFrom(t *testing.T, d *disk, at time.Time, part *rand.Rand, durability, what string) (lost int, oldest time.Duration) {
	t.Helper()
	store := t.TempDir()
	require.NoError(t, d.save(store, part))
	s := &serving{binary: r.daemon.binary, store: store, addr: r.daemon.addr, log: r.daemon.log}
	s.start(t, durability)
	defer s.kill()
	s.ready(t)
	nc, err := bus.Open(t.Context(), bus.Options{URL: s.url(), LeaveStreams: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, nc.Close(context.WithoutCancel(t.Context()))) }()
	publish(t, nc, "cim.acme._.AGENT_SUBSCRIBED", join("after-1", "k0-0", "ada", "PRIMARY"))
	for i := range 5 {
		publish(t, nc, "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprintf("after-%d", i+2), fmt.Sprintf("k%d-%d", i%2, i)))
	}
	drained(t, nc)
	report, err := bustest.Audit(t.Context(), nc.JetStream())
	require.NoError(t, err)
	if err := report.Err(); err != nil {
		t.Errorf("%s, %v after the beginning: %v", what, at.Sub(r.began), err)
	}
	there := ids(t, nc, bus.StreamEvents)
	for _, a := range r.crowd.authors {
		for _, w := range a.written {
			if w.err == nil && w.at.Before(at) && !there[w.id] {
				lost++
				oldest = max(oldest, at.Sub(w.at))
			}
		}
	}
	if lost > 0 && r.strict {
		t.Errorf("%s, %v after the beginning: %d acknowledged events are gone", what, at.Sub(r.began), lost)
	}
	r.handedOut(t, nc, at)
	return lost, oldest
}

// handedOut makes sure that what an agent had received is there still, where nothing may be lost.
func (r *recording) handedOut(t *testing.T, b *bus.Bus, at time.Time) {
	t.Helper()
	if !r.strict {
		return
	}
	there := map[bustest.Received]bool{}
	for m, err := range b.Read(t.Context(), bus.Range{Stream: bus.StreamDeliveries, Filter: ">"}) {
		require.NoError(t, err)
		there[bustest.Received{Subject: m.Subject, Sequence: bus.SequenceOf(m.Header)}] = true
	}
	for _, d := range r.crowd.desks {
		for i, received := range d.soFar() {
			if d.at[i].Before(at) && !there[received] {
				t.Errorf("agent %s had received %v, which is gone", d.name, received)
			}
		}
	}
}

func ids(t *testing.T, b *bus.Bus, stream string) map[string]bool {
	t.Helper()
	there := map[string]bool{}
	for m, err := range b.Read(t.Context(), bus.Range{Stream: stream, Filter: ">"}) {
		require.NoError(t, err)
		there[bus.LastHeader(m.Header, bus.HeaderEventID)] = true
	}
	return there
}

// leave ends the desks, too.
func (c *crowd) leave() {
	c.cancel()
	c.reading.Wait()
}
