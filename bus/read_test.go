package bus_test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

func sequences(t testing.TB, b *bus.Bus, r bus.Range) []uint64 {
	t.Helper()
	var out []uint64
	for m, err := range b.Read(t.Context(), r) {
		require.NoError(t, err)
		out = append(out, m.Sequence)
	}
	return out
}

func TestReadIsCompleteWhateverHeadersAStoredMessageHas(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	forged := []nats.Header{
		{"Status": {"204"}, "Description": {"EOB"}},
		{"Status": {"404"}},
		{"Status": {"503"}},
		{"Nats-Sequence": {"7"}},
		{"Nats-Sequence": {"not a number"}},
		{"Nats-Sequence": {"1", "2"}, "Nats-Subject": {"cim-agent.acme.ben.onCimEvent.x"}, "Nats-Time-Stamp": {"1999-01-01T00:00:00Z"}},
		{"Nats-Num-Pending": {"0"}, "Nats-Last-Sequence": {"99"}, "Nats-Stream": {"OTHER"}},
		{"traceparent": {"00-abc"}},
		{},
	}
	subject := deliverySubject("ada", "taskRequest", "")
	for range 3 {
		for _, h := range forged {
			sent := nats.Header{}
			maps.Copy(sent, h)
			r.publish(&nats.Msg{Subject: subject, Header: sent})
		}
		r.publish(&nats.Msg{Subject: deliverySubject("ben", "taskRequest", ""), Data: []byte("x")})
	}
	n := 0
	for m, err := range r.bus.Read(t.Context(), bus.Range{Stream: bus.StreamDeliveries, Filter: subject}) {
		require.NoError(t, err)
		want := forged[n%len(forged)]
		require.Equal(t, uint64(n+1+n/len(forged)), m.Sequence)
		require.Equal(t, subject, m.Subject)
		require.WithinDuration(t, time.Now(), m.Time, time.Minute)
		require.Len(t, m.Header, len(want))
		for k, v := range want {
			require.Equal(t, v, m.Header[k], k)
		}
		n++
	}
	require.Equal(t, 3*len(forged), n)
}

func TestReadKeepsToItsRange(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	for s := range uint64(30) {
		r.deliver([]string{"ada", "ben"}[s%2], "c", s+1)
	}
	ada := deliverySubject("ada", "onCimEvent", "c")
	for _, c := range []struct {
		in   bus.Range
		want []uint64
	}{
		{bus.Range{From: 25}, []uint64{25, 27, 29}},
		{bus.Range{From: 24, Upto: 28}, []uint64{25, 27}},
		{bus.Range{Upto: 1}, []uint64{1}},
		{bus.Range{From: 2, Upto: 2}, nil},
		{bus.Range{From: 31}, nil},
		{bus.Range{From: 20, Batch: 1}, []uint64{21, 23, 25, 27, 29}},
		{bus.Range{From: 20, Upto: 25, Batch: 3, MaxBytes: 1}, []uint64{21, 23, 25}},
	} {
		c.in.Stream, c.in.Filter = bus.StreamDeliveries, ada
		require.Equal(t, c.want, sequences(t, r.bus, c.in), "%+v", c.in)
	}
}

func TestReadNeedsNoDirectReads(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	_, err := r.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "PLAIN", Subjects: []string{"plain.>"}})
	require.NoError(t, err)
	for i := range 5 {
		r.publish(&nats.Msg{Subject: fmt.Sprintf("plain.%d", i)})
	}
	require.Equal(t, []uint64{1, 2, 3, 4, 5}, sequences(t, r.bus, bus.Range{Stream: "PLAIN", Filter: "plain.>"}))
}

func TestReadOnAClusterNeverMissesWhatWasJustAcknowledged(t *testing.T) {
	nodes := bustest.Cluster(t, 3)
	nc, err := nodes.Connect()
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	b, err := bus.Open(t.Context(), bus.Options{Conn: nc})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close(t.Context())) })
	subject := deliverySubject("ada", "onCimEvent", "c")
	for range 200 {
		ack, err := b.JetStream().PublishMsg(t.Context(), &nats.Msg{Subject: subject, Header: sequenceHeader(1)})
		require.NoError(t, err)
		require.Equal(t, []uint64{ack.Sequence}, sequences(t, b, bus.Range{Stream: bus.StreamDeliveries, Filter: subject, From: ack.Sequence}))
	}
}
