package engineio

import (
	"encoding/base64"
	"encoding/binary"
)

// A Message is one packet on its way to clients, encoded once: a whole WebSocket frame (a server's frames are not masked, so all
// receivers get the same bytes), of which the polling form is a part. It never changes, and may be sent to any number of sessions at
// once.
type Message struct {
	frame  []byte
	head   int // bytes of the frame's header
	binary bool
}

// Opcodes of RFC 6455 with the final bit, and the longest header of an unmasked frame.
const (
	finalText   = 0x81
	finalBinary = 0x82
	finalClose  = 0x88
	maxHeader   = 10
)

// Text makes a message of text, the parts one after the other. They must be UTF-8: a browser fails a WebSocket on anything else.
func Text(parts ...[]byte) *Message {
	return newMessage(finalText, packetMessage, parts...)
}

// Binary makes a binary message of a copy of data.
func Binary(data []byte) *Message {
	return newMessage(finalBinary, 0, data)
}

// control makes a packet that is no message.
func control(packet string) *Message {
	return newMessage(finalText, packet[0], []byte(packet[1:]))
}

func newMessage(opcode, kind byte, parts ...[]byte) *Message {
	size := 0
	if kind != 0 {
		size++
	}
	for _, part := range parts {
		size += len(part)
	}
	frame := appendHeader(make([]byte, 0, maxHeader+size), opcode, size)
	head := len(frame)
	if kind != 0 {
		frame = append(frame, kind)
	}
	for _, part := range parts {
		frame = append(frame, part...)
	}
	return &Message{frame: frame, head: head, binary: opcode == finalBinary}
}

// appendHeader of an unmasked, unfragmented frame.
func appendHeader(to []byte, opcode byte, size int) []byte {
	switch {
	case size < 126:
		return append(to, opcode, byte(size))
	case size < 1<<16:
		return binary.BigEndian.AppendUint16(append(to, opcode, 126), uint16(size))
	default:
		return binary.BigEndian.AppendUint64(append(to, opcode, 127), uint64(size))
	}
}

// Size of the message as it is queued, in bytes.
func (m *Message) Size() int { return len(m.frame) }

// appendPolling appends the packet as it stands in a polling payload.
func (m *Message) appendPolling(to []byte) []byte {
	if m.binary {
		return base64.StdEncoding.AppendEncode(append(to, 'b'), m.frame[m.head:])
	}
	return append(to, m.frame[m.head:]...)
}

func appendPayload(to []byte, messages []*Message) []byte {
	for i, m := range messages {
		if i > 0 {
			to = append(to, separator)
		}
		to = m.appendPolling(to)
	}
	return to
}

// String is the packet as it stands in a polling payload.
func (m *Message) String() string { return string(m.appendPolling(nil)) }
