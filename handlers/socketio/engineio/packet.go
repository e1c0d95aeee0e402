package engineio

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"unicode/utf8"
)

// Types of packets.
const (
	packetOpen    = '0'
	packetClose   = '1'
	packetPing    = '2'
	packetPong    = '3'
	packetMessage = '4'
	packetUpgrade = '5'
	packetNoop    = '6'

	separator = 0x1e
)

// packet is one that a client sent. Its data, if text, is part of the buffer it was parsed from.
type packet struct {
	kind   byte
	binary bool
	data   []byte
}

// parsePacket reads one text packet, which may not be binary.
func parsePacket(text []byte) (packet, error) {
	if len(text) == 0 {
		return packet{}, fmt.Errorf("%w: it is empty", ErrMalformed)
	}
	if kind := text[0]; kind < packetOpen || kind > packetNoop {
		return packet{}, fmt.Errorf("%w: no type %q", ErrMalformed, kind)
	}
	if !utf8.Valid(text) {
		return packet{}, fmt.Errorf("%w: text that is not UTF-8", ErrMalformed)
	}
	return packet{kind: text[0], data: text[1:]}, nil
}

// parsePayload calls each with every packet of a polling payload, in order; first it makes sure that all of them parse, so that a body
// is taken whole or not at all.
func parsePayload(body []byte, each func(packet) error) error {
	for _, validate := range []bool{true, false} {
		for rest, more := body, true; more; {
			var text []byte
			text, rest, more = bytes.Cut(rest, []byte{separator})
			p, err := parsePolling(text)
			if err != nil {
				return err
			}
			if validate {
				continue
			}
			if err := each(p); err != nil {
				return err
			}
		}
	}
	return nil
}

func parsePolling(text []byte) (packet, error) {
	if len(text) == 0 || text[0] != 'b' {
		return parsePacket(text)
	}
	data, err := base64.StdEncoding.AppendDecode(nil, text[1:])
	if err != nil {
		return packet{}, fmt.Errorf("%w: binary that is not base64", ErrMalformed)
	}
	return packet{kind: packetMessage, binary: true, data: data}, nil
}
