package handlers

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// RetryPolicy says how often and how fast an event is tried again when its handler fails.
type RetryPolicy struct {
	Attempts int           // in all, the first one included; default 5
	First    time.Duration // wait before the second attempt; default 100 ms
	Longest  time.Duration // no wait is longer; default 30 s
}

func (p RetryPolicy) withDefaults() RetryPolicy {
	p.Attempts = cmp.Or(p.Attempts, 5)
	p.First = cmp.Or(p.First, 100*time.Millisecond)
	p.Longest = cmp.Or(p.Longest, 30*time.Second)
	return p
}

func (p RetryPolicy) validate(name string) error {
	if p.Attempts < 1 || p.First < 0 || p.Longest < p.First {
		return fmt.Errorf("handler %q: retry: want at least one attempt, and a first wait (%v) no longer than the longest (%v)", name, p.First, p.Longest)
	}
	return nil
}

// wait is the pause after the n-th failed attempt: doubling from First up to Longest, with a jitter of a quarter so that what
// failed together does not come back together.
func (p RetryPolicy) wait(n int) time.Duration {
	d := p.First
	for i := 1; i < n && d < p.Longest; i++ {
		d *= 2
	}
	d = min(d, p.Longest)
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}

// outagePolicy paces what is tried again because NATS, not the event, is in trouble; it has no last attempt.
var outagePolicy = RetryPolicy{Attempts: 1, First: 50 * time.Millisecond, Longest: 2 * time.Second}

// pause waits for d or until ctx ends, and then returns its error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
