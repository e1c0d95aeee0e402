package bus_test

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

// storeMany stores n events of about so many bytes.
func storeMany(t testing.TB, b *bus.Bus, n, size int) {
	t.Helper()
	text := make([]byte, size)
	for i := range text {
		text[i] = "lorem ipsum "[i%12]
	}
	for i := range n {
		_, err := b.JetStream().PublishMsgAsync(&nats.Msg{
			Subject: "cim.acme.web.CUSTOMER_MESSAGE",
			Header:  nats.Header{bus.HeaderConversation: {fmt.Sprintf("c%d", i%5000)}, bus.HeaderEventID: {fmt.Sprintf("e%d", i)}, bus.HeaderEventName: {"CUSTOMER_MESSAGE"}},
			Data:    fmt.Appendf(nil, `{"id":"e%d","name":"CUSTOMER_MESSAGE","conversationId":"c%d","data":{"text":"%s"}}`, i, i%5000, text),
		}, jetstream.WithStallWait(time.Minute))
		require.NoError(t, err)
	}
	select {
	case <-b.JetStream().PublishAsyncComplete():
	case <-time.After(5 * time.Minute):
		require.FailNow(t, "not all events are stored")
	}
	stream, err := b.JetStream().Stream(t.Context(), bus.StreamEvents)
	require.NoError(t, err)
	require.EqualValues(t, n, stream.CachedInfo().State.Msgs)
}

// readPlain reads a stream as anybody would: with an ordered consumer of the client.
func readPlain(b *testing.B, js jetstream.JetStream, n int) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Minute)
	defer cancel()
	c, err := js.OrderedConsumer(ctx, bus.StreamEvents, jetstream.OrderedConsumerConfig{})
	require.NoError(b, err)
	messages, err := c.Messages()
	require.NoError(b, err)
	defer messages.Stop()
	for range n {
		_, err := messages.Next(jetstream.NextContext(ctx))
		require.NoError(b, err)
	}
}

func replayAll(t testing.TB, b *bus.Bus, target bus.ReplayTarget) {
	t.Helper()
	span, err := b.Span(t.Context(), bus.StreamEvents, bus.Point{}, bus.Point{})
	require.NoError(t, err)
	r, err := b.StartReplay(t.Context(), bus.NewReplay{Operator: "eva", Target: "bench", Span: span})
	require.NoError(t, err)
	record, err := r.To(t.Context(), target)
	require.NoError(t, err)
	require.Equal(t, span.Last-span.First+1, record.Events)
}

// BenchmarkReplay replays 100,000 events of about 1 KB and 6 KB to a file and to a writer, beside what a plain ordered consumer needs to
// read them, which writes nothing: ratio is replay's events a second by the plain ones. Once with -benchtime 1x is enough.
func BenchmarkReplay(b *testing.B) {
	for _, size := range []int{1 << 10, 6 << 10} {
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			const n = 100_000
			s := bustest.Process(b)
			nc, err := nats.Connect(s.URL())
			require.NoError(b, err)
			b.Cleanup(nc.Close)
			bb := openOn(b, nc, bus.StreamOptions{})
			storeMany(b, bb, n, size)
			readPlain(b, bb.JetStream(), n) // what the disk has to bring is there
			var plain, file, writer time.Duration
			for i := 0; b.Loop(); i++ {
				at := time.Now()
				readPlain(b, bb.JetStream(), n)
				plain += time.Since(at)
				at = time.Now()
				replayAll(b, bb, bus.ReplayToFile(filepath.Join(b.TempDir(), fmt.Sprint(i))))
				file += time.Since(at)
				at = time.Now()
				replayAll(b, bb, bus.ReplayToWriter(io.Discard))
				writer += time.Since(at)
			}
			b.ReportMetric(float64(n*b.N)/plain.Seconds(), "plain/s")
			b.ReportMetric(float64(n*b.N)/file.Seconds(), "file/s")
			b.ReportMetric(float64(plain)/float64(file), "file-ratio")
			b.ReportMetric(float64(n*b.N)/writer.Seconds(), "writer/s")
			b.ReportMetric(float64(plain)/float64(writer), "writer-ratio")
		})
	}
}

// weighed is a target that looks at the memory in use from time to time.
type weighed struct {
	bus.ReplayTarget
	every, events int
	most          uint64
}

func (w *weighed) Put(ctx context.Context, e bus.StoredEvent) (bool, error) {
	if w.events++; w.events%w.every == 0 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		w.most = max(w.most, m.HeapAlloc)
	}
	return w.ReplayTarget.Put(ctx, e)
}

// replayWeight is how many bytes are in use at most beyond what was before while n events of 2 KB are replayed.
func replayWeight(t testing.TB, n int) uint64 {
	t.Helper()
	s := bustest.Process(t)
	nc, err := nats.Connect(s.URL())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	b := openOn(t, nc, bus.StreamOptions{})
	storeMany(t, b, n, 2<<10)
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	w := &weighed{ReplayTarget: bus.ReplayToFile(filepath.Join(t.TempDir(), "events")), every: n / 8}
	replayAll(t, b, w)
	return w.most - min(w.most, before.HeapAlloc)
}

func TestAReplayHoldsNoMoreThanWhatIsOnItsWay(t *testing.T) {
	require.Less(t, replayWeight(t, 20_000), uint64(24<<20), "the events are 40 MB")
}

// BenchmarkMemoryOfAReplay replays 1,000,000 events of 2 KB: heap-MB is what was in use at most beyond what was before.
func BenchmarkMemoryOfAReplay(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(float64(replayWeight(b, 1_000_000))/(1<<20), "heap-MB")
	}
}
