package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// measureRoad stores the events first and then lets a worker have them: what is measured is the way from there to the agents'
// callbacks. It begins when as many events have arrived as there are conversations, so that starting is not in it.
func (x *bench) measureRoad(ctx context.Context, side string) (m measured, err error) {
	g, err := x.newGround(ctx, bus.StreamOptions{})
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, g.close(ctx)) }()
	t := x.traffic()
	total := t.conversations + x.events
	arrived := newMeter(t.conversations, total)
	in, err := openReceivers(ctx, g, t, side == sideCimbus, arrived.event)
	defer func() { err = errors.Join(err, in.close()) }()
	if err != nil {
		return m, err
	}
	if err := x.join(ctx, g, t, side); err != nil {
		return m, err
	}
	if err := x.preload(ctx, g, t, total); err != nil {
		return m, err
	}
	in.rest(ctx, x.agentRest)
	r, err := x.startRoad(ctx, g, t, side)
	if err != nil {
		return m, err
	}
	err = arrived.wait(ctx)
	if err == nil {
		err = x.complete(ctx, g, t, side, total)
	}
	if err := errors.Join(err, r.close(ctx)); err != nil {
		return m, err
	}
	return newMeasured(x.events, arrived.took, arrived.cpu), nil
}

// road is a worker under way: the bus's or the hand-written one.
type road interface {
	close(ctx context.Context) error
}

func (x *bench) startRoad(ctx context.Context, g *ground, t *traffic, side string) (road, error) {
	if side == sidePlain {
		return startPlainRoad(ctx, g, t, t.conversations)
	}
	return startBusRoad(ctx, g)
}

type busRoad struct{ worker *handlers.Worker }

func startBusRoad(ctx context.Context, g *ground) (road, error) {
	w, err := handlers.Start(ctx, g.b, oncimevent.New(oncimevent.Options{}))
	if err != nil {
		return nil, err
	}
	return busRoad{w}, nil
}

func (r busRoad) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), benchTimeout)
	defer cancel()
	return r.worker.Close(ctx)
}

// join makes the members of all conversations, which the bus's worker then knows as it does after a restart. The hand-written one
// has them in a map and begins behind these events.
func (x *bench) join(ctx context.Context, g *ground, t *traffic, side string) error {
	js, err := plainJetStream(g.b.Conn(), benchInFlight)
	if err != nil {
		return err
	}
	if err := plainPublish(ctx, js, t.joins()); err != nil {
		return err
	}
	if side == sidePlain {
		return nil
	}
	r, err := startBusRoad(ctx, g)
	if err != nil {
		return err
	}
	return errors.Join(g.holds(ctx, bus.StreamIndex, t.conversations), r.close(ctx))
}

// preload stores the events a road is to work on.
func (x *bench) preload(ctx context.Context, g *ground, t *traffic, n int) error {
	js, err := plainJetStream(g.b.Conn(), benchInFlight)
	if err != nil {
		return err
	}
	const chunk = 5000
	for a := 0; a < n; a += chunk {
		if err := plainPublish(ctx, js, t.events(a, min(a+chunk, n))); err != nil {
			return err
		}
	}
	return nil
}

// complete makes sure that both sides did the same work: one delivery and one index entry for every event.
func (x *bench) complete(ctx context.Context, g *ground, t *traffic, side string, events int) error {
	if side == sideCimbus {
		events += t.conversations // the joins
	}
	return errors.Join(g.holds(ctx, bus.StreamDeliveries, events), g.holds(ctx, bus.StreamIndex, events))
}

// receivers are the agents of a measurement, each on a connection of its own.
type receivers struct {
	agents  []*bus.Agent
	reading sync.WaitGroup
	opened  time.Time
}

// agentRest is how soon after it opened an agent asks for what it may have missed, and some more; the next time is a minute later.
const agentRest = 3 * time.Second

// openReceivers calls got with the id of every event an agent receives: from bus.Agent, or from a plain subscription on its live
// subject. What it returns is to be closed in any case.
func openReceivers(ctx context.Context, g *ground, t *traffic, withAgent bool, got func(id string)) (*receivers, error) {
	r := &receivers{opened: time.Now()}
	ctx, cancel := context.WithTimeout(ctx, benchTimeout)
	defer cancel()
	for a := range t.agents {
		nc, err := g.dial()
		if err != nil {
			return r, err
		}
		name := t.agent(a)
		if !withAgent {
			if err := listen(nc, name, got); err != nil {
				return r, err
			}
			continue
		}
		agent, err := bus.OpenAgent(ctx, nc, bus.AgentOptions{Tenant: benchTenant, Agent: name})
		if err != nil {
			return r, err
		}
		r.agents = append(r.agents, agent)
		r.reading.Go(func() {
			for d, err := range agent.All(context.Background()) {
				if err != nil {
					return
				}
				got(d.Header.Get(bus.HeaderEventID))
			}
		})
	}
	return r, nil
}

// listen is an agent without a library.
func listen(nc *nats.Conn, agent string, got func(id string)) error {
	_, err := nc.Subscribe("cim-live."+benchTenant+"."+agent+".>", func(m *nats.Msg) { got(m.Header.Get(bus.HeaderEventID)) })
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	return nil
}

// rest waits until the agents have done what they do once, after opening. Both sides wait as long.
func (r *receivers) rest(ctx context.Context, d time.Duration) {
	// Whoever calls notices that ctx has ended.
	_ = pause(ctx, time.Until(r.opened.Add(d)))
}

func (r *receivers) close() error {
	var errs []error
	for _, a := range r.agents {
		errs = append(errs, a.Close())
	}
	r.reading.Wait()
	return errors.Join(errs...)
}
