package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/config"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/conversation"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// daemon is everything that serve runs.
type daemon struct {
	config *config.Config
	log    hclog.Logger
	level  *logLevel

	external target     // the external server, if there is one
	nc       *nats.Conn // to it
	http     *httpServer
	tracing  *tracing
	bus      *bus.Bus
	alarms   *bus.Alarms
	retained *bus.Retention
	worker   *handlers.Worker
	control  *bus.Control
}

// start brings up one part after the other. After an error stop is still due.
func (d *daemon) start(ctx context.Context) error {
	var err error
	// HTTP first: it tells why the rest is not ready yet, and a taken port is found before the store is opened.
	if d.http, err = listenHTTP(d.config.HTTP.Addr, d.level, d.log.Named("http")); err != nil {
		return err
	}
	if d.tracing, err = startTracing(ctx, d.config.Tracing, d.log.Named("tracing")); err != nil {
		return err
	}
	if d.bus, err = d.openBus(ctx); err != nil {
		return err
	}
	// Before the handler: what it stores makes a disk that is nearly full fuller.
	if d.alarms, err = d.bus.WatchAlarms(ctx, alarmOptions(d.config)); err != nil {
		return err
	}
	if d.worker, err = handlers.Start(ctx, d.bus, d.handler()); err != nil {
		return err
	}
	if len(d.config.Retention) > 0 {
		if d.retained, err = d.bus.WatchRetention(d.retention()); err != nil {
			return err
		}
	}
	if d.control, err = d.bus.ServeControl(ctx, bus.ControlOptions{OpenInboxes: d.onLoopback(), Version: readBuild().semantic()}); err != nil {
		return err
	}
	d.http.ready(d)
	return nil
}

func (d *daemon) openBus(ctx context.Context) (*bus.Bus, error) {
	c := d.config
	o := bus.Options{Streams: streamOptions(c), CountedTenants: c.Metrics.Tenants, Tracing: d.tracing.provider(), Logger: d.log}
	if c.External() {
		var err error
		if d.nc, err = d.external.dial(d.log); err != nil {
			return nil, err
		}
		o.Conn = d.nc
		return bus.Open(ctx, o)
	}
	o.Embedded = embedded.Options{
		StoreDir: c.Store, NATSAddr: c.NATS.Addr, WebSocketAddr: c.WebSocket.Addr, WebSocketOrigins: c.WebSocket.Origins,
		Durability: embedded.Durability(c.Durability), MaxStore: c.StoreLimits.MaxBytes, MaxMemory: c.StoreLimits.MaxMemory,
	}
	b, err := bus.Open(ctx, o)
	switch {
	case errors.Is(err, embedded.ErrAddressInUse):
		return nil, fmt.Errorf("%w, with --nats-addr or --websocket-addr", err)
	case errors.Is(err, embedded.ErrStoreInUse):
		return nil, fmt.Errorf("%w, with --store", err)
	}
	return b, err
}

// alarmOptions are the alarms as configured.
func alarmOptions(c *config.Config) bus.AlarmOptions {
	return bus.AlarmOptions{Threshold: c.Alarms.Threshold, Lag: c.Alarms.Lag, DiskReserve: uint64(c.Alarms.DiskReserve)}
}

func (d *daemon) handler() handlers.Handler {
	c := d.config
	h := oncimevent.New(oncimevent.Options{Bare: !c.Delivery.Properties})
	h.Retry = handlers.RetryPolicy{Attempts: c.Retry.Attempts, First: c.Retry.First, Longest: c.Retry.Longest}
	h.AckWait, h.PinnedTTL, h.PullExpiry = c.Workers.AckWait, c.Workers.PinnedTTL, c.Workers.PullExpiry
	h.MaxAckPending = c.Workers.MaxAckPending
	return h
}

// retention is how long single tenants' messages are kept.
func (d *daemon) retention() bus.RetentionOptions {
	return bus.RetentionOptions{Tenants: d.config.Retention, Cover: func(ctx context.Context, tenant, id string) error {
		return handlers.Checkpoint(ctx, d.bus, conversation.New, tenant, id)
	}}
}

// onLoopback reports whether only this machine can reach the server: there, and only there, agents need no identity.
func (d *daemon) onLoopback() bool {
	if d.nc == nil {
		return true // the configuration allows no other listeners
	}
	at, err := netip.ParseAddrPort(d.nc.ConnectedAddr())
	return err == nil && at.Addr().Unmap().IsLoopback()
}

// stop ends everything in the reverse order of what depends on what, within the configured time. What a handler has not finished
// by two thirds of it is left for the next worker, which loses nothing.
func (d *daemon) stop(ctx context.Context) error {
	began := time.Now()
	limit := d.config.Shutdown.Timeout
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var errs []error
	if d.http != nil {
		d.http.notReady("shutting down")
	}
	if d.control != nil {
		errs = append(errs, d.control.Close())
	}
	if d.retained != nil {
		errs = append(errs, d.retained.Close())
	}
	if d.worker != nil {
		drain := limit * 2 / 3
		if server := d.bus.Server(); server != nil && server.Err() != nil {
			drain = 0 // on a server that failed nothing can be finished, and a supervisor waits to start another
		}
		draining, cancel := context.WithTimeout(ctx, drain)
		if err := d.worker.Close(draining); err != nil {
			d.log.Warn("stopped before all work in hand was done, the next start takes it up", "error", err)
		}
		cancel()
	}
	if d.alarms != nil {
		errs = append(errs, d.alarms.Close())
	}
	if d.bus != nil {
		errs = append(errs, d.bus.Close(ctx))
	}
	if d.nc != nil {
		d.nc.Close()
	}
	d.tracing.stop(ctx, limit/5)
	if d.http != nil {
		errs = append(errs, d.http.close(ctx))
	}
	err := errors.Join(errs...)
	if err == nil && d.bus != nil {
		d.log.Info("ended", "after", time.Since(began).Round(time.Millisecond))
	}
	return err
}
