package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/config"
)

func newStreamsCommand(a *app) *cobra.Command {
	return noun("streams", "Look at the streams, bring them to what is declared, copy and restore them",
		newStreamsInfoCommand(a), newStreamsPlanCommand(a), newStreamsApplyCommand(a), newStreamsSnapshotCommand(a), newStreamsRestoreCommand(a))
}

func newStreamsInfoCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "info", Short: "Show what the streams hold", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withBus(cmd.Context(), func(b *bus.Bus) error { return a.streamsInfo(cmd.Context(), b) })
		},
	}
}

// streamLine is one stream as info prints it.
type streamLine struct {
	Stream    string     `json:"stream"`
	Exists    bool       `json:"exists"`
	Messages  uint64     `json:"messages"`
	Bytes     uint64     `json:"bytes"`
	MaxBytes  int64      `json:"max_bytes"`       // -1 = no limit
	MaxAge    float64    `json:"max_age_seconds"` // 0 = no limit
	First     uint64     `json:"first"`
	Last      uint64     `json:"last"`
	FirstTime *time.Time `json:"first_time"`
	LastTime  *time.Time `json:"last_time"`
	Consumers int        `json:"consumers"`
	Replicas  int        `json:"replicas"`
	Subjects  []string   `json:"subjects"`
}

func (a *app) streamsInfo(ctx context.Context, b *bus.Bus) error {
	t := table{head: []string{"STREAM", "MESSAGES", "BYTES", "OF", "FIRST", "LAST", "OLDEST", "KEPT", "CONSUMERS", "REPLICAS", "SUBJECTS"}}
	for _, name := range declaredStreams() {
		s, err := b.JetStream().Stream(ctx, name)
		missing := errors.Is(err, jetstream.ErrStreamNotFound)
		if err != nil && !missing {
			return fmt.Errorf("stream %s: %w", name, err)
		}
		l := streamLine{Stream: name}
		if !missing {
			l = describe(s.CachedInfo())
		}
		if a.json {
			if err := line(a.stdout, l); err != nil {
				return err
			}
			continue
		}
		t.row(l.cells()...)
	}
	if a.json {
		return nil
	}
	return t.write(a.stdout)
}

func describe(info *jetstream.StreamInfo) streamLine {
	l := streamLine{
		Stream: info.Config.Name, Exists: true, Messages: info.State.Msgs, Bytes: info.State.Bytes, MaxBytes: info.Config.MaxBytes,
		MaxAge: info.Config.MaxAge.Seconds(), First: info.State.FirstSeq, Last: info.State.LastSeq,
		Consumers: info.State.Consumers, Replicas: info.Config.Replicas, Subjects: info.Config.Subjects,
	}
	if info.State.Msgs > 0 {
		l.FirstTime, l.LastTime = &info.State.FirstTime, &info.State.LastTime
	}
	return l
}

func (l streamLine) cells() []string {
	if !l.Exists {
		return []string{l.Stream, "missing", "-", "-", "-", "-", "-", "-", "-", "-", "-"}
	}
	limit, kept, oldest := "no limit", "no limit", "-"
	if l.MaxBytes > 0 {
		limit = size(l.MaxBytes)
	}
	if l.MaxAge > 0 {
		kept = age(time.Duration(l.MaxAge * float64(time.Second)))
	}
	if l.FirstTime != nil {
		oldest = age(time.Since(*l.FirstTime))
	}
	return []string{
		l.Stream, fmt.Sprint(l.Messages), size(l.Bytes), limit, fmt.Sprint(l.First), fmt.Sprint(l.Last), oldest, kept,
		fmt.Sprint(l.Consumers), fmt.Sprint(l.Replicas), strings.Join(l.Subjects, ", "),
	}
}

const streamsConfigHelp = `What is declared depends on the daemon's configuration: give its file with --config; CIMBUS_… variables count too. A configuration
that names an external server is where the streams are looked for, unless --server or --context say otherwise.`

func newStreamsPlanCommand(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "plan", Short: "Show what apply would do, and change nothing", Args: noArgs, Long: "Show what apply would do, and change nothing.\n\n" + streamsConfigHelp,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withDeclared(cmd.Context(), file, func(b *bus.Bus) error {
				plan, err := b.PlanStreams(cmd.Context())
				if err != nil {
					return err
				}
				return a.showPlan(plan)
			})
		},
	}
	configFlag(cmd, &file)
	return cmd
}

func newStreamsApplyCommand(a *app) *cobra.Command {
	var file string
	var force bool
	cmd := &cobra.Command{
		Use: "apply", Short: "Create missing streams, and bring the others to what is declared", Args: noArgs,
		Long: "Create missing streams, and bring the others to what is declared. A change that loses messages, or a promise about them, is\n" +
			"refused without --force; then nothing is changed at all.\n\n" + streamsConfigHelp,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withDeclared(cmd.Context(), file, func(b *bus.Bus) error {
				plan, err := b.PlanStreams(cmd.Context())
				if err != nil {
					return err
				}
				if err := b.ApplyStreams(cmd.Context(), plan, force); err != nil {
					return err
				}
				return a.showDone(plan)
			})
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().BoolVar(&force, "force", false, "make changes that lose messages too")
	return cmd
}

// withDeclared runs do on a bus whose streams are declared by a configuration.
func (a *app) withDeclared(ctx context.Context, file string, do func(*bus.Bus) error) error {
	c, err := config.Load(config.Sources{File: file, Environ: a.environ})
	if err != nil {
		return err
	}
	t := a.target()
	if c.External() && a.server == "" && a.context == "" {
		t = a.configured(c)
	}
	return t.withBus(ctx, a.log(hclog.Warn), func(nc *nats.Conn) bus.StreamOptions {
		streams := streamOptions(c)
		// The server in a daemon gives its streams shares of the whole store, which only its configuration knows: its account has no limit.
		if !c.External() && nc.ConnectedServerName() == embedded.DefaultServerName {
			streams.MaxBytes = c.StoreLimits.MaxBytes
		}
		return streams
	}, do)
}

// streamOptions are the limits of the streams as configured.
func streamOptions(c *config.Config) bus.StreamOptions {
	s := c.Streams
	return bus.StreamOptions{
		EventsMaxAge: s.Events.MaxAge, DeliveriesMaxAge: s.Deliveries.MaxAge, IndexMaxAge: s.Index.MaxAge, DeadLettersMaxAge: s.DeadLetters.MaxAge,
		ConversationsTTL: c.Conversations.TTL, LeftMembersTTL: c.Members.LeftTTL,
		DeliveriesPerSubject: s.Deliveries.MaxPerSubject, MaxEventBytes: int32(s.MaxEventBytes), DuplicateWindow: s.DuplicateWindow,
		Replicas: s.Replicas, Compression: s.Compression == "s2",
	}
}

func (a *app) showPlan(plan bus.Plan) error {
	if a.json {
		return a.planLines(plan)
	}
	advice := "nothing to do"
	switch {
	case plan.Impossible():
		advice = "apply refuses: a difference cannot be changed on an existing stream"
	case len(plan.Refused()) > 0:
		advice = "apply refuses unless forced: data would be lost"
	case plan.Changes():
		advice = "apply makes these changes"
	}
	_, err := fmt.Fprintf(a.stdout, "%s%s\n", plan, advice)
	return err
}

// showDone prints a plan that was carried out.
func (a *app) showDone(plan bus.Plan) error {
	if a.json {
		return a.planLines(plan)
	}
	done := map[bus.Action]string{
		bus.ActionCreate: "created", bus.ActionKeep: "as declared", bus.ActionUpdate: "updated", bus.ActionRefuse: "changed by force",
	}
	for _, s := range plan.Streams {
		if _, err := fmt.Fprintf(a.stdout, "%s: %s\n", s.Stream, done[s.Action]); err != nil {
			return err
		}
		for _, d := range s.Differences {
			if _, err := fmt.Fprintf(a.stdout, "  %s\n", d); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *app) planLines(plan bus.Plan) error {
	for _, s := range plan.Streams {
		if err := line(a.stdout, s); err != nil {
			return err
		}
	}
	return nil
}
