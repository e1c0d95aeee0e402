package bus

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// ErrInvalidEvent is what every error about an event itself is: sending it again as it is cannot help. What is wrong is told by
// the *cim.Error (body) or *subjects.Error (names) in it.
var ErrInvalidEvent = errors.New("invalid event")

func invalidEvent(err error) error { return fmt.Errorf("%w: %w", ErrInvalidEvent, err) }

// ReasonSubjectMismatch is the reason of an event whose name is not the one it is published under. Permissions are granted by
// subject, so the two must agree.
const ReasonSubjectMismatch = "subject-mismatch"

// Event is a CIM event ready to be published. NewEvent builds it from a body and checks it; one put together by hand is checked for
// what its subject and headers need, but not against its body.
type Event struct {
	Tenant       string
	Channel      string // the channel type's name in its own spelling, "" = none
	Name         string // the event's name
	Conversation string
	ID           string // the event's id; with tenant and name it makes the message id
	Body         []byte // published as it is; must not change until the event has its outcome
	// Header holds more headers for the message, traceparent and tracestate above all. Nats-* and Cim-* are left out: they are the
	// library's.
	Header nats.Header
}

// EventOption changes what NewEvent takes from the body.
type EventOption func(*eventOptions)

type eventOptions struct {
	conversation, channel, name string
	header                      nats.Header
}

// InConversation says to which conversation the event belongs, whatever its body says.
func InConversation(id string) EventOption {
	return func(o *eventOptions) { o.conversation = id }
}

// OnChannel says on which channel the event is published; by default the one found in its channel session, or none.
func OnChannel(name string) EventOption {
	return func(o *eventOptions) { o.channel = name }
}

// Named demands that the event's name is this one; the worker dead-letters an event published under another name than its own.
func Named(name string) EventOption {
	return func(o *eventOptions) { o.name = name }
}

// WithHeader adds headers to the message, such as traceparent and tracestate. Nats-* and Cim-* are left out.
func WithHeader(h nats.Header) EventOption {
	return func(o *eventOptions) { o.header = h }
}

// NewEvent reads a body, the bare event object or its wrapper, and checks everything a publish needs: JSON, name, id, conversation, and
// that tenant, channel, name and conversation fit into a subject. Any byte may be in a name, wildcards and dots are encoded. Its
// errors are ErrInvalidEvent. Whether the server takes an event of this size is told by Publish.
func NewEvent(tenant string, body []byte, opts ...EventOption) (Event, error) {
	var o eventOptions
	for _, opt := range opts {
		opt(&o)
	}
	decoded, err := cim.Decode(body, o.conversation)
	if err == nil {
		err = decoded.RequireConversation()
	}
	if err == nil && o.name != "" && o.name != decoded.Name {
		err = &cim.Error{
			Reason: ReasonSubjectMismatch, Field: "name", Problem: fmt.Sprintf("is %.64q, to be published as %.64q", decoded.Name, o.name),
			Remedy: "publish an event under its own name",
		}
	}
	if err != nil {
		return Event{}, invalidEvent(err)
	}
	e := Event{
		Tenant: tenant, Channel: cmp.Or(o.channel, decoded.Channel), Name: decoded.Name,
		Conversation: decoded.Conversation, ID: decoded.ID, Body: body, Header: o.header,
	}
	_, _, err = e.names()
	return e, err
}

// Subject is where the event is published.
func (e Event) Subject() (string, error) {
	s, err := subjects.Event{Tenant: e.Tenant, Channel: e.Channel, Event: e.Name}.Subject()
	if err != nil {
		return "", invalidEvent(err)
	}
	return s, nil
}

// MessageID is the event's message id, <tenant>:<event name>:<event id> with each part encoded as a token. By it the server knows an
// event it has stored within the duplicate window.
func (e Event) MessageID() (string, error) {
	tenant, err := subjects.Encode(e.Tenant)
	if err != nil {
		return "", fmt.Errorf("%w: tenant: %w", ErrInvalidEvent, err)
	}
	name, err := subjects.Encode(e.Name)
	if err != nil {
		return "", fmt.Errorf("%w: name: %w", ErrInvalidEvent, err)
	}
	if e.ID == "" {
		return "", invalidEvent(&cim.Error{
			Reason: cim.ReasonNoID, Field: "id", Problem: "is missing", Remedy: "set it to a string that no other event of the tenant and name has",
		})
	}
	id, err := subjects.Encode(e.ID)
	if err != nil {
		// The form of an id is never checked. One too long for a token is known by its hash; no token looks like this.
		sum := sha256.Sum256([]byte(e.ID))
		id = "=sha256-" + hex.EncodeToString(sum[:])
	}
	return tenant + ":" + name + ":" + id, nil
}

// names are the event's subject and message id; an error says what of the event cannot be published.
func (e Event) names() (subject, id string, err error) {
	if subject, err = e.Subject(); err == nil {
		if id, err = e.MessageID(); err == nil {
			err = e.checkConversation()
		}
	}
	return subject, id, err
}

// message builds what goes over the wire.
func (e Event) message() (*nats.Msg, error) {
	subject, id, err := e.names()
	if err != nil {
		return nil, err
	}
	values := []string{id, StreamEvents, e.Conversation, e.ID, e.Name, e.Channel}
	h := make(nats.Header, len(values)+len(e.Header))
	for k, v := range e.Header {
		if !reserved(k) {
			h[k] = v
		}
	}
	h[jetstream.MsgIDHeader] = values[0:1:1]
	h[jetstream.ExpectedStreamHeader] = values[1:2:2]
	h[HeaderConversation] = values[2:3:3]
	for i, key := range []string{HeaderEventID, HeaderEventName, HeaderChannel} {
		// These are for people and filters; the body has them too where a header cannot carry them.
		if v := values[3+i : 4+i : 4+i]; v[0] != "" && headerSafe(v[0]) {
			h[key] = v
		}
	}
	return &nats.Msg{Subject: subject, Header: h, Data: e.Body}, nil
}

// checkConversation makes sure that there is a conversation, and that the header and the subjects the worker derives can carry it.
func (e Event) checkConversation() error {
	err := (&cim.Event{Conversation: e.Conversation}).RequireConversation()
	switch {
	case err != nil:
	case !headerSafe(e.Conversation):
		err = &cim.Error{
			Reason: cim.ReasonNoConversation, Field: "conversationId", Problem: "has line breaks or white space around it",
			Remedy: "use an id that a message header can carry",
		}
	default:
		_, err = subjects.Index{Tenant: e.Tenant, Conversation: e.Conversation}.Subject()
	}
	if err != nil {
		return invalidEvent(err)
	}
	return nil
}

// headerSafe reports whether a header gives the value back as it was: line breaks become blanks and what surrounds it is trimmed.
func headerSafe(v string) bool {
	return !strings.ContainsAny(v, "\r\n") && strings.Trim(v, " \t") == v
}
