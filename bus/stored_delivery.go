package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// StoredDelivery is a delivery as CIM_DELIVERIES has it, or its live copy.
type StoredDelivery struct {
	*jetstream.RawStreamMsg                   // Sequence is that in CIM_DELIVERIES, 0 of a transient one
	Name                    subjects.Delivery // the names of its subject; empty where that is none of the bus's
	Position                Position          // zero of a transient one
	Source                  uint64            // Cim-Sequence, 0 if agent-scoped or transient
	Channel                 string            // of the event it was made of; "" = none
	Event                   string            // the name of that event, "" = none
	ID                      string            // the id of that event, "" = none
	Transient               bool
}

// DeliverySelection selects stored deliveries; everything it says must hold. The zero value selects all there are.
type DeliverySelection struct {
	Tenant  subjects.Match
	Agent   subjects.Match
	Type    subjects.Match // onCimEvent, topicUnsubscription, taskRequest, …
	Channel subjects.Match // of the event, in any case; subjects.None = of none
	// Events are names of events, or patterns of names as path.Match takes them, and where a delivery was made of no event its type. One of
	// them must match. None = any.
	Events       []string
	Conversation subjects.Match // subjects.None = of none
	ID           string         // the event's, "" = any

	Where  func(d *StoredDelivery) bool // as of an EventSelection
	Looked *uint64                      // as of an EventSelection
}

// Subject is the filter that the server reads by.
func (s DeliverySelection) Subject() (string, error) { return s.names().Subject() }

// Live is the filter of the live copies.
func (s DeliverySelection) Live() (string, error) { return s.names().Live() }

func (s DeliverySelection) names() subjects.DeliveryFilter {
	return subjects.DeliveryFilter{Tenant: s.Tenant, Agent: s.Agent, Type: s.Type, Conversation: s.Conversation}
}

// Validate reports everything of the selection that cannot be.
func (s DeliverySelection) Validate() error {
	if _, err := s.Subject(); err != nil {
		return err
	}
	return EventSelection{Channel: s.Channel, Events: s.Events}.Validate()
}

// Passes tells whether a delivery is selected, as far as its subject does not say so.
func (s *DeliverySelection) Passes(d *StoredDelivery) bool {
	switch {
	case s.ID != "" && s.ID != d.ID:
		return false
	case s.Channel == subjects.None && d.Channel != "", s.Channel.Name() != "" && !strings.EqualFold(s.Channel.Name(), d.Channel):
		return false
	case len(s.Events) > 0 && !slices.ContainsFunc(s.Events, func(pattern string) bool {
		name := d.Event
		if name == "" {
			name = d.Name.Type
		}
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	}):
		return false
	}
	return s.Where == nil || s.Where(d)
}

// readDelivery takes a message for the delivery it is: a stored one, or a live copy with its subject. identity is that of the stream, "" if it
// is not known.
func readDelivery(m *jetstream.RawStreamMsg, identity string) StoredDelivery {
	d := StoredDelivery{
		RawStreamMsg: m, Source: SequenceOf(m.Header),
		Channel: LastHeader(m.Header, HeaderChannel), Event: LastHeader(m.Header, HeaderEventName), ID: LastHeader(m.Header, HeaderEventID),
	}
	if m.Sequence != 0 {
		d.Position = Position{Identity: identity, Sequence: m.Sequence}
		if identity != "" {
			d.Position.Stored = m.Time
		}
	}
	if name, err := subjects.ParseDelivery(m.Subject); err == nil {
		d.Name = name
	}
	if source, err := subjects.ParseEvent(LastHeader(m.Header, HeaderSourceSubject)); err == nil && d.Channel == "" {
		d.Channel = source.Channel
	}
	return d
}

// ReadLive takes a message on a live subject for the delivery it is a copy of. Its position is a plain number.
func ReadLive(m *nats.Msg) (StoredDelivery, error) {
	name, err := subjects.ParseLive(m.Subject)
	if err != nil {
		return StoredDelivery{}, err
	}
	subject, err := name.Subject()
	if err != nil {
		return StoredDelivery{}, err
	}
	raw := &jetstream.RawStreamMsg{Subject: subject, Header: m.Header, Data: m.Data, Time: time.Now()}
	transient := LastHeader(m.Header, HeaderTransient) == "true"
	if at, err := time.Parse(time.RFC3339Nano, LastHeader(m.Header, jetstream.TimeStampHeaer)); err == nil {
		raw.Time = at
	}
	if n, err := strconv.ParseUint(LastHeader(m.Header, jetstream.SequenceHeader), 10, 64); err == nil && !transient {
		raw.Sequence = n
		dropServerHeaders(raw.Header)
	}
	d := readDelivery(raw, "")
	d.Transient = transient
	return d, nil
}

// DeliveriesIn reads the selected deliveries of a stretch of StreamDeliveries, each once, in the order they were stored in or the newest
// first. The last pair of an incomplete reading is an error; breaking off early is fine.
func (b *Bus) DeliveriesIn(ctx context.Context, s DeliverySelection, span Span, newestFirst bool) iter.Seq2[StoredDelivery, error] {
	forward := func(part Span) iter.Seq2[StoredDelivery, error] { return b.scanDeliveries(ctx, s, part) }
	if newestFirst {
		return backwards[StoredDelivery]{forward: forward, at: func(d StoredDelivery) located { return locate(d.RawStreamMsg) }}.read(span)
	}
	return forward(span)
}

func (b *Bus) scanDeliveries(ctx context.Context, s DeliverySelection, span Span) iter.Seq2[StoredDelivery, error] {
	return func(yield func(StoredDelivery, error) bool) {
		if span.First > span.Last {
			return
		}
		filter, err := s.Subject()
		var log deliveryLog
		if err == nil {
			log, err = b.describeDeliveries(ctx)
		}
		if err != nil {
			yield(StoredDelivery{}, fmt.Errorf("deliveries: %w", err))
			return
		}
		for m, err := range b.Scan(ctx, Scan{Stream: StreamDeliveries, Subjects: []string{filter}, From: span.First, Upto: span.Last}) {
			if err != nil {
				yield(StoredDelivery{}, err)
				return
			}
			if s.Looked != nil {
				*s.Looked++
			}
			if d := readDelivery(m, log.identity); s.Passes(&d) && !yield(d, nil) {
				return
			}
		}
	}
}

// AppendJSON appends the delivery as one line of NDJSON, without the line's end:
//
//	{"position":"…","time":"…","sequence":1,"subject":"…","tenant":"…","agent":"…","type":"…","channel":"…","event":"…","id":"…",
//	 "conversation":"…","size":2,"headers":{"<name>":["…"]},"payload":{…}}
//
// sequence is Cim-Sequence, null if agent-scoped or transient; position "" and transient true of a transient one; payload the body as
// JSON in one line, a string where it is none.
func (d StoredDelivery) AppendJSON(dst []byte) []byte {
	dst = slices.Grow(dst, len(d.Data)+512)
	position := ""
	if d.Position.Sequence != 0 {
		position = d.Position.String()
	}
	dst = cim.AppendString(append(dst, `{"position":`...), position)
	dst = append(dst, `,"time":"`...)
	dst = d.Time.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","sequence":`...)
	if d.Source == 0 {
		dst = append(dst, "null"...)
	} else {
		dst = strconv.AppendUint(dst, d.Source, 10)
	}
	for _, member := range [...]struct{ key, value string }{
		{`,"subject":`, d.Subject}, {`,"tenant":`, d.Name.Tenant}, {`,"agent":`, d.Name.Agent}, {`,"type":`, d.Name.Type},
		{`,"channel":`, d.Channel}, {`,"event":`, d.Event}, {`,"id":`, d.ID}, {`,"conversation":`, d.Name.Conversation},
	} {
		dst = append(dst, member.key...)
		dst = cim.AppendString(dst, member.value)
	}
	if d.Transient {
		dst = append(dst, `,"transient":true`...)
	}
	dst = append(dst, `,"size":`...)
	dst = strconv.AppendInt(dst, int64(len(d.Data)), 10)
	dst = append(dst, `,"headers":`...)
	dst = appendHeaders(dst, d.Header)
	dst = append(dst, `,"payload":`...)
	return append(appendPayload(dst, d.Data), '}')
}

// appendPayload appends a body as JSON in one line.
func appendPayload(dst, body []byte) []byte {
	if cim.ValidLine(body) {
		return append(dst, body...)
	}
	if cim.Valid(body) {
		compact := bytes.NewBuffer(dst)
		if json.Compact(compact, body) == nil {
			return compact.Bytes()
		}
	}
	return cim.AppendString(dst, string(body))
}
