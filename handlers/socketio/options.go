package socketio

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/cimbus/cimbus/handlers/socketio/engineio"
)

// Options of a Server. Zero values take the defaults.
type Options struct {
	// Path that clients ask for, with or without the last slash ("/socket.io/"). A prefix goes here too:
	// "/agent-manager/socket.io/".
	Path string
	// Engine is the transport: heartbeat, limits, origins, deadlines. Its MaxHalfOpenPerAddress (4,096 here) is for clients without a
	// namespace.
	Engine engineio.Options
	// ConnectTimeout for a client to connect to a namespace, middleware included (45 s).
	ConnectTimeout time.Duration
	// MaxPending is how many events of one socket may wait for its handlers (256). Then its connection is not read until one is done.
	MaxPending int
	// MaxAttachments of one packet from a client (10).
	MaxAttachments int
	// Logger for changes of state, and the transport's where Engine.Logger is not set (none).
	Logger hclog.Logger
}

func (o Options) withDefaults() Options {
	if o.Path == "" {
		o.Path = "/socket.io/"
	}
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = 45 * time.Second
	}
	if o.MaxPending == 0 {
		o.MaxPending = 256
	}
	if o.MaxAttachments == 0 {
		o.MaxAttachments = 10
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Engine.MaxHalfOpenPerAddress == 0 {
		o.Engine.MaxHalfOpenPerAddress = 4096
	}
	if o.Engine.Logger == nil {
		o.Engine.Logger = o.Logger.Named("engine")
	}
	return o
}

// Validate reports every option that cannot work, by name.
func (o Options) Validate() error {
	var errs []error
	if o.Path != "" && !strings.HasPrefix(o.Path, "/") {
		errs = append(errs, fmt.Errorf("option Path: %q: begin it with a slash", o.Path))
	}
	if o.ConnectTimeout < 0 {
		errs = append(errs, fmt.Errorf("option ConnectTimeout: %v: give a positive time, or 0 for the default", o.ConnectTimeout))
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"MaxPending", o.MaxPending}, {"MaxAttachments", o.MaxAttachments}} {
		if n.value < 0 {
			errs = append(errs, fmt.Errorf("option %s: %d: give a positive number, or 0 for the default", n.name, n.value))
		}
	}
	if err := o.Engine.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("option Engine: %w", err))
	}
	return errors.Join(errs...)
}
