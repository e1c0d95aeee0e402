package bus_test

import (
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

func benchEvents(b *testing.B) []bus.Event {
	b.Helper()
	events := make([]bus.Event, b.N)
	for i := range events {
		conversation := "c" + strconv.Itoa(i%benchConversations)
		events[i] = bus.Event{Tenant: "acme", Channel: "WEB", Name: "CUSTOMER_MESSAGE", Conversation: conversation, ID: "e" + strconv.Itoa(i)}
		if i < benchConversations {
			events[i].Body = benchBody(events[i].ID, conversation)
		} else {
			events[i].Body = events[i%benchConversations].Body
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
// a Publisher from events that are ready ("bus"), and from bodies that are decoded and checked first ("bus from bodies").
func BenchmarkPublish(b *testing.B) {
	b.Run("plain", func(b *testing.B) {
		target := benchBus(b)
		js, err := jetstream.New(target.Conn(), jetstream.WithPublishAsyncMaxPending(4096))
		require.NoError(b, err)
		events := benchEvents(b)
		b.SetBytes(int64(len(events[0].Body)))
		b.ReportAllocs()
		b.ResetTimer()
		for i := range b.N {
			_, err := js.PublishMsgAsync(plainMessage(events[i]), jetstream.WithStallWait(time.Minute))
			require.NoError(b, err)
		}
		<-js.PublishAsyncComplete()
	})
	b.Run("bus", func(b *testing.B) {
		benchPublisher(b, func(e bus.Event) (bus.Event, error) { return e, nil })
	})
	b.Run("bus from bodies", func(b *testing.B) {
		benchPublisher(b, func(e bus.Event) (bus.Event, error) {
			read, err := bus.NewEvent(e.Tenant, e.Body)
			read.ID = e.ID // the bodies are few
			return read, err
		})
	})
}

func benchPublisher(b *testing.B, build func(bus.Event) (bus.Event, error)) {
	b.Helper()
	p, err := benchBus(b).NewPublisher(bus.PublisherOptions{})
	require.NoError(b, err)
	events := benchEvents(b)
	pending := make([]*bus.Pending, 0, b.N)
	b.SetBytes(int64(len(events[0].Body)))
	b.ReportAllocs()
	b.ResetTimer()
	for _, e := range events {
		e, err := build(e)
		require.NoError(b, err)
		q, err := p.Publish(b.Context(), e)
		require.NoError(b, err)
		pending = append(pending, q)
	}
	require.NoError(b, p.Close(b.Context()))
	b.StopTimer()
	for _, q := range pending {
		_, err := q.Receipt()
		require.NoError(b, err)
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
