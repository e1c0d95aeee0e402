package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// The types of delivery that the conversation's worker writes.
const (
	TypeEvent        = "onCimEvent"
	TypeUnsubscribed = "topicUnsubscription"
)

// Following is one conversation as one of its members sees it: what happened up to Sequence as the Snapshot, and everything
// after it from Next. Nothing is in both, nothing in neither.
type Following struct {
	Snapshot []Entry // the committed events up to Sequence, in order; read them with Bus.Event
	Sequence uint64  // Cim-Sequence of where the snapshot ends
	agent    *Agent
	first    *Delivery // the one that made it a member, taken before Next
}

// Follow joins the stream of a conversation for an agent that is a member of it, and waits until it is one. The steps and
// their order are what makes it whole:
//
//  1. subscribe to the live copies, and hold them
//  2. from the leader read the member record, then the last index entry i: S = max(i, since-1). Between the record and the
//     deliveries that follow from it no event can be forgotten: the record is written before them, the entry after them
//  3. the snapshot is the index entries up to S
//  4. read the deliveries with a Cim-Sequence above S that are stored already: an event is delivered before its entry is written, so
//     one that is not in the snapshot may have been delivered before the subscription
//  5. go on with the live copies of what was stored later
//
// Subscribing only after the snapshot misses what happens in between; leaving out 4 misses the event at work in 2.
//
// A delivery of type TypeUnsubscribed ends the membership; after it, follow anew. Transient deliveries come as they are. ctx
// bounds the joining only.
func (b *Bus) Follow(ctx context.Context, tenant, agent, conversation string) (*Following, error) {
	j := joining{bus: b, tenant: tenant, agent: agent, conversation: conversation}
	f, err := j.follow(ctx)
	if err != nil {
		if j.feed != nil {
			j.feed.close()
		}
		return nil, fmt.Errorf("follow %q as %q: %w", conversation, agent, err)
	}
	return f, nil
}

// Next waits for the next delivery of the conversation; its errors are those of Agent.Next.
func (f *Following) Next(ctx context.Context) (Delivery, error) {
	if d := f.first; d != nil {
		f.first = nil
		return *d, nil
	}
	return f.agent.Next(ctx)
}

// Close ends the following. It may be called more than once.
func (f *Following) Close() error { return f.agent.Close() }

// joining is a Follow at work.
type joining struct {
	bus                         *Bus
	tenant, agent, conversation string
	feed                        *feed
}

func (j *joining) follow(ctx context.Context) (*Following, error) {
	if j.conversation == "" {
		return nil, errors.New("conversation is missing: name the conversation")
	}
	if err := j.subscribe(ctx); err != nil {
		return nil, err
	}
	before, err := j.bus.describeDeliveries(ctx)
	if err != nil {
		return nil, err
	}
	member, err := j.bus.Member(ctx, j.tenant, j.agent, j.conversation)
	if errors.Is(err, ErrNotMember) {
		return j.awaitMembership(ctx, before.end())
	}
	if err != nil {
		return nil, err
	}
	last, err := j.bus.lastEntry(ctx, j.tenant, j.conversation)
	if err != nil && !errors.Is(err, ErrNoMessage) {
		return nil, err
	}
	f := &Following{Sequence: max(last.Sequence, max(member.Since, 1)-1)}
	if f.Snapshot, err = j.snapshot(ctx, f.Sequence); err != nil {
		return nil, err
	}
	p, err := j.barrier(ctx, f.Sequence)
	if err != nil {
		return nil, err
	}
	s := f.Sequence
	return f, j.begin(ctx, f, p, func(d *Delivery) bool { return d.Transient || ours(d) && d.Sequence > s })
}

// subscribe is step 1. What is held is bounded; more than that is read from the log, as the rest is.
func (j *joining) subscribe(ctx context.Context) error {
	name := subjects.DeliveryFilter{Tenant: subjects.Is(j.tenant), Agent: subjects.Is(j.agent), Conversation: subjects.Is(j.conversation)}
	stored, err := name.Subject()
	if err != nil {
		return err
	}
	live, err := name.Live()
	if err != nil {
		return err
	}
	j.feed = newFeed(j.bus.nc, &directBacklog{bus: j.bus, filter: stored}, AgentOptions{
		Tenant: j.tenant, Agent: j.agent, Logger: j.bus.log.Named("follow").With("conversation", j.conversation),
	})
	return j.feed.subscribe(ctx, live)
}

// barrier is the position in the log that all deliveries above s come after. They are the last ones of their subjects, and mostly
// there is none yet; a worker that makes good what a power cut took from the index leaves more.
func (j *joining) barrier(ctx context.Context, s uint64) (Position, error) {
	l, err := j.bus.describeDeliveries(ctx)
	if err != nil {
		return Position{}, err
	}
	p := l.end()
	for _, kind := range []string{TypeEvent, TypeUnsubscribed} {
		subject, err := subjects.Delivery{Tenant: j.tenant, Agent: j.agent, Type: kind, Conversation: j.conversation}.Subject()
		if err != nil {
			return Position{}, err
		}
		first, err := j.bus.firstAbove(ctx, StreamDeliveries, subject, s)
		if err != nil {
			return Position{}, err
		}
		if first != 0 && first <= p.Sequence {
			p = Position{Identity: p.Identity, Sequence: first - 1}
		}
	}
	return p, nil
}

// snapshot is step 3.
func (j *joining) snapshot(ctx context.Context, s uint64) ([]Entry, error) {
	var entries []Entry
	if s == 0 {
		return nil, nil
	}
	for e, err := range j.bus.History(ctx, j.tenant, j.conversation, 0, s) {
		if err != nil {
			return nil, err
		}
		if e.Outcome != OutcomeImported {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// begin is steps 4 and 5: the feed reads what is stored after p up to the leader's end, then takes what it holds of what was
// stored later.
func (j *joining) begin(ctx context.Context, f *Following, p Position, keeps func(*Delivery) bool) error {
	j.feed.keeps = keeps
	if err := j.feed.begin(ctx, &p); err != nil {
		return err
	}
	f.agent = &Agent{feed: j.feed, position: j.feed.position, verified: j.feed.verified}
	j.feed.start()
	return nil
}

// awaitMembership waits for the delivery that tells the agent of its membership: the first of it that it is sent. The record is
// written before that delivery, so it is stored after the end that was taken before the record was looked for.
func (j *joining) awaitMembership(ctx context.Context, end Position) (*Following, error) {
	f := &Following{}
	if err := j.begin(ctx, f, end, ours); err != nil {
		return nil, err
	}
	for {
		d, err := f.agent.Next(ctx)
		if err != nil {
			return nil, err
		}
		if d.Type != TypeEvent || LastHeader(d.Header, HeaderEventName) != cim.AgentSubscribed {
			continue
		}
		f.first, f.Sequence = &d, d.Sequence-1
		f.Snapshot, err = j.snapshot(ctx, f.Sequence)
		return f, err
	}
}

// ours reports whether the conversation's worker wrote it: other handlers are ahead of the index, or behind it, as they please,
// and a replay is none of the conversation's present.
func ours(d *Delivery) bool { return d.Type == TypeEvent || d.Type == TypeUnsubscribed }
