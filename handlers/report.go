package handlers

import (
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// reportEvery is how often a trouble that goes on is logged again.
const reportEvery = 10 * time.Second

// reports logs troubles by their cause: once when one begins, then every ten seconds with a count, once when it is over.
type reports struct {
	log     hclog.Logger
	message string

	mu   sync.Mutex
	open map[string]*trouble
}

type trouble struct {
	logged time.Time
	since  time.Time
	count  int
}

func (r *reports) report(cause string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		r.open = map[string]*trouble{}
	}
	t := r.open[cause]
	if t == nil {
		t = &trouble{since: time.Now()}
		r.open[cause] = t
	}
	t.count++
	if now := time.Now(); now.Sub(t.logged) >= reportEvery {
		t.logged = now
		r.log.Warn(r.message, "cause", cause, "error", err, "times", t.count)
	}
}

func (r *reports) over(cause string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.open[cause]; t != nil {
		delete(r.open, cause)
		r.log.Info(r.message+": over", "cause", cause, "times", t.count, "after", time.Since(t.since).Round(time.Millisecond))
	}
}
