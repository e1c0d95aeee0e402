package bus

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// StoredEvent is an event as CIM_EVENTS has it.
type StoredEvent struct {
	*jetstream.RawStreamMsg
	Name subjects.Event // the names of its subject; empty where that is none of the bus's
	// Conversation and ID come from the header, or the body where that has none; "" = none that could be found.
	Conversation string
	ID           string
}

// AppendJSON appends the event as one line of NDJSON, without the line's end:
//
//	{"sequence":1,"time":"…","subject":"…","tenant":"…","channel":"…","event":"…","id":"…","conversation":"…","size":2,
//	 "headers":{"<name>":["…"]},"payload":{…}}
//
// payload is the body byte for byte where it is JSON in one line with nothing around it. Of any other body payload_base64 has the bytes;
// payload is then the same JSON in one line, or null where it is none. Headers that are not UTF-8 are in headers_base64 instead, each a
// list of its name and its values. ReadStoredEvent gives back what was stored, exactly.
func (e StoredEvent) AppendJSON(dst []byte) []byte {
	dst = slices.Grow(dst, len(e.Data)+512)
	dst = append(dst, `{"sequence":`...)
	dst = strconv.AppendUint(dst, e.Sequence, 10)
	dst = append(dst, `,"time":"`...)
	dst = e.Time.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, '"')
	for _, member := range [...]struct{ key, value string }{
		{`,"subject":`, e.Subject}, {`,"tenant":`, e.Name.Tenant}, {`,"channel":`, e.Name.Channel}, {`,"event":`, e.Name.Event}, {`,"id":`, e.ID},
		{`,"conversation":`, e.Conversation},
	} {
		dst = append(dst, member.key...)
		dst = cim.AppendString(dst, member.value)
	}
	dst = append(dst, `,"size":`...)
	dst = strconv.AppendInt(dst, int64(len(e.Data)), 10)
	dst = append(dst, `,"headers":`...)
	dst = appendHeaders(dst, e.Header)
	dst = append(dst, `,"payload":`...)
	if bare(e.Data) && cim.ValidLine(e.Data) {
		return append(append(dst, e.Data...), '}')
	}
	compact := bytes.NewBuffer(dst)
	if !cim.Valid(e.Data) || json.Compact(compact, e.Data) != nil {
		compact.Truncate(len(dst))
		compact.WriteString("null")
	}
	dst = append(compact.Bytes(), `,"payload_base64":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, e.Data)
	return append(dst, `"}`...)
}

// bare tells whether there is nothing around a document that a reader would take for what it may leave out.
func bare(doc []byte) bool {
	return len(doc) > 0 && doc[0] > ' ' && doc[len(doc)-1] > ' '
}

// appendHeaders writes the headers by their names.
func appendHeaders(dst []byte, h nats.Header) []byte {
	var space [8]string
	keys := slices.AppendSeq(space[:0], maps.Keys(h))
	slices.Sort(keys)
	var others []string
	dst = append(dst, '{')
	first := true
	for _, key := range keys {
		if !isText(key, h[key]) {
			others = append(others, key)
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(cim.AppendString(dst, key), ':', '[')
		for j, v := range h[key] {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = cim.AppendString(dst, v)
		}
		dst = append(dst, ']')
	}
	dst = append(dst, '}')
	for i, key := range others {
		if i == 0 {
			dst = append(dst, `,"headers_base64":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = base64.StdEncoding.AppendEncode(append(dst, `["`...), []byte(key))
		for _, v := range h[key] {
			dst = base64.StdEncoding.AppendEncode(append(dst, `","`...), []byte(v))
		}
		dst = append(dst, `"]`...)
	}
	if len(others) > 0 {
		dst = append(dst, ']')
	}
	return dst
}

// isText tells whether JSON can hold a header.
func isText(key string, values []string) bool {
	if !utf8.ValidString(key) {
		return false
	}
	for _, v := range values {
		if !utf8.ValidString(v) {
			return false
		}
	}
	return true
}

// ReadStoredEvent reads a line that AppendJSON wrote. What it lacks, or has in another form, is told by field.
func ReadStoredEvent(line []byte) (StoredEvent, error) {
	var in struct {
		Sequence     uint64          `json:"sequence"`
		Time         time.Time       `json:"time"`
		Subject      string          `json:"subject"`
		ID           string          `json:"id"`
		Conversation string          `json:"conversation"`
		Headers      nats.Header     `json:"headers"`
		Others       [][][]byte      `json:"headers_base64"`
		Payload      json.RawMessage `json:"payload"`
		Base64       *[]byte         `json:"payload_base64"`
	}
	if err := json.Unmarshal(line, &in); err != nil {
		var typed *json.UnmarshalTypeError
		if errors.As(err, &typed) && typed.Field != "" {
			return StoredEvent{}, fmt.Errorf("%s is a %s: write it as export does", typed.Field, typed.Value)
		}
		return StoredEvent{}, fmt.Errorf("not a line of an export: %w", err)
	}
	maps.DeleteFunc(in.Headers, func(_ string, values []string) bool { return len(values) == 0 })
	for _, header := range in.Others {
		if len(header) < 2 {
			return StoredEvent{}, errors.New("headers_base64: a header has a name and a value at least: write it as export does")
		}
		if in.Headers == nil {
			in.Headers = nats.Header{}
		}
		for _, v := range header[1:] {
			in.Headers[string(header[0])] = append(in.Headers[string(header[0])], string(v))
		}
	}
	if len(in.Headers) == 0 {
		in.Headers = nil
	}
	e := StoredEvent{
		RawStreamMsg: &jetstream.RawStreamMsg{Subject: in.Subject, Sequence: in.Sequence, Header: in.Headers, Data: in.Payload, Time: in.Time},
		Conversation: in.Conversation, ID: in.ID,
	}
	if in.Base64 != nil {
		e.Data = *in.Base64
	}
	var err error
	switch e.Name, err = subjects.ParseEvent(in.Subject); {
	case in.Subject == "":
		return e, errors.New("subject is missing: every event has one")
	case err != nil:
		return e, fmt.Errorf("subject %q: %w", in.Subject, err)
	case in.Payload == nil && in.Base64 == nil:
		return e, errors.New("payload is missing: give payload, or payload_base64")
	}
	return e, nil
}
