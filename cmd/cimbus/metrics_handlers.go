package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cimbus/cimbus/bus"
)

// handlerMetrics are how far the handlers of the bus are, whatever process runs them, as the alarms saw it last.
type handlerMetrics struct {
	alarms *bus.Alarms

	lag, oldest, paused, dead, oldestDead *prometheus.Desc
}

func newHandlerMetrics(alarms *bus.Alarms) *handlerMetrics {
	return &handlerMetrics{
		alarms: alarms,
		lag:    metric("cimbus_handler_lag_events", "Events a handler has not done, waiting or in work, whatever process runs it.", "handler"),
		oldest: metric("cimbus_handler_oldest_waiting_seconds", "Age of the oldest event a handler has not done; 0 where it has done all.", "handler"),
		paused: metric("cimbus_handler_paused", "1 where an operator paused the handler.", "handler"),
		dead: metric("cimbus_dead_letters_stored",
			"Dead letters that CIM_DEAD_LETTERS holds; those of handlers that have no consumer are of _other.", "handler", "tenant"),
		oldestDead: metric("cimbus_dead_letters_oldest_seconds",
			"Age of the oldest dead letter of a handler; absent where it has none, and of _other.", "handler"),
	}
}

func (m *handlerMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.lag, m.oldest, m.paused, m.dead, m.oldestDead} {
		to <- d
	}
}

func (m *handlerMetrics) Collect(to chan<- prometheus.Metric) {
	s := sample{to}
	for _, h := range m.alarms.Handlers() {
		s.gauge(m.lag, float64(h.Lag), h.Handler)
		s.gauge(m.oldest, secondsSince(h.Oldest), h.Handler)
		s.gauge(m.paused, map[bool]float64{true: 1}[h.PausedUntil != nil], h.Handler)
	}
	for _, d := range m.alarms.DeadLetters() {
		for tenant, n := range d.Tenants {
			s.gauge(m.dead, float64(n), d.Handler, tenant)
		}
		if !d.Oldest.IsZero() {
			s.gauge(m.oldestDead, secondsSince(d.Oldest), d.Handler)
		}
	}
}

// secondsSince is how many seconds ago something was stored, 0 if it was not.
func secondsSince(stored time.Time) float64 {
	if stored.IsZero() {
		return 0
	}
	return max(time.Since(stored).Seconds(), 0)
}
