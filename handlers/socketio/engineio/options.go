package engineio

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"path"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Options of a Server. Zero values take the defaults.
type Options struct {
	// PingInterval between a pong and the next ping (25 s).
	PingInterval time.Duration
	// PingTimeout is how long a pong may take (20 s).
	PingTimeout time.Duration
	// MaxPayload is the largest body or frame taken from a client, in bytes (1,000,000). A polling response is cut there too.
	MaxPayload int
	// MaxSessions in all (20,000). One more is answered with 503.
	MaxSessions int
	// MaxSessionsPerAddress is the most sessions one address may have (MaxSessions). One more is answered with 429. An office behind
	// one address, or a proxy that RemoteAddr is not told of, counts as one.
	MaxSessionsPerAddress int
	// MaxHalfOpenPerAddress is the most sessions of one address that may be without Settle (MaxSessionsPerAddress): for servers with a
	// handshake of their own, which a client may never begin. One more is answered with 429.
	MaxHalfOpenPerAddress int
	// MaxQueuePackets waiting to be sent to one session (2,048). One more ends it with ErrSlow.
	MaxQueuePackets int
	// MaxQueueBytes waiting to be sent to one session (8 MiB); a single message may exceed it when nothing else waits.
	MaxQueueBytes int
	// WriteTimeout for one write to a client (10 s).
	WriteTimeout time.Duration
	// ReadTimeout for the body of a POST (10 s).
	ReadTimeout time.Duration
	// UpgradeTimeout between the WebSocket of an upgrade and its "5" packet (10 s).
	UpgradeTimeout time.Duration
	// Origins that may connect from a browser besides the server's own: "https://desk.example.com", "https://*.example.com", or "*" for
	// any. Requests without an Origin header are not a browser's and always pass.
	Origins []string
	// RemoteAddr tells the client's address, for the limit and Session.RemoteAddr (the connection's own, without the port). Behind a proxy
	// it reads the header that the proxy sets.
	RemoteAddr func(*http.Request) string
	// Logger for changes of state (none).
	Logger hclog.Logger
}

func (o Options) withDefaults() Options {
	duration := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	number := func(n *int, to int) {
		if *n == 0 {
			*n = to
		}
	}
	duration(&o.PingInterval, 25*time.Second)
	duration(&o.PingTimeout, 20*time.Second)
	duration(&o.WriteTimeout, 10*time.Second)
	duration(&o.ReadTimeout, 10*time.Second)
	duration(&o.UpgradeTimeout, 10*time.Second)
	number(&o.MaxPayload, 1_000_000)
	number(&o.MaxSessions, 20_000)
	number(&o.MaxSessionsPerAddress, o.MaxSessions)
	number(&o.MaxHalfOpenPerAddress, o.MaxSessionsPerAddress)
	number(&o.MaxQueuePackets, 2048)
	number(&o.MaxQueueBytes, 8<<20)
	if o.RemoteAddr == nil {
		o.RemoteAddr = connectionAddr
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return o
}

// Validate reports every option that cannot work, by name.
func (o Options) Validate() error {
	var errs []error
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"PingInterval", o.PingInterval}, {"PingTimeout", o.PingTimeout}, {"WriteTimeout", o.WriteTimeout},
		{"ReadTimeout", o.ReadTimeout}, {"UpgradeTimeout", o.UpgradeTimeout},
	} {
		if d.value < 0 || d.value != 0 && d.value < time.Millisecond {
			errs = append(errs, fmt.Errorf("option %s: %v: give at least 1ms, or 0 for the default", d.name, d.value))
		}
	}
	for _, n := range []struct {
		name  string
		value int
	}{
		{"MaxPayload", o.MaxPayload}, {"MaxSessions", o.MaxSessions}, {"MaxSessionsPerAddress", o.MaxSessionsPerAddress},
		{"MaxHalfOpenPerAddress", o.MaxHalfOpenPerAddress}, {"MaxQueuePackets", o.MaxQueuePackets}, {"MaxQueueBytes", o.MaxQueueBytes},
	} {
		if n.value < 0 {
			errs = append(errs, fmt.Errorf("option %s: %d: give a positive number, or 0 for the default", n.name, n.value))
		}
	}
	for _, origin := range o.Origins {
		if _, err := path.Match(origin, ""); err != nil || origin == "" {
			errs = append(errs, fmt.Errorf("option Origins: %q: give an origin such as https://*.example.com, or *", origin))
		}
	}
	return errors.Join(errs...)
}

func connectionAddr(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
