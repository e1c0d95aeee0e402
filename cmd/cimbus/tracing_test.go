package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/cimbus/cimbus/bus/bustest"
)

// spanSink is an OTLP collector over HTTP.
type spanSink struct {
	*httptest.Server
	refuses atomic.Bool
	batches atomic.Int64

	mu       sync.Mutex
	paths    map[string]bool
	resource map[string]string
	spans    []*tracepb.Span
}

func newSpanSink(t *testing.T) *spanSink {
	t.Helper()
	s := &spanSink{paths: map[string]bool{}, resource: map[string]string{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer s.batches.Add(1)
		body, err := io.ReadAll(r.Body)
		var request collectorpb.ExportTraceServiceRequest
		if err != nil || proto.Unmarshal(body, &request) != nil || s.refuses.Load() {
			http.Error(w, strings.Repeat("no, thank you ", 1000), http.StatusForbidden)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.paths[r.Method+" "+r.URL.Path] = true
		for _, rs := range request.GetResourceSpans() {
			for _, a := range rs.GetResource().GetAttributes() {
				s.resource[a.GetKey()] = a.GetValue().GetStringValue()
			}
			for _, ss := range rs.GetScopeSpans() {
				s.spans = append(s.spans, ss.GetSpans()...)
			}
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// named are the spans of a name that came so far.
func (s *spanSink) named(name string) []*tracepb.Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*tracepb.Span
	for _, span := range s.spans {
		if span.GetName() == name {
			found = append(found, span)
		}
	}
	return found
}

func spanAttribute(s *tracepb.Span, key string) *commonpb.AnyValue {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == key {
			return a.GetValue()
		}
	}
	return nil
}

// serveTraced starts a daemon whose spans go to a collector.
func serveTraced(t *testing.T, endpoint string, more ...string) served {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cimbus.yaml")
	lines := append([]string{"tracing: {endpoint: '" + endpoint + "'}"}, more...)
	require.NoError(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600))
	return serve(t, "--config", file)
}

const (
	tracedTrace  = "0af7651916cd43dd8448eb211c80319c"
	tracedParent = "b7ad6b7169203331"
)

func TestOneEventsPublishHandleAndDeliverAreOneTraceThatTheCollectorHasWhenTheDaemonEnds(t *testing.T) {
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
	sink := newSpanSink(t)
	d := serveTraced(t, sink.URL)
	d.do(t, "", "conversation", "join", "--tenant", "acme", "--conversation", "c1", "--agent", "ada")

	nc, err := nats.Connect(d.NATS)
	require.NoError(t, err)
	defer nc.Close()
	live, err := nc.SubscribeSync("cim-live.acme.ada.>")
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	answer := &nats.Msg{}
	// The member's record is written a moment after the join is stored.
	bustest.Eventually(t, patience, func() error {
		answer, err = nc.RequestMsg(&nats.Msg{
			Subject: "cim-ctl.acme.ada.publish", Header: nats.Header{"traceparent": {"00-" + tracedTrace + "-" + tracedParent + "-01"}, "tracestate": {"desk=1"}},
			Data: []byte(`{"event":{"id":"secret-free","name":"AGENT_MESSAGE","conversationId":"c1","data":{"text":"a payload"}}}`),
		}, patience)
		if err == nil && !strings.Contains(string(answer.Data), `"seq"`) {
			err = fmt.Errorf("answered %s", answer.Data)
		}
		return err
	})
	var delivered *nats.Msg
	for delivered == nil || delivered.Header.Get("Cim-Event-Id") != "secret-free" {
		delivered, err = live.NextMsg(patience)
		require.NoError(t, err)
	}
	d.interrupt()
	require.Zero(t, d.wait(), d.stderr.String())

	one := func(name string) *tracepb.Span {
		var found []*tracepb.Span
		for _, s := range sink.named(name) {
			if hex.EncodeToString(s.GetTraceId()) == tracedTrace {
				found = append(found, s)
			}
		}
		require.Len(t, found, 1, name)
		return found[0]
	}
	publish, handle, deliver := one("publish"), one("handle"), one("deliver")
	require.Equal(t, tracedParent, hex.EncodeToString(publish.GetParentSpanId()))
	require.Equal(t, publish.GetSpanId(), handle.GetParentSpanId())
	require.Equal(t, handle.GetSpanId(), deliver.GetParentSpanId())
	require.Equal(t, "00-"+tracedTrace+"-"+hex.EncodeToString(deliver.GetSpanId())+"-01", delivered.Header.Get("traceparent"))
	require.Equal(t, "desk=1", delivered.Header.Get("tracestate"))
	require.Equal(t, tracepb.Span_SPAN_KIND_PRODUCER, publish.GetKind())
	require.Equal(t, tracepb.Span_SPAN_KIND_CONSUMER, handle.GetKind())
	require.Equal(t, tracepb.Span_SPAN_KIND_PRODUCER, deliver.GetKind())
	require.Equal(t, "onCimEvent", spanAttribute(handle, "cim.handler").GetStringValue())
	require.Equal(t, "delivered", spanAttribute(handle, "cim.outcome").GetStringValue())
	for _, s := range sink.spans {
		require.NotContains(t, s.String(), "a payload")
		require.Equal(t, "nats", spanAttribute(s, "messaging.system").GetStringValue())
		require.Equal(t, "acme", spanAttribute(s, "cim.tenant").GetStringValue())
	}
	require.Equal(t, map[string]bool{"POST /v1/traces": true}, sink.paths)
	require.Equal(t, "cimbus", sink.resource["service.name"])
	require.Equal(t, "test", sink.resource["deployment.environment.name"])
}

func TestTheServicesNameAndTheCollectorsPathAreTheOperatorsToChoose(t *testing.T) {
	t.Setenv("OTEL_SERVICE_NAME", "front-office-bus")
	sink := newSpanSink(t)
	d := serveTraced(t, sink.URL+"/spans/here")
	d.do(t, "", "conversation", "join", "--tenant", "acme", "--conversation", "c1", "--agent", "ada")
	d.do(t, "", "agent", "--tenant", "acme", "--agent", "ada", "--after", "0", "--count", "1")
	d.interrupt()
	require.Zero(t, d.wait(), d.stderr.String())
	require.NotEmpty(t, sink.named("deliver"))
	require.Equal(t, map[string]bool{"POST /spans/here": true}, sink.paths)
	require.Equal(t, "front-office-bus", sink.resource["service.name"])
}

func TestACollectorThatTakesNoSpansIsOneLineAndItsReturnAnother(t *testing.T) {
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "5")
	sink := newSpanSink(t)
	sink.refuses.Store(true)
	d := serveTraced(t, sink.URL)
	agent := 0
	sent := func(n int64) {
		bustest.Eventually(t, patience, func() error {
			agent++
			d.do(t, "", "conversation", "join", "--tenant", "acme", "--conversation", "c1", "--agent", fmt.Sprint("agent-", agent))
			if got := sink.batches.Load(); got < n {
				return fmt.Errorf("%d of %d batches", got, n)
			}
			return nil
		})
	}
	sent(3)
	sink.refuses.Store(false)
	d.saw(&d.stderr, "takes no spans")
	sent(sink.batches.Load() + 3)
	d.interrupt()
	require.Zero(t, d.wait())
	log := d.stderr.String()
	require.Equal(t, 1, strings.Count(log, "takes no spans"), log)
	require.Equal(t, 1, strings.Count(log, "takes spans again"), log)
	require.NotContains(t, log, strings.Repeat("no, thank you ", 30), "an answer is not the log's to repeat in full")
	require.NotEmpty(t, sink.spans)
}

func TestACollectorThatNeverAnswersHoldsUpNeitherEventsNorTheEnd(t *testing.T) {
	// Only the daemon's own limit ends the waiting.
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_BSP_EXPORT_TIMEOUT"} {
		t.Setenv(name, fmt.Sprint(time.Hour.Milliseconds()))
	}
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
	t.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
	asked, over := make(chan struct{}, 1000), make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-r.Context().Done():
		case <-over:
		}
	}))
	t.Cleanup(silent.Close)
	d := serveTraced(t, silent.URL, "shutdown: {timeout: 2s}")
	t.Cleanup(func() { close(over) }) // before the daemon is waited for, which would wait for it
	d.do(t, "", "conversation", "join", "--tenant", "acme", "--conversation", "c1", "--agent", "ada")
	<-asked
	var events strings.Builder
	for i := range 100 {
		fmt.Fprintf(&events, `{"id":"e%d","name":"CUSTOMER_MESSAGE","conversationId":"c1"}`+"\n", i)
	}
	d.do(t, events.String(), "publish", "--tenant", "acme", "--channel", "web")
	d.do(t, "", "agent", "--tenant", "acme", "--agent", "ada", "--after", "0", "--count", "101")
	d.interrupt()
	require.Zero(t, d.wait(), d.stderr.String())
}
