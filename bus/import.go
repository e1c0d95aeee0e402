package bus

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// ImportMode says what becomes of events that are imported.
type ImportMode string

// The modes.
const (
	// ImportHistory stores events to be read: every handler acknowledges them without doing anything, so they change no conversation's
	// state, and agents do not get them, not in snapshots or histories either.
	ImportHistory ImportMode = "history"
	// ImportHandle stores events as if they were published now: they are handled, and reach the agents who are in their conversations.
	ImportHandle ImportMode = "handle"
)

// IsImportedHistory tells whether a stored event was imported as history.
func IsImportedHistory(h nats.Header) bool {
	return LastHeader(h, HeaderImport) == string(ImportHistory)
}

// importedID begins the message id of an imported event that had none.
const importedID = "import:"

// Exported is the event as it was when it was published first: without what an import put on it.
func (e StoredEvent) Exported() StoredEvent {
	if _, imported := e.Header[HeaderImport]; !imported {
		return e
	}
	m := *e.RawStreamMsg
	m.Header = maps.Clone(m.Header)
	delete(m.Header, HeaderImport)
	if strings.HasPrefix(LastHeader(m.Header, jetstream.MsgIDHeader), importedID) {
		delete(m.Header, jetstream.MsgIDHeader)
	}
	e.RawStreamMsg = &m
	return e
}

// ImportID is by what an import knows an event again: its message id, or that which the library would give it, or, where nothing in it
// is an id, a hash of it.
func (e StoredEvent) ImportID() string {
	if id := LastHeader(e.Header, jetstream.MsgIDHeader); id != "" {
		if LastHeader(e.Header, HeaderImport) != "" {
			id = strings.TrimPrefix(id, importedID)
		}
		return id
	}
	if id := cmp.Or(e.ID, LastHeader(e.Header, HeaderEventID)); id != "" && e.Name.Event != "" {
		if id, err := (Event{Tenant: e.Name.Tenant, Name: e.Name.Event, ID: id}).MessageID(); err == nil {
			return id
		}
	}
	sum := sha256.New()
	// A hash never fails to be written to.
	_, _ = fmt.Fprintf(sum, "%s\n%s\n", e.Subject, LastHeader(e.Header, HeaderConversation))
	_, _ = sum.Write(e.Data)
	return "sha256-" + hex.EncodeToString(sum.Sum(nil))
}

// ImportLoss names the headers that an import of the event leaves out: those Nats-* and Cim-* ones that an event is not published with,
// and would be somebody's word to the server or the bus.
func (e StoredEvent) ImportLoss() []string {
	var lost []string
	for key, values := range e.Header {
		if reserved(key) && !imports(key, values) {
			lost = append(lost, key)
		}
	}
	slices.Sort(lost)
	return lost
}

// imports tells whether an import takes a header over: all but those Nats-* and Cim-* ones that an event is not published with. Status and Description are a service's own here: no event is without a body.
func imports(key string, values []string) bool {
	switch key {
	case jetstream.MsgIDHeader, HeaderConversation, HeaderChannel, HeaderEventID, HeaderEventName:
		return true
	case jetstream.ExpectedStreamHeader:
		return len(values) == 1 && values[0] == StreamEvents
	}
	return !reserved(key) || strings.EqualFold(key, "Status") || strings.EqualFold(key, "Description")
}

// CheckImport tells what keeps the event from being stored exactly as it is. limit is what a message may be large, header and body; 0 =
// it is not known.
func (e StoredEvent) CheckImport(limit int) error {
	if _, err := subjects.ParseEvent(e.Subject); err != nil {
		return fmt.Errorf("subject %q: %w", e.Subject, err)
	}
	for _, key := range slices.Sorted(maps.Keys(e.Header)) {
		if !imports(key, e.Header[key]) {
			continue
		}
		if !headerName(key) {
			return fmt.Errorf("headers: %q cannot be a header's name: use letters, digits, - and _", key)
		}
		for _, v := range e.Header[key] {
			if !headerSafe(v) {
				return fmt.Errorf("headers: %s %q has line breaks or white space around it: a header cannot hold it", key, v)
			}
		}
	}
	if len(e.Data) == 0 && len(e.Header["Status"]) > 0 {
		return errors.New("headers: Status, where there is no payload, would be read for a word of the server")
	}
	m := e.importMessage(ImportHistory)
	if size := m.Size() - len(m.Subject); limit > 0 && size > limit {
		return fmt.Errorf("it takes %d bytes with its headers, and CIM_EVENTS takes %d: %w", size, limit, ErrTooLarge)
	}
	return nil
}

// headerName tells whether a message can have a header of that name.
func headerName(key string) bool {
	return key != "" && strings.IndexFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"()/,:;<=>?@[\]{}`, r) }) < 0
}

// importMessage is the message that an event is stored as.
func (e StoredEvent) importMessage(mode ImportMode) *nats.Msg {
	h := make(nats.Header, len(e.Header)+2)
	for key, values := range e.Header {
		if imports(key, values) {
			h[key] = values
		}
	}
	h[HeaderImport] = []string{string(mode)}
	if LastHeader(h, jetstream.MsgIDHeader) == "" {
		h[jetstream.MsgIDHeader] = []string{importedID + e.ImportID()}
	}
	return &nats.Msg{Subject: e.Subject, Header: h, Data: e.Data}
}

// Import is Publish for an event that was stored before, here or on another bus: its subject, its body and the headers it was published
// with stay as they are, but for ImportLoss; HeaderImport is added, and a message id where it has none. Exported takes both off again.
// The event must have passed CheckImport.
func (p *Publisher) Import(ctx context.Context, e StoredEvent, mode ImportMode) (*Pending, error) {
	if err := e.CheckImport(0); err != nil {
		return nil, fmt.Errorf("import event: %w", err)
	}
	q := &Pending{msg: e.importMessage(mode), done: make(chan struct{})}
	conversation := e.Conversation
	if conversation == "" {
		// What can be read of an event with an error is enough here.
		decoded, _ := cim.Decode(e.Data, LastHeader(e.Header, HeaderConversation))
		conversation = decoded.Conversation
	}
	if err := p.admit(ctx, q, laneKey{e.Name.Tenant, conversation}); err != nil {
		return nil, fmt.Errorf("import event: %w", err)
	}
	return q, nil
}
