package main

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/cimbus/cimbus/bus"
)

// selection are the flags by which commands select stored events.
type selection struct {
	tenant, channel, conversation, id string
	events                            []string
	from, until                       string
	flags                             *pflag.FlagSet
}

func (s *selection) register(flags *pflag.FlagSet) {
	s.registerNames(flags)
	flags.StringVar(&s.until, "until", "", "up to this `place`, included")
}

// registerNames leaves out where to end.
func (s *selection) registerNames(flags *pflag.FlagSet) {
	s.flags = flags
	flags.StringVar(&s.tenant, "tenant", "", "only this tenant's")
	flags.StringVar(&s.channel, "channel", "", "only events of this channel, such as web; - for those of none")
	flags.StringArrayVar(&s.events, "event", nil, "only events of this `name`, or pattern of names as AGENT_*; may be repeated")
	flags.StringVar(&s.conversation, "conversation", "", "only this conversation's; - for events of none")
	flags.StringVar(&s.id, "id", "", "only the event with this id")
	flags.StringVar(&s.from, "from", "", "from this `place` on: a sequence, an age, a time or a position; --since is the same")
	flags.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "since" {
			name = "from"
		}
		return pflag.NormalizedName(name)
	})
}

// selects is what the flags select.
func (s *selection) selects(now time.Time) (bus.EventSelection, error) {
	sel := bus.EventSelection{
		Tenant: match(s.tenant), Channel: matchOrNone(s.channel), Events: s.events, Conversation: matchOrNone(s.conversation), ID: s.id,
	}
	err := saysSomething(s.flags)
	if err != nil {
		return sel, err
	}
	if sel.From, err = parsePoint("from", s.from, now); err != nil {
		return sel, err
	}
	if sel.Until, err = parsePoint("until", s.until, now); err != nil {
		return sel, err
	}
	if err := inOrder(sel.From, sel.Until); err != nil {
		return sel, err
	}
	if err := sel.Validate(); err != nil {
		return sel, &usageError{err}
	}
	return sel, nil
}

// saysSomething refuses a filter that is given and empty, as --tenant "$T" is where nobody set T: it would select everything.
func saysSomething(flags *pflag.FlagSet) error {
	var err error
	flags.Visit(func(flag *pflag.Flag) {
		switch flag.Name {
		case "tenant", "channel", "event", "conversation", "id", "from", "until", "day", "agent", "type", "text", "replay-id":
			if flag.Value.String() == "" {
				err = usagef("--%s is empty: say which, or leave it out", flag.Name)
			}
		}
	})
	return err
}
