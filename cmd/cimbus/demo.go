package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// demoSample is an event as the platform documents them: BOT_SUGGESTION in its form of 2022, in the documented wrapper.
//
//go:embed demo.json
var demoSample []byte

// demoStore is what the streams of a demo may use, in bytes.
const demoStore = 256 << 20

// demo shows the main job to somebody who has a minute: everything runs in this process, on a folder that is removed at the end.
type demo struct {
	app      *app
	log      hclog.Logger
	keep     bool
	pace     time.Duration    // between two events, for those who watch
	patience time.Duration    // how long a delivery may take
	handler  handlers.Handler // the translation; tests break it
}

func newDemo(a *app) *demo {
	return &demo{app: a, pace: 150 * time.Millisecond, patience: 5 * time.Second, handler: oncimevent.New(oncimevent.Options{})}
}

func newDemoCommand(a *app) *cobra.Command {
	d := newDemo(a)
	cmd := &cobra.Command{
		Use: "demo", Short: "Show the road of one event and a short live conversation", Args: noArgs,
		Long: "Start a server in a temporary folder, publish the documented sample event through plain NATS and show every station it\n" +
			"passes; then a short conversation through two agents, one of which drops and resumes. It exits 0 only if every event\n" +
			"arrived exactly once and in order.",
		RunE: func(cmd *cobra.Command, _ []string) error { return d.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&d.keep, "keep", false, "leave it running at the end, and print what to try")
	return cmd
}

// run plays the demo on a server of its own and takes everything down again.
func (d *demo) run(ctx context.Context) (err error) {
	d.log = d.app.log(hclog.Warn)
	dir, err := os.MkdirTemp("", "cimbus-demo-")
	if err != nil {
		return fmt.Errorf("temporary folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b, err := bus.Open(ctx, bus.Options{
		Logger: d.log,
		Embedded: embedded.Options{
			StoreDir: dir, NATSAddr: "127.0.0.1:0", WebSocketAddr: "127.0.0.1:0", MaxStore: demoStore,
			// It warns of WebSocket without TLS, which does not concern a demo on loopback.
			Logger: d.app.log(hclog.Error).Named("server"),
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close(context.WithoutCancel(ctx))) }()
	worker, err := handlers.Start(ctx, b, d.handler)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.end(ctx, worker.Close)) }()
	control, err := b.ServeControl(ctx, bus.ControlOptions{OpenInboxes: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, control.Close()) }()
	return d.show(ctx, b)
}

// end gives a part of the demo a moment to finish.
func (d *demo) end(ctx context.Context, closing func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.patience)
	defer cancel()
	return closing(ctx)
}

// show plays both parts and judges them.
func (d *demo) show(ctx context.Context, b *bus.Bus) (err error) {
	p, err := d.newPlay(b)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	began := time.Now()
	p.view.started(b.Server())
	playErr := p.perform(ctx)
	if ctx.Err() != nil {
		return fmt.Errorf("ended before its end: %w", ctx.Err())
	}
	verdict, err := p.judge(ctx, playErr)
	if err != nil {
		return err
	}
	verdict.Seconds = time.Since(began).Round(time.Millisecond).Seconds()
	p.view.verdict(verdict)
	if d.keep {
		p.view.hints(b.Server(), p.conversation)
		<-ctx.Done()
	}
	if p.view.err != nil {
		return p.view.err
	}
	if !verdict.OK {
		return errReported
	}
	return nil
}

// service is what publishes the events: any program with a NATS client, here nats.go and nothing else.
type service struct{ nc *nats.Conn }

// publish stores an event. The answer says where: {"stream":"CIM_EVENTS","seq":2}.
func (s service) publish(ctx context.Context, subject string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	reply, err := s.nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return nil, fmt.Errorf("publish on %s: %w", subject, err)
	}
	return reply.Data, nil
}
