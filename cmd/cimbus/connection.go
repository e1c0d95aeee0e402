package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/natscontext"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/config"
)

// defaultServer is where a daemon with default settings listens.
const defaultServer = "nats://127.0.0.1:4222"

// answerWait is how long a server has to answer the first question.
const answerWait = 10 * time.Second

// target is a NATS server and how to be let in.
type target struct {
	url      string // overrides the context's; "" = the context's, or the default
	context  string // its name or file; "" = none
	selected bool   // nobody named the context: it is the one selected in the nats command line
	creds    string // overrides what the context has of that kind
	home     string // where contexts are kept
}

// target is the one that flags, environment and the nats command line's selected context name, by the rules of that command line:
// flag before variable before context, each setting by itself, so that --server and $NATS_URL leave a context its credentials.
func (a *app) target() target {
	t := target{
		url: cmp.Or(a.server, a.env("NATS_URL")), creds: cmp.Or(a.creds, a.env("NATS_CREDS")),
		context: cmp.Or(a.context, a.env("NATS_CONTEXT")), home: contextHome(a.env),
	}
	if a.noContext {
		t.context = ""
	} else if t.context == "" {
		t.context = selectedContext(t.home)
		t.selected = t.context != ""
	}
	return t
}

// configured is the external server a configuration names.
func (a *app) configured(c *config.Config) target {
	return target{url: c.NATS.URL, context: c.NATS.Context, creds: c.NATS.Creds, home: contextHome(a.env)}
}

// String names the target without its credentials.
func (t target) String() string {
	url := withoutCredentials(t.url)
	named := fmt.Sprintf("context %q", t.context)
	if t.selected {
		named = "selected " + named
	}
	switch {
	case t.context == "":
		return cmp.Or(url, defaultServer)
	case url == "":
		return named
	}
	return fmt.Sprintf("%s (%s)", url, named)
}

// withoutCredentials takes users, passwords and tokens out of URLs. It cuts by hand: a URL with a mistake in it is shown too.
func withoutCredentials(urls string) string {
	var kept []string
	for url := range strings.SplitSeq(urls, ",") {
		scheme, rest, found := strings.Cut(url, "://")
		if !found {
			scheme, rest = "", url
		}
		if at := strings.LastIndexByte(rest, '@'); at >= 0 {
			rest = rest[at+1:]
		}
		if found {
			rest = scheme + "://" + rest
		}
		kept = append(kept, rest)
	}
	return strings.Join(kept, ",")
}

// dial connects, once; from then on the connection lives through outages. The caller closes it.
func (t target) dial(log hclog.Logger, more ...nats.Option) (*nats.Conn, error) {
	opts := append([]nats.Option{
		nats.Name("cimbus"),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		bus.LogConnState(log),
		nats.ErrorHandler(bus.LogConnErrors(log)),
	}, more...)
	if t.creds != "" {
		if _, err := os.Stat(t.creds); err != nil {
			return nil, fmt.Errorf("credentials: %w: give the path of a credentials file", err)
		}
		opts = append(opts, noCredentials, nats.UserCredentials(t.creds))
	}
	if t.context == "" {
		nc, err := nats.Connect(cmp.Or(t.url, defaultServer), opts...)
		return nc, t.refused(err)
	}
	file, settings, err := loadContext(t.home, t.context)
	if err != nil {
		return nil, t.unusable(err)
	}
	opts = append(opts, func(o *nats.Options) error {
		switch {
		case t.url != "":
			o.Servers = strings.Split(t.url, ",")
		case len(o.Servers) == 0 || o.Servers[0] == "":
			o.Servers = []string{defaultServer}
		}
		return nil
	})
	nc, _, err := natscontext.Connect(file, opts...)
	if err != nil {
		return nil, t.unusable(t.refused(err))
	}
	if err := inDomain(nc, settings.JSDomain); err != nil {
		nc.Close()
		return nil, t.unusable(err)
	}
	return nc, nil
}

// noCredentials takes back what a context said of user, password, token and key: those on the command line are meant to be the only ones.
func noCredentials(o *nats.Options) error {
	o.User, o.Password, o.Token, o.Nkey, o.SignatureCB = "", "", "", "", nil
	return nil
}

// inDomain makes sure that the JetStream of a connection is the one of a domain. The bus works with that of its own server only, which a
// context with a domain may not mean.
func inDomain(nc *nats.Conn, domain string) error {
	if domain == "" {
		return nil
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerWait)
	defer cancel()
	account, err := js.AccountInfo(ctx)
	if err != nil {
		return fmt.Errorf("ask for its jetstream_domain: %w", err)
	}
	if account.Domain != domain {
		return fmt.Errorf("jetstream_domain is %q, that of the server at %s is %q: name a server of the domain", domain, nc.ConnectedUrlRedacted(), account.Domain)
	}
	return nil
}

// unusable adds to an error with a context that nobody named where that comes from.
func (t target) unusable(err error) error {
	if t.selected {
		return fmt.Errorf("%w (the context is the one selected by nats context select; --context names another, --no-context none)", err)
	}
	return err
}

// refused says what a failed connect means.
func (t target) refused(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked):
		return fmt.Errorf("%w at %s: check the user, token or credentials file: %w", bus.ErrUnauthorized, t, err)
	case errors.Is(err, nats.ErrNoServers), errors.Is(err, nats.ErrTimeout):
		return fmt.Errorf("%w at %s: check the address and that the server runs: %w", bus.ErrUnreachable, t, err)
	}
	return fmt.Errorf("connect to %s: %w", t, err)
}

// withBus runs do on the bus the flags name, whose streams it leaves as they are.
func (a *app) withBus(ctx context.Context, do func(*bus.Bus) error) error {
	return a.target().withBus(ctx, a.log(hclog.Warn), nil, do)
}

// withBus runs do on the bus at t. declare says by which limits its streams are declared, where that matters.
func (t target) withBus(ctx context.Context, log hclog.Logger, declare func(*nats.Conn) bus.StreamOptions, do func(*bus.Bus) error) error {
	opening, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	logError := bus.LogConnErrors(log)
	nc, err := t.dial(log, nats.ErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrPermissionViolation) {
			cancel() // what is not allowed is not answered, and need not be waited for
		}
		logError(nc, sub, err)
	}))
	if err != nil {
		return err
	}
	defer nc.Close()
	o := bus.Options{Conn: nc, LeaveStreams: true, Logger: log}
	if declare != nil {
		o.Streams = declare(nc)
	}
	b, err := bus.Open(opening, o)
	if err != nil {
		return t.denied(nc, err)
	}
	return errors.Join(t.denied(nc, do(b)), b.Close(context.WithoutCancel(ctx)))
}

// denied is err, or the server's complaint that this user may not do what was then never answered.
func (t target) denied(nc *nats.Conn, err error) error {
	unanswered := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, nats.ErrTimeout)
	if violation := nc.LastError(); unanswered && errors.Is(violation, nats.ErrPermissionViolation) {
		return fmt.Errorf("%w at %s: this command needs a user who may ask JetStream: %w", bus.ErrUnauthorized, t, violation)
	}
	return err
}

// withoutBus adds to an error what can be done where there are no streams.
func (a *app) withoutBus(err error) error {
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("%w: there is no bus at %s yet: start a daemon with cimbus serve, or make the streams with cimbus streams apply", err, a.target())
	}
	return err
}
