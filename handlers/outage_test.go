package handlers_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

func TestOutagesConsumeNoAttemptAndAreLoggedLessThanOnceASecond(t *testing.T) {
	server := bustest.Server(t, func(o *embedded.Options) { o.NATSAddr = "127.0.0.1:0" })
	publisher := openBusOn(t, bus.Options{URL: server.NATSURL()})
	proxy := bustest.NewProxy(t, server.NATSURL())
	var mu sync.Mutex
	var log bytes.Buffer
	b := openBusOn(t, bus.Options{URL: proxy.URL(), LeaveStreams: true, NATS: []nats.Option{nats.IgnoreDiscoveredServers()}, Logger: hclog.New(&hclog.LoggerOptions{
		Output: &log, Mutex: &mu, JSONFormat: true, Level: hclog.Info,
	})})
	h := oncimevent.New(oncimevent.Options{})
	h.Retry = handlers.RetryPolicy{Attempts: 1}
	start(t, b, h)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	tr := startTraffic(t, publisher, seed, 200, time.Millisecond)
	began := time.Now()
	for range 4 {
		tr.sentMore(t, 50)
		proxy.Down()
		elapse(500 * time.Millisecond)
		proxy.Up()
		tr.sentMore(t, 50)
		for range 10 { // it comes and goes
			proxy.Cut()
			elapse(20 * time.Millisecond)
		}
	}
	tr.end(t)
	drained(t, publisher)
	audit(t, publisher)
	lasted := time.Since(began)

	type kind struct {
		Module  string `json:"@module"`
		Message string `json:"@message"`
		Cause   string `json:"cause"`
	}
	lines := map[kind]int{}
	mu.Lock()
	defer mu.Unlock()
	for d := json.NewDecoder(&log); d.More(); {
		var k kind
		require.NoError(t, d.Decode(&k))
		if k.Cause != "" {
			lines[k]++
		}
	}
	t.Logf("lines in %v: %v", lasted, lines)
	for k, n := range lines {
		assert.LessOrEqual(t, n, 1+int(lasted.Seconds()), "in %v: %+v", lasted, k)
	}
}
