package handlers

import (
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// reportEvery is how often a trouble that goes on is logged again.
const reportEvery = 10 * time.Second

// reports logs troubles by their cause: once when one begins, then every ten seconds with a count, once when it is over. One that comes
// and goes faster is not told of each time.
type reports struct {
	log     hclog.Logger
	message string

	mu     sync.Mutex
	causes map[string]*trouble
}

type trouble struct {
	logged time.Time // when it was last told of
	since  time.Time // when it began, if it is not over
	told   bool      // of it, or of one before it, but not that it is over
	count  int       // since it was last told that it is over
}

func (r *reports) report(cause string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.causes == nil {
		r.causes = map[string]*trouble{}
	}
	t := r.causes[cause]
	if t == nil {
		t = &trouble{}
		r.causes[cause] = t
	}
	now := time.Now()
	if t.since.IsZero() {
		t.since = now
	}
	t.count++
	if now.Sub(t.logged) >= reportEvery {
		t.logged, t.told = now, true
		r.log.Warn(r.message, "cause", cause, "error", err, "times", t.count)
	}
}

func (r *reports) over(cause string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.causes[cause]
	if t == nil || t.since.IsZero() {
		return
	}
	if t.told {
		r.log.Info(r.message+": over", "cause", cause, "times", t.count, "after", time.Since(t.since).Round(time.Millisecond))
		t.told, t.count = false, 0
	}
	t.since = time.Time{}
}
