package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/subjects"
)

func newConversationCommand(a *app) *cobra.Command {
	return noun("conversation", "Join, leave and look at conversations",
		newJoinCommand(a), newLeaveCommand(a), newMembersCommand(a), newShowCommand(a))
}

// membership is what every verb of a conversation is told.
type membership struct {
	tenant, conversation, agent, role string
}

// named adds the flags that name a conversation.
func (m *membership) named(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&m.tenant, "tenant", "", "tenant (required)")
	cmd.Flags().StringVar(&m.conversation, "conversation", "", "conversation `id` (required)")
	required(cmd, "tenant", "conversation")
	return cmd
}

// withAgent adds the flag that names an agent.
func (m *membership) withAgent(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&m.agent, "agent", "", "agent `id` (required)")
	required(cmd, "agent")
	return m.named(cmd)
}

func newJoinCommand(a *app) *cobra.Command {
	var m membership
	cmd := m.withAgent(&cobra.Command{
		Use: "join", Short: "Make an agent a member of a conversation", Args: noArgs,
		Long: "Make an agent a member of a conversation: publish AGENT_SUBSCRIBED and print the receipt once it is stored. Joining twice is harmless.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return m.change(cmd.Context(), a, func(ctx context.Context, b *bus.Bus) (bus.Receipt, error) {
				return b.Join(ctx, m.tenant, m.conversation, m.agent, m.role)
			})
		},
	})
	cmd.Flags().StringVar(&m.role, "role", bus.DefaultRole, "role, such as PRIMARY, ASSISTANT or SILENT_MONITOR")
	return cmd
}

func newLeaveCommand(a *app) *cobra.Command {
	var m membership
	cmd := m.withAgent(&cobra.Command{
		Use: "leave", Short: "End an agent's membership of a conversation", Args: noArgs,
		Long: "End an agent's membership of a conversation: publish AGENT_UNSUBSCRIBED and print the receipt once it is stored.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return m.change(cmd.Context(), a, func(ctx context.Context, b *bus.Bus) (bus.Receipt, error) {
				return b.Leave(ctx, m.tenant, m.conversation, m.agent)
			})
		},
	})
	// A leaver's role is known to the conversation; the flag is taken so that a join turns into a leave by one word.
	cmd.Flags().StringVar(&m.role, "role", "", "not used")
	return cmd
}

// change publishes an event of membership and prints its receipt.
func (m *membership) change(ctx context.Context, a *app, publish func(context.Context, *bus.Bus) (bus.Receipt, error)) error {
	if _, err := (subjects.MemberKey{Tenant: m.tenant, Agent: m.agent, Conversation: m.conversation}).Key(); err != nil {
		return &usageError{err}
	}
	if m.conversation == "" {
		return usagef("--conversation is empty: give the conversation's id")
	}
	return a.withBus(ctx, func(b *bus.Bus) error {
		receipt, err := publish(ctx, b)
		if err != nil {
			return err
		}
		return line(a.stdout, receipt)
	})
}

func newMembersCommand(a *app) *cobra.Command {
	var m membership
	return m.named(&cobra.Command{
		Use: "members", Short: "List the agents that are members of a conversation", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := m.check(); err != nil {
				return err
			}
			return a.withBus(cmd.Context(), func(b *bus.Bus) error {
				members, err := b.Members(cmd.Context(), m.tenant, m.conversation)
				if err != nil {
					return err
				}
				return a.listMembers(members)
			})
		},
	})
}

// check finds names that cannot be before anything is asked.
func (m *membership) check() error {
	if m.conversation == "" {
		return usagef("--conversation is empty: give the conversation's id")
	}
	if _, err := (subjects.Index{Tenant: m.tenant, Conversation: m.conversation}).Subject(); err != nil {
		return &usageError{err}
	}
	return nil
}

func (a *app) listMembers(members []bus.Member) error {
	t := table{head: []string{"AGENT", "ROLE", "SINCE"}}
	for _, m := range members {
		if a.json {
			err := line(a.stdout, struct {
				Agent string `json:"agent"`
				Role  string `json:"role"`
				Since uint64 `json:"since"`
			}{m.Agent, m.Role, m.Since})
			if err != nil {
				return err
			}
		}
		t.row(m.Agent, m.Role, fmt.Sprint(m.Since))
	}
	switch {
	case a.json:
		return nil
	case len(members) == 0:
		a.tell("no members")
		return nil
	}
	return t.write(a.stdout)
}

// required marks flags as required; the only error is that there is no such flag, which every run of the command would show.
func required(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		_ = cmd.MarkFlagRequired(name)
	}
}
