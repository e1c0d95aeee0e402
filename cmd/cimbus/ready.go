package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus"
)

// checks are what makes the daemon ready.
func (d *daemon) checks(ctx context.Context) []check {
	return []check{d.checkServer(), d.checkStreams(ctx), d.checkWorker(), d.checkDurability()}
}

func (d *daemon) checkServer() check {
	if server := d.bus.Server(); server != nil {
		if err := server.Err(); err != nil {
			return check{"server", false, err.Error()}
		}
		return check{"server", true, "runs in this process"}
	}
	if !d.nc.IsConnected() {
		return check{"server", false, fmt.Sprintf("%s: connection is %s", d.external, d.nc.Status())}
	}
	return check{"server", true, "connected to " + d.nc.ConnectedUrlRedacted()}
}

func (d *daemon) checkStreams(ctx context.Context) check {
	names := declaredStreams()
	for _, name := range names {
		_, err := d.bus.JetStream().Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return check{"streams", false, name + " is missing: run cimbus streams apply"}
		}
		if err != nil {
			return check{"streams", false, fmt.Sprintf("%s: %v", name, err)}
		}
	}
	return check{"streams", true, fmt.Sprintf("all %d are there", len(names))}
}

func declaredStreams() []string {
	return []string{bus.StreamEvents, bus.StreamDeliveries, bus.StreamIndex, bus.StreamDeadLetters, bus.StreamMembers, bus.StreamConversations}
}

func (d *daemon) checkWorker() check {
	stats := d.worker.Stats()
	if !stats.Acts {
		return check{"worker", true, "stands by: another process acts, or nothing was published yet"}
	}
	return check{"worker", true, fmt.Sprintf("acts: %d events handled, %d at hand", stats.Handled, stats.Waiting)}
}

func (d *daemon) checkDurability() check {
	reason := map[string]string{
		"strict":           "strict: what is acknowledged is on disk",
		"balanced":         "balanced: a power cut can cost the last second",
		durabilityExternal: "external: decided by the server",
	}[d.durability()]
	return check{"durability", true, reason}
}
