package socketio

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// assembly is a packet from a client whose attachments are still arriving.
type assembly struct {
	packet packet
	got    [][]byte
}

// add takes the next binary message; it returns whether it was the last one.
func (a *assembly) add(data []byte) bool {
	a.got = append(a.got, data)
	return len(a.got) == a.packet.attachments
}

// object is one that a placeholder scan is inside of; an array is one without keys.
type object struct {
	keys        bool
	key         string // the last one, whose value comes next; empty where a key comes next
	placeholder bool
	num         json.Number
}

// checkPlaceholders makes sure that what valid JSON says of attachments is true: each placeholder, at any depth, names one that came.
// It reads the text once, however deep that nests.
func checkPlaceholders(text []byte, attachments int) error {
	tokens := json.NewDecoder(bytes.NewReader(text))
	tokens.UseNumber()
	var inside []object
	for {
		token, err := tokens.Token()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		if delim, ok := token.(json.Delim); ok {
			if delim == '{' || delim == '[' {
				inside = append(inside, object{keys: delim == '{'})
				continue
			}
			if err := inside[len(inside)-1].check(attachments); err != nil {
				return err
			}
			inside = inside[:len(inside)-1]
			token = nil
		}
		if len(inside) > 0 {
			inside[len(inside)-1].take(token)
		}
	}
}

// take notes a key, or the value of one.
func (o *object) take(token json.Token) {
	key, isString := token.(string)
	switch {
	case !o.keys:
	case o.key == "" && isString:
		o.key = "=" + key
	default:
		switch value := token.(type) {
		case bool:
			o.placeholder = o.placeholder || value && o.key == "=_placeholder"
		case json.Number:
			if o.key == "=num" {
				o.num = value
			}
		}
		o.key = ""
	}
}

func (o *object) check(attachments int) error {
	if !o.placeholder {
		return nil
	}
	if n, err := o.num.Int64(); err != nil || n < 0 || n >= int64(attachments) {
		return fmt.Errorf("%w: a placeholder for attachment %q of %d", ErrMalformed, o.num, attachments)
	}
	return nil
}

// attachmentOf returns the attachment that arg is a placeholder of.
func attachmentOf(arg json.RawMessage, attachments [][]byte) ([]byte, bool) {
	var p map[string]any // and no struct, whose fields would match in any case
	if json.Unmarshal(arg, &p) != nil || p["_placeholder"] != true {
		return nil, false
	}
	num, ok := p["num"].(float64)
	if !ok || num < 0 || num >= float64(len(attachments)) {
		return nil, false
	}
	return attachments[int(num)], true
}
