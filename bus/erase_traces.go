package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// traces are what there is of some conversations of a tenant.
type traces struct {
	bus    *Bus
	tenant string
	names  map[string]bool // the conversations
	asked  []byte          // the id that was asked for, as JSON has it

	// dead are the dead letters that were found, ever: of a record that comes later nothing else tells whose it is.
	dead map[subjects.DeadLetter]bool

	// What the last search found.
	found        map[string][]remnant // by stream
	events       map[string][]uint64
	members      map[string][]string
	agents       map[string]bool
	unattributed int
	mentions     []uint64
}

// remnant is one message that is to go.
type remnant struct {
	sequence uint64
	subject  string
	bytes    int
}

// maxMentions bounds how many events that mention an id are named.
const maxMentions = 100

// tracedStreams are all that may hold something of a conversation, in the order in which it is deleted: first what else is made of.
func tracedStreams() []string {
	return []string{StreamEvents, StreamDeadLetters, StreamConversations, StreamMembers, StreamDeliveries, StreamIndex}
}

func newTraces(b *Bus, f EraseFilter, names []string) *traces {
	s := &traces{bus: b, tenant: f.Tenant, names: map[string]bool{}, dead: map[subjects.DeadLetter]bool{}}
	for _, name := range names {
		s.names[name] = true
	}
	s.asked = quoted(f.Conversation + f.Customer)
	return s
}

// quoted is an id as JSON has it; in those that are given to customers and conversations nothing is escaped.
func quoted(id string) []byte { return []byte(`"` + id + `"`) }

func (s *traces) counts() []EraseCount {
	counts := make([]EraseCount, 0, len(tracedStreams()))
	for _, name := range tracedStreams() {
		c := EraseCount{Stream: name, Messages: len(s.found[name])}
		for _, t := range s.found[name] {
			c.Bytes += int64(t.bytes)
		}
		counts = append(counts, c)
	}
	return counts
}

// search reads everything where something of the conversations may be.
func (s *traces) search(ctx context.Context) error {
	s.found, s.events = map[string][]remnant{}, map[string][]uint64{}
	s.members, s.agents = map[string][]string{}, map[string]bool{}
	s.unattributed, s.mentions = 0, nil
	if err := s.read(ctx, StreamEvents, filterOf(subjects.EventFilter{Tenant: subjects.Is(s.tenant)}.Subject()), s.isEvent); err != nil {
		return err
	}
	dead := subjects.DeadLetterFilter{Tenant: subjects.Is(s.tenant)}
	if err := s.read(ctx, StreamDeadLetters, filterOf(dead.Subject()), s.isDeadLetter); err != nil {
		return err
	}
	if err := s.read(ctx, StreamDeadLetters, filterOf(dead.Redrive()), s.isRecord); err != nil {
		return err
	}
	alone := subjects.DeliveryFilter{Tenant: subjects.Is(s.tenant), Conversation: subjects.None}
	if err := s.read(ctx, StreamDeliveries, filterOf(alone.Subject()), s.isOfAgentAlone); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(s.names)) {
		if err := s.searchSubjects(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// filter is a subject to read, or why it is none.
type filter struct {
	subject string
	err     error
}

func filterOf(subject string, err error) filter { return filter{subject, err} }

// searchSubjects reads what bears the conversation in its subject.
func (s *traces) searchSubjects(ctx context.Context, name string) error {
	tenant, conversation := subjects.Is(s.tenant), subjects.Is(name)
	for _, place := range []struct {
		stream string
		filter filter
	}{
		{StreamConversations, filterOf(subjects.ConversationKey{Tenant: s.tenant, Conversation: name}.Subject())},
		{StreamMembers, filterOf(subjects.MemberFilter{Tenant: tenant, Conversation: conversation}.Subject())},
		{StreamDeliveries, filterOf(subjects.DeliveryFilter{Tenant: tenant, Conversation: conversation}.Subject())},
		{StreamIndex, filterOf(subjects.Index{Tenant: s.tenant, Conversation: name}.Subject())},
	} {
		err := s.read(ctx, place.stream, place.filter, func(m *jetstream.RawStreamMsg) bool {
			s.noteAgent(place.stream, name, m)
			return true
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *traces) noteAgent(stream, name string, m *jetstream.RawStreamMsg) {
	switch stream {
	case StreamDeliveries:
		if d, err := subjects.ParseDelivery(m.Subject); err == nil {
			s.agents[d.Agent] = true
		}
	case StreamMembers:
		record, err := decodeMember(m)
		if record.Agent != "" {
			s.agents[record.Agent] = true
		}
		if err == nil && record.Left == 0 {
			s.members[name] = append(s.members[name], record.Agent)
		}
	}
}

// read keeps of a stream what is ours. A stream that is gone holds nothing.
func (s *traces) read(ctx context.Context, stream string, filter filter, ours func(*jetstream.RawStreamMsg) bool) error {
	if filter.err != nil {
		return filter.err
	}
	for m, err := range s.bus.Read(ctx, Range{Stream: stream, Filter: filter.subject, Batch: 1024, MaxBytes: 4 << 20}) {
		if IsStreamGone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if ours(m) {
			s.found[stream] = append(s.found[stream], remnant{m.Sequence, m.Subject, len(m.Subject) + headerSize(m.Header) + len(m.Data)})
		}
	}
	return nil
}

func (s *traces) isEvent(m *jetstream.RawStreamMsg) bool {
	conversation := conversationIn(m)
	switch {
	case s.names[conversation]:
		s.events[conversation] = append(s.events[conversation], m.Sequence)
		return true
	case conversation == "":
		s.unattributed++
	}
	if len(s.mentions) < maxMentions && bytes.Contains(m.Data, s.asked) {
		s.mentions = append(s.mentions, m.Sequence)
	}
	return false
}

// conversationIn is the conversation of a stored event or of the event in a dead letter, as the handlers see it.
func conversationIn(m *jetstream.RawStreamMsg) string {
	// What cannot be decoded is of the conversation that its header names, if any.
	e, _ := cim.Decode(m.Data, LastHeader(m.Header, HeaderConversation))
	return e.Conversation
}

func (s *traces) isDeadLetter(m *jetstream.RawStreamMsg) bool {
	name, err := subjects.ParseDeadLetter(m.Subject)
	if err != nil {
		return false
	}
	if s.names[conversationIn(m)] {
		s.dead[name] = true
	}
	return s.dead[name]
}

func (s *traces) isRecord(m *jetstream.RawStreamMsg) bool {
	name, err := subjects.ParseRedrive(m.Subject)
	if err != nil {
		return false
	}
	var r Redrive
	return s.dead[name] || json.Unmarshal(m.Data, &r) == nil && s.names[r.Conversation]
}

// isOfAgentAlone: what a service sent to an agent outside of all conversations may name one, as a task request does.
func (s *traces) isOfAgentAlone(m *jetstream.RawStreamMsg) bool {
	for name := range s.names {
		if bytes.Contains(m.Data, quoted(name)) {
			return true
		}
	}
	return bytes.Contains(m.Data, s.asked)
}

// conversationsOf are the conversations of which an event or the checkpoint names a customer, sorted.
func (b *Bus) conversationsOf(ctx context.Context, tenant, customer string) ([]string, error) {
	s := &traces{bus: b, found: map[string][]remnant{}}
	names := map[string]bool{}
	events := filterOf(subjects.EventFilter{Tenant: subjects.Is(tenant)}.Subject())
	err := s.read(ctx, StreamEvents, events, func(m *jetstream.RawStreamMsg) bool {
		if !mayName(m.Data, customer) {
			return false
		}
		e, _ := cim.Decode(m.Data, LastHeader(m.Header, HeaderConversation)) // as far as it can be read
		if e.Conversation != "" && namesCustomer(e.Body, customer) {
			names[e.Conversation] = true
		}
		return false
	})
	if err != nil {
		return nil, err
	}
	prefix := strings.TrimSuffix(subjects.AllConversations, ">")
	token, err := subjects.Encode(tenant)
	checkpoints := filter{prefix + token + ".*", err}
	err = s.read(ctx, StreamConversations, checkpoints, func(m *jetstream.RawStreamMsg) bool {
		key, err := subjects.ParseConversationKey(strings.TrimPrefix(m.Subject, prefix))
		if err == nil && key.Conversation != "" && mayName(m.Data, customer) && namesCustomer(m.Data, customer) {
			names[key.Conversation] = true
		}
		return false
	})
	return slices.Sorted(maps.Keys(names)), err
}

// mayName tells at a glance whether a document can hold an id, which may be written with escapes.
func mayName(document []byte, id string) bool {
	return bytes.Contains(document, []byte(id)) || bytes.IndexByte(document, '\\') >= 0
}

// namesCustomer tells whether a JSON document has, anywhere, a customer object of that id or a customerId, as a string or a number.
func namesCustomer(document []byte, id string) bool {
	in := json.NewDecoder(bytes.NewReader(document))
	in.UseNumber()
	var v any
	return in.Decode(&v) == nil && namesCustomerIn(v, id)
}

func namesCustomerIn(v any, id string) bool {
	switch v := v.(type) {
	case []any:
		return slices.ContainsFunc(v, func(v any) bool { return namesCustomerIn(v, id) })
	case map[string]any:
		is := func(v any) bool { return v == id || v == json.Number(id) }
		if is(v["customerId"]) || is(v["customer"]) {
			return true
		}
		if customer, ok := v["customer"].(map[string]any); ok && (is(customer["_id"]) || is(customer["id"])) {
			return true
		}
		for _, inner := range v {
			if namesCustomerIn(inner, id) {
				return true
			}
		}
	}
	return false
}
