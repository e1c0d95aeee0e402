//go:build unix

package handlers_test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

// pair is two daemons on one external server, of which one acts.
type pair struct {
	t      *testing.T
	b      *bus.Bus
	active *serving
	second *serving
}

func startPair(t *testing.T, url string) *pair {
	t.Helper()
	p := &pair{t: t, active: newServing(t), second: newServing(t)}
	for _, d := range []*serving{p.active, p.second} {
		d.natsURL = url
	}
	p.active.start(t, "")
	p.active.ready(t)
	p.b = onlooker(t, url)
	return p
}

// standBy starts the second one once the first is known to act.
func (p *pair) standBy() {
	p.t.Helper()
	bustest.Eventually(p.t, 30*time.Second, func() error {
		if p.pinned() == "" {
			return fmt.Errorf("nobody has the work")
		}
		return nil
	})
	p.second.start(p.t, "")
	p.second.ready(p.t)
}

// tookOver waits until somebody else than before has the work. It returns false if the work went on all the same: the one that was
// hit did not have it, since a freeze can cost a daemon the work only after it has thawed.
func (p *pair) tookOver(before string) (taken bool) {
	p.t.Helper()
	began, seen := time.Now(), uint64(0)
	bustest.Eventually(p.t, 30*time.Second, func() error {
		if now := p.pinned(); now != "" && now != before {
			taken = true
			return nil
		}
		if time.Since(began) < 6*time.Second { // longer than what is done by then may be on its way
			return fmt.Errorf("nobody else has the work")
		}
		stream, err := p.b.JetStream().Stream(p.t.Context(), bus.StreamIndex)
		if err != nil {
			return err
		}
		committed := stream.CachedInfo().State.LastSeq
		if seen == 0 {
			seen = committed
		}
		if committed < seen+100 {
			return fmt.Errorf("nobody else has the work, and %d events were committed since", committed-seen)
		}
		return nil
	})
	return taken
}

func (p *pair) pinned() string {
	groups := consumer(p.t, p.b).PriorityGroups
	if len(groups) == 0 {
		return ""
	}
	return groups[0].PinnedClientID
}

func TestChaosNothingIsLostOrRepeatedWhenTheActiveOfTwoDaemonsIsKilledOrFrozen(t *testing.T) {
	rng, seed := chaos(t)
	server := bustest.Process(t)
	p := startPair(t, server.URL())
	c := startCrowd(t, crowdOptions{url: server.URL(), seed: seed, every: 4 * time.Millisecond, large: largestBody(t, p.b)})
	p.standBy()
	kills, freezes := 0, 0
	var took []time.Duration // until the other one had the work
	takeOver := func(before string) {
		began := time.Now()
		if p.tookOver(before) {
			took = append(took, time.Since(began))
		}
		p.active, p.second = p.second, p.active
	}
	rounds := make([]bool, shortOrLong(2, 40)) // true to kill
	for i := range rounds {
		rounds[i] = i%2 == 0
	}
	rng.Shuffle(len(rounds), func(i, j int) { rounds[i], rounds[j] = rounds[j], rounds[i] })
	for _, kill := range rounds {
		c.more(t, 50+rng.Int64N(150))
		before, hit := p.pinned(), p.active
		if kill {
			kills++
			hit.kill()
			takeOver(before)
			hit.start(t, "")
			hit.ready(t)
			continue
		}
		freezes++
		hit.signal(t, syscall.SIGSTOP)
		waited := rng.IntN(2) == 0 || len(rounds) == 2
		if waited {
			takeOver(before)
		}
		elapse(between(rng, 0, shortOrLong(time.Second, 20*time.Second)))
		hit.signal(t, syscall.SIGCONT)
		if !waited && p.pinned() != before {
			p.active, p.second = p.second, p.active
		}
	}
	c.more(t, 100)
	c.end(t)
	slices.Sort(took)
	t.Logf("%d kills, %d freezes; the other one took over within %v", kills, freezes, took)
	c.account(t, p.b, 0)
	require.NotEmpty(t, took)
	require.Less(t, took[len(took)/2], 5*time.Second, "the pinned TTL and 2 s")
}

func TestChaosStandbyTakesOverWithinHalfASecondOfAGracefulStop(t *testing.T) {
	_, seed := chaos(t)
	server := bustest.Process(t)
	p := startPair(t, server.URL())
	c := startCrowd(t, crowdOptions{url: server.URL(), seed: seed, every: 2 * time.Millisecond})
	p.standBy()
	var took []time.Duration
	for range shortOrLong(3, 20) {
		c.more(t, 50)
		stopped := make(chan error, 1)
		began := time.Now()
		p.active.signal(t, syscall.SIGTERM)
		go func(d *serving) { stopped <- d.cmd.Wait() }(p.active)
		took = append(took, p.idle(began))
		require.NoError(t, <-stopped)
		p.active.start(t, "")
		p.active.ready(t)
		p.active, p.second = p.second, p.active
	}
	c.end(t)
	slices.Sort(took)
	median := took[len(took)/2]
	t.Logf("longest time without a commit around each hand-over: median %v, all %v", median, took)
	c.account(t, p.b, 0)
	require.Less(t, median, 500*time.Millisecond)
}

// idle watches the index for a while after began and returns the longest time in which no event was committed.
func (p *pair) idle(began time.Time) time.Duration {
	p.t.Helper()
	stream, err := p.b.JetStream().Stream(p.t.Context(), bus.StreamIndex)
	require.NoError(p.t, err)
	longest, last := time.Duration(0), began
	var seen uint64
	for time.Since(began) < 1500*time.Millisecond || time.Since(last) > 500*time.Millisecond {
		info, err := stream.Info(p.t.Context())
		require.NoError(p.t, err)
		if now := time.Now(); info.State.LastSeq != seen {
			if seen != 0 {
				longest = max(longest, now.Sub(last))
			}
			seen, last = info.State.LastSeq, now
		}
		elapse(2 * time.Millisecond)
	}
	return longest
}
