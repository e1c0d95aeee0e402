package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/subjects"
)

// EraseFilter says what a data-protection request is about: one conversation of a tenant, or every conversation of a customer.
type EraseFilter struct {
	Tenant       string
	Conversation string // its id
	Customer     string // the customer's id, as the events have it; instead of Conversation
}

// Validate tells what is missing or too much.
func (f EraseFilter) Validate() error {
	switch {
	case f.Tenant == "":
		return errors.New("erase: tenant is missing: name the tenant")
	case f.Conversation == "" && f.Customer == "":
		return errors.New("erase: neither a conversation nor a customer is named: name one of them")
	case f.Conversation != "" && f.Customer != "":
		return errors.New("erase: a conversation and a customer are named: name one of them")
	}
	_, err := subjects.Index{Tenant: f.Tenant, Conversation: cmp.Or(f.Conversation, "_")}.Subject()
	return err
}

// ErasePlan is what an erasure would delete, as of now. Making it changes nothing.
type ErasePlan struct {
	EraseFilter
	Conversations []EraseConversation
	Streams       []EraseCount // what is there of them, of every stream that may hold something
	Agents        []string     // who received something of them, or are or were their members

	// Unattributed are the tenant's events that name no conversation: whose they are cannot be told, and they stay.
	Unattributed int
	// Mentions are the tenant's events of other conversations in whose body the id that was asked for is written; they stay.
	Mentions []uint64
}

// EraseConversation is a conversation to be erased.
type EraseConversation struct {
	Conversation string
	Events       int
	Members      []string // agents that are its members now
	Waiting      int      // events that a handler has not finished
}

// Live tells whether somebody is still at work on it.
func (c EraseConversation) Live() bool { return len(c.Members) > 0 || c.Waiting > 0 }

// EraseCount is how much of something there is in a stream.
type EraseCount struct {
	Stream   string `json:"stream"`
	Messages int    `json:"messages"`
	Bytes    int64  `json:"bytes"`
}

// Messages is how many messages the plan is about.
func (p ErasePlan) Messages() int { return messages(p.Streams) }

func messages(counts []EraseCount) int {
	n := 0
	for _, c := range counts {
		n += c.Messages
	}
	return n
}

// Live are the plan's conversations that have members, or events that wait for a handler.
func (p ErasePlan) Live() []EraseConversation {
	var live []EraseConversation
	for _, c := range p.Conversations {
		if c.Live() {
			live = append(live, c)
		}
	}
	return live
}

// PlanErase finds out what there is of what f names. It reads every event of the tenant: their subjects do not tell the conversation.
// A customer's conversations are found by the events that are still stored and by the checkpoints; one of which neither names the
// customer is not found.
func (b *Bus) PlanErase(ctx context.Context, f EraseFilter) (ErasePlan, error) {
	if err := f.Validate(); err != nil {
		return ErasePlan{}, err
	}
	names := []string{f.Conversation}
	if f.Customer != "" {
		var err error
		if names, err = b.conversationsOf(ctx, f.Tenant, f.Customer); err != nil {
			return ErasePlan{}, fmt.Errorf("plan erase: %w", err)
		}
	}
	s := newTraces(b, f, names)
	if err := s.search(ctx); err != nil {
		return ErasePlan{}, fmt.Errorf("plan erase: %w", err)
	}
	plan := ErasePlan{
		EraseFilter: f, Streams: s.counts(), Agents: slices.Sorted(maps.Keys(s.agents)),
		Unattributed: s.unattributed, Mentions: s.mentions,
	}
	floor, err := b.handledUpto(ctx)
	if err != nil {
		return ErasePlan{}, fmt.Errorf("plan erase: %w", err)
	}
	for _, name := range names {
		c := EraseConversation{Conversation: name, Events: len(s.events[name]), Members: s.members[name]}
		for _, sequence := range s.events[name] {
			if sequence > floor {
				c.Waiting++
			}
		}
		plan.Conversations = append(plan.Conversations, c)
	}
	return plan, nil
}

// handledUpto is the sequence up to which every handler has finished every event; the largest number where there is none.
func (b *Bus) handledUpto(ctx context.Context) (uint64, error) {
	events, err := b.streamStatus(ctx, StreamEvents)
	if err != nil {
		return 0, err
	}
	floor := ^uint64(0)
	for _, c := range events.Consumers {
		if c.handler() != "" && c.Lag > 0 {
			floor = min(floor, c.AckFloor)
		}
	}
	return floor, nil
}

// EraseOptions are how an erasure is done.
type EraseOptions struct {
	Operator string // who does it, for the report and the log
	// Force erases conversations too that are still worked on.
	Force bool
	// Wait is how long handlers may take to finish what they have in hand, default 30 s.
	Wait time.Duration
}

// EraseReport is what an erasure did, and the proof. It holds nothing of what was erased but the names that were asked for.
type EraseReport struct {
	Operator      string
	Began, Ended  time.Time
	Conversations int
	Deleted       []EraseCount // by stream
	// Plain are the streams whose messages could only be deleted, not overwritten: they were made with deny_delete.
	Plain []string
	// Left is what a search of everything, made after the deletion, still found.
	Left []EraseCount
	// Upto is the last sequence of CIM_EVENTS when that search began.
	Upto uint64
	// Proven: the search found nothing, and no handler had any of the events in hand when they were deleted.
	Proven bool
	// Problem says why it is not proven, and what to do.
	Problem string
}

// ErrLive is returned for conversations that are still worked on. Nothing was deleted.
var ErrLive = errors.New("still has members or events that wait")

const (
	defaultEraseWait = 30 * time.Second
	eraseRounds      = 10
	erasePause       = 50 * time.Millisecond
)

// Erase deletes what a plan names: the conversations' events, deliveries, index entries, dead letters with their records, member records
// and checkpoints, and deliveries outside of all conversations that name one of them. It waits until handlers that run have finished
// the events, deletes, and searches everything again, until a search finds nothing: that is the proof. Events that are published into
// a conversation meanwhile are erased too; what comes later begins it anew, without members. Repeating it does no harm.
//
// Messages are overwritten in the server's files, except where EraseReport.Plain says otherwise. Not reached are earlier versions
// of member records and checkpoints, which the server had replaced before and removes when it compacts their block, the Raft log of a
// stream with replicas until it is compacted, snapshots, and whatever subscribers kept.
func (b *Bus) Erase(ctx context.Context, plan ErasePlan, o EraseOptions) (EraseReport, error) {
	if live := plan.Live(); len(live) > 0 && !o.Force {
		return EraseReport{}, fmt.Errorf("erase: conversation %q %w: have it closed first, or force it", live[0].Conversation, ErrLive)
	}
	names := make([]string, 0, len(plan.Conversations))
	for _, c := range plan.Conversations {
		names = append(names, c.Conversation)
	}
	e := eraser{traces: newTraces(b, plan.EraseFilter, names), deleted: map[string]*EraseCount{}, streams: map[string]jetstream.Stream{}}
	r := EraseReport{Operator: cmp.Or(o.Operator, b.nc.Opts.Name, "unknown"), Began: time.Now(), Conversations: len(names)}
	err := e.run(ctx, cmp.Or(o.Wait, defaultEraseWait), &r)
	r.Ended = time.Now()
	for _, name := range tracedStreams() {
		if c := e.deleted[name]; c != nil {
			r.Deleted = append(r.Deleted, *c)
		}
	}
	r.Plain = slices.Sorted(maps.Keys(e.plain))
	b.log.Info("conversations erased", "tenant", plan.Tenant, "conversations", r.Conversations, "messages", messages(r.Deleted),
		"operator", r.Operator, "proven", r.Proven)
	if err != nil {
		return r, fmt.Errorf("erase: %w", err)
	}
	return r, nil
}

// eraser deletes what a search found.
type eraser struct {
	*traces
	deleted map[string]*EraseCount
	streams map[string]jetstream.Stream
	plain   map[string]bool
}

func (e *eraser) run(ctx context.Context, wait time.Duration, r *EraseReport) error {
	for round := 1; ; round++ {
		info, err := e.bus.streamInfo(ctx, StreamEvents)
		if err != nil {
			return err
		}
		if err := e.search(ctx); err != nil {
			return err
		}
		r.Upto, r.Left = info.State.LastSeq, e.counts()
		if r.Proven = messages(r.Left) == 0; r.Proven {
			return nil
		}
		if round > eraseRounds {
			r.Problem = "events of it keep coming: stop who publishes them, then repeat the command"
			return nil
		}
		finished, busy, err := e.settle(ctx, wait)
		if err != nil {
			return err
		}
		if err := e.delete(ctx, finished); err != nil {
			return err
		}
		if busy != "" {
			r.Problem = fmt.Sprintf("handler %s is still at work on events of it, or before them, which stay: "+
				"see with cimbus handler ls what it waits for, then repeat the command", busy)
			return e.look(ctx, r)
		}
	}
}

// look searches once more, for the report.
func (e *eraser) look(ctx context.Context, r *EraseReport) error {
	err := e.search(ctx)
	r.Left = e.counts()
	return err
}

// delete deletes all that was found, the events first, of which the rest is made; but no event above finished.
func (e *eraser) delete(ctx context.Context, finished uint64) error {
	for _, name := range tracedStreams() {
		for _, t := range e.found[name] {
			if name == StreamEvents && t.sequence > finished {
				continue
			}
			if err := e.remove(ctx, name, t); err != nil {
				return fmt.Errorf("delete message %d of %s: %w", t.sequence, name, err)
			}
			c := e.deleted[name]
			if c == nil {
				c = &EraseCount{Stream: name}
				e.deleted[name] = c
			}
			c.Messages, c.Bytes = c.Messages+1, c.Bytes+int64(t.bytes)
		}
	}
	return nil
}

func (e *eraser) remove(ctx context.Context, name string, t remnant) error {
	stream := e.streams[name]
	if stream == nil {
		var err error
		if stream, err = e.bus.js.Stream(ctx, name); err != nil {
			return err
		}
		e.streams[name] = stream
	}
	if stream.CachedInfo().Config.DenyDelete {
		if e.plain == nil {
			e.plain = map[string]bool{}
		}
		e.plain[name] = true
		return stream.Purge(ctx, jetstream.WithPurgeSubject(t.subject))
	}
	err := stream.SecureDeleteMsg(ctx, t.sequence)
	if err != nil {
		// Expired, replaced, or erased by somebody else meanwhile? The next search tells of what is not.
		if _, now := e.bus.MessageAt(ctx, name, t.sequence); errors.Is(now, ErrNoMessage) {
			err = nil
		}
	}
	return err
}

// settle waits until no handler has any of the events in hand that were found: of one that is deleted before, the server forgets that it is
// at work, and what it then writes would come after the proof. It returns up to which event that is so, and who is busy longer than wait.
func (e *eraser) settle(ctx context.Context, wait time.Duration) (finished uint64, busy string, err error) {
	last := uint64(0)
	for _, t := range e.found[StreamEvents] {
		last = max(last, t.sequence)
	}
	for began := time.Now(); ; {
		finished, busy, err = e.bus.finished(ctx, last)
		if err != nil || busy == "" || time.Since(began) > wait {
			return finished, busy, err
		}
		select {
		case <-ctx.Done():
			return 0, "", ctx.Err()
		case <-time.After(erasePause):
		}
	}
}

// finished is up to which event, s at most, no running handler has anything to do, and where that is not s a handler that has.
func (b *Bus) finished(ctx context.Context, s uint64) (upto uint64, busy string, err error) {
	events, err := b.streamStatus(ctx, StreamEvents)
	if err != nil {
		return 0, "", err
	}
	upto = s
	for _, c := range events.Consumers {
		if c.handler() == "" || c.Lag == 0 || c.AckFloor >= upto || c.PausedUntil != nil && c.AckPending == 0 {
			continue
		}
		worker, err := b.workerOf(ctx, c)
		if err != nil {
			return 0, "", err
		}
		if worker != WorkerNone {
			upto, busy = c.AckFloor, c.handler()
		}
	}
	return upto, busy, nil
}
