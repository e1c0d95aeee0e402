package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

const (
	// longestLine bounds a line of an export, in bytes: the largest event there may be, twice and with its headers.
	longestLine = 64 << 20
	// brokenTold is how many broken lines are told.
	brokenTold = 20
)

// importLine is a line of an export.
type importLine struct {
	number int
	text   []byte // only until the next one
}

// importLines reads the lines of an export that are not empty.
func importLines(in io.Reader) iter.Seq2[importLine, error] {
	return func(yield func(importLine, error) bool) {
		lines := bufio.NewScanner(in)
		lines.Buffer(make([]byte, 0, 64<<10), longestLine)
		l := importLine{}
		for lines.Scan() {
			l.number++
			if l.text = lines.Bytes(); len(l.text) > 0 && !yield(l, nil) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			if errors.Is(err, bufio.ErrTooLong) {
				err = fmt.Errorf("line %d is above %s: it is none of an export", l.number+1, size(longestLine))
			}
			yield(importLine{}, fmt.Errorf("read the input: %w", err))
		}
	}
}

// event is the event of a line, checked.
func (l importLine) event(limit int) (bus.StoredEvent, error) {
	e, err := bus.ReadStoredEvent(l.text)
	if err != nil {
		return e, err
	}
	return e, e.CheckImport(limit)
}

// identity is an event's import id, in little room.
type identity [16]byte

func identityOf(e bus.StoredEvent) identity {
	sum := sha256.Sum256([]byte(e.Name.Tenant + "\n" + e.ImportID()))
	return identity(sum[:16])
}

// importPlan is what an import would do. Its memory grows with the events to be imported, by some dozen bytes each.
type importPlan struct {
	Plan          string   `json:"plan"`   // import
	Import        string   `json:"import"` // history or handle
	Events        int      `json:"events"` // to be imported, those that are stored already left out
	Bytes         int64    `json:"bytes"`  // of their bodies
	Duplicates    int      `json:"duplicates"`
	Broken        int      `json:"broken"`
	Copies        int      `json:"copies"` // redriven or replayed ones, left out
	HeadersLost   int      `json:"headers_left_out"`
	Tenants       []string `json:"tenants"`
	Conversations int      `json:"conversations"`
	Handlers      []string `json:"handlers"` // that will handle them; with history, none
	Agents        []string `json:"agents"`   // that will get some of them, as far as it can be known; with history, none

	mode   bus.ImportMode
	limit  int               // bytes that CIM_EVENTS takes
	stored map[identity]bool // events of the file, and whether they are stored, or sent
}

// leavesOut tells whether an event that is none of the broken ones is not to be imported: of a redriven or replayed copy the original is handled.
func (p *importPlan) leavesOut(e bus.StoredEvent) bool {
	copied := bus.LastHeader(e.Header, bus.HeaderRedriveOf) != "" || bus.LastHeader(e.Header, bus.HeaderReplayOf) != ""
	return p.mode == bus.ImportHandle && copied
}

// take tells whether an event is still to be stored, and takes it for stored from then on.
func (p *importPlan) take(e bus.StoredEvent) bool {
	id := identityOf(e)
	known := p.stored[id]
	p.stored[id] = true
	return !known
}

type conversationName struct{ tenant, conversation string }

// plan reads the whole input once, and what its tenants have in the stream.
func (c *importCommand) plan(ctx context.Context, b *bus.Bus, file io.Reader) (*importPlan, error) {
	p := &importPlan{Plan: "import", Import: string(c.mode()), mode: c.mode(), stored: map[identity]bool{}, Handlers: []string{}, Agents: []string{}}
	stream, err := b.JetStream().Stream(ctx, bus.StreamEvents)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", bus.StreamEvents, err)
	}
	p.limit = int(b.Conn().MaxPayload())
	if most := int(stream.CachedInfo().Config.MaxMsgSize); most > 0 {
		p.limit = min(p.limit, most)
	}
	sizes := map[identity]int64{}
	conversations, agents, tenants := map[conversationName]bool{}, map[string]bool{}, map[string]bool{}
	for l, err := range importLines(file) {
		if err != nil {
			return nil, fmt.Errorf("%w; nothing was imported", err)
		}
		if ctx.Err() != nil {
			return nil, errors.New("interrupted: nothing was imported")
		}
		e, err := l.event(p.limit)
		if err != nil {
			if p.Broken++; p.Broken <= brokenTold {
				c.app.tell("%s: line %d: %v", c.name(), l.number, err)
			}
			continue
		}
		if p.leavesOut(e) {
			p.Copies++
			continue
		}
		p.HeadersLost += len(e.ImportLoss())
		tenants[e.Name.Tenant] = true
		conversations[conversationName{e.Name.Tenant, e.Conversation}] = true
		if participant, err := joins(e); err == nil {
			agents[participant] = true
		}
		id := identityOf(e)
		if _, twice := sizes[id]; twice {
			p.Duplicates++
			continue
		}
		sizes[id] = int64(len(e.Data))
		p.stored[id] = false
	}
	p.Tenants = notNil(slices.Sorted(maps.Keys(tenants)))
	if err := p.compare(ctx, b, sizes); err != nil {
		return nil, err
	}
	p.Conversations = len(conversations)
	if c.handle {
		err = p.reach(ctx, b, conversations, agents)
	}
	return p, err
}

// joins names the agent that an event makes a member.
func joins(e bus.StoredEvent) (string, error) {
	if e.Name.Event != cim.AgentSubscribed {
		return "", errors.New("another event")
	}
	decoded, err := cim.Decode(e.Data, e.Conversation)
	if err != nil {
		return "", err
	}
	participant, err := decoded.Participant()
	return participant.Agent, err
}

// compare finds which of the events are stored already.
func (p *importPlan) compare(ctx context.Context, b *bus.Bus, sizes map[identity]int64) error {
	for _, tenant := range p.Tenants {
		for e, err := range b.Events(ctx, bus.EventSelection{Tenant: subjects.Is(tenant)}) {
			if err != nil {
				return fmt.Errorf("compare with what is stored: %w", err)
			}
			id := identityOf(e)
			if done, ours := p.stored[id]; ours && !done {
				p.stored[id] = true
				p.Duplicates++
			}
		}
	}
	for id, done := range p.stored {
		if !done {
			p.Events++
			p.Bytes += sizes[id]
		}
	}
	return nil
}

// reach finds which handlers and agents get the events.
func (p *importPlan) reach(ctx context.Context, b *bus.Bus, conversations map[conversationName]bool, agents map[string]bool) error {
	handlers, err := b.Handlers(ctx)
	if err != nil {
		return err
	}
	for _, h := range handlers {
		p.Handlers = append(p.Handlers, fmt.Sprintf("%s (%s)", h.Handler, h.Worker))
	}
	for _, tenant := range p.Tenants {
		filter, err := subjects.MemberFilter{Tenant: subjects.Is(tenant)}.Subject()
		if err != nil {
			return err
		}
		for m, err := range b.Read(ctx, bus.Range{Stream: bus.StreamMembers, Filter: filter}) {
			if err != nil {
				return fmt.Errorf("who is a member: %w", err)
			}
			key, err := subjects.ParseMemberKey(strings.TrimPrefix(m.Subject, "$KV."+bus.BucketMembers+"."))
			if err != nil || !conversations[conversationName{tenant, key.Conversation}] {
				continue
			}
			member, err := b.Member(ctx, tenant, key.Agent, key.Conversation)
			switch {
			case errors.Is(err, bus.ErrNotMember):
			case err != nil:
				return err
			case member.Left == 0:
				agents[key.Agent] = true
			}
		}
	}
	p.Agents = notNil(slices.Sorted(maps.Keys(agents)))
	return nil
}

func (c *importCommand) showPlan(p *importPlan) error {
	if c.app.json {
		return line(c.app.stdout, p)
	}
	t := table{head: []string{"IMPORT", p.Import}}
	t.row("events", fmt.Sprintf("%d (%s)", p.Events, size(p.Bytes)))
	t.row("stored already", fmt.Sprint(p.Duplicates))
	t.row("tenants", orDash(strings.Join(p.Tenants, ", ")))
	t.row("conversations", fmt.Sprint(p.Conversations))
	t.row("handlers", cmp.Or(strings.Join(p.Handlers, ", "), "none"))
	t.row("agents", cmp.Or(strings.Join(p.Agents, ", "), "none"))
	t.row("left out", fmt.Sprintf("%s, %s, %s", plural(p.Broken, "broken line"), plural(p.Copies, "redriven or replayed event"), plural(p.HeadersLost, "header")))
	return t.write(c.app.stdout)
}
