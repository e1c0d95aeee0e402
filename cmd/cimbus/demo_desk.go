package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cimbus/cimbus/bus"
)

// desk is an agent's application in the demo: a connection of its own, and all it received over the connections it had so far,
// in the order it did. A hole or a repeat at a resume shows as such.
type desk struct {
	agent string
	url   string

	nc      *nats.Conn
	in      *bus.Agent   // nil while it is away
	kept    bus.Position // where it was when it dropped
	reading sync.WaitGroup

	mu      sync.Mutex
	got     []received
	err     error         // why it does not receive any more
	arrived chan struct{} // something came, or nothing comes any more
}

// received is a delivery, and when the agent had it in hand.
type received struct {
	bus.Delivery
	at time.Time
}

func newDesk(agent, url string) *desk {
	return &desk{agent: agent, url: url, arrived: make(chan struct{}, 1)}
}

// connect dials and goes on after a position, or from now on.
func (k *desk) connect(ctx context.Context, after *bus.Position) error {
	var err error
	if k.nc, err = nats.Connect(k.url, nats.Name("demo agent "+k.agent), nats.CustomInboxPrefix("cim-inbox."+demoTenant+"."+k.agent)); err != nil {
		return fmt.Errorf("agent %s: connect: %w", k.agent, err)
	}
	in, err := bus.OpenAgent(ctx, k.nc, bus.AgentOptions{Tenant: demoTenant, Agent: k.agent, After: after})
	if err != nil {
		k.nc.Close()
		return err
	}
	k.in = in
	k.reading.Go(func() { k.read(in) })
	return nil
}

func (k *desk) read(in *bus.Agent) {
	for {
		// The agent ends it: its Close makes Next return.
		d, err := in.Next(context.Background())
		at := time.Now()
		k.mu.Lock()
		if err == nil {
			k.got = append(k.got, received{d, at})
		} else if !errors.Is(err, bus.ErrAgentClosed) && !errors.Is(err, nats.ErrConnectionClosed) {
			k.err = err
		}
		k.mu.Unlock()
		select {
		case k.arrived <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// drop ends the connection under the agent and keeps its position, as an application would on its disk.
func (k *desk) drop() error {
	k.nc.Close()
	k.reading.Wait()
	err := k.in.Close()
	k.kept = k.in.Position()
	k.in = nil
	return err
}

// close may be called on a desk that never connected.
func (k *desk) close() error {
	if k.in == nil {
		return nil
	}
	err := k.in.Close()
	k.reading.Wait()
	k.nc.Close()
	return err
}

// has waits until n deliveries were received in all.
func (k *desk) has(ctx context.Context, n int, patience time.Duration) error {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		k.mu.Lock()
		have, err := len(k.got), k.err
		k.mu.Unlock()
		switch {
		case err != nil:
			return fmt.Errorf("agent %s: %w", k.agent, err)
		case have >= n:
			return nil
		}
		select {
		case <-k.arrived:
		case <-late.C:
			return fmt.Errorf("agent %s: %d of %d deliveries came within %v", k.agent, have, n, patience)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// deliveries are all it received so far.
func (k *desk) deliveries() []received {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]received(nil), k.got...)
}
