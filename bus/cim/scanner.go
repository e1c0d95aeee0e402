package cim

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unicode/utf8"
)

// MaxDepth is how deep objects and arrays of a body may be nested. Real events stay below 20.
const MaxDepth = 512

const faultDepth = "is nested too deep"

// scanner walks over one JSON document, checking it against the grammar as it goes. After the first fault it stands still:
// pos is where the fault is, and no loop goes on.
type scanner struct {
	data  []byte
	pos   int
	depth int
	fault string // what is wrong at pos, as the predicate of a sentence
}

// value is a JSON value as it stands in the bytes; nil is none.
type value []byte

// kind is the value's first byte, '{' '[' '"' 't' 'f' 'n' '-' or a digit; 0 if there is no value.
func (v value) kind() byte {
	if len(v) == 0 {
		return 0
	}
	return v[0]
}

// text is what a string holds, empty for every other kind.
func (v value) text() string {
	if v.kind() != '"' {
		return ""
	}
	return string(v.unquote())
}

// lookup finds the value at a path of object keys, the last one where a key is repeated.
func lookup(in value, path ...string) value {
	s := scanner{data: in}
	found := s.find(path...)
	if s.fault != "" {
		return nil
	}
	return found
}

// find is lookup in the value at s, which is consumed.
func (s *scanner) find(path ...string) (found value) {
	if len(path) == 0 {
		return s.value()
	}
	if s.peek() != '{' {
		s.skip()
		return nil
	}
	for more := s.open('}'); more; more = s.more('}') {
		if string(s.key()) == path[0] {
			found = s.find(path[1:]...)
		} else {
			s.skip()
		}
	}
	return found
}

// value consumes a value and returns its bytes, nil if it is not JSON.
func (s *scanner) value() value {
	s.peek()
	start := s.pos
	s.skip()
	if s.fault != "" {
		return nil
	}
	return s.data[start:s.pos]
}

// peek passes over white space and returns the byte after it, 0 at the end.
func (s *scanner) peek() byte {
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; c {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) fail(problem string) {
	if s.fault == "" {
		s.fault = problem
	}
}

// unexpected blames the byte at pos.
func (s *scanner) unexpected() {
	if s.pos >= len(s.data) {
		s.fail("is not JSON (unexpected end)")
		return
	}
	r, _ := utf8.DecodeRune(s.data[s.pos:])
	s.fail(fmt.Sprintf("is not JSON (unexpected %q)", r))
}

// open enters an object or array and says whether there is anything in it.
func (s *scanner) open(end byte) bool {
	if s.depth == MaxDepth {
		s.fail(faultDepth)
		return false
	}
	s.pos++
	if s.peek() == end {
		s.pos++
		return false
	}
	s.depth++
	return true
}

// more passes over what follows a member or an element and says whether there is another one.
func (s *scanner) more(end byte) bool {
	if s.fault != "" {
		return false
	}
	switch s.peek() {
	case ',':
		s.pos++
		return true
	case end:
		s.pos++
		s.depth--
		return false
	}
	s.unexpected()
	return false
}

// key consumes a member's key and colon and returns the key unescaped, so that "na\u006de" is seen as name.
func (s *scanner) key() []byte {
	if s.peek() != '"' {
		s.unexpected()
		return nil
	}
	start := s.pos
	escaped := s.string()
	end := s.pos
	if s.fault != "" {
		return nil
	}
	if s.peek() != ':' {
		s.unexpected()
		return nil
	}
	s.pos++
	if escaped {
		return value(s.data[start:end]).unquote()
	}
	return s.data[start+1 : end-1]
}

// skip consumes a value.
func (s *scanner) skip() {
	if s.fault != "" {
		return
	}
	switch c := s.peek(); c {
	case '{':
		for more := s.open('}'); more; more = s.more('}') {
			if s.peek() != '"' {
				s.unexpected()
				return
			}
			s.string()
			if s.peek() != ':' {
				s.unexpected()
				return
			}
			s.pos++
			s.skip()
		}
	case '[':
		for more := s.open(']'); more; more = s.more(']') {
			s.skip()
		}
	case '"':
		s.string()
	case 't':
		s.literal("true")
	case 'f':
		s.literal("false")
	case 'n':
		s.literal("null")
	default:
		s.number()
	}
}

func (s *scanner) literal(word string) {
	for i := range len(word) {
		if s.pos >= len(s.data) || s.data[s.pos] != word[i] {
			s.unexpected()
			return
		}
		s.pos++
	}
}

func (s *scanner) number() {
	if s.pos < len(s.data) && s.data[s.pos] == '-' {
		s.pos++
	}
	if s.pos < len(s.data) && s.data[s.pos] == '0' {
		s.pos++
	} else {
		s.digits()
	}
	if s.pos < len(s.data) && s.data[s.pos] == '.' {
		s.pos++
		s.digits()
	}
	if s.pos < len(s.data) && s.data[s.pos]|0x20 == 'e' {
		s.pos++
		if s.pos < len(s.data) && (s.data[s.pos] == '+' || s.data[s.pos] == '-') {
			s.pos++
		}
		s.digits()
	}
}

// digits consumes one digit or more.
func (s *scanner) digits() {
	start := s.pos
	for s.pos < len(s.data) && s.data[s.pos]-'0' <= 9 {
		s.pos++
	}
	if s.pos == start {
		s.unexpected()
	}
}

// string consumes a string and says whether it holds escapes.
func (s *scanner) string() (escaped bool) {
	s.pos++
	for {
		s.plain()
		if s.pos >= len(s.data) {
			s.unexpected()
			return escaped
		}
		switch s.data[s.pos] {
		case '"':
			s.pos++
			return escaped
		case '\\':
			escaped = true
			if !s.escape() {
				return escaped
			}
			s.pos++
		default:
			s.fail("is not JSON (raw control character in a string)")
			return escaped
		}
	}
}

// plain passes over the bytes of a string up to a quote, a backslash or a control character, eight at a time: half of an
// event is text.
func (s *scanner) plain() {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	data, at := s.data, s.pos
	for ; at+8 <= len(data); at += 8 {
		word := binary.LittleEndian.Uint64(data[at:])
		quote, slash := word^ones*'"', word^ones*'\\'
		// The lowest bit set is exact: a byte that is zero in quote or slash, or below a space in word.
		stop := ((quote-ones)&^quote | (slash-ones)&^slash | (word-ones*' ')&^word) & tops
		if stop != 0 {
			s.pos = at + bits.TrailingZeros64(stop)/8
			return
		}
	}
	for at < len(data) && data[at] >= ' ' && data[at] != '"' && data[at] != '\\' {
		at++
	}
	s.pos = at
}

// escape consumes an escape sequence but for its last byte.
func (s *scanner) escape() bool {
	s.pos++
	if s.pos >= len(s.data) {
		s.unexpected()
		return false
	}
	switch s.data[s.pos] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		for range 4 {
			s.pos++
			if s.pos >= len(s.data) || hexDigit(s.data[s.pos]) < 0 {
				s.unexpected()
				return false
			}
		}
		return true
	}
	s.unexpected()
	return false
}
