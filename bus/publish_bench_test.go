package bus_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

// benchConversations is how many conversations the events of a benchmark belong to, in turn: those of a busy centre. One conversation
// alone is bound by the round trip, for its events go one after the other.
const benchConversations = 5000

// benchBody is an event of about 6 KB.
func benchBody(id, conversation string) []byte {
	return fmt.Appendf(nil, `{"id":%q,"name":"CUSTOMER_MESSAGE","type":"MESSAGE","timestamp":1750072293640,"conversationId":%q,`+
		`"channelSession":{"id":"s1","state":{"name":"STARTED"},"channel":{"channelType":{"name":"WEB"},"attributes":[%s]}},`+
		`"data":{"header":{"sender":"made up"},"body":{"text":%q}}}`,
		id, conversation, strings.TrimSuffix(strings.Repeat(`{"key":"colour","value":"blue","n":12},`, 60), ","), strings.Repeat("lorem ipsum ", 270))
}

// benchEvents are n events with ids from a number on; they share a few bodies.
func benchEvents(b *testing.B, n, from int) []bus.Event {
	b.Helper()
	bodies := make([][]byte, 64)
	for i := range bodies {
		bodies[i] = benchBody("e"+strconv.Itoa(i), "c"+strconv.Itoa(i))
	}
	events := make([]bus.Event, n)
	for i := range events {
		events[i] = bus.Event{
			Tenant: "acme", Channel: "WEB", Name: "CUSTOMER_MESSAGE", ID: "e" + strconv.Itoa(from+i),
			Conversation: "c" + strconv.Itoa(i%benchConversations), Body: bodies[i%len(bodies)],
		}
	}
	return events
}

func benchBus(b *testing.B) *bus.Bus {
	b.Helper()
	s := bustest.Server(b, listening)
	nc, err := nats.Connect(s.NATSURL())
	require.NoError(b, err)
	b.Cleanup(nc.Close)
	return openOn(b, nc, bus.StreamOptions{})
}

// plainMessage is what a service writes by hand to publish the same message.
func plainMessage(e bus.Event) *nats.Msg {
	m := nats.NewMsg("cim." + e.Tenant + "." + strings.ToLower(e.Channel) + "." + e.Name)
	m.Header.Set("Nats-Msg-Id", e.Tenant+":"+e.Name+":"+e.ID)
	m.Header.Set("Nats-Expected-Stream", "CIM_EVENTS")
	m.Header.Set("Cim-Conversation-Id", e.Conversation)
	m.Header.Set("Cim-Channel", e.Channel)
	m.Header.Set("Cim-Event-Id", e.ID)
	m.Header.Set("Cim-Event-Name", e.Name)
	m.Data = e.Body
	return m
}

// BenchmarkPublish measures asynchronous publishing of 6 KB events, until the last one is acknowledged: by nats.go alone ("plain"), by
// a Publisher from events that are ready ("bus"), and from bodies that are read and checked first ("bus from bodies").
func BenchmarkPublish(b *testing.B) {
	for name, way := range benchWays() {
		b.Run(name, func(b *testing.B) {
			publish := way(b, benchBus(b))
			events := benchEvents(b, b.N, 0)
			b.SetBytes(int64(len(events[0].Body)))
			b.ReportAllocs()
			b.ResetTimer()
			publish(events)
		})
	}
}

// BenchmarkPublishRatio publishes in turn by nats.go alone and by a Publisher, into the same stream, and reports the speed of the
// latter as a share of the former's: what others do on the machine at the time slows both.
func BenchmarkPublishRatio(b *testing.B) {
	const events = 5000
	for name, way := range benchWays() {
		if name == "plain" {
			continue
		}
		b.Run(name, func(b *testing.B) {
			target := benchBus(b)
			plain, ours := benchWays()["plain"](b, target), way(b, target)
			var plainTime, oursTime time.Duration
			for n := range b.N {
				for turn, publish := range []func([]bus.Event){plain, ours, ours, plain} {
					load := benchEvents(b, events, (4*n+turn)*events)
					start := time.Now()
					publish(load)
					if turn == 0 || turn == 3 {
						plainTime += time.Since(start)
					} else {
						oursTime += time.Since(start)
					}
				}
			}
			b.ReportMetric(float64(plainTime)/float64(oursTime), "ratio")
			b.ReportMetric(float64(oursTime.Nanoseconds())/float64(2*events*b.N), "ns/event")
		})
	}
}

// benchWays are ways to publish events and wait until all are acknowledged.
func benchWays() map[string]func(*testing.B, *bus.Bus) func([]bus.Event) {
	return map[string]func(*testing.B, *bus.Bus) func([]bus.Event){
		"plain": benchPlain,
		"bus": func(b *testing.B, target *bus.Bus) func([]bus.Event) {
			b.Helper()
			return benchPublisher(b, target, func(e bus.Event) (bus.Event, error) { return e, nil })
		},
		"bus from bodies": func(b *testing.B, target *bus.Bus) func([]bus.Event) {
			b.Helper()
			return benchPublisher(b, target, func(e bus.Event) (bus.Event, error) {
				read, err := bus.NewEvent(e.Tenant, e.Body)
				read.ID, read.Conversation = e.ID, e.Conversation // the bodies are few
				return read, err
			})
		},
	}
}

func benchPlain(b *testing.B, target *bus.Bus) func([]bus.Event) {
	b.Helper()
	js, err := jetstream.New(target.Conn(), jetstream.WithPublishAsyncMaxPending(4096))
	require.NoError(b, err)
	return func(events []bus.Event) {
		futures := make([]jetstream.PubAckFuture, len(events))
		for i, e := range events {
			futures[i], err = js.PublishMsgAsync(plainMessage(e), jetstream.WithStallWait(time.Minute))
			require.NoError(b, err)
		}
		for _, f := range futures {
			select {
			case <-f.Ok():
			case err := <-f.Err():
				require.NoError(b, err)
			}
		}
	}
}

func benchPublisher(b *testing.B, target *bus.Bus, build func(bus.Event) (bus.Event, error)) func([]bus.Event) {
	b.Helper()
	p, err := target.NewPublisher(bus.PublisherOptions{})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, p.Close(context.WithoutCancel(b.Context()))) })
	return func(events []bus.Event) {
		pending := make([]*bus.Pending, len(events))
		for i, e := range events {
			e, err := build(e)
			require.NoError(b, err)
			pending[i], err = p.Publish(b.Context(), e)
			require.NoError(b, err)
		}
		for _, q := range pending {
			_, err := q.Receipt()
			require.NoError(b, err)
		}
	}
}

// BenchmarkNewEvent is what reading and checking a body of 6 KB costs, BenchmarkPublish "bus from bodies" on its own.
func BenchmarkNewEvent(b *testing.B) {
	raw := benchBody("e1", "c1")
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		_, err := bus.NewEvent("acme", raw)
		require.NoError(b, err)
	}
}
