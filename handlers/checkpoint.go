package handlers

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/subjects"
)

// checkpointEvery is how many commits a conversation makes before its state is written down; what lies behind the last
// checkpoint is folded again from the index when the state is loaded.
const checkpointEvery = 64

// checkpointPause is how long a conversation waits after a checkpoint that could not be written.
const checkpointPause = 30 * time.Second

// checkpoint is a state at one sequence, and the index entry of that same sequence.
type checkpoint struct {
	sequence, indexSeq uint64
	state              []byte
	taken              time.Time
}

// checkpointIfDue writes the state down every so many commits. In balanced durability a checkpoint waits until everything it
// covers has reached the disk: one that outlived the events it was folded from would be believed.
func (c *conversation) checkpointIfDue(ctx context.Context) error {
	if c.state == nil {
		return nil
	}
	if c.snapshot == nil && c.uncovered >= checkpointEvery {
		if err := c.takeSnapshot(); err != nil {
			return err
		}
	}
	return c.writeSnapshot(ctx)
}

// checkpointIdle writes the state of a conversation that has gone quiet.
func (c *conversation) checkpointIdle(ctx context.Context) error {
	if c.state == nil {
		return nil
	}
	if c.snapshot == nil && c.uncovered > 0 {
		if err := c.takeSnapshot(); err != nil {
			return err
		}
	}
	return c.writeSnapshot(ctx)
}

func (c *conversation) takeSnapshot() error {
	state, err := c.state.MarshalBinary()
	if err != nil {
		return fmt.Errorf("checkpoint of conversation: %w", err)
	}
	c.snapshot = &checkpoint{sequence: c.committed, indexSeq: c.indexSeq, state: state, taken: time.Now()}
	c.uncovered = 0
	return nil
}

func (c *conversation) writeSnapshot(ctx context.Context) error {
	s := c.snapshot
	if s == nil || time.Since(s.taken) < c.w.holdback || time.Now().Before(c.postponed) {
		return nil
	}
	c.snapshot = nil
	if erased, err := c.erased(ctx, s); err != nil || erased {
		if erased {
			c.forget()
		} else if ctx.Err() == nil {
			c.postpone(ctx, "", err)
		}
		return ctx.Err()
	}
	subject, err := subjects.ConversationKey{Tenant: c.key.tenant, Conversation: c.key.conversation}.Subject()
	if err != nil {
		return fmt.Errorf("checkpoint of conversation: %w", err)
	}
	h := nats.Header{
		bus.HeaderSequence:      []string{strconv.FormatUint(s.sequence, 10)},
		bus.HeaderIndexSequence: []string{strconv.FormatUint(s.indexSeq, 10)},
	}
	d := derived{stream: bus.StreamConversations, msg: &nats.Msg{Subject: subject, Header: h, Data: s.state}}
	if err := c.publishOnce(ctx, s.sequence, d); err != nil && ctx.Err() == nil {
		c.postpone(ctx, subject, err)
	}
	return ctx.Err()
}

// erased tells whether the index entry is gone that the checkpoint ends with. Whoever had the conversation erased wants nothing of it
// written again, and what is in memory here is of before.
func (c *conversation) erased(ctx context.Context, s *checkpoint) (bool, error) {
	subject, err := subjects.Index{Tenant: c.key.tenant, Conversation: c.key.conversation}.Subject()
	if err != nil {
		return false, fmt.Errorf("index of conversation: %w", err)
	}
	last, err := lastOn(ctx, c.w.bus, bus.StreamIndex, subject)
	return err == nil && last.stream < s.indexSeq, err
}

// publishOnce is publish without its patience.
func (c *conversation) publishOnce(ctx context.Context, s uint64, d derived) error {
	subject := d.msg.Subject
	if !c.marks[subject].known {
		last, err := lastOn(ctx, c.w.bus, d.stream, subject)
		if err != nil {
			return err
		}
		c.marks[subject] = last
	}
	if c.marks[subject].sequence >= s {
		return nil
	}
	f, err := c.send(d)
	if err != nil {
		return err
	}
	return c.await(ctx, s, d, f)
}

// postpone gives a checkpoint up for now. It only saves time at the next loading: no conversation waits for it, whatever is wrong
// with its bucket.
func (c *conversation) postpone(ctx context.Context, subject string, err error) {
	c.w.trouble(ctx, bus.StreamConversations, err)
	delete(c.marks, subject)
	c.snapshot, c.uncovered, c.postponed = nil, max(c.uncovered, 1), time.Now().Add(checkpointPause)
}

// load brings the state to where it was before event s.
func (c *conversation) load(ctx context.Context, s uint64) error {
	if c.state != nil {
		return nil
	}
	return c.w.persist(ctx, bus.StreamConversations, func() error {
		l := loader{bus: c.w.bus, log: c.w.log, newState: c.w.handler.NewState, key: c.key, before: s}
		state, err := l.load(ctx, mark{stream: c.indexSeq, sequence: c.committed})
		if err == nil {
			err = c.sameStreams(ctx, readBack()...) // of an index that was deleted meanwhile only a part was read
		}
		if err != nil {
			return err
		}
		c.marks[l.subject] = l.checkpoint
		c.state = state
		return nil
	})
}
