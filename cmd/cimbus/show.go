package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/conversation"
)

// latest is how many events of a conversation show prints.
const latest = 10

func newShowCommand(a *app) *cobra.Command {
	var m membership
	return m.named(&cobra.Command{
		Use: "show", Short: "Show a conversation's state and its latest events", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := m.check(); err != nil {
				return err
			}
			return a.withBus(cmd.Context(), func(b *bus.Bus) error {
				v, err := readView(cmd.Context(), b, m.tenant, m.conversation)
				switch {
				case err != nil:
					return err
				case a.json:
					return line(a.stdout, v)
				}
				return v.write(a.stdout)
			})
		},
	})
}

// view is a conversation as show prints it: the folded state, and beside it the events committed last.
type view struct {
	*conversation.State
	Latest []viewEntry `json:"latest"`
}

type viewEntry struct {
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
	Event    string    `json:"event"`
	ID       string    `json:"id"`
	Channel  string    `json:"channel"`
	Outcome  string    `json:"outcome"`
}

func readView(ctx context.Context, b *bus.Bus, tenant, id string) (view, error) {
	state, last, err := handlers.LoadState(ctx, b, conversation.New, tenant, id)
	if err != nil {
		return view{}, err
	}
	folded, ok := state.(*conversation.State)
	if !ok {
		return view{}, fmt.Errorf("state of conversation %q is a %T", id, state)
	}
	v := view{State: folded, Latest: []viewEntry{}}
	if last == 0 {
		return view{}, fmt.Errorf("conversation %q of tenant %q is not known: no event of it was handled in the last days; check both names", id, tenant)
	}
	for e, err := range b.History(ctx, tenant, id, 0, last) {
		if err != nil {
			return view{}, err
		}
		if len(v.Latest) == latest {
			v.Latest = append(v.Latest[:0], v.Latest[1:]...)
		}
		v.Latest = append(v.Latest, viewEntry{e.Sequence, e.Stored, e.EventName, e.EventID, e.Channel, e.Outcome})
	}
	return v, nil
}

func (v view) write(w io.Writer) error {
	sessions := make([]string, 0, len(v.Sessions))
	for id := range v.Sessions {
		sessions = append(sessions, id)
	}
	slices.Sort(sessions)
	agents := make([]string, 0, len(v.Members))
	for agent := range v.Members {
		agents = append(agents, agent)
	}
	slices.Sort(agents)

	facts := table{head: []string{"CONVERSATION", v.ID}}
	facts.row("tenant", v.Tenant)
	facts.row("status", orDash(v.Status))
	facts.row("channel", orDash(v.Channel))
	facts.row("sessions", orDash(strings.Join(sessions, ", ")))
	facts.row("up to event", fmt.Sprint(v.Sequence))
	members := table{head: []string{"AGENT", "ROLE", "SINCE"}}
	for _, agent := range agents {
		members.row(agent, v.Members[agent].Role, fmt.Sprint(v.Members[agent].Since))
	}
	events := table{head: []string{"SEQUENCE", "TIME", "EVENT", "ID", "CHANNEL", "OUTCOME"}}
	for _, e := range v.Latest {
		events.row(fmt.Sprint(e.Sequence), clock(e.Time), e.Event, orDash(e.ID), orDash(e.Channel), e.Outcome)
	}
	for i, t := range []table{facts, members, events} {
		if i > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		if err := t.write(w); err != nil {
			return err
		}
	}
	return nil
}
