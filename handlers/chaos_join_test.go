package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// talk is a conversation that never stands still. From time to time it becomes another one, so that its history stays readable.
type talk struct {
	b       *bus.Bus
	number  atomic.Int64
	stop    chan struct{}
	talking sync.WaitGroup
	err     error // read after the end

	mu    sync.Mutex
	steps map[step]int // how many joiners saw it
}

// step is from one event of a conversation, 0 its beginning, to the next.
type step struct {
	conversation string
	from, to     uint64
}

// resident is a member of the talk from its first event on.
const resident = "eve"

func startTalk(t testing.TB, b *bus.Bus, every time.Duration) *talk {
	t.Helper()
	k := &talk{b: b, stop: make(chan struct{}), steps: map[step]int{}}
	ctx := context.WithoutCancel(t.Context())
	k.err = k.turn(ctx)
	require.NoError(t, k.err)
	k.talking.Go(func() { k.err = k.run(ctx, every) })
	return k
}

func (k *talk) conversation() string { return fmt.Sprint("talk-", k.number.Load()) }

// turn begins the next conversation.
func (k *talk) turn(ctx context.Context) error {
	n := k.number.Load() + 1
	_, err := k.b.Join(ctx, tenant, fmt.Sprint("talk-", n), resident, "")
	k.number.Store(n)
	return err
}

func (k *talk) run(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := 1; ; i++ {
		select {
		case <-k.stop:
			return nil
		case <-tick.C:
		}
		if i%shortOrLong(100, 500) == 0 {
			if err := k.turn(ctx); err != nil {
				return err
			}
		}
		id, conversation := fmt.Sprint("talk-", i), k.conversation()
		_, err := k.b.Publish(ctx, bus.Event{
			Tenant: tenant, Channel: "web", Name: cim.AgentMessage, Conversation: conversation, ID: id, Body: message(id, conversation),
		})
		if err != nil {
			return err
		}
	}
}

func (k *talk) end(t testing.TB) {
	t.Helper()
	close(k.stop)
	k.talking.Wait()
	require.NoError(t, k.err)
}

// join follows the talk for a while. A newcomer becomes a member at the same time, and stays until the notice that it has left.
func (k *talk) join(ctx context.Context, agent string, wait, stay time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conversation, newcomer := k.conversation(), agent != resident
	joined := make(chan error, 1)
	if newcomer {
		go func() {
			_, err := k.b.Join(ctx, tenant, conversation, agent, "")
			joined <- err
		}()
	} else {
		joined <- nil
	}
	elapse(wait)
	f, err := k.b.Follow(ctx, tenant, agent, conversation)
	if err := errors.Join(err, <-joined); err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // never fails

	at := uint64(0)
	for _, e := range f.Snapshot {
		k.saw(step{conversation, at, e.Sequence})
		at = e.Sequence
	}
	staying, cancel := context.WithTimeout(ctx, stay)
	defer cancel()
	left := uint64(0)
	for {
		d, err := f.Next(staying)
		switch {
		case err != nil && left == 0 && errors.Is(err, staying.Err()):
			if !newcomer {
				return nil
			}
			receipt, err := k.b.Leave(ctx, tenant, conversation, agent)
			if err != nil {
				return err
			}
			left, staying = receipt.Sequence, ctx
			continue
		case err != nil:
			return fmt.Errorf("after event %d: %w", at, err)
		}
		k.saw(step{conversation, at, d.Sequence})
		at = d.Sequence
		if d.Type == bus.TypeUnsubscribed {
			if d.Sequence != left {
				return fmt.Errorf("told at event %d that it left, not at %d", d.Sequence, left)
			}
			return nil
		}
	}
}

func (k *talk) saw(s step) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.steps[s]++
}

// wrong holds what the joiners saw against the index: every step must be one there.
func (k *talk) wrong(t testing.TB) (wrong []string) {
	t.Helper()
	seen, taken := len(k.steps), 0
	for _, n := range k.steps {
		taken += n
	}
	for n := range k.number.Load() {
		s := step{conversation: fmt.Sprint("talk-", n+1)}
		for e, err := range k.b.History(t.Context(), tenant, s.conversation, 0, 0) {
			require.NoError(t, err)
			s.to = e.Sequence
			delete(k.steps, s)
			s.from = e.Sequence
		}
	}
	for s, n := range k.steps {
		wrong = append(wrong, fmt.Sprintf("%s: event %d after %d, to %d joiners", s.conversation, s.to, s.from, n))
	}
	t.Logf("%d conversations; %d steps from one event to the next, taken %d times; wrong %d", k.number.Load(), seen, taken, len(wrong))
	return wrong
}

// Each join sees a snapshot and what comes after it: together they must be the conversation without a hole and without an overlap.
func TestChaosJoinsAtRandomMomentsSeeNeitherHoleNorOverlap(t *testing.T) {
	rng, seed := chaos(t)
	b := whole(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	c := startCrowd(t, crowdOptions{url: b.Server().NATSURL(), seed: seed, every: 20 * time.Millisecond})
	k := startTalk(t, b, shortOrLong(12*time.Millisecond, 3*time.Millisecond))
	joins := shortOrLong(200, 10000)
	failed := make(chan error, joins)
	var joining sync.WaitGroup
	slots := make(chan struct{}, 8)
	newcomers := 0
	for i := range joins {
		slots <- struct{}{}
		agent := resident
		if rng.IntN(2) == 0 {
			newcomers++
			agent = fmt.Sprint("newcomer-", i)
		}
		wait, stay := between(rng, 0, 10*time.Millisecond), between(rng, 0, 30*time.Millisecond)
		joining.Go(func() {
			defer func() { <-slots }()
			if err := k.join(context.WithoutCancel(t.Context()), agent, wait, stay); err != nil {
				failed <- fmt.Errorf("%s: %w", agent, err)
			}
		})
	}
	joining.Wait()
	k.end(t)
	c.end(t)
	close(failed)
	n := 0
	for err := range failed {
		t.Log(err)
		n++
	}
	c.account(t, b, 0)
	t.Logf("%d joins, %d of them by newcomers, %d failed", joins, newcomers, n)
	require.Empty(t, k.wrong(t))
	require.Zero(t, n)
}
