package main

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics are what /metrics shows, in a registry of its own. The parts of the daemon count for themselves and know nothing of it: every
// collector reads those counts at a scrape. No label has a value that a publisher, an agent or a customer could multiply: tenants are
// told apart up to metrics.tenants, conversations and agents never.
type metrics struct {
	registry *prometheus.Registry
}

func newMetrics() *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	b := readBuild()
	info := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "cimbus_build_info", Help: "The running build; always 1.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "go": b.Go, "nats_server": b.Server},
	}, func() float64 { return 1 })
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), info)
	return m
}

// watch adds what the daemon counts. It is called once, when all parts are there.
func (m *metrics) watch(d *daemon) {
	m.registry.MustRegister(newWorkerMetrics(d.worker), newHandlerMetrics(d.alarms), newPublishMetrics(d), newAgentMetrics(d), newStreamMetrics(d.alarms))
}

// sample makes the metrics of one collection.
type sample struct {
	to chan<- prometheus.Metric
}

func (s sample) counter(d *prometheus.Desc, value uint64, labels ...string) {
	s.to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
}

func (s sample) gauge(d *prometheus.Desc, value float64, labels ...string) {
	s.to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func metric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}
