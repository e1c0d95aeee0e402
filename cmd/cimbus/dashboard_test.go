package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// exposed are the labels of every metric a daemon shows once all that can happen did.
func exposed(t *testing.T) map[string][]string {
	t.Helper()
	d := serve(t, "--config", write(t, "c.yaml", "store_limits: {max_bytes: 1MiB}\nalarms: {threshold: 1%}\n"))
	d.do(t, "", "conversation", "join", "--tenant", "acme", "--conversation", "c1", "--agent", "ann")
	d.do(t, `{"id":"long","name":"CUSTOMER_MESSAGE","conversationId":"c1","text":"`+strings.Repeat("x", 20_000)+`"}`, "publish", "--tenant", "acme")
	d.poison(t, "cim.acme.web.AGENT_MESSAGE", "not JSON")
	nc := d.connect(t)
	_, err := nc.SubscribeSync("cim-live.acme.ann.>")
	require.NoError(t, err)
	require.Contains(t, ask(t, nc, "acme", "ann", "publish", `{"event":{"id":"a1","name":"AGENT_MESSAGE","conversationId":"c1"}}`), `"seq":`)
	d.shows(t, series{
		`cimbus_alarm{check="room",level="warn",of="CIM_EVENTS"}`: 1, `cimbus_dead_letters_stored{handler="onCimEvent",tenant="acme"}`: 1,
		`cimbus_handler_lag_events{handler="onCimEvent"}`: 0,
	})
	labels := map[string][]string{}
	for name := range d.scrape(t) {
		metric, rest, _ := strings.Cut(name, "{")
		for _, label := range regexp.MustCompile(`(\w+)="(?:[^"\\]|\\.)*"`).FindAllStringSubmatch(rest, -1) {
			if !slices.Contains(labels[metric], label[1]) {
				labels[metric] = append(labels[metric], label[1])
			}
		}
		// Prometheus adds these.
		if !slices.Contains(labels[metric], "instance") {
			labels[metric] = append(labels[metric], "instance", "job")
		}
	}
	return labels
}

// What the test finds in an expression, and in the name of a line.
var (
	metricName = regexp.MustCompile(`\b(?:cimbus|process|go)_\w+`)
	matcher    = regexp.MustCompile(`(\w+) *(?:=~|!~|!=|=) *"`)
	grouping   = regexp.MustCompile(`\b(?:by|without|on|ignoring) *\(([^)]*)\)`)
	legend     = regexp.MustCompile(`{{ *(\w+) *}}`)
	quoted     = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
)

// unknown tells what of an expression no daemon shows: a metric, or a label that is asked for.
func unknown(labels map[string][]string, expression string, asked ...string) error {
	metrics := metricName.FindAllString(quoted.ReplaceAllString(expression, `""`), -1)
	if len(metrics) == 0 {
		return fmt.Errorf("%s asks for no metric", expression)
	}
	var has []string
	for _, metric := range metrics {
		if labels[metric] == nil {
			return fmt.Errorf("%s: no daemon shows %s", expression, metric)
		}
		has = append(has, labels[metric]...)
	}
	for _, m := range matcher.FindAllStringSubmatch(expression, -1) {
		asked = append(asked, m[1])
	}
	for _, m := range grouping.FindAllStringSubmatch(expression, -1) {
		for label := range strings.SplitSeq(m[1], ",") {
			asked = append(asked, strings.TrimSpace(label))
		}
	}
	for _, label := range asked {
		if !slices.Contains(has, label) {
			return fmt.Errorf("%s: there is no label %s", expression, label)
		}
	}
	return nil
}

// dashboard is what the test looks at of one.
type dashboard struct {
	UID           string `json:"uid"`
	SchemaVersion int    `json:"schemaVersion"`
	Templating    struct {
		List []struct {
			Name       string `json:"name"`
			Type       string `json:"type"`
			Definition string `json:"definition"`
		} `json:"list"`
	} `json:"templating"`
	Panels []panel `json:"panels"`
}

type panel struct {
	ID      int    `json:"id"`
	Type    string `json:"type"`
	Title   string `json:"title"`
	GridPos struct{ H, W, X, Y int }
	Targets []struct {
		Expr         string          `json:"expr"`
		LegendFormat string          `json:"legendFormat"`
		Datasource   json.RawMessage `json:"datasource"`
	} `json:"targets"`
}

// filled is an expression with Grafana's variables filled in.
func filled(expression string) string {
	return strings.NewReplacer("$__rate_interval", "1m", "$__range", "1h", "$instance", ".*", "$handler", ".*", "$tenant", ".*").Replace(expression)
}

func TestTheDashboardAsksWhatOperatorsAskAndOnlyForWhatADaemonShows(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("dashboards", "cimbus.json"))
	require.NoError(t, err)
	var d dashboard
	require.NoError(t, json.Unmarshal(text, &d))
	require.Equal(t, "cimbus", d.UID)
	require.GreaterOrEqual(t, d.SchemaVersion, 39)

	labels := exposed(t)
	variables := map[string]bool{}
	for _, v := range d.Templating.List {
		variables[v.Name] = true
		if v.Type == "query" {
			m := regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`).FindStringSubmatch(v.Definition)
			require.NotNil(t, m, v.Definition)
			require.Contains(t, labels[m[1]], m[2], v.Definition)
		}
	}
	require.Equal(t, map[string]bool{"datasource": true, "instance": true, "handler": true, "tenant": true}, variables)

	var questions []string
	var rules strings.Builder
	rules.WriteString("groups:\n- name: all\n  rules:\n")
	used, ids := map[string]bool{}, map[int]bool{}
	for i, p := range d.Panels {
		require.False(t, ids[p.ID], "panel %d twice", p.ID)
		ids[p.ID] = true
		for _, other := range d.Panels[:i] {
			a, b := p.GridPos, other.GridPos
			require.False(t, a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H, "%s lies on %s", p.Title, other.Title)
		}
		if p.Type == "row" {
			questions = append(questions, p.Title)
			continue
		}
		require.NotEmpty(t, p.Targets, p.Title)
		for n, target := range p.Targets {
			var shown []string
			for _, m := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
				shown = append(shown, m[1])
			}
			expression := filled(target.Expr)
			require.NotContains(t, expression, "$")
			require.NoError(t, unknown(labels, expression, shown...), p.Title)
			require.JSONEq(t, `{"type":"prometheus","uid":"${datasource}"}`, string(target.Datasource), p.Title)
			for _, metric := range metricName.FindAllString(quoted.ReplaceAllString(expression, `""`), -1) {
				used[regexp.MustCompile(`_(bucket|count|sum)$`).ReplaceAllString(metric, "")] = true
			}
			fmt.Fprintf(&rules, "  - record: panel_%d_%d\n    expr: %q\n", p.ID, n, expression)
		}
	}
	require.Equal(t, []string{
		"Is anything stuck?", "Who is behind?", "Are agents getting their events, and how late?", "What is in the dead letters?",
		"Is there room?", "Is the bus itself well?",
	}, questions)
	for metric := range labels {
		metric = regexp.MustCompile(`_(bucket|count|sum)$`).ReplaceAllString(metric, "")
		if strings.HasPrefix(metric, "cimbus_") {
			require.Contains(t, used, metric, "nobody sees it")
		}
	}
	promtool(t, "", "check", "rules", write(t, "rules.yml", rules.String()))
}

func TestTheAlertsAskOnlyForWhatADaemonShowsAndSayWhatToDo(t *testing.T) {
	path := filepath.Join("dashboards", "alerts.yml")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr         string
				Labels, Annotations map[string]string
			}
		}
	}
	require.NoError(t, yaml.Unmarshal(text, &file))
	labels := exposed(t)
	seen := map[string]bool{}
	for _, r := range file.Groups[0].Rules {
		require.False(t, seen[r.Alert], r.Alert)
		seen[r.Alert] = true
		require.NoError(t, unknown(labels, r.Expr), r.Alert)
		require.Contains(t, []string{"critical", "warning"}, r.Labels["severity"], r.Alert)
		require.NotEmpty(t, r.Annotations["summary"], r.Alert)
		require.NotEmpty(t, r.Annotations["description"], r.Alert)
		// A label that the expression sums away would be empty.
		for _, m := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(r.Annotations["summary"]+r.Annotations["description"], -1) {
			require.Regexp(t, `by \([^)]*\b`+m[1]+`\b`, r.Expr, r.Alert)
		}
	}
	require.NotEmpty(t, seen)
	promtool(t, "", "check", "rules", path)
}

func TestAnUnknownMetricOrLabelOfADashboardIsFound(t *testing.T) {
	labels := map[string][]string{"cimbus_a": {"handler", "instance"}, "cimbus_b_total": {"tenant"}}
	for expression, ok := range map[string]bool{
		`sum(cimbus_a)`: true, `sum by (handler) (cimbus_a{instance=~".*"})`: true, `cimbus_a / on (handler) cimbus_b_total{tenant!="x"}`: true,
		`cimbus_a{handler="cimbus_none"}`: true,
		`sum(cimbus_c)`:                   false, `cimbus_a{conversation="c"}`: false, `sum by (handler, agent) (cimbus_a)`: false, `cimbus_b`: false, `1 + 1`: false,
	} {
		require.Equal(t, ok, unknown(labels, expression) == nil, expression)
	}
	require.Error(t, unknown(labels, "cimbus_a", "tenant"))
}
