package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/cimbus/cimbus/subjects"
)

// agentPage is what an agent asks for at a time.
func agentPage() pageLimits { return pageLimits{messages: maxPage, bytes: 1 << 20} }

// directBacklog reads the log itself.
type directBacklog struct {
	bus    *Bus
	filter string
}

func (d *directBacklog) check(ctx context.Context, p *Position) (Position, uint64, bool, error) {
	if p != nil {
		return d.bus.countAfter(ctx, d.filter, *p)
	}
	l, err := d.bus.describeDeliveries(ctx)
	return l.end(), 0, false, err
}

func (d *directBacklog) resume(ctx context.Context, p Position, gap bool) (page, []*jetstream.RawStreamMsg, error) {
	var messages []*jetstream.RawStreamMsg
	page, err := d.bus.deliveriesAfter(ctx, d.filter, p, agentPage(), func(m *jetstream.RawStreamMsg) error {
		messages = append(messages, m)
		return nil
	})
	if gap && len(messages) > 0 {
		d.bus.gaps.Add(1)
	}
	return page, messages, err
}

func (d *directBacklog) close() {}

// silence is how long an answer of the control service may keep silent.
const silence = 5 * time.Second

var (
	errSilent   = errors.New("the control service did not answer in time")
	errTornPage = errors.New("messages of a page were lost on the way")
)

// controlClient asks the control service on an agent's behalf, with nothing but an agent's permissions.
type controlClient struct {
	nc    *nats.Conn
	name  agentName
	inbox string
	sub   *nats.Subscription

	mu      sync.Mutex
	last    uint64
	waiting map[string]chan *nats.Msg
}

func newControlClient(nc *nats.Conn, tenant, agent string) (*controlClient, error) {
	prefix, err := subjects.Inbox{Tenant: tenant, Agent: agent}.Prefix()
	if err != nil {
		return nil, err
	}
	c := &controlClient{nc: nc, name: agentName{tenant, agent}, inbox: prefix + "." + nuid.Next() + ".", waiting: map[string]chan *nats.Msg{}}
	if c.sub, err = nc.Subscribe(c.inbox+"*", c.deliver); err != nil {
		return nil, fmt.Errorf("subscribe %s: %w", c.inbox+"*", err)
	}
	return c, nil
}

// deliver hands an answer to the request that waits for it. A page has a message more than there is room for at most; one that
// does not fit counts as lost.
func (c *controlClient) deliver(m *nats.Msg) {
	c.mu.Lock()
	answers := c.waiting[strings.TrimPrefix(m.Subject, c.inbox)]
	c.mu.Unlock()
	select {
	case answers <- m:
	default:
	}
}

func (c *controlClient) close() {
	// It fails only on a connection that is closed, with all its subscriptions.
	_ = c.sub.Unsubscribe()
}

func (c *controlClient) open() (token string, answers chan *nats.Msg) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	token = strconv.FormatUint(c.last, 36)
	answers = make(chan *nats.Msg, maxPage+1)
	c.waiting[token] = answers
	return token, answers
}

func (c *controlClient) forget(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, token)
}

// ask sends a request and returns the messages of the answer, the last of them decoded into end. It returns the service's
// *ControlError or *ExpiredError, nats.ErrNoResponders while there is no service, and an error if the answer is not complete.
func (c *controlClient) ask(ctx context.Context, verb string, request, end any) ([]*jetstream.RawStreamMsg, error) {
	subject, err := subjects.Control{Tenant: c.name.tenant, Agent: c.name.agent, Verb: verb}.Subject()
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	token, answers := c.open()
	defer c.forget(token)
	if err := c.nc.PublishMsg(&nats.Msg{Subject: subject, Reply: c.inbox + token, Data: body}); err != nil {
		return nil, fmt.Errorf("%s: %w", verb, err)
	}
	var messages []*jetstream.RawStreamMsg
	heard, connection := time.Now(), c.nc.Stats().Reconnects
	ticker := time.NewTicker(silence / 25)
	defer ticker.Stop()
	for {
		select {
		case m := <-answers:
			if isStatus(m, "503") {
				return nil, fmt.Errorf("%s: no control service answers at %s: %w", verb, subject, nats.ErrNoResponders)
			}
			stored, ok := parseLive(m)
			if !ok {
				return messages, finish(verb, m, len(messages), end)
			}
			messages = append(messages, &stored.RawStreamMsg)
			heard = time.Now()
		case <-ticker.C:
			// What was on its way over a connection that broke does not come.
			if time.Since(heard) > silence || c.nc.IsClosed() || c.nc.Stats().Reconnects != connection && c.nc.IsConnected() {
				return nil, fmt.Errorf("%s: %w", verb, errSilent)
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w", verb, ctx.Err())
		}
	}
}

// finish reads the last message of an answer.
func finish(verb string, m *nats.Msg, n int, end any) error {
	var answer struct {
		Error *ControlError `json:"error"`
		expiredAnswer
		Count *int `json:"count"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return fmt.Errorf("%s: answer of the control service: %w", verb, err)
	}
	switch {
	case answer.Error != nil:
		return fmt.Errorf("%s: %w", verb, answer.Error)
	case answer.Expired:
		return answer.read()
	case verb == VerbResume && answer.Count != nil && *answer.Count != n:
		return fmt.Errorf("%s: %w: %d of %d came", verb, errTornPage, n, *answer.Count)
	}
	if err := json.Unmarshal(m.Data, end); err != nil {
		return fmt.Errorf("%s: answer of the control service: %w", verb, err)
	}
	return nil
}

func (a expiredAnswer) read() error {
	from, err := ParsePosition(a.From)
	if err != nil {
		return err
	}
	to, err := ParsePosition(a.To)
	if err != nil {
		return err
	}
	return &ExpiredError{From: from, To: to, Reason: a.Reason}
}

type afterRequest struct {
	After    string `json:"after,omitempty"`
	Max      int    `json:"max,omitempty"`
	MaxBytes int    `json:"max_bytes,omitempty"`
	Gap      bool   `json:"gap,omitempty"`
}

func (c *controlClient) check(ctx context.Context, p *Position) (Position, uint64, bool, error) {
	var request afterRequest
	if p != nil {
		request.After = p.String()
	}
	var answer checkAnswer
	if _, err := c.ask(ctx, VerbCheck, request, &answer); err != nil {
		return Position{}, 0, false, err
	}
	upto, err := ParsePosition(answer.Upto)
	return upto, answer.Count, answer.More, err
}

func (c *controlClient) resume(ctx context.Context, p Position, gap bool) (page, []*jetstream.RawStreamMsg, error) {
	var answer pageAnswer
	limits := agentPage()
	messages, err := c.ask(ctx, VerbResume, afterRequest{After: p.String(), Max: limits.messages, MaxBytes: limits.bytes, Gap: gap}, &answer)
	if err != nil {
		return page{}, nil, err
	}
	out := page{more: answer.More}
	if out.last, err = ParsePosition(answer.Last); err != nil {
		return page{}, nil, err
	}
	out.upto, err = ParsePosition(answer.Upto)
	return out, messages, err
}
