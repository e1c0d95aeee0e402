package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/config"
)

// httpWait is how long a daemon has to tell whether it is ready.
const httpWait = 3 * time.Second

// doctor looks at a bus from outside and explains what it sees.
type doctor struct {
	app   *app
	file  string // --config
	store string // --store
	http  string // --http

	config *config.Config
	target target
	daemon *readyAnswer // nil = none answered for this server
}

func newDoctorCommand(a *app) *cobra.Command {
	d := &doctor{app: a}
	var prove bool
	var durability string
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check the bus, and explain what is found", Args: noArgs,
		Long: `Check the bus, and explain what is found, a line for each check: ok, warn or fail, what is the case, why it matters and what to do.
Server and version, JetStream, durability, disk, streams against their declaration, room in them, lost messages, sequences that went
back, lag of the handlers, dead letters, clocks. Nothing is changed. The exit code is 1 if a check failed; warnings alone leave it 0.

How often a server syncs its disk is told to no client: of a daemon the doctor asks its /readyz. What is declared depends on the
daemon's configuration: give its file with --config.

--prove-durability looks at no bus: in a folder of its own it starts a daemon, publishes, kills it hard in the middle, starts it again
and counts, within ten seconds.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if prove {
				mode, err := embedded.ParseDurability(durability)
				if err != nil {
					return &usageError{fmt.Errorf("--durability: %w", err)}
				}
				return a.prove(cmd.Context(), mode)
			}
			if cmd.Flags().Changed("durability") {
				return usagef("--durability says what to prove: add --prove-durability")
			}
			return d.run(cmd.Context())
		},
	}
	configFlag(cmd, &d.file)
	cmd.Flags().StringVar(&d.store, "store", "", "`folder` of the daemon's store, where it is on this machine (default the configuration's)")
	cmd.Flags().StringVar(&d.http, "http", "", "`URL` of the daemon's HTTP (default the configuration's)")
	cmd.Flags().BoolVar(&prove, "prove-durability", false, "kill a daemon of its own hard and count what is left")
	cmd.Flags().StringVar(&durability, "durability", string(embedded.Strict), "the durability to prove: strict or balanced")
	return cmd
}

func (d *doctor) run(ctx context.Context) error {
	var err error
	if d.config, err = config.Load(config.Sources{File: d.file, Environ: d.app.environ}); err != nil {
		return err
	}
	d.target = d.app.target()
	if d.config.External() && d.app.server == "" && d.app.context == "" {
		d.target = d.app.configured(d.config)
	}
	found := d.examine(ctx)
	if err := ctx.Err(); err != nil {
		return err
	}
	return d.app.showFindings(found)
}

// examine makes a finding of whatever keeps it from looking.
func (d *doctor) examine(ctx context.Context) []bus.Finding {
	var found []bus.Finding
	err := d.target.withBus(ctx, d.app.log(hclog.Error), d.declare, func(b *bus.Bus) error {
		d.daemon = d.ask(ctx, b.Conn().ConnectedServerId())
		seen, err := b.Examine(ctx, alarmOptions(d.config))
		of := func(check string) bus.Finding {
			for _, f := range seen {
				if f.Check == check {
					return f
				}
			}
			return bus.Finding{}
		}
		own := d.daemon != nil && !d.daemon.external() || d.daemon == nil && b.Conn().ConnectedServerName() == embedded.DefaultServerName
		for _, f := range seen {
			found = append(found, f)
			if f.Check == "jetstream" {
				found = append(found, d.readiness()...)
				found = append(found, d.durability(own, of("replicas")), d.disk(ctx, b, own))
			}
		}
		return err
	})
	if err == nil {
		return found
	}
	f := bus.Finding{
		Check: "server", Level: bus.LevelFail, Found: err.Error(), Why: "without it no event is taken and none delivered",
		Remedy: "start cimbus serve, or name the server by --server or --context",
	}
	if errors.Is(err, bus.ErrUnauthorized) {
		f.Remedy = "give a user who may, by --creds, --context or in the URL of --server"
	}
	if errors.Is(err, bus.ErrNoJetStream) {
		f.Check = "jetstream"
		f.Why, f.Remedy = "JetStream is what stores the events", "start the server with JetStream (-js), or enable it for this account"
	}
	return append(found, f)
}

// declare gives the streams the limits of the configuration, as the daemon does.
func (d *doctor) declare(nc *nats.Conn) bus.StreamOptions {
	streams := streamOptions(d.config)
	if !d.config.External() && nc.ConnectedServerName() == embedded.DefaultServerName {
		streams.MaxBytes = d.config.StoreLimits.MaxBytes
	}
	return streams
}

// readyAnswer is what a daemon's /readyz says.
type readyAnswer struct {
	url    string
	Ready  bool    `json:"ready"`
	Checks []check `json:"checks"`
}

func (r *readyAnswer) reason(name string) string {
	for _, c := range r.Checks {
		if c.Check == name {
			return c.Reason
		}
	}
	return ""
}

func (r *readyAnswer) external() bool {
	return strings.HasPrefix(r.reason("durability"), durabilityExternal)
}

// ask asks the daemon whether it is ready; nil where none answers, or one of another server.
func (d *doctor) ask(ctx context.Context, server string) *readyAnswer {
	url := d.url()
	if url == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, httpWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", http.NoBody)
	if err != nil {
		return nil
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil
	}
	defer func() { _ = resp.Body.Close() }() // read to its end, or of no interest
	answer := &readyAnswer{url: url}
	if resp.Header.Get(serverHeader) != server || json.NewDecoder(resp.Body).Decode(answer) != nil {
		return nil
	}
	return answer
}

func (d *doctor) url() string {
	if d.http == "" && d.config.HTTP.Addr != "" {
		return "http://" + d.config.HTTP.Addr
	}
	return strings.TrimSuffix(d.http, "/")
}

func (d *doctor) readiness() []bus.Finding {
	if d.daemon == nil {
		return nil
	}
	f := bus.Finding{
		Check: "daemon", Level: bus.LevelOK, Found: "ready at " + d.daemon.url + ", its worker " + d.daemon.reason("worker"),
		Why: "it turns events into deliveries", Remedy: "nothing",
	}
	if d.daemon.Ready {
		return []bus.Finding{f}
	}
	var bad []string
	for _, c := range d.daemon.Checks {
		if !c.OK {
			bad = append(bad, c.Check+": "+c.Reason)
		}
	}
	f.Level, f.Found, f.Remedy = bus.LevelFail, "not ready: "+strings.Join(bad, "; "), "see what it says, and its log"
	return []bus.Finding{f}
}

// durability tells what an acknowledgement is worth when the power goes.
func (d *doctor) durability(own bool, replicas bus.Finding) bus.Finding {
	f := bus.Finding{Check: "durability", Level: bus.LevelOK, Why: "an acknowledged event is only as safe as its last sync", Remedy: "nothing"}
	switch {
	case own && d.daemon != nil:
		f.Found = d.daemon.reason("durability")
	case own:
		f.Level = bus.LevelWarn
		f.Found = "not known: only the daemon tells, and " + cmp.Or(d.url(), "HTTP") + " does not answer for it"
		f.Remedy = "give its address with --http, or read durability in its ready line or configuration"
	case strings.Contains(replicas.Found, "one server"):
		f.Level = bus.LevelWarn
		f.Found = "decided by the server, which tells no client: unless configured, it syncs every 2 minutes, and a power cut can cost as much"
		f.Remedy = "set sync_interval: always (or a few seconds) in the server's jetstream block, or keep three replicas on a cluster"
	default:
		f.Found = "decided by the servers, which tell no client; " + replicas.Found + ", so it takes a power cut of most of them at once to lose what is not synced"
	}
	return f
}

// disk looks at the room of the store, where it is on this machine.
func (d *doctor) disk(ctx context.Context, b *bus.Bus, own bool) bus.Finding {
	f := bus.Finding{Check: "disk", Level: bus.LevelOK, Why: "a server whose disk is full stops until it is started again", Remedy: "nothing"}
	if !own {
		f.Found = "is the server's to watch: it tells no client"
		return f
	}
	dir := cmp.Or(d.store, d.config.Store)
	if _, err := os.Stat(filepath.Join(dir, server.JetStreamStoreDir)); err != nil {
		f.Level, f.Found, f.Remedy = bus.LevelWarn, fmt.Sprintf("not known: there is no store in %s", dir), "give the store's folder with --store, on the machine it is on"
		return f
	}
	disk, err := embedded.ReadDisk(dir)
	if err != nil {
		f.Level, f.Found, f.Remedy = bus.LevelWarn, "not known: "+err.Error(), "look at the disk of "+dir
		return f
	}
	f.Found = fmt.Sprintf("%s of %s are free", size(disk.Free), size(disk.Total))
	reserve := cmp.Or(uint64(d.config.Alarms.DiskReserve), bus.DiskReserve(disk))
	switch {
	case disk.Free < reserve:
		f.Level, f.Remedy = bus.LevelFail, "make room on the disk, or keep less free: alarms.disk_reserve; events are taken again by themselves once there is room"
		f.Found += fmt.Sprintf(", below %s publishers are refused", size(reserve))
	case disk.Free < reserve+d.growth(ctx, b):
		f.Level, f.Remedy = bus.LevelWarn, "make room on the disk, or give the store less: store_limits.max_bytes"
		f.Found += fmt.Sprintf(", but the streams may grow by another %s", size(d.growth(ctx, b)))
	}
	return f
}

// growth is how much more the streams may store, 0 where that is not known.
func (d *doctor) growth(ctx context.Context, b *bus.Bus) uint64 {
	streams, err := b.Streams(ctx)
	if err != nil {
		return 0
	}
	var more uint64
	for _, s := range streams {
		if s.MaxBytes > 0 && uint64(s.MaxBytes) > s.Bytes {
			more += uint64(s.MaxBytes) - s.Bytes
		}
	}
	return more
}

// showFindings prints findings, and is errReported if one of them is a failure.
func (a *app) showFindings(found []bus.Finding) error {
	for _, f := range found {
		if err := a.showFinding(f); err != nil {
			return err
		}
	}
	if !a.json {
		a.tell("%s", verdict(found))
	}
	if bus.Worst(found) == bus.LevelFail {
		return errReported
	}
	return nil
}

// verdict names what is not well, the worst first: among many lines it is not seen at once.
func verdict(found []bus.Finding) string {
	var parts []string
	for _, level := range []struct {
		bus.Level
		words string
	}{{bus.LevelFail, "failed"}, {bus.LevelWarn, "to be looked at"}} {
		var names []string
		for _, f := range found {
			if f.Level == level.Level {
				names = append(names, strings.TrimSpace(f.Check+" "+f.Of))
			}
		}
		if len(names) > 0 {
			parts = append(parts, fmt.Sprintf("%d %s (%s)", len(names), level.words, strings.Join(names, ", ")))
		}
	}
	if len(parts) == 0 {
		parts = []string{"all well"}
	}
	return fmt.Sprintf("%s: %s", plural(len(found), "check"), strings.Join(parts, ", "))
}

func (a *app) showFinding(f bus.Finding) error {
	if a.json {
		return line(a.stdout, f)
	}
	of := strings.TrimSpace(f.Check + " " + f.Of)
	text := printable(f.Found) + ". Why it matters: " + printable(f.Why) + "."
	if f.Level != bus.LevelOK {
		text += " What to do: " + printable(f.Remedy) + "."
	}
	if _, err := fmt.Fprintf(a.stdout, "%-4s  %-26s  %s\n", f.Level, of, text); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}
