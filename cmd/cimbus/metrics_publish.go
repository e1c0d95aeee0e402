package main

import (
	"github.com/prometheus/client_golang/prometheus"
)

// publishMetrics are what came into the bus.
type publishMetrics struct {
	d *daemon

	stored, published, duplicates, failures *prometheus.Desc
}

func newPublishMetrics(d *daemon) *publishMetrics {
	return &publishMetrics{
		d: d,
		stored: metric("cimbus_events_stored_total",
			"Events that CIM_EVENTS stored since this process watches it, whoever published them; as of the last look, at most ten seconds ago."),
		published: metric("cimbus_events_published_total",
			"Events that this process published, for agents and for operators. Services publish by themselves: theirs are in cimbus_events_stored_total.", "tenant"),
		duplicates: metric("cimbus_publish_duplicates_total",
			"Events that this process published and that had been stored before. What services publish twice only they are told.", "tenant"),
		failures: metric("cimbus_publish_errors_total", "Events that this process could not publish. What services are refused only they are told.", "reason"),
	}
}

func (m *publishMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.stored, m.published, m.duplicates, m.failures} {
		to <- d
	}
}

func (m *publishMetrics) Collect(to chan<- prometheus.Metric) {
	s, counts := sample{to}, m.d.bus.PublishCounts()
	s.counter(m.stored, m.d.alarms.Stored())
	for tenant, n := range counts.Tenants {
		s.counter(m.published, n.Stored, tenant)
		s.counter(m.duplicates, n.Duplicates, tenant)
	}
	for reason, n := range counts.Errors {
		s.counter(m.failures, n, reason)
	}
}
