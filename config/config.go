// Package config is the daemon's configuration: one typed Config, from
// defaults, a YAML file, the environment and flags, each overriding the one
// before.
//
// Every setting is declared once, in the table of key.go. From it come the
// typed values, the file that Reference writes, what Show prints, the names in
// environment and flags, and every check: Load reports all problems at once,
// each with its key, value, source and remedy.
//
// A setting's path is its place in the file, "nats.addr"; in the environment it
// is CIMBUS_NATS_ADDR; six have a flag. An environment variable that is set but
// empty is a value, as in `CIMBUS_HTTP_ADDR= cimbus serve` for no HTTP.
package config

import "time"

// Config is the whole configuration. Addresses are "host:port" on loopback, port
// 0 for a free one, "" for no listener. Sizes are bytes.
type Config struct {
	Store         string // folder of the embedded server's streams
	NATS          NATS
	WebSocket     WebSocket
	HTTP          HTTP
	Durability    string // "strict" or "balanced"
	StoreLimits   StoreLimits
	Alarms        Alarms
	Retention     map[string]time.Duration // how long a tenant's messages are kept, of tenants whose go earlier
	Metrics       Metrics
	Streams       Streams
	Members       Members
	Conversations Conversations
	Delivery      Delivery
	Workers       Workers
	Retry         Retry
	Shutdown      Shutdown
	Log           Log
	Tracing       Tracing

	values []Value
}

// NATS is the embedded server's NATS listener, or the external server in its place.
type NATS struct {
	Addr    string // listener of the embedded server
	URL     string // external server, or several separated by commas; may hold credentials
	Creds   string // file with the external server's credentials
	Context string // NATS context that names an external server
}

// WebSocket is the embedded server's NATS-over-WebSocket listener.
type WebSocket struct {
	Addr    string
	Origins []string // pages that may connect; empty: only those of the same origin
}

// HTTP is the listener of /healthz, /readyz, /metrics, /log/level and the gateways.
type HTTP struct {
	Addr string
}

// StoreLimits is what the embedded server may use.
type StoreLimits struct {
	MaxBytes  int64 // of the disk
	MaxMemory int64 // of memory, for memory streams and consumers
}

// Alarms is when the daemon warns of what runs full, and what it leaves free.
type Alarms struct {
	Threshold   float64       // share of a limit from which it is a warning, 0 to 1
	Lag         time.Duration // how long an event may wait for its handler before the daemon is not ready
	DiskReserve int64         // of the store's disk, kept free; 0: a tenth of it, at most 1 GiB
}

// Metrics is what /metrics tells.
type Metrics struct {
	Tenants int // how many tenants are told apart; all others are counted together
}

// Streams is how long and how much the streams keep.
type Streams struct {
	Events          MaxAge
	Deliveries      Deliveries
	Index           MaxAge
	DeadLetters     MaxAge
	Replicas        int           // 0: 1 embedded, 3 on a cluster
	Compression     string        // "none" or "s2"
	MaxEventBytes   int           // the largest event that can be published
	DuplicateWindow time.Duration // for how long a repeated message id is noticed
}

// MaxAge is how long a stream keeps a message.
type MaxAge struct {
	MaxAge time.Duration
}

// Deliveries is what CIM_DELIVERIES keeps.
type Deliveries struct {
	MaxAge        time.Duration
	MaxPerSubject int64 // messages per agent, type and conversation
}

// Members is the bucket CIM_MEMBERS.
type Members struct {
	LeftTTL time.Duration // for how long a member who left is known
}

// Conversations is the bucket CIM_CONVERSATIONS.
type Conversations struct {
	TTL time.Duration // for how long a checkpoint is kept
}

// Delivery is the form of an onCimEvent body.
type Delivery struct {
	Properties bool // id, channelSession, status, listId and time beside cimEvent
}

// Workers is how handlers consume events.
type Workers struct {
	AckWait       time.Duration
	PinnedTTL     time.Duration // a standby takes over after this silence
	PullExpiry    time.Duration
	MaxAckPending int
}

// Retry is how often and when a failed event is handled again.
type Retry struct {
	Attempts int           // in all; after the last one the event is a dead letter
	First    time.Duration // pause after the first attempt
	Longest  time.Duration // pauses grow up to this
}

// Shutdown is how the daemon ends.
type Shutdown struct {
	Timeout time.Duration // for draining, before what is left is cut off
}

// Log is the daemon's log on stderr.
type Log struct {
	Level  string // "trace", "debug", "info", "warn", "error" or "off"
	Format string // "text" or "json"
}

// Tracing is where the daemon's spans go.
type Tracing struct {
	Endpoint string  // URL of an OTLP collector, "" = none
	Sample   float64 // share of the traces begun here that are recorded, 0 to 1
}

// External reports whether the streams live on an external server. Store,
// Durability, StoreLimits, the disk's reserve and the NATS and WebSocket
// listeners then do not apply.
func (c *Config) External() bool { return c.NATS.URL != "" || c.NATS.Context != "" }
