package main

import (
	"context"
	"fmt"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/config"
)

func newStreamsCommand(a *app) *cobra.Command {
	return noun("streams", "Look at the streams, bring them to what is declared, copy and restore them",
		newStreamsInfoCommand(a), newStreamsPlanCommand(a), newStreamsApplyCommand(a), newStreamsSnapshotCommand(a), newStreamsRestoreCommand(a))
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
