package bus

import (
	"errors"
	"sync/atomic"
)

// The outcomes of agents' requests.
const (
	RequestOK          = "ok"
	RequestExpired     = "expired"     // its position cannot be resumed from
	RequestRefused     = "refused"     // the agent's own doing: a bad request, no member, not allowed, too large
	RequestUnavailable = "unavailable" // the agent is to try again
	RequestFailed      = "error"       // a fault of the service
)

func requestOutcomes() [5]string {
	return [5]string{RequestOK, RequestExpired, RequestRefused, RequestUnavailable, RequestFailed}
}

type requestCounters [5]atomic.Uint64 // as requestOutcomes

// ControlCounts are what the control service of this process did since it was started.
type ControlCounts struct {
	Requests map[string]map[string]uint64 // answers by verb and outcome, of which all there are are named; a page of resume is one
	Resumed  uint64                       // deliveries sent in answers to resume
	Dropped  uint64                       // requests that got no answer, because their reply subject was none of the caller's
}

// Counts returns what the service did so far.
func (c *Control) Counts() ControlCounts {
	all := ControlCounts{Requests: map[string]map[string]uint64{}, Resumed: c.resumed.Load(), Dropped: c.dropped.Load()}
	for verb, counters := range c.counters {
		all.Requests[verb] = map[string]uint64{}
		for i, outcome := range requestOutcomes() {
			all.Requests[verb][outcome] = counters[i].Load()
		}
	}
	return all
}

// GapsRepaired is how often an agent found that a live delivery had not come, and read it from the log: agents opened on this bus, and
// those that said so, by "gap":true, to a control service of this bus. Agents of OpenAgent say so.
func (b *Bus) GapsRepaired() uint64 { return b.gaps.Load() }

// answered answers a request that failed, and counts what became of it; nil is that it was answered.
func (c *Control) answered(r *request, err error) {
	if err != nil {
		r.fail(err)
	}
	is, problem := outcomeOf(err), ""
	if is != RequestOK && is != RequestExpired {
		told := coded(err)
		problem = told.Code + ": " + told.Message
	}
	r.endpoint.done(r.began, problem)
	for i, outcome := range requestOutcomes() {
		if is == outcome {
			c.counters[r.verb][i].Add(1)
		}
	}
}

func outcomeOf(err error) string {
	if err == nil {
		return RequestOK
	}
	if _, expired := errors.AsType[*ExpiredError](err); expired {
		return RequestExpired
	}
	switch coded(err).Code {
	case CodeInternal:
		return RequestFailed
	case CodeUnavailable, CodeStoreFull:
		return RequestUnavailable
	}
	return RequestRefused
}
