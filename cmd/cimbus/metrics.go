package main

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// metrics are what /metrics shows, in a registry of its own.
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
	handler := prometheus.Labels{"handler": oncimevent.Name}
	counter := func(name, help string, labels prometheus.Labels, value func() uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels},
			func() float64 { return float64(value()) })
	}
	m.registry.MustRegister(
		counter("cimbus_events_handled_total", "Events committed by this process, whatever their outcome.", handler,
			func() uint64 { return d.worker.Stats().Handled }),
		counter("cimbus_redeliveries_total", "Events that the server sent to this process again.", handler,
			func() uint64 { return d.worker.Stats().Redelivered }),
		counter("cimbus_dead_letters_total", "Events that this process gave up.", handler,
			func() uint64 { return d.worker.Stats().DeadLetters }),
		counter("cimbus_events_lost_total", "Events that the server reports as terminated though they have no dead letter; anything but 0 is an alarm.", handler,
			func() uint64 { return d.worker.Stats().Lost }),
		counter("cimbus_worker_epochs_total", "How often this process took up the work.", handler,
			func() uint64 { return d.worker.Stats().Epochs }),
		counter("cimbus_control_dropped_total", "Requests of agents that were not answered because their reply subject was none of theirs.", nil,
			d.control.Dropped),
		newStreamMetrics(d.alarms),
	)
}
