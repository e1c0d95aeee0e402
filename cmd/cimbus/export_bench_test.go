package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
)

// exportedEvents is how many events are exported at a time; all that are in the stream.
const exportedEvents = 100_000

// exportable is a server with events of 1.5 KiB and the headers the library gives them.
func exportable(b *testing.B) string {
	b.Helper()
	server := bustest.Server(b, func(o *embedded.Options) { o.NATSAddr = "127.0.0.1:0" })
	nc, err := nats.Connect(server.NATSURL())
	require.NoError(b, err)
	b.Cleanup(nc.Close)
	opened, err := bus.Open(b.Context(), bus.Options{Conn: nc})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, opened.Close(context.WithoutCancel(b.Context()))) })
	p, err := opened.NewPublisher(bus.PublisherOptions{})
	require.NoError(b, err)
	text := strings.Repeat("Good day, my order has not come yet. ", 36)
	for i := range exportedEvents {
		e, err := bus.NewEvent("acme", fmt.Appendf(nil, `{"id":"e%d","name":"CUSTOMER_MESSAGE","conversationId":"c%d","data":{"text":%q,"n":[1,2,3],"a":{"b":null}}}`, i, i%500, text))
		require.NoError(b, err)
		_, err = p.Publish(b.Context(), e)
		require.NoError(b, err)
	}
	require.NoError(b, p.Close(context.WithoutCancel(b.Context())))
	return server.NATSURL()
}

// readPlain reads the stream with an ordered consumer, and does nothing with it.
func readPlain(b *testing.B, url string) {
	b.Helper()
	nc, err := nats.Connect(url)
	require.NoError(b, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(b, err)
	c, err := js.OrderedConsumer(b.Context(), bus.StreamEvents, jetstream.OrderedConsumerConfig{})
	require.NoError(b, err)
	messages, err := c.Messages()
	require.NoError(b, err)
	defer messages.Stop()
	for range exportedEvents {
		_, err := messages.Next()
		require.NoError(b, err)
	}
}

// BenchmarkExportRatio exports to stdout and to a file, beside a plain ordered consumer that reads the same stream, in turns: the machine
// may be another one a second later. The ratios are those of the rates.
func BenchmarkExportRatio(b *testing.B) {
	url := exportable(b)
	took := map[string]time.Duration{}
	timed := func(what string, do func()) {
		began := time.Now()
		do()
		took[what] += time.Since(began)
	}
	turn := 0
	for b.Loop() {
		turn++
		file := filepath.Join(b.TempDir(), fmt.Sprint(turn))
		timed("plain", func() { readPlain(b, url) })
		for _, to := range []string{"-", file} {
			timed(to[:1], func() {
				require.Zero(b, run(b.Context(), []string{"export", to, "--server", url}, strings.NewReader(""), io.Discard, io.Discard, nil))
			})
		}
	}
	n := float64(turn * exportedEvents)
	for what, name := range map[string]string{"plain": "plain", "-": "stdout", "/": "file"} {
		b.ReportMetric(n/took[what].Seconds(), name+"-events/s")
	}
	b.ReportMetric(took["plain"].Seconds()/took["-"].Seconds(), "stdout-ratio")
	b.ReportMetric(took["plain"].Seconds()/took["/"].Seconds(), "file-ratio")
}
