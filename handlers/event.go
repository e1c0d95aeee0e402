package handlers

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// Event is a CIM event as a handler gets it. It is shared by nobody, but its bytes alias the stored message: handlers read
// them and do not write to them.
type Event struct {
	cim.Event

	Source   subjects.Event // the names of the subject it was published on
	Subject  string         // that subject
	Sequence uint64         // in CIM_EVENTS; grows along a conversation, and is the Cim-Sequence of everything derived
	Stored   time.Time      // when CIM_EVENTS stored it
	Header   nats.Header    // as published
	Payload  []byte         // the whole body as published; Body is the event object in it
	Attempt  int            // 1 for the first
	Audience []Recipient    // who receives it, for handlers with a State; nil for the others

	derived nats.Header // of everything made of it, once that was asked for
}

// Recipient is an agent that an event concerns.
type Recipient struct {
	Agent  string
	Role   string
	Event  bool   // it gets the event itself
	Left   bool   // its membership ends with this event: it gets the notice, and nothing after it
	Reason string // why it ended, never empty when Left
}

// Delivery is one message for one agent. The runtime puts it on cim-agent.<tenant>.<agent>.<type>.<conversation>, with tenant
// and conversation of the event: a handler cannot reach another tenant or conversation.
type Delivery struct {
	Agent     string
	Type      string      // one of the handler's Types
	Payload   []byte      // handed over: not to be changed afterwards
	Header    nats.Header // extra headers; Nats-* and Cim-* ones are dropped
	Transient bool        // core NATS only: in no stream, no index, no resume
}

// Func handles one event. It returns the deliveries it makes of it, at most one per agent and type, in the order in which one
// agent shall get them, or an error: Retry, DeadLetter and Drop say what becomes of the event, any other error is retried. It
// may be called again with the same event after a crash, and must then return the same. It is called by several goroutines at
// once, for events of different conversations; never twice at once for one conversation within a process. It must return soon
// after ctx ends; what it then returns is not held against the event.
type Func func(ctx context.Context, e Event) ([]Delivery, error)

// MemberChange is the record of one agent's membership after an event.
type MemberChange struct {
	Agent string
	Role  string
	Since uint64 // sequence of the event that made it a member
	Left  uint64 // sequence of the event that ended it, 0 = member
}

// State is what a handler knows of one conversation: the fold of its events. One goroutine uses it at a time.
type State interface {
	// Fold takes the next event in and returns the memberships it changed. An error says that the event is invalid
	// and left the state as it was: the event becomes a dead letter, now and at every later reading.
	Fold(e *Event) ([]MemberChange, error)
	// Audience says who receives e, the event folded last.
	Audience(e *Event) []Recipient
	// Member returns an agent's record as it stands, false if it is no member.
	Member(agent string) (MemberChange, bool)
	// Restore sets an agent's membership to its record, where the events that made it so are gone.
	Restore(m MemberChange)
	// LastChannel is the channel used last, in its original spelling; "" if none is known.
	LastChannel() string
	// MarshalBinary and UnmarshalBinary write and read the checkpoint.
	MarshalBinary() ([]byte, error)
	UnmarshalBinary(data []byte) error
}
