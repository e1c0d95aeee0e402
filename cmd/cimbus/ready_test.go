package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// stalled is a daemon of whose handler the test itself is the worker, and an event that waits.
func stalled(t *testing.T, o bus.AlarmOptions) (*daemon, jetstream.Consumer) {
	t.Helper()
	b, err := bus.Open(t.Context(), bus.Options{Embedded: embedded.Options{StoreDir: t.TempDir(), Durability: embedded.Balanced}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close(context.WithoutCancel(t.Context()))) })
	consumer, err := b.JetStream().CreateConsumer(t.Context(), bus.StreamEvents, jetstream.ConsumerConfig{
		Durable: bus.HandlerConsumer(oncimevent.Name), AckPolicy: jetstream.AckExplicitPolicy,
	})
	require.NoError(t, err)
	_, err = b.Join(t.Context(), "acme", "c1", "ann", "PRIMARY")
	require.NoError(t, err)
	o.Every = 10 * time.Millisecond
	alarms, err := b.WatchAlarms(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, alarms.Close()) })
	return &daemon{bus: b, alarms: alarms, log: hclog.NewNullLogger()}, consumer
}

// becomes waits until the check of the lag is as wanted.
func becomes(t *testing.T, d *daemon, ok bool, reason string) {
	t.Helper()
	bustest.Eventually(t, patience, func() error {
		if c := d.checkLag(); c.Check != "lag" || c.OK != ok || !strings.Contains(c.Reason, reason) {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
}

func TestADaemonIsNotReadyWhileAnEventWaitsForTooLong(t *testing.T) {
	d, consumer := stalled(t, bus.AlarmOptions{Lag: time.Millisecond})
	becomes(t, d, false, "handler-onCimEvent: 1 events wait and 0 are in work, the oldest for ")
	becomes(t, d, false, "see with cimbus handler ls that a process runs it")

	// A pause is somebody's will, and said.
	_, err := d.bus.JetStream().PauseConsumer(t.Context(), bus.StreamEvents, bus.HandlerConsumer(oncimevent.Name), bus.UntilResumed())
	require.NoError(t, err)
	becomes(t, d, true, "1 events wait for the handler to be resumed, the oldest for ")
	_, err = d.bus.JetStream().ResumeConsumer(t.Context(), bus.StreamEvents, bus.HandlerConsumer(oncimevent.Name))
	require.NoError(t, err)
	becomes(t, d, false, "1 events wait")

	m, err := consumer.Next()
	require.NoError(t, err)
	becomes(t, d, false, "0 events wait and 1 are in work")
	require.NoError(t, m.DoubleAck(t.Context()))
	becomes(t, d, true, "every event was done at the last look")
}

func TestALagBelowTheLimitIsToldAndReady(t *testing.T) {
	d, _ := stalled(t, bus.AlarmOptions{Lag: time.Hour})
	becomes(t, d, true, "1 events not done, the oldest is ")
	require.True(t, d.checkDisk().OK)
	require.Contains(t, d.checkDisk().Reason, " are free")
}

func TestTheDisksRoomIsNotKnownOfAnExternalServer(t *testing.T) {
	url := jetStream(t, nil)
	r := start(t, "serve", "--nats-url", url, "--http-addr", "127.0.0.1:0")
	r.saw(&r.stdout, "\n")
	d := served{r, lines[announcement](t, r.stdout.String())[0]}
	_, body := d.get(t, "/readyz")
	require.Contains(t, body, `{"check":"disk","ok":true,"reason":"not known: the store is not on this machine"}`)
	got := d.scrape(t)
	for _, absent := range []string{"cimbus_agents_slow", "cimbus_slow_connections_total", "cimbus_server_connections", "cimbus_disk_free_bytes"} {
		require.NotContains(t, got, absent)
	}
}
