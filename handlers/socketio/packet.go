package socketio

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Types of packets.
const (
	packetConnect      = '0'
	packetDisconnect   = '1'
	packetEvent        = '2'
	packetAck          = '3'
	packetConnectError = '4'
	packetBinaryEvent  = '5'
	packetBinaryAck    = '6'
)

// maxAckID is the largest whole number every client can hold.
const maxAckID = 1<<53 - 1

// packet as it was received; name and args are those of an event, args those of an ack.
type packet struct {
	kind        byte
	namespace   string
	id          uint64
	hasID       bool
	attachments int
	auth        json.RawMessage // of a CONNECT, compact, nil if none
	name        string
	args        []json.RawMessage
}

// parsePacket reads the text of a packet. What it returns does not alias text.
func parsePacket(text []byte, maxAttachments int) (packet, error) {
	p, payload, err := parseHeader(text, maxAttachments)
	if err != nil {
		return packet{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := p.parsePayload(payload); err != nil {
		return packet{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return p, nil
}

func parseHeader(text []byte, maxAttachments int) (packet, []byte, error) {
	if len(text) == 0 || text[0] < packetConnect || text[0] > packetBinaryAck {
		return packet{}, nil, fmt.Errorf("no such type of packet")
	}
	if !utf8.Valid(text) {
		return packet{}, nil, fmt.Errorf("text that is not UTF-8")
	}
	p := packet{kind: text[0], namespace: "/"}
	rest := text[1:]
	if p.binary() {
		digits, after, found := bytes.Cut(rest, []byte{'-'})
		n, err := strconv.ParseUint(string(digits), 10, 31)
		if !found || err != nil || int(n) > maxAttachments {
			return packet{}, nil, fmt.Errorf("the number of attachments is missing or more than %d", maxAttachments)
		}
		p.attachments, rest = int(n), after
	}
	if len(rest) > 0 && rest[0] == '/' {
		namespace, after, _ := bytes.Cut(rest, []byte{','})
		p.namespace, rest = string(namespace), after
	}
	digits := 0
	for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
		digits++
	}
	if digits > 0 {
		id, err := strconv.ParseUint(string(rest[:digits]), 10, 64)
		if err != nil || id > maxAckID {
			return packet{}, nil, fmt.Errorf("the ack id is too large")
		}
		p.id, p.hasID, rest = id, true, rest[digits:]
	}
	return p, rest, nil
}

func (p *packet) binary() bool { return p.kind == packetBinaryEvent || p.kind == packetBinaryAck }

func (p *packet) parsePayload(payload []byte) error {
	switch p.kind {
	case packetConnect:
		if len(payload) == 0 {
			return nil
		}
		auth, err := compact(payload)
		if err != nil || auth[0] != '{' {
			return fmt.Errorf("CONNECT with an auth that is not an object")
		}
		p.auth = auth
	case packetDisconnect:
		if len(payload) > 0 {
			return fmt.Errorf("DISCONNECT with a payload")
		}
	case packetConnectError:
		return fmt.Errorf("CONNECT_ERROR from a client")
	case packetEvent, packetBinaryEvent:
		return p.parseEvent(payload)
	default:
		if !p.hasID {
			return fmt.Errorf("ACK without an id")
		}
		return p.parseArgs(payload)
	}
	return nil
}

func (p *packet) parseEvent(payload []byte) error {
	if err := p.parseArgs(payload); err != nil {
		return err
	}
	if len(p.args) == 0 || p.args[0][0] != '"' {
		return fmt.Errorf("an event without a name")
	}
	if err := json.Unmarshal(p.args[0], &p.name); err != nil {
		return fmt.Errorf("the event's name: %w", err)
	}
	switch p.name {
	case "connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener":
		return fmt.Errorf("the event name %q is reserved", p.name)
	}
	p.args = p.args[1:]
	return nil
}

// parseArgs keeps each argument compact and otherwise as it came.
func (p *packet) parseArgs(payload []byte) error {
	array, err := compact(payload)
	if err != nil || array[0] != '[' {
		return fmt.Errorf("a payload that is not an array")
	}
	if p.binary() {
		if err := checkPlaceholders(array, p.attachments); err != nil {
			return err
		}
	}
	return json.Unmarshal(array, &p.args)
}

// compact copies valid JSON without the blanks between its parts.
func compact(text []byte) (json.RawMessage, error) {
	var out bytes.Buffer
	out.Grow(len(text))
	if err := json.Compact(&out, text); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
