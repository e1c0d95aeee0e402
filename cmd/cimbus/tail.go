package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// tailCommand prints what happens on the bus.
type tailCommand struct {
	app          *app
	deliveries   bool
	tenant       string
	channel      string
	event        string
	conversation string
	agent        string
}

func newTailCommand(a *app) *cobra.Command {
	c := &tailCommand{app: a}
	cmd := &cobra.Command{
		Use: "tail", Short: "Watch events as they are stored, or deliveries as agents get them", Args: noArgs,
		Long: `Watch events from now on as they are stored, or with --deliveries what agents get, until interrupted. Events are read from their
stream, none is missed; deliveries are the live copies, transient ones included.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := c.filter()
			if err != nil {
				return err
			}
			return c.run(cmd.Context(), filter)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&c.deliveries, "deliveries", false, "deliveries to agents instead of events")
	flags.StringVar(&c.tenant, "tenant", "", "only this tenant")
	flags.StringVar(&c.channel, "channel", "", "only this channel, such as web")
	flags.StringVar(&c.event, "event", "", "only events of this name; agent-scoped deliveries of this type")
	flags.StringVar(&c.conversation, "conversation", "", "only this conversation")
	flags.StringVar(&c.agent, "agent", "", "only this agent, with --deliveries")
	return cmd
}

// filter is the subject to read. What it cannot say is told by passes.
func (c *tailCommand) filter() (string, error) {
	if !c.deliveries && c.agent != "" {
		return "", usagef("--agent: events have no receiver; add --deliveries to watch what an agent gets")
	}
	subject, err := subjects.EventFilter{Tenant: match(c.tenant), Channel: match(c.channel), Event: match(c.event)}.Subject()
	if c.deliveries {
		subject, err = subjects.DeliveryFilter{Tenant: match(c.tenant), Agent: match(c.agent), Conversation: match(c.conversation)}.Live()
	}
	if err != nil {
		return "", &usageError{err}
	}
	return subject, nil
}

func match(name string) subjects.Match {
	if name == "" {
		return subjects.Any
	}
	return subjects.Is(name)
}

func (c *tailCommand) run(ctx context.Context, filter string) error {
	if c.deliveries {
		nc, err := c.app.target().dial(c.app.log(hclog.Warn))
		if err != nil {
			return err
		}
		defer nc.Close()
		return c.watchDeliveries(ctx, nc, filter)
	}
	return c.app.withBus(ctx, func(b *bus.Bus) error { return c.watchEvents(ctx, b, filter) })
}

// watchEvents begins behind the last event there is, by its number: a consumer of "new" messages that has to be made again before
// its first one would leave a hole.
func (c *tailCommand) watchEvents(ctx context.Context, b *bus.Bus, filter string) error {
	stream, err := b.JetStream().Stream(ctx, bus.StreamEvents)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("there is no stream %s at %s: start a daemon with cimbus serve, or make it with cimbus streams apply", bus.StreamEvents, c.app.target())
	}
	if err != nil {
		return err
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{filter},
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:    stream.CachedInfo().State.LastSeq + 1,
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	if err := c.live(filter); err != nil {
		return err
	}
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if errors.Is(err, jetstream.ErrNoHeartbeat) {
			continue // the consumer is made again
		}
		if err != nil {
			return unlessEnded(ctx, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if err := c.print(eventSeen(m, meta)); err != nil {
			return err
		}
	}
}

func (c *tailCommand) watchDeliveries(ctx context.Context, nc *nats.Conn, filter string) error {
	sub, err := nc.SubscribeSync(filter)
	if err != nil {
		return err
	}
	if err := nc.Flush(); err != nil {
		return err
	}
	if err := c.live(filter); err != nil {
		return err
	}
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if errors.Is(err, nats.ErrSlowConsumer) {
			c.app.tell("deliveries came faster than they were printed, some are missing here")
			continue
		}
		if err != nil {
			return unlessEnded(ctx, err)
		}
		s, err := deliverySeen(m)
		if err == nil {
			err = c.print(s)
		}
		if err != nil {
			return err
		}
	}
}

// live tells that nothing is missed from now on.
func (c *tailCommand) live(filter string) error {
	return line(c.app.stderr, struct {
		Live   bool   `json:"live"`
		Filter string `json:"filter"`
	}{true, filter})
}

// seen is an event or a delivery as it is printed.
type seen struct {
	Time         time.Time       `json:"time"`
	Sequence     *uint64         `json:"sequence"` // in CIM_EVENTS; null if agent-scoped or transient
	Subject      string          `json:"subject"`
	Tenant       string          `json:"tenant"`
	Agent        string          `json:"agent,omitempty"` // of a delivery
	Type         string          `json:"type,omitempty"`  // of a delivery
	Channel      string          `json:"channel"`
	Event        string          `json:"event"`
	ID           string          `json:"id"`
	Conversation string          `json:"conversation"`
	Transient    bool            `json:"transient,omitempty"`
	Size         int             `json:"size"` // of the payload, bytes
	Payload      json.RawMessage `json:"payload"`
}

func eventSeen(m jetstream.Msg, meta *jetstream.MsgMetadata) seen {
	s := seen{Time: meta.Timestamp, Sequence: &meta.Sequence.Stream, Subject: m.Subject(), Size: len(m.Data()), Payload: payload(m.Data())}
	if name, err := subjects.ParseEvent(m.Subject()); err == nil {
		s.Tenant, s.Channel, s.Event = name.Tenant, name.Channel, name.Event
	}
	s.Conversation = bus.LastHeader(m.Headers(), bus.HeaderConversation)
	s.ID = bus.LastHeader(m.Headers(), bus.HeaderEventID)
	if s.Conversation == "" || s.ID == "" {
		// What can be read of an event with an error is enough here.
		e, _ := cim.Decode(m.Data(), s.Conversation)
		s.Conversation, s.ID = e.Conversation, e.ID
	}
	return s
}

func deliverySeen(m *nats.Msg) (seen, error) {
	name, err := subjects.ParseLive(m.Subject)
	if err != nil {
		return seen{}, err
	}
	s := seen{
		Time: time.Now(), Subject: "cim-agent" + strings.TrimPrefix(m.Subject, "cim-live"),
		Tenant: name.Tenant, Agent: name.Agent, Type: name.Type, Conversation: name.Conversation,
		Channel: bus.LastHeader(m.Header, bus.HeaderChannel), Event: bus.LastHeader(m.Header, bus.HeaderEventName), ID: bus.LastHeader(m.Header, bus.HeaderEventID),
		Transient: bus.LastHeader(m.Header, bus.HeaderTransient) == "true", Size: len(m.Data), Payload: payload(m.Data),
	}
	if source, err := subjects.ParseEvent(bus.LastHeader(m.Header, bus.HeaderSourceSubject)); err == nil && s.Channel == "" {
		s.Channel = source.Channel
	}
	if sequence := bus.SequenceOf(m.Header); sequence != 0 {
		s.Sequence = &sequence
	}
	if at, err := time.Parse(time.RFC3339Nano, bus.LastHeader(m.Header, jetstream.TimeStampHeaer)); err == nil {
		s.Time = at
	}
	return s, nil
}

// passes tells whether s is asked for, as far as its subject does not say so.
func (c *tailCommand) passes(s seen) bool {
	switch {
	case c.conversation != "" && s.Conversation != c.conversation:
		return false
	case c.deliveries && c.channel != "" && !strings.EqualFold(s.Channel, c.channel):
		return false
	case c.deliveries && c.event != "" && s.Event != c.event && (s.Event != "" || s.Type != c.event):
		return false
	}
	return true
}

func (c *tailCommand) print(s seen) error {
	switch {
	case !c.passes(s):
		return nil
	case c.app.json:
		return line(c.app.stdout, s)
	}
	mark := ""
	if s.Transient {
		mark = "  transient"
	}
	_, err := fmt.Fprintf(c.app.stdout, "%s  %s  %s  %s  %s%s\n", s.Time.Local().Format("15:04:05.000"),
		printable(s.Subject), orDash(printable(s.ID)), orDash(printable(s.Conversation)), size(s.Size), mark)
	return err
}
