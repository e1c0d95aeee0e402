package bus_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

func TestAnErrorOfTheConnectionIsLoggedOnceInTenSecondsWithACount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		handle := bus.LogConnErrors(hclog.New(&hclog.LoggerOptions{Output: &out, DisableTime: true}))
		report := func(n int, err error) []string {
			out.Reset()
			for range n {
				handle(nil, &nats.Subscription{Subject: "a.b"}, err)
			}
			return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		}
		require.Equal(t, []string{`[WARN]  NATS reported an error: error="nats: slow consumer, messages dropped" subject=a.b`}, report(1000, nats.ErrSlowConsumer))
		require.Len(t, report(3, errors.New("another cause")), 1)
		<-time.After(10*time.Second - 1)
		require.Equal(t, []string{""}, report(1, nats.ErrSlowConsumer))
		<-time.After(1)
		require.Equal(t, []string{`[WARN]  NATS reported an error: error="nats: slow consumer, messages dropped" subject=a.b withheld=1000`}, report(5, nats.ErrSlowConsumer))

		out.Reset()
		for i := range 10_000 {
			handle(nil, nil, fmt.Errorf("%w: subscription to %d", nats.ErrPermissionViolation, i))
		}
		require.Less(t, strings.Count(out.String(), "\n"), 64, "errors that differ are as many as a server likes")
		<-time.After(time.Minute)
		require.Len(t, report(2, errors.New("one more")), 1)
	})
}

func TestTheBusLogsARepeatedErrorOfItsConnectionOnce(t *testing.T) {
	s := bustest.Server(t, listening)
	var out logged
	b, err := tryOpen(t, bus.Options{URL: s.NATSURL(), LeaveStreams: true, Logger: hclog.New(&hclog.LoggerOptions{Output: &out})})
	require.NoError(t, err)
	handle := b.Conn().ErrorHandler()
	for range 100 {
		handle(b.Conn(), nil, nats.ErrSlowConsumer)
	}
	require.Equal(t, 1, out.count("NATS reported an error"))
}

func TestAConnectionThatFlapsIsLoggedOnceInTenSecondsAndOneThatStaysAwayIsNotForgotten(t *testing.T) {
	s := bustest.Server(t, listening)
	proxy := bustest.NewProxy(t, s.NATSURL())
	var out logged
	b, err := tryOpen(t, bus.Options{
		URL: proxy.URL(), LeaveStreams: true, NATS: []nats.Option{nats.ReconnectWait(10 * time.Millisecond), nats.IgnoreDiscoveredServers()},
		Logger: hclog.New(&hclog.LoggerOptions{Output: &out}),
	})
	require.NoError(t, err)
	for n := range uint64(5) {
		proxy.Cut()
		bustest.Eventually(t, 20*time.Second, func() error {
			if have := b.Conn().Stats().Reconnects; have <= n || !b.Conn().IsConnected() {
				return fmt.Errorf("%d of %d reconnects", have, n+1)
			}
			return nil
		})
	}
	require.LessOrEqual(t, out.count("connection to NATS lost"), 2, "ten seconds may have passed on a slow machine")
	before := out.count("connection to NATS lost")
	proxy.Down()
	bustest.Eventually(t, 30*time.Second, func() error {
		if out.count("connection to NATS lost") == before {
			return errors.New("not told that it stays away")
		}
		return nil
	})
	proxy.Up()
	bustest.Eventually(t, 20*time.Second, func() error {
		if lost, back := out.count("connection to NATS lost"), out.count("connection to NATS is back"); back < min(lost, 2) {
			return fmt.Errorf("told %d times that it is lost, %d times that it is back", lost, back)
		}
		return nil
	})
}

func TestAnOutageIsOneLineWhenItBeginsAndOneWhenItIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out logged
		var o nats.Options
		require.NoError(t, bus.LogConnState(hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Warn}))(&o))
		for n := range 3 {
			o.DisconnectedErrCB(nil, errors.New("EOF"))
			for range 4 * 60 * 60 { // an hour of attempts
				o.ReconnectErrCB(nil, errors.New("connection refused"))
				time.Sleep(250 * time.Millisecond)
			}
			o.ReconnectedCB(&nats.Conn{})
			require.Equal(t, n+1, out.count("connection to NATS lost, reconnecting: error=EOF"), out.String())
			require.Equal(t, n+1, out.count("connection to NATS is back"), out.String())
			require.Equal(t, 2*(n+1), out.count("\n"), out.String())
			time.Sleep(time.Minute)
		}
	})
}
