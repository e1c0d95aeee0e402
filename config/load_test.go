package config_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/config"
)

// write makes a configuration file of the lines.
func write(t testing.TB, lines ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "cimbus.yaml")
	require.NoError(t, os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	return name
}

// shown is one line of Show.
func shown(t testing.TB, c *config.Config, key string) config.Value {
	t.Helper()
	for _, v := range c.Show() {
		if v.Key == key {
			return v
		}
	}
	require.Fail(t, "no such key", key)
	return config.Value{}
}

func TestDefaultsAreTheDocumentedOnes(t *testing.T) {
	c, err := config.Load(config.Sources{})
	require.NoError(t, err)
	require.Equal(t, "./cimbus-data", c.Store)
	require.Equal(t, config.NATS{Addr: "127.0.0.1:4222"}, c.NATS)
	require.Equal(t, config.WebSocket{Addr: "127.0.0.1:4223"}, c.WebSocket)
	require.Equal(t, "127.0.0.1:8080", c.HTTP.Addr)
	require.Equal(t, "strict", c.Durability)
	require.Equal(t, config.StoreLimits{MaxBytes: 10 << 30, MaxMemory: 256 << 20}, c.StoreLimits)
	require.Equal(t, config.Alarms{Threshold: 0.8, Lag: 5 * time.Minute}, c.Alarms)
	require.Equal(t, 100, c.Metrics.Tenants)
	require.Equal(t, config.Streams{
		Events:          config.MaxAge{MaxAge: 7 * 24 * time.Hour},
		Deliveries:      config.Deliveries{MaxAge: 72 * time.Hour, MaxPerSubject: 10_000},
		Index:           config.MaxAge{MaxAge: 7 * 24 * time.Hour},
		DeadLetters:     config.MaxAge{MaxAge: 30 * 24 * time.Hour},
		Compression:     "none",
		MaxEventBytes:   1 << 20,
		DuplicateWindow: 10 * time.Minute,
	}, c.Streams)
	require.Equal(t, 8*24*time.Hour, c.Members.LeftTTL)
	require.Equal(t, 30*24*time.Hour, c.Conversations.TTL)
	require.True(t, c.Delivery.Properties)
	require.Equal(t, config.Workers{AckWait: 5 * time.Second, PinnedTTL: 3 * time.Second, PullExpiry: time.Second, MaxAckPending: 16_384}, c.Workers)
	require.Equal(t, config.Retry{Attempts: 5, First: 100 * time.Millisecond, Longest: 30 * time.Second}, c.Retry)
	require.Equal(t, 10*time.Second, c.Shutdown.Timeout)
	require.Equal(t, config.Log{Level: "info", Format: "text"}, c.Log)
	require.Equal(t, config.Tracing{Sample: 1}, c.Tracing)
	require.False(t, c.External())
}

func TestEachLayerOverridesTheOneBefore(t *testing.T) {
	file := write(t, "nats:", "  addr: 127.0.0.1:1")
	for _, k := range []struct {
		from   config.Sources
		addr   string
		source string
	}{
		{config.Sources{}, "127.0.0.1:4222", "default"},
		{config.Sources{File: file}, "127.0.0.1:1", "file " + file + ":2"},
		{config.Sources{File: file, Environ: []string{"CIMBUS_NATS_ADDR=127.0.0.1:2"}}, "127.0.0.1:2", "environment CIMBUS_NATS_ADDR"},
		{config.Sources{File: file, Environ: []string{"CIMBUS_NATS_ADDR=127.0.0.1:2"}, Flags: map[string]string{"nats-addr": "127.0.0.1:3"}}, "127.0.0.1:3", "flag --nats-addr"},
		{config.Sources{Flags: map[string]string{"nats-addr": "127.0.0.1:3"}}, "127.0.0.1:3", "flag --nats-addr"},
	} {
		c, err := config.Load(k.from)
		require.NoError(t, err)
		require.Equal(t, k.addr, c.NATS.Addr)
		v := shown(t, c, "nats.addr")
		require.Equal(t, k.addr, v.Value)
		require.Equal(t, k.source, v.Source.String())
	}
}

func TestEveryKeyIsSetByFileAndEnvironmentAndItsFlag(t *testing.T) {
	other := map[string]string{ // by type, valid for every key of it and no default
		"text": "somewhere", "address": "localhost:0", "url": "nats://bus.example:4222", "list": "https://desk.example.com,http://localhost:8080",
		"size": "128MiB", "percentage": "90%", "share": "0.25", "endpoint": "https://otel.example:4318/v1/traces", "duration": "2s", "number": "3", "boolean": "false",
	}
	choices := map[string]string{"durability": "balanced", "streams.compression": "s2", "log.level": "off", "log.format": "json"}
	for _, k := range config.Keys() {
		value, ok := other[k.Type]
		if k.Path == "streams.max_event_bytes" {
			value = "2MB"
		}
		if k.Path == "retention" {
			value = "acme=48h,beta=24h"
		}
		if !ok {
			value = choices[k.Path]
		}
		require.NotEmpty(t, value, k.Path)
		require.NotEqual(t, k.Default, value)

		words := strings.Split(k.Path, ".")
		var lines []string
		for depth, word := range words {
			lines = append(lines, strings.Repeat("  ", depth)+word+":")
		}
		inFile := value
		if k.Type == "list" {
			inFile = "[" + value + "]"
		}
		lines[len(lines)-1] += " " + inFile
		from := []config.Sources{{File: write(t, lines...)}, {Environ: []string{"HOME=/", k.Env + "=" + value}}}
		if k.Flag != "" {
			from = append(from, config.Sources{Flags: map[string]string{k.Flag: value}})
		}
		for _, f := range from {
			c, err := config.Load(f)
			if err != nil { // alone, a few values do not fit the defaults beside them
				var problems config.Problems
				require.ErrorAs(t, err, &problems)
				require.Len(t, problems, 1)
				require.Contains(t, problems[0].Problem, ", with ", k.Path)
			}
			v := shown(t, c, k.Path)
			require.Equal(t, value, v.Value)
			require.NotEqual(t, config.LayerDefault, v.Source.Layer)
		}
	}
}

func TestTextsBecomeTypedValues(t *testing.T) {
	c, err := config.Load(config.Sources{File: write(t,
		"store_limits: {max_bytes: 512 MB, max_memory: 67108864}",
		"delivery: {properties: false}",
		"websocket: {origins: ['https://a.example', 'http://localhost:3000']}",
		"retry: {attempts: '7', first: 1m30s, longest: 2m}",
		"tracing: {endpoint: http://127.0.0.1:4318, sample: 0.05}",
	)})
	require.NoError(t, err)
	require.EqualValues(t, 512e6, c.StoreLimits.MaxBytes)
	require.EqualValues(t, 64<<20, c.StoreLimits.MaxMemory)
	require.False(t, c.Delivery.Properties)
	require.Equal(t, []string{"https://a.example", "http://localhost:3000"}, c.WebSocket.Origins)
	require.Equal(t, config.Tracing{Endpoint: "http://127.0.0.1:4318", Sample: 0.05}, c.Tracing)
	require.Equal(t, config.Retry{Attempts: 7, First: 90 * time.Second, Longest: 2 * time.Minute}, c.Retry)
}

func TestAListenerIsTurnedOffByTheEmptyTextInEverySource(t *testing.T) {
	for _, from := range []config.Sources{
		{File: write(t, `nats: {addr: ""}`, `websocket: {addr: ""}`, `http: {addr: ''}`)},
		{Environ: []string{"CIMBUS_NATS_ADDR=", "CIMBUS_WEBSOCKET_ADDR=", "CIMBUS_HTTP_ADDR="}},
		{Flags: map[string]string{"nats-addr": "", "websocket-addr": "", "http-addr": ""}},
	} {
		c, err := config.Load(from)
		require.NoError(t, err)
		require.Empty(t, c.NATS.Addr+c.WebSocket.Addr+c.HTTP.Addr)
	}
}

func TestPortZeroMayBeSharedAndLoopbackHasManyNames(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "localhost:0", "[::1]:0", "127.1.2.3:0", "[::ffff:127.0.0.1]:0"} {
		_, err := config.Load(config.Sources{Flags: map[string]string{"nats-addr": addr, "websocket-addr": addr, "http-addr": addr}})
		require.NoError(t, err, addr)
	}
}

func TestAnEmptyFileAndSectionsWithoutKeysAreNoProblem(t *testing.T) {
	want, err := config.Load(config.Sources{})
	require.NoError(t, err)
	for _, lines := range [][]string{{""}, {"# nothing"}, {"---"}, {"nats:", "  # addr: x"}, {"streams:", "  events:", "log: {}"}, {"~"}} {
		c, err := config.Load(config.Sources{File: write(t, lines...)})
		require.NoError(t, err, lines)
		require.Equal(t, want, c)
	}
}

func TestAnExternalServerMakesTheEmbeddedSettingsIrrelevant(t *testing.T) {
	for _, from := range []config.Sources{
		{Environ: []string{"CIMBUS_NATS_URL=nats://a:4222, b:4222,tls://c"}},
		{Environ: []string{"CIMBUS_NATS_CONTEXT=prod", "CIMBUS_NATS_CREDS=/etc/cimbus.creds"}},
	} {
		from.Environ = append(from.Environ, "CIMBUS_STREAMS_REPLICAS=3", "CIMBUS_STORE=", "CIMBUS_NATS_ADDR=0.0.0.0:4222", "CIMBUS_WEBSOCKET_ADDR=0.0.0.0:4222")
		c, err := config.Load(from)
		require.NoError(t, err)
		require.True(t, c.External())
	}
}

func TestVariablesThatKubernetesSetsBesideAServiceAreIgnored(t *testing.T) {
	_, err := config.Load(config.Sources{Environ: []string{
		"CIMBUS_SERVICE_HOST=10.0.0.7", "CIMBUS_SERVICE_PORT=4222", "CIMBUS_SERVICE_PORT_NATS=4222",
		"CIMBUS_PORT=tcp://10.0.0.7:4222", "CIMBUS_PORT_4222_TCP=tcp://10.0.0.7:4222", "CIMBUS_PORT_4222_TCP_PROTO=tcp",
		"CIMBUS_PORT_4222_TCP_PORT=4222", "CIMBUS_PORT_4222_TCP_ADDR=10.0.0.7", "CIMBUS_HTTP_SERVICE_PORT=80", "CIMBUS_HTTP_PORT=tcp://10.0.0.8:80",
	}})
	require.NoError(t, err)
	_, err = config.Load(config.Sources{Environ: []string{"CIMBUS_HTTP_PORT=80"}})
	require.ErrorContains(t, err, "CIMBUS_HTTP_PORT (environment CIMBUS_HTTP_PORT) is not a setting; did you mean CIMBUS_HTTP_ADDR?")
}

func TestTheLastOfTwoEqualVariablesWins(t *testing.T) {
	c, err := config.Load(config.Sources{Environ: []string{"CIMBUS_LOG_LEVEL=debug", "A=b", "CIMBUS_LOG_LEVEL=warn"}})
	require.NoError(t, err)
	require.Equal(t, "warn", c.Log.Level)
}

func TestAFileThatCannotBeReadIsOneProblemWithItsCause(t *testing.T) {
	name := filepath.Join(t.TempDir(), "none.yaml")
	_, err := config.Load(config.Sources{File: name})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "file "+name+" cannot be read")
	require.ErrorContains(t, err, "`cimbus config init` writes one")
}

func TestShowIsTheCallersCopy(t *testing.T) {
	c, err := config.Load(config.Sources{})
	require.NoError(t, err)
	c.Show()[0].Value = "changed"
	require.Equal(t, "./cimbus-data", c.Show()[0].Value)
}
