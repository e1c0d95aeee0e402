package embedded

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats-server/v2/server"
)

// Defaults of Options.
const (
	DefaultMaxStore     = 10 << 30
	DefaultMaxMemory    = 256 << 20
	DefaultMaxPayload   = 4 << 20
	DefaultServerName   = "cimbus"
	DefaultReadyTimeout = time.Minute
)

// Options says what server Start starts. Only StoreDir is required.
type Options struct {
	// StoreDir is the folder of the streams, made where it is missing. It
	// belongs to one running server at a time.
	StoreDir string

	// NATSAddr and WebSocketAddr are where the server listens, as "host:port".
	// Port 0 takes a free one, to be read from NATSURL and WebSocketURL; an
	// empty host (":4222") listens on every interface. An empty address, the
	// default, means no listener: clients then come from within the process,
	// by Connect. WebSocket listens without TLS: on other than loopback put a
	// TLS proxy in front, or set the certificate in Configure.
	NATSAddr      string
	WebSocketAddr string

	// WebSocketOrigins lists the web origins ("https://desk.example.com") whose
	// pages may connect. Empty, the default, admits only pages of the same
	// origin. Clients that are no browsers send no origin and are not
	// concerned.
	WebSocketOrigins []string

	// Durability defaults to Strict.
	Durability Durability

	// MaxStore and MaxMemory bound what the streams may use, in bytes; the
	// defaults are 10 GiB of disk and 256 MiB of memory. The size limits of
	// all streams together have to fit.
	MaxStore  int64
	MaxMemory int64

	// MaxPayload is the largest message, headers included, in bytes; default
	// 4 MiB.
	MaxPayload int32

	// ServerName defaults to "cimbus". In a cluster every name is unique.
	ServerName string

	// Cluster joins this server to others; nil, the default, is a server on
	// its own. It needs NATSAddr.
	Cluster *Cluster

	// ReadyTimeout bounds Start, recovery of the store included; default 1 min.
	ReadyTimeout time.Duration

	// Logger receives the server's log; nil logs nothing. The server's notices
	// are logged as debug, its debug lines as trace, its protocol trace, which
	// holds payloads, never.
	Logger hclog.Logger

	// Configure has the last word on the server's own options.
	Configure func(*server.Options)
}

// Cluster is this server's place in a cluster.
type Cluster struct {
	// Name of the cluster, the same on every node.
	Name string
	// Addr is where this node listens for the others, as "host:port".
	Addr string
	// Routes are addresses of nodes to join, as "host:port"; its own may be
	// among them.
	Routes []string
}

// Validate reports every problem of the options at once, by field.
func (o Options) Validate() error {
	var problems []error
	bad := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf(format, args...))
	}
	if o.StoreDir == "" {
		bad("StoreDir is empty: name the folder of the streams")
	}
	if _, err := o.Durability.orDefault(); err != nil {
		bad("Durability: %w", err)
	}
	for _, limit := range []struct {
		field string
		value int64
	}{
		{"MaxStore", o.MaxStore}, {"MaxMemory", o.MaxMemory},
		{"MaxPayload", int64(o.MaxPayload)}, {"ReadyTimeout", int64(o.ReadyTimeout)},
	} {
		if limit.value < 0 {
			bad("%s is negative: leave it 0 for the default", limit.field)
		}
	}
	addresses := o.listeners()
	for _, a := range addresses {
		if err := a.check(); err != nil {
			problems = append(problems, err)
		}
	}
	for i, a := range addresses {
		for _, b := range addresses[:i] {
			if a.addr == b.addr && !a.free() {
				bad("%s and %s are both %q: give each its own port", b.field, a.field, a.addr)
			}
		}
	}
	for _, origin := range o.WebSocketOrigins {
		if u, err := url.ParseRequestURI(origin); err != nil || u.Host == "" {
			bad("WebSocketOrigins: %q is no origin: write scheme and host, as in \"https://desk.example.com\"", origin)
		}
	}
	if o.Cluster != nil {
		if o.NATSAddr == "" {
			bad("NATSAddr is empty: a node of a cluster has to listen")
		}
		if o.Cluster.Name == "" || o.Cluster.Addr == "" {
			bad("Cluster needs a Name and an Addr")
		}
		for _, route := range o.Cluster.Routes {
			if err := (listener{field: "Cluster.Routes", addr: route}).check(); err != nil {
				problems = append(problems, err)
			}
		}
	}
	return errors.Join(problems...)
}

// withDefaults fills what was left out and makes StoreDir absolute.
func (o Options) withDefaults() (Options, error) {
	if err := o.Validate(); err != nil {
		return o, err
	}
	dir, err := filepath.Abs(o.StoreDir)
	if err != nil {
		return o, fmt.Errorf("StoreDir: %w", err)
	}
	o.StoreDir = dir
	o.Durability, _ = o.Durability.orDefault()
	o.MaxStore = orDefault(o.MaxStore, DefaultMaxStore)
	o.MaxMemory = orDefault(o.MaxMemory, DefaultMaxMemory)
	o.MaxPayload = orDefault(o.MaxPayload, DefaultMaxPayload)
	o.ServerName = orDefault(o.ServerName, DefaultServerName)
	o.ReadyTimeout = orDefault(o.ReadyTimeout, DefaultReadyTimeout)
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return o, nil
}

func orDefault[T comparable](value, def T) T {
	var zero T
	if value == zero {
		return def
	}
	return value
}

// server gives the options in the server's own terms.
func (o Options) server() *server.Options {
	so := &server.Options{
		ServerName: o.ServerName,
		// Signals and exits belong to the host.
		NoSigs:             true,
		DontListen:         o.NATSAddr == "",
		MaxPayload:         o.MaxPayload,
		JetStream:          true,
		StoreDir:           o.StoreDir,
		JetStreamMaxStore:  o.MaxStore,
		JetStreamMaxMemory: o.MaxMemory,
		// The server's own limit, 1000 consumers a stream, is one agent
		// application a service away.
		JetStreamLimits:        server.JSLimitOpts{DefaultMaxConsumers: -1},
		DisableJetStreamBanner: true,
	}
	switch o.Durability {
	case Strict:
		so.SyncAlways = true
	case Balanced:
		so.SyncInterval = BalancedSyncInterval
	}
	if o.NATSAddr != "" {
		so.Host, so.Port = serverHostPort(o.NATSAddr)
	}
	if o.WebSocketAddr != "" {
		ws := &so.Websocket
		ws.Host, ws.Port = serverHostPort(o.WebSocketAddr)
		ws.NoTLS = true
		ws.AllowedOrigins = o.WebSocketOrigins
		// Without either of the two any page in any browser may connect.
		ws.SameOrigin = len(o.WebSocketOrigins) == 0
	}
	if c := o.Cluster; c != nil {
		so.Cluster.Name = c.Name
		so.Cluster.Host, so.Cluster.Port = serverHostPort(c.Addr)
		for _, route := range c.Routes {
			so.Routes = append(so.Routes, &url.URL{Scheme: "nats", Host: route})
		}
	}
	if o.Configure != nil {
		o.Configure(so)
	}
	return so
}

// listener is an address the options ask for, with the field that asks.
type listener struct{ field, addr string }

func (o Options) listeners() []listener {
	var ls []listener
	if o.NATSAddr != "" {
		ls = append(ls, listener{"NATSAddr", o.NATSAddr})
	}
	if o.WebSocketAddr != "" {
		ls = append(ls, listener{"WebSocketAddr", o.WebSocketAddr})
	}
	if o.Cluster != nil && o.Cluster.Addr != "" {
		ls = append(ls, listener{"Cluster.Addr", o.Cluster.Addr})
	}
	return ls
}

func (l listener) check() error {
	_, port, err := net.SplitHostPort(l.addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%s: %q is no address: write \"host:port\", port 0 to 65535", l.field, l.addr)
	}
	return nil
}

func (l listener) free() bool {
	_, port := serverHostPort(l.addr)
	return port == server.RANDOM_PORT
}

// probe listens for a moment: the server would find the same out only after
// it has opened the store, and tell it by a log line.
func (l listener) probe() error {
	nl, err := net.Listen("tcp", l.addr)
	if err != nil {
		return listenError(fmt.Sprintf("%s %q", l.field, l.addr), err)
	}
	return nl.Close()
}

// serverHostPort splits a checked address; the server writes a free port -1.
func serverHostPort(addr string) (string, int) {
	host, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	if n == 0 {
		n = server.RANDOM_PORT
	}
	return host, n
}
