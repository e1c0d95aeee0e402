package config_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/config"
)

// problemsOf loads what must be refused.
func problemsOf(t testing.TB, from config.Sources) config.Problems {
	t.Helper()
	c, err := config.Load(from)
	var problems config.Problems
	require.ErrorAs(t, err, &problems)
	require.NotNil(t, c)
	require.Len(t, c.Show(), len(config.Keys()))
	for _, p := range problems {
		require.NotEmpty(t, p.Problem)
		require.NotEmpty(t, p.Remedy)
		require.NotEmpty(t, p.Source.Layer)
		require.ErrorIs(t, err, error(p))
	}
	return problems
}

func TestEveryProblemIsReportedAtOnceWithKeyValueSourceAndRemedy(t *testing.T) {
	file := write(t,
		"nats:",
		"  adr: 127.0.0.1:4222",
		"durability: fast",
		"streams:",
		"  events: {max_age: soon}",
		"  index: 5",
		"retry:",
		"  first: 60s",
	)
	problems := problemsOf(t, config.Sources{
		File:    file,
		Environ: []string{"CIMBUS_WORKER_ACK_WAIT=5s", "CIMBUS_STORE_LIMITS_MAX_BYTES=many", "CIMBUS_RETRY_LONGEST=50s"},
		Flags:   map[string]string{"http-addr": "0.0.0.0:8080", "nats-address": ""},
	})
	lines := make([]string, len(problems))
	for i, p := range problems {
		lines[i] = p.Error()
	}
	require.Equal(t, []string{
		"nats.adr (file " + file + ":2) is not a setting; did you mean nats.addr? otherwise remove it",
		"streams.index (file " + file + ":6) is a section, not a value; write its settings below it: max_age",
		"CIMBUS_WORKER_ACK_WAIT (environment CIMBUS_WORKER_ACK_WAIT) is not a setting; did you mean CIMBUS_WORKERS_ACK_WAIT? otherwise unset it",
		"--nats-address (flag --nats-address) is not a setting; did you mean --nats-addr?",
		`durability "fast" (file ` + file + `:3) is not one of the choices; write strict or balanced`,
		`store_limits.max_bytes "many" (environment CIMBUS_STORE_LIMITS_MAX_BYTES) is not a size; write a size of at least 1MiB, as 512KiB, 64MiB or 10GiB`,
		`streams.events.max_age "soon" (file ` + file + `:5) is not a duration; write a duration of at least 1s, as 500ms, 10s, 5m or 72h`,
		`retry.first "60s" (file ` + file + `:8) is longer than the longest pause, with retry.longest "50s" (environment CIMBUS_RETRY_LONGEST); shorten it, or raise retry.longest`,
		`http.addr "0.0.0.0:8080" (flag --http-addr) is not on loopback, and open access exists only there; listen on 127.0.0.1, ::1 or localhost, behind a proxy that checks who connects`,
	}, lines)
	require.Equal(t, "invalid configuration, 9 problems:\n  "+strings.Join(lines, "\n  "), problems.Error())

	require.Equal(t, "durability", problems[4].Key)
	require.Equal(t, "fast", problems[4].Value)
	require.Equal(t, config.Source{Layer: config.LayerFile, Name: file + ":3"}, problems[4].Source)
	require.Equal(t, "write strict or balanced", problems[4].Remedy)
}

func TestEveryTypeRefusesWhatItIsNot(t *testing.T) {
	bad := map[string][]string{
		"address":    {"4222", "localhost", "127.0.0.1:", "127.0.0.1:nats", "127.0.0.1:-1", "127.0.0.1:65536", "::1:4222", ":4222", "0.0.0.0:0", "192.168.0.1:4222", "bus.example:4222", "[::]:4222"},
		"url":        {"http://a:4222", "nats://", ",", "nats://a:4222,", "nats://a b", "nats://%zz"},
		"list":       {"*", "desk.example.com", "https://", "https://a.example/path", "https://a.example,", "ftp://a.example", "https://a.example?x", ","},
		"size":       {"", "1", "-1GiB", "1.5GiB", "10 gib", "GiB", "10Gi", "10GiBB", "99999999TiB", "9223372036854775808", "1e9"},
		"percentage": {"", "80", "0.8", "0%", "100%", "-5%", "8 %", "%", "80%%"},
		"share":      {"", "10%", "-0.1", "1.01", "nan", "inf", "0,5", "all"},
		"endpoint":   {"127.0.0.1:4318", "grpc://a:4317", "http://", "http://a b", "http://u:p@a:4318", "http://a/v1?x=y", "http://a/#x", "%"},
		"duration":   {"", "5", "-5s", "0s", "1ns", "1d", "5 s", "s"},
		"number":     {"", "-1", "1.5", "0x10", "1_000", "99999999999999999999", "9999999999999"},
		"boolean":    {"", "yes", "on", "2"},
		"choice":     {"", "Strict", "TEXT", "trace "},
	}
	for _, k := range config.Keys() {
		for _, text := range bad[k.Type] {
			problems := problemsOf(t, config.Sources{Environ: []string{k.Env + "=" + text}})
			require.Len(t, problems, 1, "%s=%s", k.Env, text)
			require.Equal(t, k.Path, problems[0].Key)
			if !k.Secret {
				require.Equal(t, text, problems[0].Value)
			}
			require.Equal(t, "environment "+k.Env, problems[0].Source.String())
		}
	}
}

func TestSettingsThatDoNotFitEachOtherAreRefused(t *testing.T) {
	for _, c := range []struct {
		environ []string
		key     string
		problem string
	}{
		{[]string{"CIMBUS_STORE="}, "store", "is empty"},
		{[]string{"CIMBUS_NATS_CREDS=x"}, "nats.creds", "is for an external server, and there is none"},
		{[]string{"CIMBUS_NATS_CONTEXT=x", "CIMBUS_NATS_URL=nats://a"}, "nats.context", "is a second name of the server"},
		{[]string{"CIMBUS_STREAMS_REPLICAS=3"}, "streams.replicas", "is more than the embedded server has"},
		{[]string{"CIMBUS_STREAMS_EVENTS_MAX_AGE=5m"}, "streams.duplicate_window", "is longer than events are kept"},
		{[]string{"CIMBUS_RETENTION=acme=24h,beta=169h"}, "retention", "keeps a tenant's messages for longer than events are kept, with streams.events.max_age"},
		{[]string{"CIMBUS_WORKERS_PINNED_TTL=2s"}, "workers.pull_expiry", "is not below half of the pin's time"},
		{[]string{"CIMBUS_RETRY_LONGEST=1ms"}, "retry.first", "is longer than the longest pause"},
		{[]string{"CIMBUS_WEBSOCKET_ADDR=127.0.0.1:4222"}, "websocket.addr", "is taken by another listener"},
		{[]string{"CIMBUS_HTTP_ADDR=127.0.0.1:4223"}, "http.addr", "is taken by another listener"},
		{[]string{"CIMBUS_NATS_URL=nats://a", "CIMBUS_HTTP_ADDR=0.0.0.0:80"}, "http.addr", "is not on loopback"},
	} {
		problems := problemsOf(t, config.Sources{Environ: c.environ})
		require.Len(t, problems, 1, "%v", c.environ)
		require.Equal(t, c.key, problems[0].Key)
		require.Contains(t, problems[0].Problem, c.problem)
	}
}

func TestAgesOfTenantsAreRefusedForTheirReason(t *testing.T) {
	for text, problem := range map[string]string{
		"acme": "holds something that is not tenant=duration", "=48h": "holds something that is not tenant=duration",
		"acme=2d": "holds something that is not tenant=duration", "acme=48h,": "holds something that is not tenant=duration",
		"acme=1ms": "holds a duration below 1s", "acme=48h,acme=24h": "names a tenant twice",
	} {
		problems := problemsOf(t, config.Sources{Environ: []string{"CIMBUS_RETENTION=" + text}})
		require.Len(t, problems, 1, text)
		require.Equal(t, problem, problems[0].Problem, text)
	}
	c, err := config.Load(config.Sources{Environ: []string{"CIMBUS_RETENTION=acme=48h, beta=1h30m"}})
	require.NoError(t, err)
	require.Equal(t, map[string]time.Duration{"acme": 48 * time.Hour, "beta": 90 * time.Minute}, c.Retention)
}

func TestABadValueIsNotReportedAgainByTheRulesItTakesPartIn(t *testing.T) {
	problems := problemsOf(t, config.Sources{Environ: []string{"CIMBUS_RETRY_LONGEST=x", "CIMBUS_RETRY_FIRST=1h"}})
	require.Len(t, problems, 1)
	require.Equal(t, "retry.longest", problems[0].Key)
}

func TestEveryMistakeInAFileIsFoundOnItsLine(t *testing.T) {
	for _, c := range []struct {
		lines   []string
		at      string // line, "" for the whole file
		key     string
		message string
	}{
		{[]string{"store: x", "store: y"}, ":2", "store", "is there twice, before on line 1; keep one"},
		{[]string{"nats: {addr: '', addr: ''}"}, ":1", "nats.addr", "is there twice"},
		{[]string{"nats:", "  addr: ''", "nats:"}, ":3", "nats", "is there twice"},
		{[]string{"nats: x"}, ":1", "nats", "is a section, not a value; write its settings below it: addr, context, creds, url"},
		{[]string{"streams: []"}, ":1", "streams", "compression, dead_letters, deliveries, duplicate_window, events, index, max_event_bytes, replicas"},
		{[]string{"", "- store"}, ":2", "", "is a section, not a value; write its settings below it: alarms, conversations, delivery"},
		{[]string{"x"}, ":1", "", "is a section, not a value"},
		{[]string{"store:"}, ":1", "store", "has no value; write the path of a folder, or remove the line for the default"},
		{[]string{"log:", "  level: null"}, ":2", "log.level", "has no value"},
		{[]string{"log: {level: [a]}"}, ":1", "log.level", "is not a single value"},
		{[]string{"log: {level: {a: b}}"}, ":1", "log.level", "is not a single value"},
		{[]string{"log: {level: &x info, format: *x}"}, ":1", "log.format", "is an alias; write the value itself"},
		{[]string{"log: &x {level: info}", "retry: *x"}, ":2", "retry", "is a section, not a value"},
		{[]string{"websocket:", "  origins:", "  - https://a.example", "  - [b]"}, ":4", "websocket.origins", "holds an item that is not a single value"},
		{[]string{"websocket: {origins: ['https://a,https://b']}"}, ":1", "websocket.origins", "holds an item that is not a single value"},
		{[]string{"? [a, b]", ": c"}, ":1", "", "holds a key that is not a word"},
		{[]string{"store: x", "---", "store: y"}, ":2", "", "is a second document; keep one"},
		{[]string{"store: x", "a: b: c"}, ":2", "", "is not YAML: mapping values are not allowed in this context"},
		{[]string{"store: 'x"}, ":2", "", "is not YAML"},
		{[]string{"store: x", "---", "]"}, "", "", "is a second document"},
		{[]string{"store: \xff\xc0"}, "", "", "is not YAML"},
		{[]string{"<<: {store: x}"}, ":1", "<<", "is not a setting"},
		{[]string{"\"a\\e[31m b\": x"}, ":1", "a\x1b[31m b", `"a\x1b[31m b" (file`},
	} {
		file := write(t, c.lines...)
		problems := problemsOf(t, config.Sources{File: file})
		require.Len(t, problems, 1, "%q", c.lines)
		require.Equal(t, c.key, problems[0].Key)
		require.Contains(t, problems[0].Error(), c.message)
		require.Equal(t, config.Source{Layer: config.LayerFile, Name: file + c.at}, problems[0].Source, "%q", c.lines)
	}
}

func TestAnUnknownKeyNamesTheNearestValidOne(t *testing.T) {
	for line, want := range map[string]string{
		"stor: x":                          "store",
		"Store: x":                         "store",
		"nats_addr: x":                     "nats.addr",
		"nats-addr: x":                     "nats.addr",
		"nat: {}":                          "nats",
		"durabilty: x":                     "durability",
		"nats: {address: x}":               "nats.addr",
		"events: {max_age: 1h}":            "streams.events",
		"streams: {deadletters: {}}":       "streams.dead_letters",
		"streams: {events: {maxage: 1h}}":  "streams.events.max_age",
		"max_ack_pending: 1":               "workers.max_ack_pending",
		"log: {levle: info}":               "log.level",
		"workers: {ack-wait: 1s}":          "workers.ack_wait",
		"store_limits: {maxmemory: 1}":     "store_limits.max_memory",
		"websocket: {allowed_origins: []}": "websocket.origins",
	} {
		problems := problemsOf(t, config.Sources{File: write(t, line)})
		require.Len(t, problems, 1, line)
		require.Contains(t, problems[0].Remedy, "did you mean "+want, line)
		require.Less(t, len(problems[0].Error()), 800)
	}
	for name, want := range map[string]string{
		"CIMBUS_NATSADDR":        "CIMBUS_NATS_ADDR",
		"CIMBUS_STREAM_REPLICAS": "CIMBUS_STREAMS_REPLICAS",
	} {
		problems := problemsOf(t, config.Sources{Environ: []string{name + "=x"}})
		require.Len(t, problems, 1)
		require.Contains(t, problems[0].Remedy, "did you mean "+want+"?", name)
	}
}

func TestWhatIsNearToNothingIsToldWhatThereIs(t *testing.T) {
	const top = "remove it; there are "
	for line, want := range map[string]string{
		"foo: x":                          top,
		"x: x":                            top,
		"streams: {foo: {}}":              "remove it; there are compression, ",
		"streams: {foo_: {}}":             "remove it; there are compression, ",
		"log: {foo: x}":                   "remove it; there are format, level",
		strings.Repeat("x", 900) + ": {}": top,
		"retry: {" + strings.Repeat("y.", 400) + "attempts: 3}": "remove it; there are attempts, ",
	} {
		problems := problemsOf(t, config.Sources{File: write(t, line)})
		require.Len(t, problems, 1, line)
		require.True(t, strings.HasPrefix(problems[0].Remedy, want), "%s: %s", line, problems[0].Remedy)
		require.Less(t, len(problems[0].Error()), 800)
	}
	for _, name := range []string{"CIMBUS_", "CIMBUS_FOO", "CIMBUS_ENVIRONMENT"} {
		problems := problemsOf(t, config.Sources{Environ: []string{name + "=x"}})
		require.Len(t, problems, 1)
		require.Equal(t, "unset it; `cimbus config init` writes every setting there is", problems[0].Remedy, name)
	}
	problems := problemsOf(t, config.Sources{Flags: map[string]string{"verbose": "true"}})
	require.Len(t, problems, 1)
	require.Regexp(t, `^give one of --\S+, .*--store`, problems[0].Remedy)
}

func TestCredentialsAreNeverShown(t *testing.T) {
	for _, url := range []string{
		"nats://ann:hunter2@bus.example:4222",
		"nats://hunter2@bus.example:4222",
		"hunter2@bus.example",
		"nats://ann:hunter2@a,nats://bob:hunter2@b",
		"nats://ann:hun,hunter2@bus.example",
		"nats://ann:hunter2@bus exam@ple",
		"http://ann:hunter2@bus.example",
		"nats://ann:hunter2/@bus.example",
	} {
		c, err := config.Load(config.Sources{Environ: []string{"CIMBUS_NATS_URL=" + url, "CIMBUS_NATS_CONTEXT=x", "CIMBUS_STREAMS_REPLICAS=3"}})
		require.Error(t, err)
		require.NotContains(t, err.Error(), "hun")
		require.Contains(t, shown(t, c, "nats.url").Value, "***@")
		all, jsonErr := json.Marshal(c.Show())
		require.NoError(t, jsonErr)
		require.NotContains(t, string(all), "hun")
	}
	// A value under a key that is not known could be anything.
	problems := problemsOf(t, config.Sources{File: write(t, "nats: {password: hunter2}"), Environ: []string{"CIMBUS_NATS_TOKEN=hunter2"}})
	require.Len(t, problems, 2)
	require.NotContains(t, problems.Error(), "hunter2")
}

func TestProblemsAreOneErrorAndEachOfThem(t *testing.T) {
	cause := errors.New("cause")
	p := &config.Problem{Source: config.Source{Layer: config.LayerFile, Name: "x"}, Problem: "cannot be read", Remedy: "write it", Err: cause}
	err := error(config.Problems{p})
	require.ErrorIs(t, err, cause)
	var one *config.Problem
	require.ErrorAs(t, err, &one)
	require.Same(t, p, one)
	require.EqualError(t, err, "invalid configuration: file x cannot be read: cause; write it")
}
