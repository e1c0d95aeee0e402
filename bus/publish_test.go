package bus_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/subjects"
)

// body is a CIM event of a conversation.
func body(id, conversation string) []byte {
	return fmt.Appendf(nil, `{"id":%q,"name":"CUSTOMER_MESSAGE","type":"MESSAGE","conversationId":%q,`+
		`"channelSession":{"channel":{"channelType":{"name":"WEB"}}},"data":{"big":9007199254740993, "z":1,"a":2}}`, id, conversation)
}

func event(t testing.TB, id, conversation string) bus.Event {
	t.Helper()
	e, err := bus.NewEvent("acme", body(id, conversation))
	require.NoError(t, err)
	return e
}

func firstEvent(t testing.TB, b *bus.Bus) *jetstream.RawStreamMsg {
	t.Helper()
	m, err := b.MessageAt(t.Context(), bus.StreamEvents, 1)
	require.NoError(t, err)
	return m
}

func TestAPublishedEventIsStoredByteForByteUnderItsSubjectAndHeaders(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	raw := body("e1", "c1")
	e, err := bus.NewEvent("acme", raw, bus.WithHeader(nats.Header{
		"traceparent": {"00-1-2-01"}, "tracestate": {"a=b"}, "Nats-Rollup": {"all"}, "Cim-Sequence": {"7"}, "cim-handler": {"x"},
	}))
	require.NoError(t, err)
	receipt, err := b.Publish(t.Context(), e)
	require.NoError(t, err)
	require.Equal(t, bus.Receipt{Subject: "cim.acme.web.CUSTOMER_MESSAGE", Stream: "CIM_EVENTS", Sequence: 1}, receipt)

	m := firstEvent(t, b)
	require.Equal(t, receipt.Subject, m.Subject)
	require.Equal(t, raw, m.Data)
	require.Equal(t, nats.Header{
		"Nats-Msg-Id": {"acme:CUSTOMER_MESSAGE:e1"}, "Nats-Expected-Stream": {"CIM_EVENTS"},
		"Cim-Conversation-Id": {"c1"}, "Cim-Channel": {"WEB"}, "Cim-Event-Id": {"e1"}, "Cim-Event-Name": {"CUSTOMER_MESSAGE"},
		"traceparent": {"00-1-2-01"}, "tracestate": {"a=b"},
	}, m.Header)
}

func TestTheWrapperIsPublishedAsItIs(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	raw := []byte(`{ "cimEvent" : "{\"id\":\"e1\",\"name\":\"HAND_RAISED\"}", "conversationId":"c9" }`)
	e, err := bus.NewEvent("acme", raw)
	require.NoError(t, err)
	require.Equal(t, bus.Event{Tenant: "acme", Name: "HAND_RAISED", Conversation: "c9", ID: "e1", Body: raw}, e)
	receipt, err := b.Publish(t.Context(), e)
	require.NoError(t, err)
	require.Equal(t, "cim.acme._.HAND_RAISED", receipt.Subject)
	require.Equal(t, raw, firstEvent(t, b).Data)
}

func TestPublishingAgainStoresNothingAndSaysSo(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	first, err := b.Publish(t.Context(), event(t, "e1", "c1"))
	require.NoError(t, err)
	require.False(t, first.Duplicate)
	again, err := b.Publish(t.Context(), event(t, "e1", "c1"))
	require.NoError(t, err)
	require.True(t, again.Duplicate)
	require.Equal(t, first.Sequence, again.Sequence)
	other, err := b.Publish(t.Context(), event(t, "e2", "c1"))
	require.NoError(t, err)
	require.EqualValues(t, 2, other.Sequence)
}

func TestEventsThatCannotBePublishedNameFieldAndRemedy(t *testing.T) {
	good := string(body("e1", "c1"))
	long := strings.Repeat("x", subjects.MaxToken+1)
	tests := map[string]struct {
		tenant, body string
		opts         []bus.EventOption
		reason       string   // of the *cim.Error
		field        string   // of the *subjects.Error
		says         []string // in the message
	}{
		"not JSON":               {body: `{"id":"e1",`, reason: cim.ReasonNotJSON, says: []string{"byte 11"}},
		"array":                  {body: `[` + good + `]`, reason: cim.ReasonNotAnEvent},
		"empty":                  {body: ``, reason: cim.ReasonNotJSON},
		"no name":                {body: `{"id":"e1","conversationId":"c1"}`, reason: cim.ReasonNoName, says: []string{"name"}},
		"no id":                  {body: `{"name":"X","conversationId":"c1"}`, reason: cim.ReasonNoID, says: []string{"id"}},
		"no conversation":        {body: `{"name":"X","id":"e1"}`, reason: cim.ReasonNoConversation, says: []string{"conversationId", "Cim-Conversation-Id"}},
		"another name":           {body: good, opts: []bus.EventOption{bus.Named("AGENT_MESSAGE")}, reason: bus.ReasonSubjectMismatch, says: []string{"AGENT_MESSAGE", "CUSTOMER_MESSAGE"}},
		"no tenant":              {tenant: "-", body: good, field: "tenant"},
		"over-long tenant":       {tenant: long, body: good, field: "tenant"},
		"over-long channel":      {body: good, opts: []bus.EventOption{bus.OnChannel(long)}, field: "channel"},
		"over-long conversation": {body: good, opts: []bus.EventOption{bus.InConversation(long)}, field: "conversation"},
		"broken conversation":    {body: good, opts: []bus.EventOption{bus.InConversation("c\r\nNats-Rollup: all")}, reason: cim.ReasonNoConversation},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			tenant := "acme"
			if test.tenant != "" {
				tenant = strings.TrimPrefix(test.tenant, "-")
			}
			_, err := bus.NewEvent(tenant, []byte(test.body), test.opts...)
			require.ErrorIs(t, err, bus.ErrInvalidEvent)
			if test.field != "" {
				var refused *subjects.Error
				require.ErrorAs(t, err, &refused)
				require.Equal(t, test.field, refused.Field)
			} else {
				var refused *cim.Error
				require.ErrorAs(t, err, &refused)
				require.Equal(t, test.reason, refused.Reason)
				require.NotEmpty(t, refused.Remedy)
			}
			for _, s := range test.says {
				require.ErrorContains(t, err, s)
			}
		})
	}
}

func TestAnyByteInANameIsEncodedAndNoneBecomesAWildcardOrToken(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	raw := []byte(`{"id":"a.b *>\n:é","name":"X.>*","conversationId":"c.*"}`)
	e, err := bus.NewEvent("ten.ant", raw, bus.OnChannel("CX VOICE."))
	require.NoError(t, err)
	receipt, err := b.Publish(t.Context(), e)
	require.NoError(t, err)
	require.Equal(t, "cim.ten=2Eant.cx=20voice=2E.X=2E=3E=2A", receipt.Subject)
	m := firstEvent(t, b)
	require.Equal(t, "ten=2Eant:X=2E=3E=2A:a=2Eb=20=2A=3E=0A=3A=C3=A9", m.Header.Get("Nats-Msg-Id"))
	require.Equal(t, "CX VOICE.", m.Header.Get("Cim-Channel"))
	require.Empty(t, m.Header.Get("Cim-Event-Id"), "a header cannot carry it")
	require.Equal(t, raw, m.Data)
}

func TestAnIdOfAnyLengthIsAccepted(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	long := strings.Repeat("é", 500)
	for _, id := range []string{long, long + "2"} {
		receipt, err := b.Publish(t.Context(), event(t, id, "c1"))
		require.NoError(t, err)
		require.False(t, receipt.Duplicate)
		receipt, err = b.Publish(t.Context(), event(t, id, "c1"))
		require.NoError(t, err)
		require.True(t, receipt.Duplicate)
	}
}

func TestAFullStreamRefusesAndKeepsWhatItHas(t *testing.T) {
	b := testBus(t, bus.StreamOptions{MaxBytes: 100_000})
	var stored uint64
	var err error
	for i := range 1000 {
		var receipt bus.Receipt
		if receipt, err = b.Publish(t.Context(), event(t, fmt.Sprint(i), "c1")); err != nil {
			break
		}
		stored = receipt.Sequence
	}
	require.ErrorIs(t, err, bus.ErrStoreFull)
	require.NotErrorIs(t, err, bus.ErrUnknownOutcome)
	require.Positive(t, stored)
	firstEvent(t, b)
}

func TestAnEventAboveALimitIsTooLarge(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	for name, size := range map[string]int{"of the stream": 1<<20 + 4<<10, "of the server": 5 << 20} {
		t.Run(name, func(t *testing.T) {
			raw := fmt.Appendf(nil, `{"id":"e1","name":"X","conversationId":"c1","data":%q}`, strings.Repeat("x", size))
			e, err := bus.NewEvent("acme", raw)
			require.NoError(t, err)
			_, err = b.Publish(t.Context(), e)
			require.ErrorIs(t, err, bus.ErrTooLarge)
		})
	}
}

func TestPublishingWithoutItsStreamFailsSoonAndForSure(t *testing.T) {
	b, err := tryOpen(t, bus.Options{Conn: testConn(t, bustest.Server(t)), LeaveStreams: true})
	require.NoError(t, err)
	_, err = b.Publish(t.Context(), event(t, "e1", "c1"))
	require.ErrorIs(t, err, bus.ErrNoStream)

	_, err = b.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"cim.>"}})
	require.NoError(t, err)
	_, err = b.Publish(t.Context(), event(t, "e1", "c1"))
	require.ErrorIs(t, err, bus.ErrNoStream, "another stream is bound")
}

// standIn opens a bus on a server where this function stands in for the stream.
func standIn(t testing.TB, answer func(*nats.Msg)) *bus.Bus {
	t.Helper()
	nc := testConn(t, bustest.Server(t))
	b, err := tryOpen(t, bus.Options{Conn: nc, LeaveStreams: true})
	require.NoError(t, err)
	_, err = nc.Subscribe(subjects.AllEvents, answer)
	require.NoError(t, err)
	return b
}

// silent opens a bus whose stream takes events and never answers.
func silent(t testing.TB) *bus.Bus {
	t.Helper()
	return standIn(t, func(*nats.Msg) {})
}

func TestAPublishWithoutAnAnswerIsUnknownNotFailed(t *testing.T) {
	b := silent(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := b.Publish(ctx, event(t, "e1", "c1"))
	require.ErrorIs(t, err, bus.ErrUnknownOutcome)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestAPublishThatWasNeverSentIsNotUnknown(t *testing.T) {
	s := bustest.Server(t, listening)
	nc, err := nats.Connect(s.NATSURL(), nats.MaxReconnects(-1))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	b := openOn(t, nc, bus.StreamOptions{})
	require.NoError(t, s.Shutdown(t.Context()))
	require.Eventually(t, func() bool { return !nc.IsConnected() }, patience, time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = b.Publish(ctx, event(t, "e1", "c1"))
	require.ErrorIs(t, err, bus.ErrUnreachable)
	require.NotErrorIs(t, err, bus.ErrUnknownOutcome)
	nc.Close()
	_, err = b.Publish(t.Context(), event(t, "e1", "c1"))
	require.ErrorIs(t, err, bus.ErrClosed)
}

func TestAClosedBusPublishesNothing(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	require.NoError(t, b.Close(t.Context()))
	_, err := b.Publish(t.Context(), event(t, "e1", "c1"))
	require.ErrorIs(t, err, bus.ErrClosed)
	require.True(t, b.Conn().IsConnected(), "what it was given stays open")
}

func TestPublishOutlivesAnOutageAndStoresOnce(t *testing.T) {
	b, proxy := proxied(t, bus.StreamOptions{})
	stored := map[uint64]bool{}
	for i := range 8 {
		switch i % 4 {
		case 0:
			proxy.Cut()
		case 2:
			proxy.Down()
			time.AfterFunc(50*time.Millisecond, proxy.Up)
		}
		receipt, err := b.Publish(t.Context(), event(t, fmt.Sprint(i), "c1"))
		require.NoError(t, err)
		require.False(t, receipt.Duplicate)
		require.False(t, stored[receipt.Sequence])
		stored[receipt.Sequence] = true
	}
	streams, err := b.Streams(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 8, streams[0].Messages)
}

func TestAPublishTheServerForbidsIsToldSo(t *testing.T) {
	s := bustest.Server(t, func(o *embedded.Options) {
		o.NATSAddr = "127.0.0.1:0"
		o.Configure = func(so *server.Options) {
			so.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"cim.acme.>"}}}}}
		}
	})
	nc, err := nats.Connect(s.NATSURL(), nats.UserInfo("u", "p"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	b := openOn(t, nc, bus.StreamOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = b.Publish(ctx, event(t, "e1", "c1"))
	require.ErrorIs(t, err, bus.ErrUnauthorized)
	require.ErrorContains(t, err, "cim.acme.web.CUSTOMER_MESSAGE")
}

func TestAReceiptIsWrittenWithTheNamesOfTheCommandLine(t *testing.T) {
	out, err := json.Marshal(bus.Receipt{Subject: "s", Stream: "CIM_EVENTS", Sequence: 3, Duplicate: true})
	require.NoError(t, err)
	require.JSONEq(t, `{"subject":"s","stream":"CIM_EVENTS","seq":3,"duplicate":true}`, string(out))
	require.NotErrorIs(t, bus.ErrStoreFull, bus.ErrUnknownOutcome)
}
