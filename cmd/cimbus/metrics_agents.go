package main

import (
	"github.com/prometheus/client_golang/prometheus"
)

// agentMetrics are what is known of the agents: what they asked of this process, and who listens to the server in it.
type agentMetrics struct {
	d *daemon

	requests, resumed, gaps, dropped, connected, slow, ended, connections *prometheus.Desc
}

func newAgentMetrics(d *daemon) *agentMetrics {
	const here = " Absent where the server is external."
	return &agentMetrics{
		d: d,
		requests: metric("cimbus_agent_requests_total",
			"Requests of agents that this process answered. A resume that takes several pages is as many; outcome refused is the agent's own doing.", "verb", "outcome"),
		resumed: metric("cimbus_resumed_deliveries_total", "Deliveries that agents read from the log."),
		gaps: metric("cimbus_gaps_repaired_total",
			"Live deliveries that did not come and were read from the log, one or several at a time, by agents that say so to this process."),
		dropped:     metric("cimbus_control_dropped_total", "Requests of agents that were not answered because their reply subject was none of theirs."),
		connected:   metric("cimbus_agents_connected", "Agents that listen for their deliveries."+here, "tenant"),
		slow:        metric("cimbus_agents_slow", "Agents on a connection that has a mebibyte or more waiting to be read."+here),
		ended:       metric("cimbus_slow_connections_total", "Times that the server ended a connection because it did not keep up; now and then it counts one twice."+here),
		connections: metric("cimbus_server_connections", "Open connections to the server, of agents, services and everybody else."+here),
	}
}

func (m *agentMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.requests, m.resumed, m.gaps, m.dropped, m.connected, m.slow, m.ended, m.connections} {
		to <- d
	}
}

func (m *agentMetrics) Collect(to chan<- prometheus.Metric) {
	s, counts := sample{to}, m.d.control.Counts()
	for verb, outcomes := range counts.Requests {
		for outcome, n := range outcomes {
			s.counter(m.requests, n, verb, outcome)
		}
	}
	s.counter(m.resumed, counts.Resumed)
	s.counter(m.gaps, m.d.bus.GapsRepaired())
	s.counter(m.dropped, counts.Dropped)
	agents, known, err := m.d.bus.LiveAgents()
	if err != nil {
		m.d.log.Debug("connections not counted", "error", err)
	}
	if err != nil || !known {
		return
	}
	for tenant, n := range agents.Connected {
		s.gauge(m.connected, float64(n), tenant)
	}
	s.gauge(m.slow, float64(agents.Slow))
	s.counter(m.ended, agents.SlowConnections)
	s.gauge(m.connections, float64(agents.Connections))
}
