package cim

import (
	"bytes"
	"unicode/utf8"
)

// Valid tells whether doc is one JSON document in UTF-8, nested no deeper than [MaxDepth].
func Valid(doc []byte) bool {
	if !utf8.Valid(doc) {
		return false
	}
	s := scanner{data: doc}
	s.skip()
	return s.peek() == 0 && s.pos == len(doc) && s.fault == ""
}

// ValidLine is [Valid] for a document that stands in one line, as NDJSON wants it.
func ValidLine(doc []byte) bool {
	return bytes.IndexByte(doc, '\n') < 0 && bytes.IndexByte(doc, '\r') < 0 && Valid(doc)
}

// AppendString appends text as a JSON string. Bytes that are not UTF-8 become U+FFFD.
func AppendString(dst []byte, text string) []byte { return appendString(dst, text) }
