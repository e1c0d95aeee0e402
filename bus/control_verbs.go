package bus

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// The bounds of a page, and what is taken for one that names none.
const (
	maxPage      = 256
	maxPageBytes = 4 << 20
)

// controlVerb works on a request and answers it; an error it returns is answered for it.
type controlVerb func(ctx context.Context, r *request) error

func (c *Control) verbs() map[string]controlVerb {
	return map[string]controlVerb{
		VerbResume: c.resume, VerbCheck: c.check, VerbHistory: c.history,
		VerbJoin: c.join, VerbLeave: c.leaves, VerbPublish: c.publish,
	}
}

// position is an "after" of a request: a position as it was handed out, a plain number, as a string or a number, or absent.
type position struct {
	Position
	given bool
}

// UnmarshalJSON takes a string, a number or null.
func (p *position) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	text := string(b)
	if b[0] == '"' {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
	}
	var err error
	p.Position, err = ParsePosition(text)
	p.given = true
	if err != nil {
		return fmt.Errorf("after: %w", err)
	}
	return nil
}

// pageRequest is what every paged request has.
type pageRequest struct {
	After    position `json:"after"`
	Gap      bool     `json:"gap"` // a live delivery was missed: counted, nothing else
	Max      int      `json:"max"`
	MaxBytes int      `json:"max_bytes"`
}

func (q pageRequest) limits() (pageLimits, error) {
	l := pageLimits{cmp.Or(q.Max, maxPage), cmp.Or(q.MaxBytes, maxPageBytes)}
	if l.messages < 1 || l.messages > maxPage {
		return l, badRequest(fmt.Sprintf("max %d: give 1 to %d", q.Max, maxPage))
	}
	if l.bytes < 1 || l.bytes > maxPageBytes {
		return l, badRequest(fmt.Sprintf("max_bytes %d: give 1 to %d", q.MaxBytes, maxPageBytes))
	}
	return l, nil
}

// deliveries is the filter over all that one agent receives.
func (a agentName) deliveries() (string, error) {
	return subjects.DeliveryFilter{Tenant: subjects.Is(a.tenant), Agent: subjects.Is(a.agent)}.Subject()
}

func (c *Control) resume(ctx context.Context, r *request) error {
	var q pageRequest
	if err := r.decode(&q); err != nil {
		return err
	}
	limits, err := q.limits()
	if err != nil {
		return err
	}
	if !q.After.given {
		return badRequest("after is missing: give the position to resume after, 0 for all that is stored")
	}
	filter, err := r.agent.deliveries()
	if err != nil {
		return err
	}
	n := 0
	page, err := c.bus.deliveriesAfter(ctx, filter, q.After.Position, limits, func(m *jetstream.RawStreamMsg) error {
		n++
		return r.send(ctx, StreamDeliveries, m, m.Header)
	})
	if err != nil {
		return err
	}
	c.resumed.Add(uint64(n))
	if q.Gap && n > 0 {
		c.bus.gaps.Add(1)
	}
	return r.end(pageAnswer{Last: page.last.String(), Upto: page.upto.String(), More: page.more, Count: n})
}

func (c *Control) check(ctx context.Context, r *request) error {
	var q struct {
		After position `json:"after"`
	}
	if err := r.decode(&q); err != nil {
		return err
	}
	if !q.After.given {
		l, err := c.bus.describeDeliveries(ctx)
		if err != nil {
			return err
		}
		return r.end(checkAnswer{Upto: l.end().String()})
	}
	filter, err := r.agent.deliveries()
	if err != nil {
		return err
	}
	upto, count, more, err := c.bus.countAfter(ctx, filter, q.After.Position)
	if err != nil {
		return err
	}
	return r.end(checkAnswer{Upto: upto.String(), Count: count, More: more})
}

// history pages through a conversation by Cim-Sequence, which is what the deliveries carry too.
func (c *Control) history(ctx context.Context, r *request) error {
	var q struct {
		pageRequest
		Conversation string `json:"conversation"`
	}
	if err := r.decode(&q); err != nil {
		return err
	}
	limits, err := q.limits()
	if err != nil {
		return err
	}
	if q.After.Identity != "" {
		return badRequest("after: give the Cim-Sequence to read after, a plain number; positions are of deliveries")
	}
	if err := c.member(ctx, r, q.Conversation); err != nil {
		return err
	}
	last, err := c.bus.lastEntry(ctx, r.agent.tenant, q.Conversation)
	if err != nil && !errors.Is(err, ErrNoMessage) {
		return err
	}
	answer := pageAnswer{Upto: strconv.FormatUint(last.Sequence, 10)}
	read, size := q.After.Sequence, 0
	for e, err := range c.bus.History(ctx, r.agent.tenant, q.Conversation, q.After.Sequence, last.Sequence) {
		if err != nil {
			return err
		}
		if e.Outcome == OutcomeImported {
			read = e.Sequence
			continue
		}
		if answer.More = answer.Count == limits.messages; answer.More {
			break
		}
		m, err := c.bus.Event(ctx, e)
		switch {
		case errors.Is(err, ErrNoMessage): // CIM_EVENTS was filled up and forgot it earlier than the index
			read = e.Sequence
			continue
		case err != nil:
			return err
		}
		if answer.More = answer.Count > 0 && size+len(m.Data) > limits.bytes; answer.More {
			break
		}
		if err := r.send(ctx, StreamEvents, m, e.header(m.Header)); err != nil {
			return err
		}
		read, size, answer.Count = e.Sequence, size+len(m.Data), answer.Count+1
	}
	if !answer.More {
		read = max(read, last.Sequence)
	}
	answer.Last = strconv.FormatUint(read, 10)
	return r.end(answer)
}

// header is what a message of a conversation's history carries: the event's headers and those of its index entry.
func (e Entry) header(event nats.Header) nats.Header {
	h := Foreign(event)
	for key, value := range map[string]string{
		HeaderSequence: strconv.FormatUint(e.Sequence, 10), HeaderConversation: e.Conversation, HeaderChannel: e.Channel,
		HeaderEventID: e.EventID, HeaderEventName: e.EventName, HeaderOutcome: e.Outcome,
	} {
		if value != "" {
			h[key] = []string{value}
		}
	}
	return h
}

// member makes sure of the caller's membership, by the leader's word.
func (c *Control) member(ctx context.Context, r *request, conversation string) error {
	if conversation == "" {
		return badRequest("conversation is missing: name the conversation")
	}
	_, err := c.bus.Member(ctx, r.agent.tenant, r.agent.agent, conversation)
	return err
}

type membershipRequest struct {
	Conversation string `json:"conversation"`
	Role         string `json:"role"`
}

func (c *Control) join(ctx context.Context, r *request) error {
	var q membershipRequest
	if err := r.decode(&q); err != nil {
		return err
	}
	if q.Conversation == "" {
		return badRequest("conversation is missing: name the conversation to join")
	}
	q.Role = cmp.Or(q.Role, DefaultRole)
	if c.o.Allow != nil {
		if err := c.o.Allow(ctx, JoinRequest{r.agent.tenant, q.Conversation, r.agent.agent, q.Role}); err != nil {
			return &ControlError{CodeForbidden, err.Error()}
		}
	}
	return c.receipt(r)(c.bus.Join(ctx, r.agent.tenant, q.Conversation, r.agent.agent, q.Role))
}

// leaves takes members only: anybody's leaving is an event that all members see.
func (c *Control) leaves(ctx context.Context, r *request) error {
	var q membershipRequest
	if err := r.decode(&q); err != nil {
		return err
	}
	if err := c.member(ctx, r, q.Conversation); err != nil {
		return err
	}
	return c.receipt(r)(c.bus.Leave(ctx, r.agent.tenant, q.Conversation, r.agent.agent))
}

func (c *Control) receipt(r *request) func(Receipt, error) error {
	return func(receipt Receipt, err error) error {
		if err != nil {
			return err
		}
		return r.end(receipt)
	}
}

// publish sets the conversation to the one whose membership was checked, whatever else the event says: the worker reads the
// header first. Its name is read as the worker and the desks will read it.
func (c *Control) publish(ctx context.Context, r *request) error {
	var q struct {
		Event json.RawMessage `json:"event"`
	}
	if err := r.decode(&q); err != nil {
		return err
	}
	if len(q.Event) == 0 {
		return badRequest("event is missing: send {\"event\":{…}}")
	}
	e, err := cim.Decode(q.Event, "")
	if err != nil {
		return err
	}
	if err := e.RequireConversation(); err != nil {
		return err
	}
	if cim.IsMembership(e.Name) {
		return &ControlError{CodeForbidden, e.Name + " is not for agents to publish: use " + VerbJoin + " or " + VerbLeave}
	}
	if err := c.member(ctx, r, e.Conversation); err != nil {
		return err
	}
	if e.Channel == "" {
		if e.Channel, err = c.bus.lastChannel(ctx, r.agent.tenant, e.Conversation); err != nil {
			return err
		}
	}
	return c.receipt(r)(c.bus.Publish(ctx, Event{
		Tenant: r.agent.tenant, Channel: e.Channel, Name: e.Name, Conversation: e.Conversation, ID: e.ID,
		Body: q.Event, Header: Foreign(r.header),
	}))
}
