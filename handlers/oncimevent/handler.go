// Package oncimevent translates CIM events into the onCimEvent deliveries that agents receive. Every member of the event's
// conversation gets one, the publisher's own agent included: desks wait for their echo. An agent whose membership an event ends
// gets a topicUnsubscription notice, in band and last.
package oncimevent

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/conversation"
)

// Name is the handler's name, and Type the type of its deliveries. Notice is the type of what a leaver gets.
const (
	Name   = "onCimEvent"
	Type   = "onCimEvent"
	Notice = "topicUnsubscription"
)

// Options of the translation.
type Options struct {
	// Bare leaves the properties id, channelSession, status, listId and time out of the deliveries; cimEvent, conversationId and
	// roomInfo stay.
	Bare bool
}

// New is the committing handler of the bus: it keeps index, members and checkpoints while it translates. Settings of the
// runtime may be changed on the value before it is started.
func New(o Options) handlers.Handler {
	return handlers.Handler{
		Name:      Name,
		Types:     []string{Type, Notice},
		Handle:    o.handle,
		NewState:  conversation.New,
		FromStart: true,
	}
}

// notice is the body of a topicUnsubscription.
type notice struct {
	Task           string          `json:"task"`
	Reason         string          `json:"reason"`
	ConversationID string          `json:"conversationId"`
	RoomInfo       json.RawMessage `json:"roomInfo"`
	StatusCode     int             `json:"statusCode"`
}

func (o Options) handle(_ context.Context, e handlers.Event) ([]handlers.Delivery, error) {
	var body []byte // one encoding for all receivers
	out := make([]handlers.Delivery, 0, len(e.Audience))
	transient := cim.IsTransient(e.Name)
	for _, r := range e.Audience {
		if r.Event {
			if body == nil {
				body = cim.AppendDelivery(nil, &e.Event, e.Conversation, !o.Bare)
			}
			out = append(out, handlers.Delivery{Agent: r.Agent, Type: Type, Payload: body, Transient: transient})
		}
		if r.Left {
			n, err := noticeFor(e, r)
			if err != nil {
				return nil, err
			}
			out = append(out, handlers.Delivery{Agent: r.Agent, Type: Notice, Payload: n})
		}
	}
	return out, nil
}

func noticeFor(e handlers.Event, r handlers.Recipient) ([]byte, error) {
	b, err := json.Marshal(notice{
		Task: Notice, Reason: r.Reason, ConversationID: e.Conversation, RoomInfo: e.RoomInfo, StatusCode: 200,
	})
	if err != nil {
		return nil, handlers.DeadLetter(handlers.ReasonInvalidEvent, fmt.Errorf("notice for a leaver: %w", err))
	}
	return b, nil
}
