package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	"github.com/cimbus/cimbus/bus/embedded"
)

// Options say where the bus lives. With Conn it uses that connection and never closes it; with URL it dials one of its own;
// with neither it starts a server in this process from Embedded. Conn and URL exclude each other.
type Options struct {
	Conn     *nats.Conn       // a connection of the host's; never closed by the bus
	URL      string           // an external server or cluster, comma-separated
	NATS     []nats.Option    // for the connection the bus makes itself: credentials, TLS, name
	Embedded embedded.Options // for the server in this process; its Logger defaults to the bus's

	// Streams are the limits of the declared streams; the zero value is the design's.
	Streams StreamOptions
	// LeaveStreams opens the bus without touching the streams: no check, nothing created or updated. For tools that only look.
	LeaveStreams bool

	// Tracing makes spans of what the bus publishes and of what its handlers do: publish, handle and deliver. nil is none, at no cost;
	// the trace context of an event then goes on as it came. The provider is the host's to flush and to shut down.
	Tracing trace.TracerProvider

	// CountedTenants is how many tenants are told apart where something is counted, the first that come; default 100. All others are
	// counted together, as OtherTenants.
	CountedTenants int

	Logger hclog.Logger // default: none
}

// Errors of Open that callers branch on; those of the server in this process are embedded's.
var (
	ErrUnreachable  = errors.New("no NATS server reachable")
	ErrUnauthorized = errors.New("NATS server refused the credentials")
	ErrNoJetStream  = errors.New("NATS server has no JetStream")
	ErrClosed       = errors.New("bus is closed")
)

// Bus is an open event bus. Its methods may be called from several goroutines at once.
type Bus struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	owned  bool // nc is ours to drain
	server *embedded.Server
	log    hclog.Logger
	tracer trace.Tracer // nil: no spans

	streams      StreamOptions
	leaveStreams bool

	tenants   *tenantNames
	published publishCounters
	gaps      atomic.Uint64 // closed for agents of this process, and for those who said so to the control service

	closing   sync.Once
	closed    chan struct{}
	closeErr  error
	workers   sync.WaitGroup // what the bus itself started; waited for in Close
	ctx       context.Context
	cancelCtx context.CancelFunc
}

// Open connects to the bus, or starts it, checks that JetStream is there and brings the declared streams into being: missing
// ones are created, harmless differences applied and logged, destructive ones refused with an error that holds the diff
// (*PlanError). ctx bounds the opening only.
func Open(ctx context.Context, o Options) (*Bus, error) {
	if o.Conn != nil && o.URL != "" {
		return nil, errors.New("open bus: give a connection or a URL, not both")
	}
	log := o.Logger
	if log == nil {
		log = hclog.NewNullLogger()
	}
	if o.CountedTenants < 0 {
		return nil, fmt.Errorf("open bus: counted tenants %d: give at least 1, or 0 for %d", o.CountedTenants, defaultCountedTenants)
	}
	b := &Bus{
		log: log, tracer: tracerOf(o.Tracing), streams: o.Streams, leaveStreams: o.LeaveStreams, closed: make(chan struct{}),
		tenants: newTenantNames(cmp.Or(o.CountedTenants, defaultCountedTenants)),
	}
	b.published.tenants = NewPerTenant[tenantPublishes](b)
	// The bus outlives the context it was opened with; Close ends it.
	b.ctx, b.cancelCtx = context.WithCancel(context.WithoutCancel(ctx))
	if err := b.connect(ctx, o); err != nil {
		b.cancelCtx()
		return nil, err
	}
	if err := b.provision(ctx, o); err != nil {
		return nil, errors.Join(err, b.Close(context.WithoutCancel(ctx)))
	}
	return b, nil
}

func (b *Bus) connect(ctx context.Context, o Options) error {
	var err error
	switch {
	case o.Conn != nil:
		b.nc = o.Conn
	case o.URL != "":
		b.owned = true
		if b.nc, err = nats.Connect(o.URL, b.connOptions(o.NATS)...); err != nil {
			return dialError(o.URL, err)
		}
	default:
		eo := o.Embedded
		if eo.Logger == nil {
			eo.Logger = b.log.Named("server")
		}
		if b.server, err = embedded.Start(ctx, eo); err != nil {
			return err
		}
		b.owned = true
		if b.nc, err = b.server.Connect(b.connOptions(o.NATS)...); err != nil {
			return errors.Join(fmt.Errorf("connect to the server in this process: %w", err), b.server.Shutdown(ctx))
		}
	}
	return nil
}

// connOptions are what the bus asks of a connection of its own: it never gives up, and tells the log.
func (b *Bus) connOptions(given []nats.Option) []nats.Option {
	return append([]nats.Option{
		nats.Name("cimbus"),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		LogConnState(b.log),
		nats.ErrorHandler(LogConnErrors(b.log)),
	}, given...)
}

func dialError(urls string, err error) error {
	url := Redact(urls)
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked):
		return fmt.Errorf("%w at %s: check the user, token or credentials file: %w", ErrUnauthorized, url, err)
	case errors.Is(err, nats.ErrNoServers), errors.Is(err, nats.ErrTimeout):
		return fmt.Errorf("%w at %s: check the address and that the server runs: %w", ErrUnreachable, url, err)
	}
	return fmt.Errorf("%w at %s: %w", ErrUnreachable, url, err)
}

// Redact writes a comma-separated list of server URLs without what is secret in them.
func Redact(urls string) string {
	parts := strings.Split(urls, ",")
	for i, p := range parts {
		if at := strings.LastIndexByte(p, '@'); at >= 0 {
			scheme, _, found := strings.Cut(p, "://")
			parts[i] = p[at+1:]
			if found {
				parts[i] = scheme + "://" + parts[i]
			}
		}
	}
	return strings.Join(parts, ",")
}

// provision makes sure of JetStream and of the declared streams.
func (b *Bus) provision(ctx context.Context, o Options) error {
	var err error
	if b.js, err = jetstream.New(b.nc); err != nil {
		return fmt.Errorf("open bus: %w", err)
	}
	err = b.patiently(ctx, func(ctx context.Context) error {
		_, err := b.js.AccountInfo(ctx)
		return err
	})
	if err != nil {
		if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
			return fmt.Errorf("%w at %s: start it with JetStream (-js), or enable JetStream for this account: %w", ErrNoJetStream, b.nc.ConnectedUrlRedacted(), err)
		}
		return fmt.Errorf("ask for JetStream at %s: %w", b.nc.ConnectedUrlRedacted(), err)
	}
	if o.LeaveStreams {
		return nil
	}
	plan, err := b.PlanStreams(ctx)
	if err != nil {
		return err
	}
	if err := b.ApplyStreams(ctx, plan, false); err != nil {
		return err
	}
	for _, s := range plan.Streams {
		if s.Stream == StreamEvents && !s.restored.IsZero() {
			b.log.Info("the streams are restored from a snapshot", "taken", s.restored)
		}
	}
	if b.server == nil {
		return nil
	}
	return b.server.Sync()
}

// Conn is the connection the bus works on. Closing it is not for callers.
func (b *Bus) Conn() *nats.Conn { return b.nc }

// JetStream is a JetStream context on Conn.
func (b *Bus) JetStream() jetstream.JetStream { return b.js }

// Server is the server in this process, nil where the bus lives on somebody else's.
func (b *Bus) Server() *embedded.Server { return b.server }

// Logger is what the bus logs to; packages that build on it name sub-loggers of it.
func (b *Bus) Logger() hclog.Logger { return b.log }

// LeftMembersTTL is how long the record of a member that left is kept; who writes such a record sends it along.
func (b *Bus) LeftMembersTTL() time.Duration { return b.streams.withDefaults().LeftMembersTTL }

// Done is closed when Close begins.
func (b *Bus) Done() <-chan struct{} { return b.closed }

// Close ends what the bus started, drains a connection of its own and stops the server in this process. A connection that was
// given stays open. It may be called more than once and waits until all is over or ctx ends.
func (b *Bus) Close(ctx context.Context) error {
	b.closing.Do(func() {
		close(b.closed)
		b.cancelCtx()
		b.workers.Wait()
		b.closeErr = b.disconnect(ctx)
		if b.server != nil {
			b.closeErr = errors.Join(b.closeErr, b.server.Shutdown(ctx))
		}
	})
	return b.closeErr
}

// disconnect flushes what was published and closes the bus's own connection.
func (b *Bus) disconnect(ctx context.Context) error {
	if b.nc == nil || !b.owned {
		return nil
	}
	defer b.nc.Close()
	if !b.nc.IsConnected() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := b.nc.FlushWithContext(ctx); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		return fmt.Errorf("flush the connection to NATS: %w", err)
	}
	return nil
}
