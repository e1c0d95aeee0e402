package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/handlers/oncimevent"
	"github.com/cimbus/cimbus/subjects"
)

// play is the demo under way.
type play struct {
	d       *demo
	b       *bus.Bus
	service service
	desks   map[string]*desk
	order   []string // of the desks
	ledger  *ledger
	view    *demoView
	scene
}

func (d *demo) newPlay(b *bus.Bus) (*play, error) {
	url := b.Server().NATSURL()
	nc, err := nats.Connect(url, nats.Name("demo service"))
	if err != nil {
		return nil, fmt.Errorf("service: connect: %w", err)
	}
	p := &play{d: d, b: b, service: service{nc}, ledger: newLedger(), desks: map[string]*desk{}, order: []string{ada, ben}, view: newDemoView(d.app)}
	for _, agent := range p.order {
		p.desks[agent] = newDesk(agent, url)
	}
	return p, nil
}

func (p *play) close() error {
	var errs []error
	for _, k := range p.desks {
		errs = append(errs, k.close())
	}
	p.service.nc.Close()
	return errors.Join(errs...)
}

// perform plays both parts. An error means that the bus did not do its part in time.
func (p *play) perform(ctx context.Context) error {
	body, scene, err := documentedEvent()
	if err != nil {
		return err
	}
	p.scene = scene
	for _, agent := range p.order {
		if err := p.desks[agent].connect(ctx, nil); err != nil {
			return err
		}
	}
	if err := p.road(ctx, body); err != nil {
		return err
	}
	p.view.curtain(p.order)
	for _, e := range script() {
		if err := p.pause(ctx); err != nil {
			return err
		}
		if err := p.between(ctx, e.before); err != nil {
			return err
		}
		if err := p.say(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func (p *play) pause(ctx context.Context) error {
	select {
	case <-time.After(p.d.pace):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// road makes ada a member of the sample's conversation and follows the sample from station to station.
func (p *play) road(ctx context.Context, body []byte) error {
	joined, err := p.b.Join(ctx, demoTenant, p.conversation, ada, bus.DefaultRole)
	if err != nil {
		return err
	}
	stored, err := p.b.MessageAt(ctx, bus.StreamEvents, joined.Sequence)
	if err != nil {
		return err
	}
	p.ledger.enter(entered{name: cim.AgentSubscribed, sequence: joined.Sequence, body: stored.Data}, []string{ada}, "")
	if err := p.desks[ada].has(ctx, 1, p.d.patience); err != nil {
		return err
	}
	p.view.joined(ada, bus.DefaultRole, p.conversation)

	event, err := cim.Decode(body, "")
	if err != nil {
		return fmt.Errorf("sample event: %w", err)
	}
	subject, err := subjects.Event{Tenant: demoTenant, Channel: event.Channel, Event: event.Name}.Subject()
	if err != nil {
		return fmt.Errorf("sample event: %w", err)
	}
	began := time.Now()
	ack, err := p.publish(ctx, subject, body)
	if err != nil {
		return err
	}
	acknowledged := time.Now()
	p.ledger.enter(entered{name: event.Name, sequence: ack.Sequence, body: event.Body}, []string{ada}, "")
	if err := p.desks[ada].has(ctx, 2, p.d.patience); err != nil {
		return err
	}
	got := p.desks[ada].deliveries()[1]
	stations, err := p.stations(ctx, ack, got)
	if err != nil {
		return err
	}
	stations = append(stations,
		demoStation{Station: "published", Subject: subject, Bytes: len(body), at: began},
		demoStation{Station: "acknowledged", Stream: ack.Stream, Sequence: ack.Sequence, at: acknowledged},
	)
	slices.SortStableFunc(stations, func(a, b demoStation) int {
		// A message bears the time at which storing it began.
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.Station, b.Station))
	})
	p.view.road(began, stations)
	p.view.delivery(got)
	return nil
}

// stations reads from the streams where the event has been, each with the time the server gave it.
func (p *play) stations(ctx context.Context, ack bus.Receipt, got received) ([]demoStation, error) {
	event, err := p.b.MessageAt(ctx, ack.Stream, ack.Sequence)
	if err != nil {
		return nil, err
	}
	member, err := p.b.Member(ctx, demoTenant, ada, p.conversation)
	if err != nil {
		return nil, err
	}
	delivery, err := p.b.LastMessage(ctx, bus.StreamDeliveries, got.Subject)
	if err != nil {
		return nil, err
	}
	index, err := p.committed(ctx, ack.Sequence)
	if err != nil {
		return nil, err
	}
	live, err := subjects.Delivery{Tenant: demoTenant, Agent: ada, Type: oncimevent.Type, Conversation: p.conversation}.Live()
	if err != nil {
		return nil, err
	}
	return []demoStation{
		{Station: "stored", Stream: bus.StreamEvents, Sequence: event.Sequence, Subject: event.Subject, at: event.Time},
		{
			Station: "delivered", Stream: bus.StreamDeliveries, Sequence: delivery.Sequence, Subject: delivery.Subject,
			Recipients: []demoRecipient{{member.Agent, member.Role}}, at: delivery.Time,
		},
		{Station: "received", Subject: live, Agent: ada, Bytes: len(got.Body), at: got.at},
		{Station: "committed", Stream: bus.StreamIndex, Sequence: index.Sequence, Subject: index.Subject, at: index.Time},
	}, nil
}

// committed waits for an event's index entry, which follows its deliveries.
func (p *play) committed(ctx context.Context, sequence uint64) (*jetstream.RawStreamMsg, error) {
	subject, err := subjects.Index{Tenant: demoTenant, Conversation: p.conversation}.Subject()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.d.patience)
	defer cancel()
	for {
		m, err := p.b.LastMessage(ctx, bus.StreamIndex, subject)
		switch {
		case err == nil && bus.SequenceOf(m.Header) >= sequence:
			return m, nil
		case err != nil && !errors.Is(err, bus.ErrNoMessage):
			return nil, err
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("no index entry for sequence %d within %v", sequence, p.d.patience)
		}
	}
}

// publish stores an event as a service does, and reads the acknowledgement.
func (p *play) publish(ctx context.Context, subject string, body []byte) (bus.Receipt, error) {
	answer, err := p.service.publish(ctx, subject, body)
	if err != nil {
		return bus.Receipt{}, err
	}
	var ack struct {
		bus.Receipt
		Error *jetstream.APIError `json:"error"`
	}
	switch err := json.Unmarshal(answer, &ack); {
	case err != nil:
		return bus.Receipt{}, fmt.Errorf("publish on %s: answer of the server: %w", subject, err)
	case ack.Error != nil:
		return bus.Receipt{}, fmt.Errorf("publish on %s: %w", subject, ack.Error)
	}
	ack.Subject = subject
	return ack.Receipt, nil
}

// between does what the script wants before an event.
func (p *play) between(ctx context.Context, what string) error {
	k := p.desks[ben]
	switch what {
	case cutBen:
		if err := k.drop(); err != nil {
			return err
		}
		p.view.cut(k.agent, k.kept)
	case resumeBen:
		return p.resume(ctx, k)
	}
	return nil
}

// resume brings a desk back to where it was, by the position it kept.
func (p *play) resume(ctx context.Context, k *desk) error {
	before := len(k.deliveries())
	began := time.Now()
	if err := k.connect(ctx, &k.kept); err != nil {
		return err
	}
	if err := k.has(ctx, len(p.ledger.due[k.agent]), p.d.patience); err != nil {
		return err
	}
	missed := k.deliveries()[before:]
	p.view.back(k.agent, k.kept, p.ledger, missed, began)
	return nil
}

// say publishes an event of the script, and waits until those who are there have it.
func (p *play) say(ctx context.Context, e scripted) error {
	body, err := p.body(e)
	if err != nil {
		return err
	}
	subject, err := subjects.Event{Tenant: demoTenant, Channel: "WEB", Event: e.name}.Subject()
	if err != nil {
		return err
	}
	began := time.Now()
	ack, err := p.publish(ctx, subject, body)
	if err != nil {
		return err
	}
	p.ledger.enter(entered{name: e.name, sequence: ack.Sequence, body: body}, e.to, e.notice)
	row := demoRow{Event: e.name, From: e.from, Says: e.says, Subject: subject, Sequence: ack.Sequence}
	for _, agent := range p.order {
		k := p.desks[agent]
		due := p.ledger.due[agent]
		if len(due) == 0 || due[len(due)-1].event != len(p.ledger.events)-1 {
			continue // none of this event's
		}
		if k.in == nil {
			row.Away = append(row.Away, agent)
			continue
		}
		if err := k.has(ctx, len(due), p.d.patience); err != nil {
			return err
		}
		got := k.deliveries()[len(due)-1]
		row.Received = append(row.Received, demoReceived{Agent: agent, Type: got.Type, MS: millis(got.at.Sub(began)), Position: got.Position.String()})
	}
	p.view.row(row)
	return nil
}

// judge compares everything that is stored, and everything that was received, with the ledger.
func (p *play) judge(ctx context.Context, playErr error) (demoVerdict, error) {
	v := demoVerdict{Events: len(p.ledger.events), Deliveries: p.ledger.deliveries()}
	if playErr != nil {
		v.Problems = append(v.Problems, playErr.Error())
	} else if _, err := p.committed(ctx, p.ledger.events[len(p.ledger.events)-1].sequence); err != nil {
		v.Problems = append(v.Problems, err.Error())
	}
	// What comes now is too much.
	if err := p.pause(ctx); err != nil {
		return v, err
	}
	for _, agent := range p.order {
		v.Problems = append(v.Problems, p.ledger.audit(agent, p.desks[agent].deliveries())...)
	}
	stored, err := p.auditStreams(ctx)
	v.Problems = append(v.Problems, stored...)
	v.OK = len(v.Problems) == 0
	return v, err
}

// auditStreams looks for what the agents cannot see: events nobody published, deliveries for nobody, dead letters.
func (p *play) auditStreams(ctx context.Context) (problems []string, err error) {
	for stream, want := range map[string]int{
		bus.StreamEvents: len(p.ledger.events), bus.StreamDeliveries: p.ledger.deliveries(), bus.StreamDeadLetters: 0,
	} {
		s, err := p.b.JetStream().Stream(ctx, stream)
		if err != nil {
			return problems, fmt.Errorf("stream %s: %w", stream, err)
		}
		if have := s.CachedInfo().State.Msgs; have != uint64(want) {
			problems = append(problems, fmt.Sprintf("%s holds %d messages, not %d", stream, have, want))
		}
	}
	for _, e := range p.ledger.events {
		m, err := p.b.MessageAt(ctx, bus.StreamEvents, e.sequence)
		if err != nil {
			return problems, err
		}
		if !bytes.Contains(m.Data, e.body) {
			problems = append(problems, fmt.Sprintf("%s, sequence %d, is not stored as it was published", e.name, e.sequence))
		}
	}
	slices.Sort(problems)
	return problems, nil
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
