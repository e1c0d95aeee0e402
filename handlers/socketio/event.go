package socketio

import (
	"encoding/json"
	"fmt"
	"sync/atomic"
)

// Event that a client has emitted.
type Event struct {
	// Name of the event.
	Name string
	// Args are its arguments as they came, compact. Binary data stands there as {"_placeholder":true,"num":n}.
	Args []json.RawMessage
	// Attachments are the binary data the placeholders stand for.
	Attachments [][]byte

	socket *Socket
	id     uint64
	wants  bool
	acked  atomic.Bool
}

// Decode the first arguments into values: one []byte takes a whole attachment, anything else is for encoding/json. Arguments that are
// not there leave their value as it was.
func (e *Event) Decode(values ...any) error {
	return decodeArgs(e.Args, e.Attachments, values)
}

// WantsAck tells whether the client waits for an Ack.
func (e *Event) WantsAck() bool { return e.wants }

// Ack answers the client with arguments, as those of Socket.Emit. The first answer that can be
// encoded counts; without WantsAck it does nothing. It may be
// called after the handler has returned.
func (e *Event) Ack(args ...any) error {
	if !e.wants {
		return nil
	}
	var to encoder
	if err := to.addAll(args); err != nil {
		return fmt.Errorf("ack of %s: %w", e.Name, err)
	}
	if !e.acked.CompareAndSwap(false, true) {
		return nil
	}
	return e.socket.send(to.packet(packetAck, e.socket.namespace.name, &e.id))
}

// Placeholders are the arguments with their attachments, to be passed on whole.
func (e *Event) Placeholders() Placeholders {
	return Placeholders{Args: e.Args, Attachments: e.Attachments}
}

// Reply is a client's ack.
type Reply struct {
	// Args as in Event.
	Args []json.RawMessage
	// Attachments as in Event.
	Attachments [][]byte
}

// Decode as Event.Decode.
func (r *Reply) Decode(values ...any) error {
	return decodeArgs(r.Args, r.Attachments, values)
}

func decodeArgs(args []json.RawMessage, attachments [][]byte, values []any) error {
	for i, value := range values {
		if i == len(args) {
			return nil
		}
		if to, ok := value.(*[]byte); ok {
			if data, ok := attachmentOf(args[i], attachments); ok {
				*to = data
				continue
			}
			return fmt.Errorf("argument %d: not binary", i)
		}
		if err := json.Unmarshal(args[i], value); err != nil {
			return fmt.Errorf("argument %d: %w", i, err)
		}
	}
	return nil
}
