package handlers_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// process is a worker process: this test binary started again.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

func startProcess(t testing.TB, url string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), workerURL+"="+url)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p := &process{cmd: cmd, stdin: stdin}
	t.Cleanup(func() { p.kill() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	return p
}

func (p *process) kill() {
	// Both fail only when the process is gone already, which is what is wanted.
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (p *process) signal(t testing.TB, s os.Signal) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(s))
}

// stop ends the process as an operator does.
func (p *process) stop(t testing.TB) {
	t.Helper()
	require.NoError(t, p.stdin.Close())
	require.NoError(t, p.cmd.Wait())
}

// consumer returns the handler's durable as it stands.
func consumer(t testing.TB, b *bus.Bus) *jetstream.ConsumerInfo {
	t.Helper()
	info, err := lookUpConsumer(t, b)
	require.NoError(t, err)
	return info
}

func lookUpConsumer(t testing.TB, b *bus.Bus) (*jetstream.ConsumerInfo, error) {
	t.Helper()
	c, err := b.JetStream().Consumer(context.WithoutCancel(t.Context()), bus.StreamEvents, "handler-"+oncimevent.Name)
	if err != nil {
		return nil, err
	}
	return c.Info(context.WithoutCancel(t.Context()))
}

// drained waits until every event published so far is acknowledged, for as long as there is progress.
func drained(t testing.TB, b *bus.Bus) {
	t.Helper()
	for floor := uint64(0); ; {
		done, from := false, floor
		bustest.Eventually(t, 60*time.Second, func() error {
			// The consumer hears of new events a moment late: what counts is the stream's end.
			stream, err := b.JetStream().Stream(context.WithoutCancel(t.Context()), bus.StreamEvents)
			if err != nil {
				return err
			}
			info, err := lookUpConsumer(t, b)
			if err != nil {
				return err
			}
			last := stream.CachedInfo().State.LastSeq
			floor, done = info.AckFloor.Stream, info.AckFloor.Stream >= last && info.NumAckPending == 0
			if !done && floor <= from {
				return fmt.Errorf("acknowledged up to %d of %d, %d on the way", floor, last, info.NumAckPending)
			}
			return nil
		})
		if done {
			return
		}
	}
}

// traffic publishes until it is stopped: conversations in which agents come, talk and go, with garbage among them.
type traffic struct {
	stop chan struct{}
	done chan error
	sent atomic.Int64
	// retry publishes again, under the same id, what was not acknowledged.
	retry atomic.Bool
}

func startTraffic(t testing.TB, b *bus.Bus, seed uint64, conversations int, every time.Duration) *traffic {
	t.Helper()
	tr := &traffic{stop: make(chan struct{}), done: make(chan error, 1)}
	ctx := context.WithoutCancel(t.Context())
	go func() { tr.done <- tr.run(ctx, b, seed, conversations, every) }()
	return tr
}

func (tr *traffic) run(ctx context.Context, b *bus.Bus, seed uint64, conversations int, every time.Duration) error {
	rng := rand.New(rand.NewPCG(seed, 7))
	agents := []string{"ada", "ben", "cleo", "dan"}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-tr.stop:
			return nil
		case <-tick.C:
		}
		conversation := fmt.Sprintf("c%d", rng.IntN(conversations))
		agent, id := agents[rng.IntN(len(agents))], fmt.Sprintf("%d-%d", seed, i)
		subject, body := "cim.acme.web.AGENT_MESSAGE", message(id, conversation)
		switch k := rng.IntN(20); {
		case k < 2 || i < conversations:
			subject, body = "cim.acme._.AGENT_SUBSCRIBED", join(id, conversation, agent, "PRIMARY")
		case k == 2:
			subject, body = "cim.acme._.AGENT_UNSUBSCRIBED", leave(id, conversation, agent)
		case k == 3:
			body = []byte(`{"id":"broken",`)
		}
		var err error
		if tr.retry.Load() {
			err = publishSurely(ctx, b, subject, id, body)
		} else {
			_, err = b.JetStream().Publish(ctx, subject, body)
		}
		if err != nil {
			return err
		}
		tr.sent.Add(1)
	}
}

func (tr *traffic) end(t testing.TB) {
	t.Helper()
	close(tr.stop)
	require.NoError(t, <-tr.done)
	t.Logf("%d events published", tr.sent.Load())
}

// sentMore waits until so many more events were published.
func (tr *traffic) sentMore(t testing.TB, n int64) {
	t.Helper()
	target := tr.sent.Load() + n
	bustest.Eventually(t, 60*time.Second, func() error {
		if sent := tr.sent.Load(); sent < target {
			return fmt.Errorf("%d of %d events published", sent, target)
		}
		return nil
	})
}

func TestNothingIsLostOrRepeatedWhenTheWorkerIsKilled(t *testing.T) {
	server := bustest.Process(t)
	b := openBusOn(t, bus.Options{URL: server.URL()})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	worker := startProcess(t, server.URL())
	tr := startTraffic(t, b, seed, 40, time.Millisecond)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 4 {
		tr.sentMore(t, 200+rng.Int64N(300))
		worker.kill()
		worker = startProcess(t, server.URL())
	}
	tr.sentMore(t, 300)
	tr.end(t)
	drained(t, b)
	audit(t, b)
}

func TestNothingIsLostOrRepeatedWhenAFrozenWorkerWakesAfterItsSuccessorWorked(t *testing.T) {
	server := bustest.Process(t)
	b := openBusOn(t, bus.Options{URL: server.URL()})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	active := startProcess(t, server.URL())
	tr := startTraffic(t, b, seed, 40, time.Millisecond)
	tr.sentMore(t, 300)
	pinned := consumer(t, b).PriorityGroups[0].PinnedClientID
	require.NotEmpty(t, pinned)
	successor := startProcess(t, server.URL())
	for range 2 {
		active.signal(t, syscall.SIGSTOP)
		bustest.Eventually(t, 30*time.Second, func() error {
			if now := consumer(t, b).PriorityGroups[0].PinnedClientID; now == pinned || now == "" {
				return fmt.Errorf("no successor is pinned")
			}
			return nil
		})
		tr.sentMore(t, 500)
		pinned = consumer(t, b).PriorityGroups[0].PinnedClientID
		active.signal(t, syscall.SIGCONT)
		active, successor = successor, active
		tr.sentMore(t, 200)
	}
	tr.end(t)
	drained(t, b)
	audit(t, b)
}

func TestSuccessorDeliversOldUnacknowledgedEventsBeforeNewOnes(t *testing.T) {
	server := bustest.Process(t)
	b := openBusOn(t, bus.Options{URL: server.URL()})
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))

	// The first worker takes events and finishes none: its handler waits for a word that never comes.
	stuck := openBusOn(t, bus.Options{URL: server.URL(), LeaveStreams: true})
	taken := make(chan struct{}, 1)
	h := oncimevent.New(oncimevent.Options{})
	h.Handle = func(ctx context.Context, e handlers.Event) ([]handlers.Delivery, error) {
		select {
		case taken <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	first, err := handlers.Start(t.Context(), stuck, h)
	require.NoError(t, err)
	for i := range 50 {
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprintf("old-%d", i), "c1"))
	}
	<-taken
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, first.Close(gone), "events were left, and it says so")

	second, err := handlers.Start(t.Context(), b, oncimevent.New(oncimevent.Options{}))
	require.NoError(t, err)
	for i := range 50 {
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprintf("new-%d", i), "c1"))
	}
	drained(t, b)
	require.NoError(t, second.Close(t.Context()))
	audit(t, b)
}

func TestStandbyTakesOverAtOnceWhenTheWorkerIsStopped(t *testing.T) {
	server := bustest.Process(t)
	b := openBusOn(t, bus.Options{URL: server.URL()})
	active := startProcess(t, server.URL())
	tr := startTraffic(t, b, 1, 10, 2*time.Millisecond)
	tr.sentMore(t, 100)
	pinned := consumer(t, b).PriorityGroups[0].PinnedClientID
	startProcess(t, server.URL())
	active.stop(t)
	began := time.Now()
	bustest.Eventually(t, 10*time.Second, func() error {
		if now := consumer(t, b).PriorityGroups[0].PinnedClientID; now == pinned || now == "" {
			return fmt.Errorf("no successor is pinned")
		}
		return nil
	})
	t.Logf("standby pinned %v after the stop", time.Since(began).Round(time.Millisecond))
	tr.end(t)
	drained(t, b)
	audit(t, b)
}
