package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// checks are what makes the daemon ready.
func (d *daemon) checks(ctx context.Context) []check {
	server := d.checkServer()
	if !server.OK {
		// Who asks for readiness does not wait until questions that nobody answers time out.
		gone, cancel := context.WithCancel(ctx)
		cancel()
		ctx = gone
	}
	return []check{server, d.checkStreams(ctx), d.checkWorker(ctx), d.checkLag(), d.checkRoom(), d.checkDisk(), d.checkLosses(), d.checkDurability()}
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
		if errors.Is(err, context.Canceled) {
			return check{"streams", false, "not asked: there is no server to answer"}
		}
		if err != nil {
			return check{"streams", false, fmt.Sprintf("%s: %v", name, err)}
		}
	}
	return check{"streams", true, fmt.Sprintf("all %d are there", len(names))}
}

func declaredStreams() []string {
	return []string{bus.StreamEvents, bus.StreamDeliveries, bus.StreamIndex, bus.StreamDeadLetters, bus.StreamReplays, bus.StreamMembers, bus.StreamConversations}
}

// checkWorker tells what this process does for its handler. A paused one is as its operator wants it, and events are taken: that is
// ready, and said.
func (d *daemon) checkWorker(ctx context.Context) check {
	stats := d.worker.Stats()
	c := check{"worker", true, "stands by: another process acts, or nothing was published yet"}
	if stats.Acts {
		c.Reason = fmt.Sprintf("acts: %d events handled, %d at hand", stats.Handled, stats.Waiting)
	}
	if stats.Trouble != nil {
		c.OK, c.Reason = false, "handles no event: "+stats.Trouble.Error()
	}
	// Where that cannot be asked the other checks say why.
	if until, paused, err := d.bus.HandlerPaused(ctx, oncimevent.Name); err == nil && paused {
		c.Reason = fmt.Sprintf("is paused %s, and deliveries wait: cimbus handler resume %s; %s", bus.PauseWords(until), oncimevent.Name, c.Reason)
	}
	for _, f := range d.alarms.Findings() {
		if f.Check == "paused" && f.Of != oncimevent.Name {
			c.Reason += fmt.Sprintf("; handler %s %s: %s", f.Of, f.Found, f.Remedy)
		}
	}
	return c
}

// checkRoom fails where events are refused, or cannot be committed, for want of room in a stream. Before that it says so and is ready.
func (d *daemon) checkRoom() check {
	return alarmed("room", "there is room for more", d.alarms.Findings(), func(f bus.Finding) bool { return f.Check == "room" })
}

// checkDisk fails where events are refused because the store's disk is nearly full.
func (d *daemon) checkDisk() check {
	well := "not known: the store is not on this machine"
	if disk := d.alarms.Disk(); disk.Total > 0 {
		well = fmt.Sprintf("%s of %s are free", size(disk.Free), size(disk.Total))
	} else if d.bus.Server() != nil {
		well = "not known: this system does not tell"
	}
	return alarmed("disk", well, d.alarms.Findings(), func(f bus.Finding) bool { return f.Check == "disk" })
}

// checkLag fails where an event has waited for longer than alarms.lag. It is the handler's lag, whichever process runs it: agents sent
// here would hear as late as anywhere. Who lags is not to be killed: it would begin again where it was.
func (d *daemon) checkLag() check {
	well := "every event was done at the last look"
	for _, h := range d.alarms.Handlers() {
		switch {
		case h.Handler != oncimevent.Name || h.Oldest.IsZero():
		case h.PausedUntil != nil:
			well = fmt.Sprintf("%d events wait for the handler to be resumed, the oldest for %s", h.Lag, age(max(time.Since(h.Oldest), 0)))
		default:
			well = fmt.Sprintf("%d events not done, the oldest is %s old", h.Lag, age(max(time.Since(h.Oldest), 0)))
		}
	}
	return alarmed("lag", well, d.alarms.Findings(), func(f bus.Finding) bool {
		return f.Check == "lag" && f.Of == bus.HandlerConsumer(oncimevent.Name)
	})
}

// checkLosses tells of what was lost. That is an alarm, not a reason to send nothing here: what comes now is taken and delivered.
func (d *daemon) checkLosses() check {
	c := alarmed("losses", "none known", d.alarms.Findings(), func(f bus.Finding) bool { return f.Check == "lost" || f.Check == "sequences" })
	c.OK = true
	return c
}

func alarmed(name, well string, findings []bus.Finding, of func(bus.Finding) bool) check {
	c := check{name, true, well}
	var told []string
	for _, f := range findings {
		if !of(f) {
			continue
		}
		c.OK = c.OK && f.Level != bus.LevelFail
		what := f.Check
		if f.Of != "" {
			what = f.Of
		}
		told = append(told, fmt.Sprintf("%s: %s: %s", what, f.Found, f.Remedy))
	}
	if len(told) > 0 {
		c.Reason = strings.Join(told, "; ")
	}
	return c
}

func (d *daemon) checkDurability() check {
	reason := map[string]string{
		"strict":           "strict: what is acknowledged is on disk",
		"balanced":         "balanced: a power cut can cost the last second",
		durabilityExternal: "external: decided by the server",
	}[d.durability()]
	return check{"durability", true, reason}
}
