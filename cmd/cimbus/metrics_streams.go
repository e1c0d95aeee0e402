package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cimbus/cimbus/bus"
)

// streamMetrics show what the alarms saw last: asking the server at every scrape would make scraping a load.
type streamMetrics struct {
	alarms *bus.Alarms

	bytes, limit, messages, last, lost, free, total, raised *prometheus.Desc
}

func newStreamMetrics(alarms *bus.Alarms) *streamMetrics {
	return &streamMetrics{
		alarms:   alarms,
		bytes:    metric("cimbus_stream_bytes", "Bytes a stream holds.", "stream"),
		limit:    metric("cimbus_stream_limit_bytes", "Bytes a stream may hold; absent where it has no limit of its own.", "stream"),
		messages: metric("cimbus_stream_messages", "Messages a stream holds.", "stream"),
		last:     metric("cimbus_stream_last_sequence", "Last sequence a stream gave out; it must never go back.", "stream"),
		lost:     metric("cimbus_stream_lost_messages", "Messages the server knows it lost from a stream; anything but 0 is an alarm.", "stream"),
		free:     metric("cimbus_disk_free_bytes", "Bytes that may still be written to the store's disk."),
		total:    metric("cimbus_disk_bytes", "Size of the store's disk."),
		raised:   metric("cimbus_alarm", "Alarms that are on, by level; 1 each.", "check", "of", "level"),
	}
}

func (m *streamMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.bytes, m.limit, m.messages, m.last, m.lost, m.free, m.total, m.raised} {
		to <- d
	}
}

func (m *streamMetrics) Collect(to chan<- prometheus.Metric) {
	gauge := sample{to}.gauge
	for _, s := range m.alarms.Streams() {
		if !s.Exists {
			continue
		}
		gauge(m.bytes, float64(s.Bytes), s.Stream)
		if s.MaxBytes > 0 {
			gauge(m.limit, float64(s.MaxBytes), s.Stream)
		}
		gauge(m.messages, float64(s.Messages), s.Stream)
		gauge(m.last, float64(s.LastSequence), s.Stream)
		gauge(m.lost, float64(s.Lost), s.Stream)
	}
	if disk := m.alarms.Disk(); disk.Total > 0 {
		gauge(m.free, float64(disk.Free))
		gauge(m.total, float64(disk.Total))
	}
	for _, f := range m.alarms.Findings() {
		gauge(m.raised, 1, f.Check, f.Of, string(f.Level))
	}
}
