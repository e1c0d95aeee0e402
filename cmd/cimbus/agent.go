package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/subjects"
)

// openWait is how long the control service has to answer.
const openWait = 15 * time.Second

// agentCommand prints an agent's deliveries.
type agentCommand struct {
	app    *app
	tenant string
	agent  string
	after  string
	count  int
}

func newAgentCommand(a *app) *cobra.Command {
	c := &agentCommand{app: a}
	cmd := &cobra.Command{
		Use: "agent", Short: "Receive what an agent receives, one JSON object a line", Args: noArgs,
		Long: `Receive what an agent receives, live and from where it was, one JSON object a line:

  {"position","sequence","subject","event","conversation","payload"}

sequence is null for what belongs to no event of a conversation. Without --after the deliveries from now on are printed, and
{"live":true} on stderr once they are. To go on after a stop, give --after the position of the last line.
It needs no more than an agent's permissions, and a daemon that answers.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.check(cmd); err != nil {
				return err
			}
			return c.run(cmd.Context(), cmd.Flags().Changed("after"))
		},
	}
	cmd.Flags().StringVar(&c.tenant, "tenant", "", "tenant (required)")
	cmd.Flags().StringVar(&c.agent, "agent", "", "agent `id` (required)")
	cmd.Flags().StringVar(&c.after, "after", "", "`position` to go on after; 0 is everything stored (default from now on)")
	cmd.Flags().IntVar(&c.count, "count", 0, "stop after `N` deliveries (default never)")
	required(cmd, "tenant", "agent")
	return cmd
}

func (c *agentCommand) check(cmd *cobra.Command) error {
	if cmd.Flags().Changed("count") && c.count < 1 {
		return usagef("--count %d: give at least 1, or leave it out", c.count)
	}
	if cmd.Flags().Changed("after") {
		if _, err := bus.ParsePosition(c.after); err != nil {
			return usagef("--after: %w", err)
		}
	}
	if c.agent == "" {
		return usagef("--agent is empty: give the agent's id")
	}
	if _, err := (subjects.Inbox{Tenant: c.tenant, Agent: c.agent}).Prefix(); err != nil {
		return &usageError{err}
	}
	return nil
}

func (c *agentCommand) run(ctx context.Context, resume bool) error {
	log := c.app.log(hclog.Warn)
	nc, err := c.app.target().dial(log)
	if err != nil {
		return err
	}
	defer nc.Close()
	o := bus.AgentOptions{Tenant: c.tenant, Agent: c.agent, Logger: log}
	if resume {
		after, err := bus.ParsePosition(c.after)
		if err != nil {
			return err
		}
		o.After = &after
	}
	agent, err := c.open(ctx, nc, o)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	if !resume {
		if err := line(c.app.stderr, map[string]bool{"live": true}); err != nil {
			return errors.Join(err, agent.Close())
		}
	}
	return errors.Join(c.print(ctx, agent), agent.Close())
}

func (c *agentCommand) open(ctx context.Context, nc *nats.Conn, o bus.AgentOptions) (*bus.Agent, error) {
	within, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	agent, err := bus.OpenAgent(within, nc, o)
	switch {
	case err == nil:
		return agent, nil
	case errors.Is(within.Err(), context.DeadlineExceeded):
		return nil, fmt.Errorf("no daemon answered at %s within %s: start one with cimbus serve, or check the agent's permissions: %w", c.app.target(), age(openWait), err)
	}
	return nil, told(err)
}

// told adds to an expired position what can be done about it here.
func told(err error) error {
	var expired *bus.ExpiredError
	if !errors.As(err, &expired) {
		return err
	}
	left := fmt.Sprintf("cimbus agent --after %s goes on with what is left", expired.From)
	switch expired.Reason {
	case bus.ExpiredAhead:
		return fmt.Errorf("%w; no delivery has that number yet, or the store was restored from an older copy: cimbus agent --after %s goes on with what comes next, --after %s with everything stored",
			err, expired.To, expired.From)
	case bus.ExpiredRecreated:
		return fmt.Errorf("%w; the store was made anew since: %s", err, left)
	case bus.ExpiredRestored:
		return fmt.Errorf("%w; the store was restored from an older copy: %s", err, left)
	}
	return fmt.Errorf("%w; what was between is gone: %s", err, left)
}

// deliveryLine is one delivery as it is printed.
type deliveryLine struct {
	Position     string          `json:"position"`
	Sequence     *uint64         `json:"sequence"`
	Subject      string          `json:"subject"`
	Event        string          `json:"event"`
	Conversation string          `json:"conversation"`
	Payload      json.RawMessage `json:"payload"`
}

func (c *agentCommand) print(ctx context.Context, agent *bus.Agent) error {
	for n := 0; c.count == 0 || n < c.count; n++ {
		d, err := agent.Next(ctx)
		if err != nil {
			return unlessEnded(ctx, told(err))
		}
		l := deliveryLine{Position: d.Position.String(), Subject: d.Subject, Event: d.Type, Conversation: d.Conversation, Payload: payload(d.Body)}
		if d.Sequence != 0 {
			l.Sequence = &d.Sequence
		}
		if err := line(c.app.stdout, l); err != nil {
			return err
		}
	}
	return nil
}

// payload is a body as JSON; one that is none, which only agent-scoped messages of others can be, becomes a string.
func payload(body []byte) json.RawMessage {
	if json.Valid(body) {
		return body
	}
	text, err := json.Marshal(string(body))
	if err != nil {
		return json.RawMessage("null")
	}
	return text
}
