package handlers

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
)

// Counts are what a worker did since it was started, by tenant where the bus tells it apart.
type Counts struct {
	Tenants     map[string]TenantCounts // by the name the tenant is counted under: see bus.Options.CountedTenants
	DeadLetters map[string]uint64       // by reason, of which all of the bus's own are named; of those that handlers invent 32 are, and "_other"
}

// TenantCounts are the events of one tenant.
type TenantCounts struct {
	Outcomes map[Outcome]uint64 // events brought to their end, of which all outcomes there are are named
	Retries  uint64             // calls of the handler's function after one that failed
	Latency  Latency
}

// Outcome is what became of an event.
type Outcome string

// The outcomes.
const (
	Delivered    Outcome = "delivered" // its deliveries, if it made any, are stored
	Dropped      Outcome = "dropped"   // by the handler
	DeadLettered Outcome = "dead-letter"
	Transient    Outcome = "transient" // passed on to who listens, stored nowhere
	Imported     Outcome = "imported"  // as history, which no handler acts on
	Skipped      Outcome = "skipped"   // there was nothing to do: it was done before, is redriven for another handler, or is gone
)

// end is an outcome as it is counted.
type end int

const (
	endSkipped end = iota
	endDelivered
	endDropped
	endDead
	endTransient
	endImported
	ends
)

func (e end) outcome() Outcome {
	return [ends]Outcome{Skipped, Delivered, Dropped, DeadLettered, Transient, Imported}[e]
}

// endOf is how an event ended that has an index entry.
func endOf(outcome string) end {
	if outcome == bus.OutcomeDropped {
		return endDropped
	}
	return endDelivered
}

// tally counts the events of one tenant.
type tally struct {
	ends    [ends]atomic.Uint64
	retries atomic.Uint64
	latency latency
}

// Latency says how long deliveries took from the moment CIM_EVENTS stored the event until their own storage was acknowledged, which is
// when the server had sent them on to who listens. On a server of another machine it has the difference of the clocks in it; below 0 it
// counts as 0.
type Latency struct {
	Bounds []time.Duration // upper ones, rising
	Counts []uint64        // deliveries at or below each bound and above the one before; the last is of those above all
	Sum    time.Duration
}

const latencyBounds = 16

func bounds() [latencyBounds]time.Duration {
	const ms, s = time.Millisecond, time.Second
	return [latencyBounds]time.Duration{
		ms, 2500 * time.Microsecond, 5 * ms, 10 * ms, 25 * ms, 50 * ms, 100 * ms, 250 * ms, 500 * ms, s, 2500 * ms, 5 * s, 10 * s, 30 * s, 60 * s, 300 * s,
	}
}

type latency struct {
	counts [latencyBounds + 1]atomic.Uint64
	sum    atomic.Int64
}

func (l *latency) observe(d time.Duration) {
	d = max(d, 0)
	at := latencyBounds
	for i, bound := range bounds() {
		if d <= bound {
			at = i
			break
		}
	}
	l.counts[at].Add(1)
	l.sum.Add(int64(d))
}

func (l *latency) read() Latency {
	all := bounds()
	out := Latency{Bounds: all[:], Counts: make([]uint64, len(l.counts)), Sum: time.Duration(l.sum.Load())}
	for i := range l.counts {
		out.Counts[i] = l.counts[i].Load()
	}
	return out
}

// maxReasons is how many reasons of dead letters are told apart that handlers invent.
const maxReasons = 32

// ownReasons are those of the runtime and of package cim.
func ownReasons() []string {
	return []string{
		ReasonSubjectMismatch, ReasonBadSubject, ReasonNoConversation, ReasonBadConversation, ReasonInvalidEvent, ReasonFailed, ReasonPanic,
		ReasonBadDelivery, ReasonStuck, ReasonTooLarge,
		cim.ReasonNotJSON, cim.ReasonTooDeep, cim.ReasonNotAnEvent, cim.ReasonNoName, cim.ReasonNoID, cim.ReasonNoParticipant,
	}
}

// reasons counts dead letters by their reason. The bus's own are there from the start, at 0: of a counter that begins above 0 the
// first increase is not seen.
type reasons struct {
	mu    sync.Mutex
	limit int
	count map[string]uint64
}

func newReasons() *reasons {
	r := &reasons{count: map[string]uint64{}}
	for _, own := range ownReasons() {
		r.count[own] = 0
	}
	r.limit = len(r.count) + maxReasons
	return r
}

func (r *reasons) add(reason string) {
	reason = strings.ToValidUTF8(reason[:min(len(reason), 64)], "?")
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.count[reason]; !known && len(r.count) >= r.limit {
		reason = "_other"
	}
	r.count[reason]++
}

// Counts returns what the worker did so far.
func (w *Worker) Counts() Counts {
	all := Counts{Tenants: map[string]TenantCounts{}}
	for tenant, t := range w.tenants.All() {
		c := TenantCounts{Outcomes: map[Outcome]uint64{}, Retries: t.retries.Load(), Latency: t.latency.read()}
		for e := range ends {
			c.Outcomes[e.outcome()] = t.ends[e].Load()
		}
		all.Tenants[tenant] = c
	}
	w.reasons.mu.Lock()
	defer w.reasons.mu.Unlock()
	all.DeadLetters = maps.Clone(w.reasons.count)
	return all
}
