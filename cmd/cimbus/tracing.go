package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/cimbus/cimbus/config"
)

// tracing sends the bus's spans to a collector. nil is none.
type tracing struct {
	spans *sdktrace.TracerProvider
	to    *collector
}

// startTracing returns nil where no collector is configured. Whether one is there is found out when there are spans to send.
func startTracing(ctx context.Context, c config.Tracing, log hclog.Logger) (*tracing, error) {
	if c.Endpoint == "" {
		return nil, nil
	}
	endpoint, err := url.Parse(c.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	if strings.Trim(endpoint.Path, "/") == "" {
		endpoint.Path = "/v1/traces"
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(endpoint.String()))
	if err != nil {
		return nil, fmt.Errorf("tracing: %w: check tracing.endpoint and the OTEL_EXPORTER_OTLP_* variables", err)
	}
	// What the environment says comes last and so first.
	about, err := resource.New(ctx, resource.WithHost(), resource.WithProcessPID(), resource.WithTelemetrySDK(),
		resource.WithAttributes(semconv.ServiceName("cimbus"), semconv.ServiceVersion(readBuild().Version)), resource.WithFromEnv())
	if err != nil {
		log.Warn("spans tell less of this process than they could", "error", err)
	}
	to := &collector{SpanExporter: exporter, log: log.With("endpoint", endpoint.String())}
	to.ctx, to.abort = context.WithCancel(context.WithoutCancel(ctx))
	to.log.Info("spans are sent to a collector", "sample", c.Sample)
	return &tracing{to: to, spans: sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(to), sdktrace.WithResource(about),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(c.Sample))),
	)}, nil
}

// provider is what makes the spans, nil where there are none.
func (t *tracing) provider() trace.TracerProvider {
	if t == nil {
		return nil
	}
	return t.spans
}

// stop sends what is left, within limit and ctx. What a collector does not take by then is lost, which is no reason to fail.
func (t *tracing) stop(ctx context.Context, limit time.Duration) {
	if t == nil {
		return
	}
	flushing, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer t.to.abort()
	release := context.AfterFunc(flushing, t.to.abort)
	defer release()
	// It waits for the exporter, which ends with flushing at the latest.
	if err := t.spans.Shutdown(context.WithoutCancel(ctx)); err != nil {
		t.to.log.Warn("the last spans were not sent", "error", err)
	}
}

// collector is where spans are sent to. One that is not there or takes none is a line in the log when that begins and one when it
// is over. Neither it nor its log may hold up the bus: spans that find no place in the queue before it are dropped.
type collector struct {
	sdktrace.SpanExporter
	log   hclog.Logger
	ctx   context.Context // ends what is being sent
	abort context.CancelFunc

	lost int // spans since the last that were taken
}

// maxCollectorError bounds what of a collector's answer is logged, in bytes.
const maxCollectorError = 300

// ExportSpans sends a batch; the SDK calls it for one at a time. It returns no error: the SDK would have every one printed by a
// handler that all of the process shares.
func (c *collector) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	release := context.AfterFunc(c.ctx, cancel)
	defer release()
	err := c.SpanExporter.ExportSpans(ctx, spans)
	switch {
	case err != nil:
		if c.lost == 0 {
			text := err.Error()
			c.log.Warn("the collector takes no spans, they are lost until it does", "error", text[:min(len(text), maxCollectorError)])
		}
		c.lost += len(spans)
	case c.lost > 0:
		c.log.Warn("the collector takes spans again", "lost", c.lost)
		c.lost = 0
	}
	return nil
}
