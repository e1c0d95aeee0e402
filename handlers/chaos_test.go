package handlers_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

// The fault suite: publishers, agents and whatever makes deliveries of events live through one kind of fault after the other, and
// in the end everything is counted. It has a short form, which is part of the tests, and a long one:
//
//	CHAOS=long go test -tags chaos ./handlers -run 'TestChaos|TestPowerCut' -v -timeout 60m
//
// The tag adds the power cuts, which need strace. CHAOS_BINARY names a binary of cimbus that is built already.
// Every test logs its seed. CHAOS_SEED=<seed> makes the same choices again; what the machine makes of them differs.
const (
	chaosEnv     = "CHAOS"
	chaosSeedEnv = "CHAOS_SEED"
)

// shortOrLong chooses by the form of the suite.
func shortOrLong[T any](short, long T) T {
	if os.Getenv(chaosEnv) == "long" {
		return long
	}
	return short
}

// chaos prepares a test of the suite: nothing it starts may outlive it, and its choices can be made again.
func chaos(t *testing.T) (*rand.Rand, uint64) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	seed := rand.Uint64()
	if s := os.Getenv(chaosSeedEnv); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err, chaosSeedEnv)
	}
	t.Logf("%s=%d", chaosSeedEnv, seed)
	return rand.New(rand.NewPCG(seed, 0)), seed
}

// between is a random time from low to high.
func between(rng *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(rng.Int64N(int64(high-low)+1))
}

// elapse waits for a moment of a test's choosing, which no condition tells.
func elapse(d time.Duration) { <-time.After(d) }

// restless are the options of a connection that always comes back, to the address it was given, and is silent about it.
func restless() []nats.Option {
	return []nats.Option{
		nats.MaxReconnects(-1), nats.ReconnectWait(50 * time.Millisecond), nats.IgnoreDiscoveredServers(),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}
}

// patiently dials a server that comes and goes.
func patiently(t testing.TB, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, restless()...)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	return nc
}

// onlooker is a bus that touches nothing, to count with.
func onlooker(t testing.TB, url string) *bus.Bus {
	t.Helper()
	b, err := bus.Open(t.Context(), bus.Options{Conn: patiently(t, url), LeaveStreams: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close(context.WithoutCancel(t.Context()))) })
	return b
}

// sums are what a suite counted.
type sums struct {
	published, acknowledged, unknown, stored int // events
	lost, repeated, misordered, mistold      int // events, by what was acknowledged
}

func (s sums) String() string {
	return fmt.Sprintf("events: %d published, %d acknowledged, %d of unknown outcome, %d stored; acknowledged and lost %d, stored twice %d, out of order %d, under another sequence %d",
		s.published, s.acknowledged, s.unknown, s.stored, s.lost, s.repeated, s.misordered, s.mistold)
}

// account counts what became of the crowd's events, of what was made of them, and of what reached each desk, and fails the test
// unless all of it is there exactly once and in order. lostAcknowledged is how many acknowledged events the fault may cost.
func (c *crowd) account(t testing.TB, b *bus.Bus, lostAcknowledged int) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	drained(t, b)
	c.desksComplete(t, b)
	s := c.events(t, b)
	t.Log(s)
	report, err := bustest.Audit(ctx, b.JetStream(), c.refused...)
	require.NoError(t, err)
	t.Logf("streams: %s", report)
	var failed []error
	for _, d := range c.desks {
		require.NoError(t, d.failure(), "agent %s", d.name)
		received := d.soFar()
		r, err := bustest.AuditAgent(ctx, b.JetStream(), tenant, d.name, 0, received, c.refused...)
		require.NoError(t, err)
		wrong, again := d.wronglyAgain(t, b)
		t.Logf("agent %s, resumed %d times: received %d, again after a break %d (wrongly %d), lost %d, repeated %d, out of order %d, unexpected %d", d.name, d.resumed.Load(),
			len(received), again, len(wrong), len(r.Lost), len(r.Repeated), len(r.Misordered), len(r.Unexpected))
		if err := r.Err(); err != nil {
			failed = append(failed, fmt.Errorf("agent %s: %w", d.name, err))
		}
		if len(wrong) > 0 {
			failed = append(failed, fmt.Errorf("agent %s had before: %s", d.name, strings.Join(wrong[:min(5, len(wrong))], "; ")))
		}
	}
	require.NoError(t, report.Err())
	require.Empty(t, failed)
	require.LessOrEqual(t, s.lost, lostAcknowledged, "acknowledged events are gone")
	require.Zero(t, s.repeated, "an event is stored twice")
	require.Zero(t, s.mistold, "a receipt names another message")
	require.Zero(t, s.misordered, "a conversation's events are stored in another order than they were published in")
}
