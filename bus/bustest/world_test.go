package bustest_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cimbus/cimbus/bus/bustest"
)

// world plays conversations and does, step by step, what a right bus does with
// them: the third telling of the rules, and the only one that acts them out.
// What belongs to one conversation comes in its order, conversations among each
// other in any.
type world struct {
	intn    func(n int) int // the source of all chance
	members map[room][]seat
	waiting map[room][]output

	events     []bustest.Event
	deliveries []bustest.Delivery
	published  []message
	derived    map[string][]message // by stream
}

type room struct{ tenant, conversation string }

type seat struct {
	agent, role string
	since       uint64
}

// message is a message of a stream; sequence goes to its Cim-Sequence.
type message struct {
	subject  string
	sequence uint64
	outcome  string
	body     string
}

// output is what an event makes, to be stored together.
type output struct {
	deliveries []bustest.Delivery
	derived    map[string]message
	records    []message
}

var (
	tenants       = []string{"acme", "globex"}
	conversations = []string{"c1", "c2", "c_3"}
	people        = []string{"ada", "ben", "cleo"}
	roles         = []string{"PRIMARY", "ASSISTANT", "WHISPER", ""}
)

func newWorld(intn func(n int) int) *world {
	return &world{intn: intn, members: map[room][]seat{}, waiting: map[room][]output{}, derived: map[string][]message{}}
}

func (w *world) pick(from []string) string { return from[w.intn(len(from))] }

// play lets n events happen and everything they make be stored.
func (w *world) play(n int) {
	for range n {
		w.happen()
		for len(w.waiting) > 0 && w.intn(2) == 0 {
			w.store()
		}
	}
	for len(w.waiting) > 0 {
		w.store()
	}
}

// store stores what waits longest of one conversation.
func (w *world) store() {
	var rooms []room
	for r := range w.waiting {
		rooms = append(rooms, r)
	}
	slices.SortFunc(rooms, func(a, b room) int {
		return strings.Compare(a.tenant+a.conversation, b.tenant+b.conversation)
	})
	r := rooms[w.intn(len(rooms))]
	o := w.waiting[r][0]
	if w.waiting[r] = w.waiting[r][1:]; len(w.waiting[r]) == 0 {
		delete(w.waiting, r)
	}
	w.derived["KV_CIM_MEMBERS"] = append(w.derived["KV_CIM_MEMBERS"], o.records...)
	for _, d := range o.deliveries {
		d.Position = uint64(len(w.deliveries) + 1)
		w.deliveries = append(w.deliveries, d)
		subject := fmt.Sprintf("cim-agent.%s.%s.%s.%s", d.Tenant, d.Agent, d.Type, d.Conversation)
		w.derived["CIM_DELIVERIES"] = append(w.derived["CIM_DELIVERIES"], message{
			subject: subject, sequence: d.Sequence, body: fmt.Sprintf(`{"conversationId":"c","cimEvent":%s}`, w.published[d.Sequence-1].body),
		})
	}
	for stream, m := range o.derived {
		w.derived[stream] = append(w.derived[stream], m)
	}
}

func (w *world) happen() {
	r := room{w.pick(tenants), w.pick(conversations)}
	e := bustest.Event{
		Sequence: uint64(len(w.published) + 1), Tenant: r.tenant, Conversation: r.conversation,
		Channel: w.pick([]string{"web", "cx_voice", ""}), Name: "CUSTOMER_MESSAGE",
	}
	e.ID = fmt.Sprintf("id-%d", e.Sequence)
	data := `{"body":"hello"}`
	switch k := w.intn(20); {
	case k < 5:
		e.Name, e.Agent, e.Role = "AGENT_SUBSCRIBED", w.pick(people), w.pick(roles)
		data = participant("agentParticipant", e)
	case k < 7:
		e.Name, e.Agent, e.Role = "AGENT_UNSUBSCRIBED", w.pick(people), "WRAP_UP"
		data = participant("agentParticipant", e)
	case k == 7:
		e.Name, e.Agent, e.Role = "PARTICIPANT_ROLE_CHANGED", w.pick(people), w.pick(roles)
		data = participant("conversationParticipant", e)
	case k == 8:
		e.Name, e.Closed = "TOPIC_STATE_CHANGE_EVENT", w.intn(2) == 0
		data = fmt.Sprintf(`{"state":%s}`, w.pick([]string{`"ACTIVE"`, `{"name":"WRAP_UP"}`, `null`}))
		if e.Closed {
			data = fmt.Sprintf(`{"state":%s}`, w.pick([]string{`"CLOSED"`, `{"name":"CLOSED"}`}))
		}
	case k == 9:
		e.Name = "TYPING_INDICATOR"
	case k == 10:
		w.poison(e)
		return
	}
	w.publish(e, fmt.Sprintf(`{"id":%q,"name":%q,"conversationId":%q,"data":%s}`, e.ID, e.Name, e.Conversation, data))
	w.work(r, e)
}

func participant(key string, e bustest.Event) string {
	return fmt.Sprintf(`{%q:{"role":%q,"participant":{"id":"other","keycloakUser":{"id":%q}}}}`, key, e.Role, e.Agent)
}

// poison publishes an event of which the bus can only make a dead letter.
func (w *world) poison(e bustest.Event) {
	good := fmt.Sprintf(`"id":%q,"name":%q`, e.ID, e.Name)
	c := fmt.Sprintf(`,"conversationId":%q`, e.Conversation)
	bodies := []struct {
		body         string
		conversation bool // can be told
	}{
		{"{" + good + c + ",", false},
		{"[{" + good + c + "}]", false},
		{"{" + good + "}", false},
		{"{" + good + `,"conversationId":"` + strings.Repeat("x", 200) + `"}`, false},
		{`{"id":"i"` + c + "}", true},
		{`{"name":"CUSTOMER_MESSAGE"` + c + "}", true},
		{`{"id":"i","name":"BOT_MESSAGE"` + c + "}", true},
		{`{"cimEvent":"{}"` + c + "}", true},
		{`{"cimEvent":7` + c + "}", true},
	}
	b := bodies[w.intn(len(bodies))]
	if !b.conversation {
		e.Conversation = ""
	}
	e.Invalid = "poison"
	w.publish(e, b.body)
	r := room{e.Tenant, e.Conversation}
	w.waiting[r] = append(w.waiting[r], output{derived: map[string]message{
		"CIM_DEAD_LETTERS": {
			subject:  fmt.Sprintf("cim-dead.onCimEvent.%s.%s.%s.%d", e.Tenant, orNone(e.Channel), e.Name, e.Sequence),
			sequence: e.Sequence, body: b.body,
		},
		"CIM_INDEX": {subject: "cim-index." + e.Tenant + "." + orNone(e.Conversation), sequence: e.Sequence, outcome: "dead-letter"},
	}})
}

func orNone(name string) string {
	if name == "" {
		return "_"
	}
	return name
}

func (w *world) publish(e bustest.Event, body string) {
	w.events = append(w.events, e)
	w.published = append(w.published, message{subject: "cim." + e.Tenant + "." + orNone(e.Channel) + "." + e.Name, body: body})
}

// work does what the conversation's worker does with a valid event.
func (w *world) work(r room, e bustest.Event) {
	if e.Name == "TYPING_INDICATOR" {
		return
	}
	var o output
	send := func(agent, kind string) {
		o.deliveries = append(o.deliveries, bustest.Delivery{
			Tenant: r.tenant, Agent: agent, Type: kind, Conversation: r.conversation, Sequence: e.Sequence,
		})
	}
	record := func(s seat, left uint64) {
		o.records = append(o.records, message{
			subject:  fmt.Sprintf("$KV.CIM_MEMBERS.%s.%s.%s", r.tenant, s.agent, r.conversation),
			sequence: e.Sequence,
			body:     fmt.Sprintf(`{"role":%q,"since":%d,"left":%d}`, s.role, s.since, left),
		})
	}
	seats := w.members[r]
	at := slices.IndexFunc(seats, func(s seat) bool { return s.agent == e.Agent })
	switch e.Name {
	case "AGENT_SUBSCRIBED":
		if at < 0 {
			at = len(seats)
			seats = append(seats, seat{agent: e.Agent, since: e.Sequence})
		}
		if e.Role != "" {
			seats[at].role = e.Role
		}
		record(seats[at], 0)
	case "PARTICIPANT_ROLE_CHANGED":
		if at >= 0 && e.Role != "" {
			seats[at].role = e.Role
			record(seats[at], 0)
		}
	case "AGENT_UNSUBSCRIBED":
		if at >= 0 {
			record(seats[at], e.Sequence)
			send(e.Agent, "topicUnsubscription")
			seats = slices.Delete(seats, at, at+1)
		}
	}
	for _, s := range seats {
		send(s.agent, "onCimEvent")
	}
	if e.Closed {
		for _, s := range seats {
			send(s.agent, "topicUnsubscription")
			record(s, e.Sequence)
		}
		seats = nil
	}
	w.members[r] = seats
	o.derived = map[string]message{"CIM_INDEX": {subject: "cim-index." + r.tenant + "." + r.conversation, sequence: e.Sequence}}
	w.waiting[r] = append(w.waiting[r], o)
}

// hashOf is how a token too long for a name is named.
func hashOf(token string) string {
	h := uint64(14695981039346656037)
	for i := range len(token) {
		h = (h ^ uint64(token[i])) * 1099511628211
	}
	return strconv.FormatUint(h, 36)
}
