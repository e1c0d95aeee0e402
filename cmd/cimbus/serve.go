package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/config"
)

func newServeCommand(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the daemon", Args: noArgs,
		Long: `Run the daemon: a NATS server of its own, or with --nats-url a place on an external one, the handler that turns events into
deliveries, the service that agents ask, and HTTP with /healthz, /readyz and /metrics.

When all of it is ready, stdout gets its one line:

  {"ready":true,"nats":"nats://…","websocket":"ws://…","http":"http://…","store":"…","durability":"strict"}

What is off is "". On an external server websocket and store are "", and durability is "external": what an acknowledgement is
worth is then decided there. SIGINT or SIGTERM ends it, with exit code 0; a second one at once, with 1.

/healthz answers 503 when the process is of no use any more and should be replaced; /readyz while events are not taken, not
handled, or come to agents later than alarms.lag allows, and says which. Not ready says "send no new work here", not "kill it":
a daemon that is behind catches up, one that is killed begins again.

The log is on stderr, at log.level. SIGUSR1 makes it one level more verbose, SIGUSR2 sets it back. So does, from this machine,

  curl -X PUT -d debug http://127.0.0.1:8080/log/level

with any level; without -X PUT -d it answers which one it is.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.server != "" || a.context != "" || a.creds != "" {
				return usagef("--server, --context and --creds are for commands that connect to a daemon: name an external server by --nats-url, or nats.url, nats.context and nats.creds in the configuration")
			}
			c, err := a.loadConfig(cmd, file)
			if err != nil {
				return err
			}
			return a.serve(cmd.Context(), c)
		},
	}
	configFlag(cmd, &file)
	for _, k := range config.Keys() {
		if k.Flag != "" {
			cmd.Flags().String(k.Flag, k.Default, k.Doc)
		}
	}
	return cmd
}

// loadConfig reads the configuration with the flags that were given. Where only those are wrong, that is a mistake on the
// command line.
func (a *app) loadConfig(cmd *cobra.Command, file string) (*config.Config, error) {
	given := map[string]string{}
	for _, k := range config.Keys() {
		if k.Flag != "" && cmd.Flags().Changed(k.Flag) {
			given[k.Flag] = cmd.Flags().Lookup(k.Flag).Value.String()
		}
	}
	c, err := config.Load(config.Sources{File: file, Environ: a.environ, Flags: given})
	var problems config.Problems
	if !errors.As(err, &problems) {
		return c, err
	}
	for _, p := range problems {
		if p.Source.Layer != config.LayerFlag {
			return nil, err
		}
	}
	return nil, &usageError{err}
}

func (a *app) serve(ctx context.Context, c *config.Config) error {
	d := &daemon{config: c, external: a.configured(c), log: hclog.New(&hclog.LoggerOptions{
		Name: "cimbus", Output: a.stderr, Level: hclog.LevelFromString(c.Log.Level), JSONFormat: c.Log.Format == "json",
	})}
	d.level = newLogLevel(d.log)
	unwatch := d.level.watchSignals()
	defer unwatch()
	err := d.start(ctx)
	if err == nil {
		if err = line(a.stdout, d.announcement()); err == nil {
			err = d.wait(ctx)
		}
	} else if ctx.Err() != nil {
		d.log.Info("told to end before all was ready", "because", err)
		err = nil
	}
	return errors.Join(err, d.stop(context.WithoutCancel(ctx)))
}

// announcement is the one line on stdout.
type announcement struct {
	Ready      bool   `json:"ready"`
	NATS       string `json:"nats"`
	WebSocket  string `json:"websocket"`
	HTTP       string `json:"http"`
	Store      string `json:"store"`
	Durability string `json:"durability"`
}

func (d *daemon) announcement() announcement {
	w := announcement{Ready: true, HTTP: d.http.url(), Durability: d.durability()}
	if server := d.bus.Server(); server != nil {
		w.NATS, w.WebSocket, w.Store = server.NATSURL(), server.WebSocketURL(), server.StoreDir()
	} else {
		w.NATS = withoutCredentials(cmp.Or(d.external.url, d.nc.ConnectedUrl()))
	}
	return w
}

// durabilityExternal stands for what the operator of an external server has chosen there.
const durabilityExternal = "external"

func (d *daemon) durability() string {
	if d.config.External() {
		return durabilityExternal
	}
	return d.config.Durability
}

// wait returns nil when ctx ends, an error when the server in this process is no longer of use.
func (d *daemon) wait(ctx context.Context) error {
	var failed <-chan struct{} // never, where the server is external
	server := d.bus.Server()
	if server != nil {
		failed = server.Failed()
	}
	select {
	case <-ctx.Done():
		d.log.Info("told to end")
		return nil
	case err := <-d.http.failed:
		return fmt.Errorf("http: %w", err)
	case <-failed:
		return server.Err()
	}
}
