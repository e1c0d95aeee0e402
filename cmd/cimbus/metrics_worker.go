package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// workerMetrics are what the worker in this process did.
type workerMetrics struct {
	worker *handlers.Worker

	handled, retries, redeliveries, deadLetters, lost, epochs, acting, inWork, latency *prometheus.Desc
}

func newWorkerMetrics(worker *handlers.Worker) *workerMetrics {
	return &workerMetrics{
		worker: worker,
		handled: metric("cimbus_events_handled_total",
			"Events this process brought to their end. Outcome skipped: there was nothing to do, as after a takeover for what was done before.",
			"handler", "tenant", "outcome"),
		retries:      metric("cimbus_retries_total", "Attempts at an event that were made because the one before failed.", "handler", "tenant"),
		redeliveries: metric("cimbus_redeliveries_total", "Events that the server sent to this process again.", "handler"),
		deadLetters:  metric("cimbus_dead_letters_total", "Events that this process gave up.", "handler", "reason"),
		lost: metric("cimbus_events_lost_total",
			"Events that the server reports as terminated though they have no dead letter; anything but 0 is an alarm.", "handler"),
		epochs: metric("cimbus_worker_epochs_total", "How often this process took up the work.", "handler"),
		acting: metric("cimbus_worker_acting", "1 where this process has the work, 0 where it stands by.", "handler"),
		inWork: metric("cimbus_worker_events", "Events this process took and has not finished.", "handler"),
		latency: metric("cimbus_delivery_latency_seconds",
			"Time from the storing of an event to its delivery being stored and sent to the agents that listen. On an external server it has the difference of the clocks in it.",
			"handler", "tenant"),
	}
}

func (m *workerMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.handled, m.retries, m.redeliveries, m.deadLetters, m.lost, m.epochs, m.acting, m.inWork, m.latency} {
		to <- d
	}
}

func (m *workerMetrics) Collect(to chan<- prometheus.Metric) {
	const handler = oncimevent.Name
	s, stats, counts := sample{to}, m.worker.Stats(), m.worker.Counts()
	for tenant, t := range counts.Tenants {
		for outcome, n := range t.Outcomes {
			s.counter(m.handled, n, handler, tenant, string(outcome))
		}
		s.counter(m.retries, t.Retries, handler, tenant)
		to <- histogram(m.latency, t.Latency, handler, tenant)
	}
	for reason, n := range counts.DeadLetters {
		s.counter(m.deadLetters, n, handler, reason)
	}
	s.counter(m.redeliveries, stats.Redelivered, handler)
	s.counter(m.lost, stats.Lost, handler)
	s.counter(m.epochs, stats.Epochs, handler)
	s.gauge(m.acting, map[bool]float64{true: 1}[stats.Acts], handler)
	s.gauge(m.inWork, float64(stats.Waiting), handler)
}

func histogram(d *prometheus.Desc, l handlers.Latency, labels ...string) prometheus.Metric {
	buckets, count := map[float64]uint64{}, uint64(0)
	for i, n := range l.Counts {
		count += n
		if i < len(l.Bounds) {
			buckets[l.Bounds[i].Seconds()] = count
		}
	}
	return prometheus.MustNewConstHistogram(d, count, l.Sum.Seconds(), buckets, labels...)
}
