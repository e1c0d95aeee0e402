package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/handlers/oncimevent"
	"github.com/cimbus/cimbus/subjects"
)

const (
	proofTime          = 10 * time.Second // for all of it
	proofPublishing    = 2 * time.Second  // at most, before the kill
	proofAcknowledged  = 1000             // acknowledged events after which the daemon is killed
	proofConversations = 50
	proofInFlight      = 64
	proofTenant        = "proof"
	proofAgent         = "ann"
)

// proof kills a daemon of its own and counts what is left.
type proof struct {
	app        *app
	durability embedded.Durability
	dir        string

	events       map[string]bus.Event // all that were published, by id
	acknowledged map[string]bool
	unanswered   map[string]bool // their publisher heard nothing
	took         time.Duration
}

// prove runs a proof. Nothing of it touches a store or a server that was there before.
func (a *app) prove(ctx context.Context, durability embedded.Durability) (err error) {
	told := ctx
	ctx, cancel := context.WithTimeout(ctx, proofTime)
	defer cancel()
	dir, err := os.MkdirTemp("", "cimbus-proof-")
	if err != nil {
		return fmt.Errorf("temporary folder: %w: have TMPDIR name one that can be written", err)
	}
	defer func() {
		if told.Err() != nil {
			err = errors.New("broken off: nothing was proved, and nothing of it is left")
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	p := &proof{app: a, durability: durability, dir: dir, events: map[string]bus.Event{}, acknowledged: map[string]bool{}, unanswered: map[string]bool{}}
	if err := p.untilKilled(ctx); err != nil {
		return fmt.Errorf("prove durability: %w", err)
	}
	found, err := p.count(ctx)
	if err != nil {
		return fmt.Errorf("prove durability: %w", err)
	}
	return a.showFindings(append(found, p.powerCut()))
}

// untilKilled publishes to a daemon as fast as it can and kills it in the middle.
func (p *proof) untilKilled(ctx context.Context) error {
	c, err := p.start(ctx)
	if err != nil {
		return err
	}
	defer c.kill()
	return p.with(ctx, c, func(b *bus.Bus) error {
		for i := range proofConversations {
			if _, err := b.Join(ctx, proofTenant, "c"+strconv.Itoa(i), proofAgent, ""); err != nil {
				return err
			}
		}
		return p.publish(ctx, b, c)
	})
}

func (p *proof) publish(ctx context.Context, b *bus.Bus, c *child) error {
	publisher, err := b.NewPublisher(bus.PublisherOptions{MaxPending: proofInFlight})
	if err != nil {
		return err
	}
	publishing, stop := context.WithTimeout(ctx, proofPublishing)
	defer stop()
	var answered atomic.Int64
	var waiting sync.WaitGroup
	pending := map[string]*bus.Pending{}
	began := time.Now()
	for i := 0; publishing.Err() == nil && answered.Load() < proofAcknowledged; i++ {
		e, err := proofEvent(i)
		if err != nil {
			return err
		}
		q, err := publisher.Publish(publishing, e)
		if err != nil {
			break
		}
		pending[e.ID] = q
		p.events[e.ID] = e
		waiting.Go(func() {
			if _, err := q.Receipt(); err == nil {
				answered.Add(1)
			}
		})
	}
	// The publisher still has events on their way.
	c.kill()
	p.took = time.Since(began)
	over, cancel := context.WithCancel(ctx)
	cancel()
	// The error says that some have no outcome; each of them says it itself.
	_ = publisher.Close(over)
	waiting.Wait()
	for id, q := range pending {
		if _, err := q.Receipt(); err != nil {
			p.unanswered[id] = true
			continue
		}
		p.acknowledged[id] = true
	}
	if len(p.acknowledged) == 0 {
		return errors.New("no event was acknowledged before the kill: the machine is too slow for the time there is")
	}
	return nil
}

func proofEvent(i int) (bus.Event, error) {
	return bus.NewEvent(proofTenant, fmt.Appendf(nil, `{"id":"e%d","name":"CUSTOMER_MESSAGE","conversationId":"c%d"}`, i, i%proofConversations))
}

// count starts the daemon again and holds what is there against what was acknowledged.
func (p *proof) count(ctx context.Context) (found []bus.Finding, err error) {
	c, err := p.start(ctx)
	if err != nil {
		return nil, err
	}
	defer c.kill()
	err = p.with(ctx, c, func(b *bus.Bus) error {
		left, err := p.tally(ctx, b, bus.StreamEvents, ">")
		if err != nil {
			return err
		}
		// What every publisher does that hears nothing.
		for id := range p.unanswered {
			if _, err := b.Publish(ctx, p.events[id]); err != nil {
				return err
			}
		}
		events, err := p.tally(ctx, b, bus.StreamEvents, ">")
		if err != nil {
			return err
		}
		if err := p.handled(ctx, b); err != nil {
			return err
		}
		filter, err := subjects.DeliveryFilter{Tenant: subjects.Is(proofTenant), Agent: subjects.Is(proofAgent), Type: subjects.Is(oncimevent.Name)}.Subject()
		if err != nil {
			return err
		}
		deliveries, err := p.tally(ctx, b, bus.StreamDeliveries, filter)
		if err != nil {
			return err
		}
		found = []bus.Finding{p.judgeEvents(left, events), p.judgeDeliveries(events, deliveries)}
		return nil
	})
	return found, err
}

// counted is how often each event is in a stream.
type counted struct {
	times      map[string]int // by event id
	outOfOrder int            // messages of a conversation behind one with a later event
}

func (p *proof) tally(ctx context.Context, b *bus.Bus, stream, filter string) (counted, error) {
	t := counted{times: map[string]int{}}
	last := map[string]uint64{}
	for m, err := range b.Read(ctx, bus.Range{Stream: stream, Filter: filter}) {
		if err != nil {
			return t, err
		}
		t.times[bus.LastHeader(m.Header, bus.HeaderEventID)]++
		s, conversation := bus.SequenceOf(m.Header), bus.LastHeader(m.Header, bus.HeaderConversation)
		if s > 0 && s <= last[conversation] {
			t.outOfOrder++
		}
		last[conversation] = max(last[conversation], s)
	}
	return t, nil
}

// handled waits until the handler has done every event.
func (p *proof) handled(ctx context.Context, b *bus.Bus) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		streams, err := b.Streams(ctx)
		if err != nil {
			return err
		}
		lag := uint64(0)
		for _, c := range streams[0].Consumers {
			lag += c.Lag
		}
		if lag == 0 && len(streams[0].Consumers) > 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d events were not handled in time: %w", lag, ctx.Err())
		}
	}
}

func (p *proof) judgeEvents(left, events counted) bus.Finding {
	lost, twice, unanswered, missing := 0, 0, 0, 0
	for id := range p.acknowledged {
		if left.times[id] == 0 {
			lost++
		}
	}
	for id := range p.unanswered {
		unanswered += left.times[id]
		if events.times[id] == 0 {
			missing++
		}
	}
	for _, n := range events.times {
		if n > 1 {
			twice++
		}
	}
	f := bus.Finding{
		Check: "kill", Level: bus.LevelOK, Remedy: "nothing",
		Found: fmt.Sprintf("%s, killed hard with %s on their way: %d acknowledged before, %d of them lost; "+
			"of those without an answer %d were stored; published again %d are missing; %d stored twice",
			p.durability, plural(len(p.unanswered), "event"), len(p.acknowledged), lost, unanswered, missing, twice),
		Why: "a publisher takes its acknowledgement for a promise",
	}
	if lost+twice+missing > 0 {
		f.Level, f.Remedy = bus.LevelFail, "do not rely on this disk and build; report it with these counts"
	}
	return f
}

func (p *proof) judgeDeliveries(events, deliveries counted) bus.Finding {
	missing, twice := 0, 0
	for id := range events.times {
		if deliveries.times[id] == 0 {
			missing++
		}
	}
	for _, n := range deliveries.times {
		if n > 1 {
			twice++
		}
	}
	f := bus.Finding{
		Check: "deliveries", Level: bus.LevelOK, Remedy: "nothing",
		Found: fmt.Sprintf("of %s stored %d were not delivered to their agent, %d twice, %d out of order",
			plural(len(events.times), "event"), missing, twice, deliveries.outOfOrder),
		Why: "after a restart finished events come back, and an agent must not see that",
	}
	if missing+twice+deliveries.outOfOrder > 0 {
		f.Level, f.Remedy = bus.LevelFail, "report it with these counts"
	}
	return f
}

// powerCut says in words what no process can show: what is not synced survives its own end, but not the machine's.
func (p *proof) powerCut() bus.Finding {
	f := bus.Finding{
		Check: "power", Level: bus.LevelOK, Remedy: "nothing",
		Found: "a power cut in strict could cost nothing that was acknowledged: each acknowledgement came after its sync, as far as the disk keeps what it says it has",
		Why:   "a kill leaves what was written to the system; a power cut leaves what was synced",
	}
	if p.durability == embedded.Balanced {
		rate := float64(len(p.acknowledged)) / max(p.took.Seconds(), 0.001)
		f.Found = fmt.Sprintf("a power cut in balanced could cost the acknowledged events of the last second, at this rate about %.0f; "+
			"afterwards the streams are brought to agree again", rate)
		f.Remedy = "choose strict where that is too much"
	}
	return f
}

// with runs do on a bus at the child.
func (p *proof) with(ctx context.Context, c *child, do func(*bus.Bus) error) error {
	return target{url: c.NATS}.withBus(ctx, p.app.log(hclog.Off), nil, do)
}

// child is a daemon in a process of its own.
type child struct {
	announcement
	cmd *exec.Cmd
}

// start runs this same program as a daemon in the proof's folder, with nothing of the environment that configures one.
func (p *proof) start(ctx context.Context) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, "serve", "--store", p.dir, "--durability", string(p.durability),
		"--nats-addr", "127.0.0.1:0", "--websocket-addr", "", "--http-addr", "")
	cmd.Env = []string{}
	for _, entry := range p.app.environ {
		if !strings.HasPrefix(entry, "CIMBUS_") && !strings.HasPrefix(entry, "NATS_") {
			cmd.Env = append(cmd.Env, entry)
		}
	}
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a daemon: %w", err)
	}
	c := &child{cmd: cmd}
	ready, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(ready, &c.announcement)
	}
	if err != nil {
		c.kill()
		return nil, fmt.Errorf("the daemon did not become ready: %w: %s", err, strings.TrimSpace(complaint.String()))
	}
	return c, nil
}

// kill ends the process at once, if it has not ended, and waits for that.
func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		_ = c.cmd.Process.Kill() // fails only if it has ended
		_ = c.cmd.Wait()         // that it was killed is no news
	}
}
