package bus_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/subjects"
)

// BenchmarkStoredEventLine writes the line of an event of 1.5 KiB, as export and replay do, beside copying its body.
func BenchmarkStoredEventLine(b *testing.B) {
	body := fmt.Appendf(nil, `{"id":"0190b1a2","name":"CUSTOMER_MESSAGE","conversationId":"c1","data":{"body":{"type":"PLAIN","markdownText":"%s"},"header":{"n":[1,2,3],"a":{"b":{"c":null}}}}}`,
		strings.Repeat("Good day, my order has not come yet. ", 36))
	e := bus.StoredEvent{
		RawStreamMsg: &jetstream.RawStreamMsg{
			Subject: "cim.acme.web.CUSTOMER_MESSAGE", Sequence: 123456, Time: time.Unix(1767000000, 123456789), Data: body,
			Header: nats.Header{
				"Nats-Msg-Id": {"acme:CUSTOMER_MESSAGE:0190b1a2"}, "Nats-Expected-Stream": {"CIM_EVENTS"}, bus.HeaderConversation: {"c1"},
				bus.HeaderChannel: {"WEB"}, bus.HeaderEventID: {"0190b1a2"}, bus.HeaderEventName: {"CUSTOMER_MESSAGE"},
			},
		},
		Name: subjects.Event{Tenant: "acme", Channel: "web", Event: "CUSTOMER_MESSAGE"}, Conversation: "c1", ID: "0190b1a2",
	}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	var line []byte
	for b.Loop() {
		line = e.AppendJSON(line[:0])
	}
}
