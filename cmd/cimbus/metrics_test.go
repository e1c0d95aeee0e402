package main

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/subjects"
)

// series are the values of a scrape, by name and labels as they are written.
type series map[string]float64

func (s served) scrape(t *testing.T) series {
	t.Helper()
	code, body := s.get(t, "/metrics")
	require.Equal(t, http.StatusOK, code, body)
	all := series{}
	for line := range strings.Lines(body) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[at+1:], 64)
		require.NoError(t, err, line)
		require.NotContains(t, all, line[:at])
		all[line[:at]] = value
	}
	return all
}

// shows waits until the metrics have these values.
func (s served) shows(t *testing.T, want series) {
	t.Helper()
	bustest.Eventually(t, patience, func() error {
		got := s.scrape(t)
		for name, value := range want {
			if have, ok := got[name]; !ok || have != value {
				return fmt.Errorf("%s is %v (%t), not %v", name, have, ok, value)
			}
		}
		return nil
	})
}

// ask sends a request as an agent and returns the first message of the answer.
func ask(t *testing.T, nc *nats.Conn, tenant, agent, verb, body string) string {
	t.Helper()
	subject, err := subjects.Control{Tenant: tenant, Agent: agent, Verb: verb}.Subject()
	require.NoError(t, err)
	answer, err := nc.Request(subject, []byte(body), patience)
	require.NoError(t, err)
	return string(answer.Data)
}

func (s served) connect(t *testing.T) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.NATS)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	return nc
}

func TestTheMetricsAgreeWithWhatHappened(t *testing.T) {
	d := serve(t)
	nc := d.connect(t)
	for tenant, agents := range map[string][]string{"acme": {"ann", "bob"}, "globex": {"ann"}} {
		for _, agent := range agents {
			require.Contains(t, ask(t, nc, tenant, agent, bus.VerbJoin, `{"conversation":"c1"}`), `"seq":`)
		}
	}
	_, err := nc.SubscribeSync("cim-live.acme.ann.>")
	require.NoError(t, err)
	_, err = nc.SubscribeSync("cim-live.acme.ann.onCimEvent.c1") // the same agent
	require.NoError(t, err)
	d.shows(t, series{`cimbus_events_handled_total{handler="onCimEvent",outcome="delivered",tenant="acme"}`: 2})

	// acme: one event an agent publishes twice, two that a service does, one that is typed, two that are poison.
	const event = `{"event":{"id":"a1","name":"AGENT_MESSAGE","conversationId":"c1"}}`
	require.Contains(t, ask(t, nc, "acme", "ann", bus.VerbPublish, event), `"duplicate":false`)
	require.Contains(t, ask(t, nc, "acme", "ann", bus.VerbPublish, event), `"duplicate":true`)
	require.Contains(t, ask(t, nc, "acme", "ann", bus.VerbPublish, `{"event":{"id":"x","name":"A","conversationId":"c1","more":"`+strings.Repeat("x", 2<<20)+`"}}`), "too-large")
	require.Contains(t, ask(t, nc, "acme", "ann", bus.VerbPublish, `{"event":{"id":"x","name":"A"}}`), "no-conversation")
	d.do(t, message("1")+message("2"), "publish", "--tenant", "acme")
	d.do(t, `{"id":"t","name":"TYPING_INDICATOR","conversationId":"c1"}`, "publish", "--tenant", "acme")
	d.poison(t, "cim.acme.web.AGENT_MESSAGE", "not JSON", "nor this")

	require.Contains(t, ask(t, nc, "acme", "bob", bus.VerbResume, `{"after":0}`), "cimEvent")
	require.Contains(t, ask(t, nc, "acme", "bob", bus.VerbResume, `{"after":0,"gap":true}`), "cimEvent")
	require.Contains(t, ask(t, nc, "acme", "bob", bus.VerbResume, `{"after":"00000000-9-1"}`), `"expired":true`)
	require.Contains(t, ask(t, nc, "acme", "bob", bus.VerbResume, `{"after":"soon"}`), "bad-request")
	require.Contains(t, ask(t, nc, "acme", "bob", bus.VerbCheck, `{"after":0}`), `"count":4`)

	const acme = `{handler="onCimEvent",tenant="acme"}`
	d.shows(t, series{
		`cimbus_events_stored_total`: 9,
		`cimbus_events_handled_total{handler="onCimEvent",outcome="delivered",tenant="acme"}`:   5,
		`cimbus_events_handled_total{handler="onCimEvent",outcome="delivered",tenant="globex"}`: 1,
		`cimbus_events_handled_total{handler="onCimEvent",outcome="transient",tenant="acme"}`:   1,
		`cimbus_events_handled_total{handler="onCimEvent",outcome="dead-letter",tenant="acme"}`: 2,
		`cimbus_events_handled_total{handler="onCimEvent",outcome="dropped",tenant="acme"}`:     0,
		`cimbus_events_handled_total{handler="onCimEvent",outcome="skipped",tenant="acme"}`:     0,
		// ann gets all five, bob his own joining and what follows it.
		`cimbus_delivery_latency_seconds_count` + acme:                                         9,
		`cimbus_delivery_latency_seconds_count{handler="onCimEvent",tenant="globex"}`:          1,
		`cimbus_delivery_latency_seconds_bucket{handler="onCimEvent",tenant="acme",le="+Inf"}`: 9,
		`cimbus_retries_total` + acme:                                                          0,
		`cimbus_dead_letters_total{handler="onCimEvent",reason="not-json"}`:                    2,
		`cimbus_dead_letters_stored` + acme:                                                    2,

		`cimbus_events_published_total{tenant="acme"}`:                  3, // two joined
		`cimbus_events_published_total{tenant="globex"}`:                1,
		`cimbus_publish_duplicates_total{tenant="acme"}`:                1,
		`cimbus_publish_errors_total{reason="too-large"}`:               1,
		`cimbus_publish_errors_total{reason="unreachable"}`:             0,
		`cimbus_agent_requests_total{outcome="ok",verb="resume"}`:       2,
		`cimbus_agent_requests_total{outcome="expired",verb="resume"}`:  1,
		`cimbus_agent_requests_total{outcome="refused",verb="resume"}`:  1,
		`cimbus_agent_requests_total{outcome="error",verb="resume"}`:    0,
		`cimbus_agent_requests_total{outcome="ok",verb="check"}`:        1,
		`cimbus_agent_requests_total{outcome="ok",verb="join"}`:         3,
		`cimbus_agent_requests_total{outcome="ok",verb="publish"}`:      2,
		`cimbus_agent_requests_total{outcome="refused",verb="publish"}`: 2,
		`cimbus_resumed_deliveries_total`:                               8,
		`cimbus_gaps_repaired_total`:                                    1,

		`cimbus_agents_connected{tenant="acme"}`:                      1,
		`cimbus_agents_slow`:                                          0,
		`cimbus_slow_connections_total`:                               0,
		`cimbus_handler_lag_events{handler="onCimEvent"}`:             0,
		`cimbus_handler_oldest_waiting_seconds{handler="onCimEvent"}`: 0,
		`cimbus_handler_paused{handler="onCimEvent"}`:                 0,
		`cimbus_worker_acting{handler="onCimEvent"}`:                  1,
		`cimbus_worker_events{handler="onCimEvent"}`:                  0,
		`cimbus_redeliveries_total{handler="onCimEvent"}`:             0,
	})
	got := d.scrape(t)
	require.Positive(t, got[`cimbus_dead_letters_oldest_seconds{handler="onCimEvent"}`])
	require.Less(t, got[`cimbus_dead_letters_oldest_seconds{handler="onCimEvent"}`], 2*patience.Seconds())
	require.NotContains(t, got, `cimbus_agents_connected{tenant="globex"}`, "nobody listens there")
}

func TestNobodyCanMultiplyTheSeries(t *testing.T) {
	d := serve(t, "--config", write(t, "c.yaml", "metrics: {tenants: 5}\n"))
	nc := d.connect(t)
	publish := func(from, to int) {
		for i := from; i < to; i++ {
			name := fmt.Sprintf("evil\"}\n\\ %d \xff", i)
			if i%2 == 0 {
				name = fmt.Sprintf("_other %d", i)
			}
			e := subjects.Event{Tenant: name, Channel: name, Event: name}
			subject, err := e.Subject()
			require.NoError(t, err)
			body := fmt.Sprintf(`{"id":"1","name":%q,"conversationId":"c%d"}`, name, i) // of some the name is not JSON, or another one
			require.NoError(t, nc.Publish(subject, []byte(body)))
			live, err := subjects.DeliveryFilter{Tenant: subjects.Is(name), Agent: subjects.Is(name)}.Live()
			require.NoError(t, err)
			_, err = nc.Subscribe(live, func(*nats.Msg) {})
			require.NoError(t, err)
			control, err := subjects.Control{Tenant: name, Agent: name, Verb: bus.VerbCheck}.Subject()
			require.NoError(t, err)
			require.NoError(t, nc.PublishRequest(control, nc.NewInbox(), nil))
		}
		bustest.Eventually(t, patience, func() error {
			handled, listening := 0., 0.
			for name, n := range d.scrape(t) {
				if strings.HasPrefix(name, "cimbus_events_handled_total{") {
					handled += n
				}
				if strings.HasPrefix(name, "cimbus_agents_connected{") {
					listening += n
				}
			}
			if int(handled) != to || int(listening) != to {
				return fmt.Errorf("%v handled, %v listen, of %d", handled, listening, to)
			}
			return nil
		})
	}
	publish(0, 200)
	// The dead letters are counted in their own time.
	bustest.Eventually(t, patience, func() error {
		if n := d.scrape(t)[`cimbus_dead_letters_stored{handler="onCimEvent",tenant="_other"}`]; n < 50 {
			return fmt.Errorf("%v dead letters", n)
		}
		return nil
	})
	before := d.scrape(t)
	tenants := map[string]bool{}
	for name := range before {
		if of := regexp.MustCompile(`tenant="((?:[^"\\]|\\.)*)"`).FindStringSubmatch(name); of != nil {
			tenants[of[1]] = true
		}
		require.NotRegexp(t, `conversation=|"c\d+"|agent=`, name)
	}
	require.Len(t, tenants, 6, "five, and all others: %v", tenants)
	require.Contains(t, tenants, "_other")

	publish(200, 2000)
	after := d.scrape(t)
	maps.DeleteFunc(before, cimbusOnly)
	maps.DeleteFunc(after, cimbusOnly)
	for name := range after {
		require.Contains(t, before, name)
	}
}

func TestDeadLettersOfHandlersThatNeverWereNeitherEndTheMetricsNorMultiplyThem(t *testing.T) {
	d := serve(t)
	for i := range 20 {
		subject, err := subjects.DeadLetter{Handler: fmt.Sprintf("\xff%d", i), Tenant: "acme", Event: "X", Sequence: 5}.Subject()
		require.NoError(t, err)
		d.publishPlain(t, subject, nil, "{}")
	}
	d.poison(t, "cim.acme.web.AGENT_MESSAGE", "not JSON")
	d.shows(t, series{
		`cimbus_dead_letters_stored{handler="onCimEvent",tenant="acme"}`: 1, `cimbus_dead_letters_stored{handler="_other",tenant="acme"}`: 20,
	})
	for name := range d.scrape(t) {
		require.NotContains(t, name, `cimbus_dead_letters_oldest_seconds{handler="_other"`)
	}
}

// cimbusOnly is for taking away what Go's runtime tells of itself.
func cimbusOnly(name string, _ float64) bool { return !strings.HasPrefix(name, "cimbus_") }

func TestTheMetricsFollowPrometheusConventions(t *testing.T) {
	d := joined(t)
	d.poison(t, "cim.acme.web.AGENT_MESSAGE", "not JSON")
	nc := d.connect(t)
	_, err := nc.SubscribeSync("cim-live.acme.ann.>")
	require.NoError(t, err)
	d.shows(t, series{`cimbus_agents_connected{tenant="acme"}`: 1, `cimbus_dead_letters_stored{handler="onCimEvent",tenant="acme"}`: 1})
	_, body := d.get(t, "/metrics")
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
	for line := range strings.Lines(body) {
		if name, ok := strings.CutPrefix(line, "# TYPE cimbus_"); ok {
			require.NotContains(t, name, "untyped")
		}
	}
	promtool(t, body, "check", "metrics")
}

// promtool runs Prometheus' own tool where it is installed. What it checks of metrics is what promlint does.
func promtool(t *testing.T, stdin string, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Log("promtool is not installed; promlint has checked the same")
		return
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Run(), out.String())
	require.NotContains(t, out.String(), "error")
}
