package handlers

import (
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// reportEvery is how long after a line about a cause the next one may follow.
const reportEvery = 10 * time.Second

// maxReportDoublings bounds how rare the lines about one trouble become: every ten minutes.
const maxReportDoublings = 6

// reports logs troubles by their cause: once when one begins, again only with another error, ever more rarely, and once when it is over.
// One that comes and goes faster than every ten seconds is not told of each time.
type reports struct {
	log     hclog.Logger
	message string
	events  bool // what is reported happens and is over: it is told of every ten seconds, with a count

	mu     sync.Mutex
	causes map[string]*trouble
}

type trouble struct {
	logged time.Time // when it was last told of
	since  time.Time // when it began, if it is not over
	told   bool      // of it, or of one before it, but not that it is over
	said   string    // the error told last
	lines  int       // told since it was last told that it is over
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
	wait := reportEvery
	if !r.events {
		wait <<= min(max(t.lines-1, 0), maxReportDoublings)
	}
	if said := err.Error(); now.Sub(t.logged) >= wait && (r.events || !t.told || t.said != said) {
		t.logged, t.told, t.said = now, true, said
		t.lines++
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
		t.told, t.count, t.lines = false, 0, 0
	}
	t.since = time.Time{}
}
