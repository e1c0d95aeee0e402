package bus

import (
	"context"
	"fmt"
	"time"
)

// ReplayPlan is what a replay would take.
type ReplayPlan struct {
	Events        int   // that are selected
	Bytes         int64 // of their bodies
	First, Last   uint64
	FirstTime     time.Time // when the first and the last of them were stored
	LastTime      time.Time
	LeftOut       []Count                  // of them, what the target has no use for, by why
	Conversations []PlannedReplay          // of the others, in the order in which they first appear
	NotMembers    map[string][]string      // conversations by agents that are and were no members of them
	at            map[PlannedReplayKey]int // by conversation
}

// PlannedReplayKey names a conversation of a plan.
type PlannedReplayKey struct{ Tenant, Conversation string }

// PlannedReplay is a conversation of a plan.
type PlannedReplay struct {
	PlannedReplayKey
	Events int
}

// PlanReplay reads what a replay would, and sends nothing. With agents it tells of which conversations they are and were no members, and
// of what is left out for them; for a handler of what is left out for it.
func (b *Bus) PlanReplay(ctx context.Context, s EventSelection, span Span, agents []string, handler string) (ReplayPlan, error) {
	p := ReplayPlan{at: map[PlannedReplayKey]int{}, NotMembers: map[string][]string{}}
	for e, err := range b.EventsIn(ctx, s, span) {
		if err != nil {
			return p, fmt.Errorf("plan replay: %w", err)
		}
		p.add(e, len(agents) > 0, handler != "")
	}
	for _, c := range p.Conversations {
		for _, agent := range agents {
			ever, err := b.everMember(ctx, c.Tenant, agent, c.Conversation)
			if err != nil {
				return p, fmt.Errorf("plan replay: %w", err)
			}
			if !ever {
				p.NotMembers[agent] = append(p.NotMembers[agent], c.Conversation)
			}
		}
	}
	return p, nil
}

func (p *ReplayPlan) add(e StoredEvent, toAgents, toHandler bool) {
	if p.Events == 0 {
		p.First, p.FirstTime = e.Sequence, e.Time
	}
	p.Last, p.LastTime = e.Sequence, e.Time
	p.Events++
	p.Bytes += int64(len(e.Data))
	why := ""
	switch {
	case toAgents:
		_, why = replayable(e)
	case toHandler && isCopy(e.Header):
		why = leftOutCopy
	}
	if why != "" {
		for i := range p.LeftOut {
			if p.LeftOut[i].Name == why {
				p.LeftOut[i].Entries++
				return
			}
		}
		p.LeftOut = append(p.LeftOut, Count{Name: why, Entries: 1})
		return
	}
	key := PlannedReplayKey{e.Name.Tenant, e.Conversation}
	i, known := p.at[key]
	if !known {
		i = len(p.Conversations)
		p.at[key] = i
		p.Conversations = append(p.Conversations, PlannedReplay{PlannedReplayKey: key})
	}
	p.Conversations[i].Events++
}

// ToReplay is how many events go to the target.
func (p *ReplayPlan) ToReplay() int {
	n := p.Events
	for _, c := range p.LeftOut {
		n -= c.Entries
	}
	return n
}
