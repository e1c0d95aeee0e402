package subjects_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/subjects"
)

var (
	event    = subjects.Event{Tenant: "acme", Channel: "CX_VOICE", Event: "CHANNEL_SESSION_STARTED"}
	delivery = subjects.Delivery{Tenant: "acme", Agent: "5a3c9a2e-8f0b-4d53-9a57-0c6d1f7e2b11", Type: "onCimEvent", Conversation: "65b3ad183b5e4c0012345678"}
	encoded  = subjects.Delivery{Tenant: "acme", Agent: "zoë.marsh@acme.example", Type: "onCimEvent", Conversation: "65b3ad183b5e4c0012345678"}
)

func TestBuildingAllocatesTheSubjectAloneAndParsingNothing(t *testing.T) {
	in := subjects.Inbox{Tenant: "acme", Agent: delivery.Agent}
	for what, c := range map[string]struct {
		want float64
		run  func()
	}{
		"build event":    {1, func() { _, _ = event.Subject() }},
		"build delivery": {1, func() { _, _ = delivery.Subject() }},
		"build encoded":  {1, func() { _, _ = encoded.Subject() }},
		"build filter":   {1, func() { _, _ = subjects.EventFilter{Tenant: subjects.Is("acme")}.Subject() }},
		"parse event":    {0, func() { _, _ = subjects.ParseEvent("cim.acme.cx_voice.CHANNEL_SESSION_STARTED") }},
		"parse delivery": {0, func() { _, _ = subjects.ParseDelivery("cim-agent.acme.a-1.onCimEvent.65b3ad183b5e4c0012345678") }},
		"inbox":          {0, func() { in.Contains("cim-inbox.acme.5a3c9a2e-8f0b-4d53-9a57-0c6d1f7e2b11.x.1") }},
		"encode plain":   {0, func() { _, _ = subjects.Encode("CHANNEL_SESSION_STARTED") }},
	} {
		require.LessOrEqual(t, testing.AllocsPerRun(100, c.run), c.want, what)
	}
}

func BenchmarkEventSubject(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, _ = event.Subject()
	}
}

func BenchmarkParseEvent(b *testing.B) {
	s, err := event.Subject()
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = subjects.ParseEvent(s)
	}
}

func BenchmarkDeliverySubject(b *testing.B) {
	for name, d := range map[string]subjects.Delivery{"plain": delivery, "encoded": encoded} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = d.Subject()
			}
		})
	}
}

func BenchmarkParseDelivery(b *testing.B) {
	for name, d := range map[string]subjects.Delivery{"plain": delivery, "encoded": encoded} {
		s, err := d.Subject()
		require.NoError(b, err)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = subjects.ParseDelivery(s)
			}
		})
	}
}

func BenchmarkInboxContains(b *testing.B) {
	in := subjects.Inbox{Tenant: "acme", Agent: delivery.Agent}
	b.ReportAllocs()
	for b.Loop() {
		in.Contains("cim-inbox.acme.5a3c9a2e-8f0b-4d53-9a57-0c6d1f7e2b11.2ZsGqUPfwUbcJVrnCPbgoz.1")
	}
}
