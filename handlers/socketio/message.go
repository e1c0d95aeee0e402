package socketio

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/cimbus/cimbus/handlers/socketio/engineio"
)

// A Message is an event on its way to sockets of one namespace, encoded once for all of them. It never changes.
type Message struct {
	namespace string
	parts     []*engineio.Message // the text, then the attachments
}

// Size of the message as it is queued, in bytes.
func (m *Message) Size() int {
	size := 0
	for _, part := range m.parts {
		size += part.Size()
	}
	return size
}

// Verbatim is an argument that is JSON already, valid, UTF-8 and compact: it is sent as it is and not looked at. A json.RawMessage is
// checked and compacted.
type Verbatim []byte

// Placeholders is a whole list of arguments as they were received, with the attachments their placeholders stand for: to pass on binary
// data wherever it is in the arguments. It is the only argument of its Emit, Prepare or Ack.
type Placeholders struct {
	Args        []json.RawMessage
	Attachments [][]byte
}

// encoder builds the text of one packet: what was written to args, with what needs no encoding left where it is until the one copy that
// makes the frame.
type encoder struct {
	args        bytes.Buffer
	verbatim    []insertion
	attachments [][]byte
	comma       bool
}

// insertion of text that is not in args, before the byte at.
type insertion struct {
	at   int
	text []byte
}

// add appends one argument: []byte at the top level is an attachment, Verbatim and json.RawMessage are JSON already, anything else is
// encoded.
func (e *encoder) add(arg any) error {
	if e.comma {
		e.args.WriteByte(',')
	}
	e.comma = true
	switch v := arg.(type) {
	case []byte:
		e.args.WriteString(`{"_placeholder":true,"num":`)
		e.args.WriteString(strconv.Itoa(len(e.attachments)))
		e.args.WriteByte('}')
		e.attachments = append(e.attachments, v)
	case Verbatim:
		e.verbatim = append(e.verbatim, insertion{e.args.Len(), v})
	case json.RawMessage:
		if err := json.Compact(&e.args, v); err != nil {
			return fmt.Errorf("an argument is not JSON: %w", err)
		}
	case string:
		if plain(v) {
			e.args.WriteByte('"')
			e.args.WriteString(v)
			e.args.WriteByte('"')
			return nil
		}
		return e.encode(v)
	default:
		return e.encode(v)
	}
	return nil
}

func (e *encoder) encode(arg any) error {
	to := json.NewEncoder(&e.args)
	to.SetEscapeHTML(false) // as JSON.stringify does
	if err := to.Encode(arg); err != nil {
		return fmt.Errorf("encoding an argument: %w", err)
	}
	e.args.Truncate(e.args.Len() - 1) // Encode ends with a newline
	return nil
}

// plain tells whether a string is its own JSON but for the quotes, as names and offsets are.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

func (e *encoder) addAll(args []any) error {
	for _, arg := range args {
		if all, ok := arg.(Placeholders); ok {
			if len(args) > 1 {
				return errors.New("placeholders are the only argument where there are any")
			}
			for _, raw := range all.Args {
				if err := e.add(raw); err != nil {
					return err
				}
			}
			e.attachments = all.Attachments
			return nil
		}
		if err := e.add(arg); err != nil {
			return err
		}
	}
	return nil
}

// packet of an event or ack. Its binary kind is taken where there are attachments.
func (e *encoder) packet(kind byte, namespace string, id *uint64) []*engineio.Message {
	var header [64]byte
	head := header[:0]
	if n := len(e.attachments); n > 0 {
		head = append(head, kind+packetBinaryEvent-packetEvent)
		head = append(strconv.AppendInt(head, int64(n), 10), '-')
	} else {
		head = append(head, kind)
	}
	head = appendNamespace(head, namespace)
	if id != nil {
		head = strconv.AppendUint(head, *id, 10)
	}
	head = append(head, '[')
	text := append(make([][]byte, 0, 8), head)
	args, from := e.args.Bytes(), 0
	for _, v := range e.verbatim {
		text = append(text, args[from:v.at], v.text)
		from = v.at
	}
	parts := make([]*engineio.Message, 1, 1+len(e.attachments))
	parts[0] = engineio.Text(append(text, args[from:], []byte{']'})...)
	for _, data := range e.attachments {
		parts = append(parts, engineio.Binary(data))
	}
	return parts
}

func appendNamespace(to []byte, namespace string) []byte {
	if namespace == "/" {
		return to
	}
	return append(append(to, namespace...), ',')
}

// encodeEvent makes the packet of an event; an offset becomes its last argument.
func encodeEvent(namespace, event, offset string, id *uint64, args []any) ([]*engineio.Message, error) {
	var e encoder
	if err := e.add(event); err != nil {
		return nil, err
	}
	if err := e.addAll(args); err != nil {
		return nil, fmt.Errorf("event %s: %w", event, err)
	}
	if offset != "" {
		if err := e.add(offset); err != nil {
			return nil, err
		}
	}
	return e.packet(packetEvent, namespace, id), nil
}

// encodeControl makes a CONNECT, CONNECT_ERROR or DISCONNECT packet.
func encodeControl(kind byte, namespace string, payload any) (*engineio.Message, error) {
	head := appendNamespace([]byte{kind}, namespace)
	if payload == nil {
		return engineio.Text(head), nil
	}
	var body bytes.Buffer
	to := json.NewEncoder(&body)
	to.SetEscapeHTML(false)
	if err := to.Encode(payload); err != nil {
		return nil, fmt.Errorf("encoding a payload: %w", err)
	}
	return engineio.Text(head, body.Bytes()[:body.Len()-1]), nil
}
