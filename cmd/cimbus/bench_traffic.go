package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
)

const benchTenant = "bench"

// minEventSize is what an event of the traffic takes without anything to fill it, in bytes and some.
const minEventSize = 1000

// traffic makes the events of a measurement: customer messages of the conversations in turn, each of which has one agent.
type traffic struct {
	conversations, agents int
	head                  string // of a body; its id and conversation come last
}

func newTraffic(size, conversations, agents int) *traffic {
	const (
		open = `{"name":"` + cim.CustomerMessage + `","type":"MESSAGE","timestamp":1750072293640,` +
			`"eventEmitter":{"id":"n1","type":"CUSTOMER","senderName":"Noor"},` +
			`"channelSession":{"id":"s1","participantType":"ChannelSession","state":{"name":"STARTED"},"isActive":true,"channel":{"name":"shop",` +
			`"channelType":{"name":"WEB"},"channelConfig":{"routingPolicy":{"routingMode":"PUSH","routingObjectId":"q1"}},"additionalAttributes":[`
		attribute = `{"key":"colour","type":"String2000","value":"blue"}`
		data      = `]}},"data":{"header":{"sender":{"id":"n1","type":"CUSTOMER","senderName":"Noor"}},"body":{"type":"PLAIN","markdownText":"`
		end       = `"}},"id":"`
		names     = 40 // what id and conversation take
	)
	room := size - len(open) - len(data) - len(end) - names
	// Two thirds of it are structure, as in real events, the rest is text.
	n := max(room*2/3/(len(attribute)+1), 1)
	attributes := strings.Repeat(attribute+",", n-1) + attribute
	text := strings.Repeat("word ", max(room-len(attributes), 0)/5)
	return &traffic{conversations: conversations, agents: agents, head: open + attributes + data + text + end}
}

func (t *traffic) conversation(i int) string { return "c" + strconv.Itoa(i%t.conversations) }

// agent is the member of the conversation of event i.
func (t *traffic) agent(i int) string { return "a" + strconv.Itoa(i%t.conversations%t.agents) }

// event is the i-th one, ready to be published.
func (t *traffic) event(i int) bus.Event {
	e := bus.Event{Tenant: benchTenant, Channel: "WEB", Name: cim.CustomerMessage, Conversation: t.conversation(i), ID: "e" + strconv.Itoa(i)}
	body := make([]byte, 0, len(t.head)+len(e.ID)+len(e.Conversation)+32)
	body = append(body, t.head...)
	body = append(body, e.ID...)
	body = append(body, `","conversationId":"`...)
	body = append(body, e.Conversation...)
	body = append(body, `"}`...)
	e.Body = body
	return e
}

// events are those from a to b, made beforehand so that making them is not measured.
func (t *traffic) events(a, b int) []bus.Event {
	out := make([]bus.Event, 0, b-a)
	for i := a; i < b; i++ {
		out = append(out, t.event(i))
	}
	return out
}

// joins make each conversation's agent its member.
func (t *traffic) joins() []bus.Event {
	out := make([]bus.Event, 0, t.conversations)
	for c := range t.conversations {
		m := cim.Membership{
			ID: "j" + strconv.Itoa(c), Time: time.Now(), Conversation: t.conversation(c), Agent: t.agent(c), Realm: benchTenant, Role: bus.DefaultRole,
		}
		out = append(out, bus.Event{
			Tenant: benchTenant, Channel: "WEB", Name: cim.AgentSubscribed, Conversation: m.Conversation, ID: m.ID, Body: cim.Subscribed(m),
		})
	}
	return out
}

// number is the i of an event of this traffic, by its id; -1 for a join.
func number(id string) int {
	i, err := strconv.Atoi(strings.TrimPrefix(id, "e"))
	if err != nil {
		return -1
	}
	return i
}
