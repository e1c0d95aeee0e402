package config

import (
	"math"
	"strings"
	"time"
)

// Key declares one setting.
type Key struct {
	Path    string // its place in the file, "nats.addr"
	Env     string // its environment variable, "CIMBUS_NATS_ADDR"
	Flag    string // its flag of `cimbus serve` without dashes, "" if it has none
	Default string // as it would be written in the file
	Doc     string // one or two sentences, without line breaks
	Type    string // for people: "duration", "size", "address", …
	Valid   string // what a value must be, as an instruction
	Secret  bool   // the value may hold credentials, and is shown without them

	kind kind
}

const envPrefix = "CIMBUS_"

// Keys returns every setting in the order of the file. The slice is the
// caller's.
func Keys() []Key {
	declared := declare()
	for i := range declared {
		k := &declared[i]
		k.Env = envPrefix + strings.ToUpper(strings.ReplaceAll(k.Path, ".", "_"))
		k.Type, k.Valid, k.Secret = k.kind.name, k.kind.valid, k.kind.secret
	}
	return declared
}

// declare is the one declaration of all settings.
func declare() []Key {
	return []Key{
		{Path: "store", Flag: "store", Default: "./cimbus-data",
			Doc:  "Folder of the embedded server's streams, relative to the working directory. One process at a time.",
			kind: text(func(c *Config) *string { return &c.Store }, "write the path of a folder")},

		{Path: "nats.addr", Flag: "nats-addr", Default: "127.0.0.1:4222",
			Doc:  `Where the embedded server listens for NATS. Port 0 takes a free one, "" is off.`,
			kind: address(func(c *Config) *string { return &c.NATS.Addr })},
		{Path: "nats.url", Flag: "nats-url", Default: "",
			Doc:  `External NATS server or cluster to use instead of the embedded one; store, durability, store_limits, alarms.disk_reserve, nats.addr and websocket.addr then do not apply. "" is the embedded server.`,
			kind: serverURL(func(c *Config) *string { return &c.NATS.URL })},
		{Path: "nats.creds", Default: "",
			Doc:  "Credentials file for the external server.",
			kind: text(func(c *Config) *string { return &c.NATS.Creds }, `write the path of a file, or "" for none`)},
		{Path: "nats.context", Default: "",
			Doc:  "NATS context, as the nats command line keeps them, that names the external server; instead of nats.url.",
			kind: text(func(c *Config) *string { return &c.NATS.Context }, `write the name of a context, or "" for none`)},

		{Path: "websocket.addr", Flag: "websocket-addr", Default: "127.0.0.1:4223",
			Doc:  `Where the embedded server listens for NATS over WebSocket. Port 0 takes a free one, "" is off.`,
			kind: address(func(c *Config) *string { return &c.WebSocket.Addr })},
		{Path: "websocket.origins", Default: "",
			Doc:  "Pages that may connect over WebSocket, by origin. With an empty list only pages of the same origin may.",
			kind: origins(func(c *Config) *[]string { return &c.WebSocket.Origins })},

		{Path: "http.addr", Flag: "http-addr", Default: "127.0.0.1:8080",
			Doc:  `Where /healthz, /readyz, /metrics, /log/level and the gateways are served. Port 0 takes a free one, "" is off.`,
			kind: address(func(c *Config) *string { return &c.HTTP.Addr })},

		{Path: "durability", Flag: "durability", Default: "strict",
			Doc:  "What an acknowledgement means on the embedded server. strict: the message is on disk. balanced: it is within a second, so a power cut can cost the last second, a killed process nothing.",
			kind: choice(func(c *Config) *string { return &c.Durability }, "strict", "balanced")},

		{Path: "store_limits.max_bytes", Default: "10GiB",
			Doc:  "Disk space the embedded server's streams may use together.",
			kind: size(func(c *Config) *int64 { return &c.StoreLimits.MaxBytes }, 1<<20, math.MaxInt64)},
		{Path: "store_limits.max_memory", Default: "256MiB",
			Doc:  "Memory the embedded server's memory streams and consumers may use together.",
			kind: size(func(c *Config) *int64 { return &c.StoreLimits.MaxMemory }, 1<<20, math.MaxInt64)},

		{Path: "alarms.threshold", Default: "80%",
			Doc:  "How full a stream, or the account, may be before that is a warning: in the log, in /readyz, in the metrics and from the doctor.",
			kind: percentage(func(c *Config) *float64 { return &c.Alarms.Threshold })},
		{Path: "alarms.lag", Default: "5m",
			Doc:  "How long the oldest event may wait for a handler that is not paused, before that is an alarm and /readyz answers 503: nobody should send new agents to a daemon whose deliveries are that late.",
			kind: duration(func(c *Config) *time.Duration { return &c.Alarms.Lag }, time.Second)},
		{Path: "alarms.disk_reserve", Default: "0",
			Doc:  "How much of the store's disk stays free: with less left, publishers are refused until there is half as much again, because a full disk would stop the embedded server.",
			kind: sizeOrZero(func(c *Config) *int64 { return &c.Alarms.DiskReserve }, "a tenth of the disk and at most 1GiB", 64<<20)},

		{Path: "metrics.tenants", Default: "100",
			Doc:  "How many tenants /metrics tells apart, the first that come; all others are counted together as tenant _other.",
			kind: count(func(c *Config) *int { return &c.Metrics.Tenants }, 1, 10000)},

		{Path: "streams.events.max_age", Default: "168h",
			Doc:  "How long CIM_EVENTS keeps an event: how far back a replay can go.",
			kind: duration(func(c *Config) *time.Duration { return &c.Streams.Events.MaxAge }, time.Second)},
		{Path: "streams.deliveries.max_age", Default: "72h",
			Doc:  "How long CIM_DELIVERIES keeps a delivery: how long an agent can be away and resume.",
			kind: duration(func(c *Config) *time.Duration { return &c.Streams.Deliveries.MaxAge }, time.Second)},
		{Path: "streams.deliveries.max_per_subject", Default: "10000",
			Doc:  "How many deliveries of one type CIM_DELIVERIES keeps per agent and conversation.",
			kind: count(func(c *Config) *int64 { return &c.Streams.Deliveries.MaxPerSubject }, 1, 1e9)},
		{Path: "streams.index.max_age", Default: "168h",
			Doc:  "How long CIM_INDEX keeps an entry of a conversation's history.",
			kind: duration(func(c *Config) *time.Duration { return &c.Streams.Index.MaxAge }, time.Second)},
		{Path: "streams.dead_letters.max_age", Default: "720h",
			Doc:  "How long CIM_DEAD_LETTERS keeps an event that could not be handled.",
			kind: duration(func(c *Config) *time.Duration { return &c.Streams.DeadLetters.MaxAge }, time.Second)},
		{Path: "streams.replicas", Default: "0",
			Doc:  "Copies of every stream. 0 is 1 on the embedded server and 3 on a cluster.",
			kind: count(func(c *Config) *int { return &c.Streams.Replicas }, 0, 5)},
		{Path: "streams.compression", Default: "none",
			Doc:  "Compression of the streams on disk. s2 saves space; reading one message back takes about fifty times as long.",
			kind: choice(func(c *Config) *string { return &c.Streams.Compression }, "none", "s2")},
		{Path: "streams.max_event_bytes", Default: "1MiB",
			Doc:  "The largest event that can be published, headers included. Its delivery is larger and must fit the server's payload limit of 4MiB.",
			kind: size(func(c *Config) *int { return &c.Streams.MaxEventBytes }, 1<<10, (4<<20-16<<10)/2-4<<10)},
		{Path: "streams.duplicate_window", Default: "10m",
			Doc:  "For how long a second event with the same message id is noticed and not stored again.",
			kind: duration(func(c *Config) *time.Duration { return &c.Streams.DuplicateWindow }, 100*time.Millisecond)},

		{Path: "members.left_ttl", Default: "192h",
			Doc:  "For how long the record of a member who left is kept.",
			kind: duration(func(c *Config) *time.Duration { return &c.Members.LeftTTL }, time.Second)},
		{Path: "conversations.ttl", Default: "720h",
			Doc:  "For how long the checkpoint of a quiet conversation is kept.",
			kind: duration(func(c *Config) *time.Duration { return &c.Conversations.TTL }, time.Second)},

		{Path: "retention", Default: "",
			Doc:  "How long the events, deliveries, index entries and dead letters of single tenants are kept, where that is shorter than the streams keep them. They go a tenth of it later at most, or an hour.",
			kind: ages(func(c *Config) *map[string]time.Duration { return &c.Retention }, time.Second)},

		{Path: "delivery.properties", Default: "true",
			Doc:  "Whether a delivery carries id, channelSession, status, listId and time beside cimEvent and conversationId.",
			kind: boolean(func(c *Config) *bool { return &c.Delivery.Properties })},

		{Path: "workers.ack_wait", Default: "5s",
			Doc:  "How long the server waits for a worker's sign of life on an event before it sends the event again.",
			kind: duration(func(c *Config) *time.Duration { return &c.Workers.AckWait }, time.Second)},
		{Path: "workers.pinned_ttl", Default: "3s",
			Doc:  "How long a worker may be silent before its standby takes over.",
			kind: duration(func(c *Config) *time.Duration { return &c.Workers.PinnedTTL }, time.Second)},
		{Path: "workers.pull_expiry", Default: "1s",
			Doc:  "How long one pull request of a worker lasts; less than half of workers.pinned_ttl.",
			kind: duration(func(c *Config) *time.Duration { return &c.Workers.PullExpiry }, time.Second)},
		{Path: "workers.max_ack_pending", Default: "16384",
			Doc:  "How many events may be in work at once, in all conversations together.",
			kind: count(func(c *Config) *int { return &c.Workers.MaxAckPending }, 1, 1<<20)},

		{Path: "retry.attempts", Default: "5",
			Doc:  "How often an event is tried before it becomes a dead letter.",
			kind: count(func(c *Config) *int { return &c.Retry.Attempts }, 1, 1000)},
		{Path: "retry.first", Default: "100ms",
			Doc:  "Pause after the first failed attempt; it grows with each further one.",
			kind: duration(func(c *Config) *time.Duration { return &c.Retry.First }, time.Millisecond)},
		{Path: "retry.longest", Default: "30s",
			Doc:  "The longest pause between two attempts.",
			kind: duration(func(c *Config) *time.Duration { return &c.Retry.Longest }, time.Millisecond)},

		{Path: "shutdown.timeout", Default: "10s",
			Doc:  "How long the daemon may take to finish its work when it is told to end.",
			kind: duration(func(c *Config) *time.Duration { return &c.Shutdown.Timeout }, time.Millisecond)},

		{Path: "log.level", Default: "info",
			Doc:  "The least severe lines that are logged, on stderr.",
			kind: choice(func(c *Config) *string { return &c.Log.Level }, "trace", "debug", "info", "warn", "error", "off")},
		{Path: "log.format", Default: "text",
			Doc:  "Log lines for people, or as JSON objects.",
			kind: choice(func(c *Config) *string { return &c.Log.Format }, "text", "json")},

		{Path: "tracing.endpoint", Default: "",
			Doc:  `OTLP collector that gets spans over HTTP; where the URL has no path, at /v1/traces. "" is off. The service's name, headers, certificates and batches are those of the OTEL_* environment variables.`,
			kind: collector(func(c *Config) *string { return &c.Tracing.Endpoint })},
		{Path: "tracing.sample", Default: "1",
			Doc:  "Share of the traces that begin here which are recorded. An event that comes with a traceparent goes by what that says.",
			kind: share(func(c *Config) *float64 { return &c.Tracing.Sample })},
	}
}
