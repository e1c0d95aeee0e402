package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/embedded"
)

const (
	benchStore   = 16 << 30         // bytes the streams of a measurement may use; half of it is for events
	benchTimeout = 30 * time.Second // how long a measurement may stand still
)

// ground is what one round stands on: a server of its own on a new folder, with the streams of the bus. Both sides of a comparison
// get the same.
type ground struct {
	dir   string
	b     *bus.Bus
	conns []*nats.Conn
}

func (x *bench) newGround(ctx context.Context, streams bus.StreamOptions) (*ground, error) {
	dir, err := os.MkdirTemp("", "cimbus-bench-")
	if err != nil {
		return nil, fmt.Errorf("temporary folder: %w", err)
	}
	b, err := bus.Open(ctx, bus.Options{
		Logger: x.app.log(hclog.Warn), Streams: streams,
		Embedded: embedded.Options{
			StoreDir: dir, NATSAddr: "127.0.0.1:0", Durability: x.durability, MaxStore: benchStore,
		},
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	// Agents ask it when they open; beside that it has nothing to do.
	if _, err := b.ServeControl(ctx, bus.ControlOptions{}); err != nil {
		return nil, errors.Join(err, b.Close(context.WithoutCancel(ctx)), os.RemoveAll(dir))
	}
	return &ground{dir: dir, b: b}, nil
}

// dial opens a connection over the network, as services and agents do.
func (g *ground) dial() (*nats.Conn, error) {
	nc, err := nats.Connect(g.b.Server().NATSURL())
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	g.conns = append(g.conns, nc)
	return nc, nil
}

// inside opens a connection within the process, as the worker of a daemon has.
func (g *ground) inside() (*nats.Conn, error) {
	nc, err := g.b.Server().Connect()
	if err != nil {
		return nil, err
	}
	g.conns = append(g.conns, nc)
	return nc, nil
}

func (g *ground) close(ctx context.Context) error {
	for _, nc := range g.conns {
		nc.Close()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), benchTimeout)
	defer cancel()
	return errors.Join(g.b.Close(ctx), os.RemoveAll(g.dir))
}

// messages counts what a stream holds.
func (g *ground) messages(ctx context.Context, stream string) (int, error) {
	s, err := g.b.JetStream().Stream(ctx, stream)
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", stream, err)
	}
	return int(s.CachedInfo().State.Msgs), nil
}

// holds waits until a stream holds n messages, and not one more.
func (g *ground) holds(ctx context.Context, stream string, n int) error {
	ctx, cancel := context.WithTimeout(ctx, benchTimeout)
	defer cancel()
	for {
		have, err := g.messages(ctx, stream)
		switch {
		case err != nil:
			return err
		case have == n:
			return nil
		case have > n:
			return fmt.Errorf("%s holds %d messages, %d were to be stored: the measurement is void", stream, have, n)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s holds %d of %d messages after %v: the measurement is void", stream, have, n, benchTimeout)
		}
	}
}
