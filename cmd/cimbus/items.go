package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
)

// maxItem bounds what is held of one item; no server takes a message so large.
const maxItem = 16 << 20

// item is one of the JSON values of an input, an event if all is well.
type item struct {
	number int // counted from 1
	line   int // on which it begins, counted from 1
	body   []byte
	err    error // what is wrong between or with the items; what is wrong inside of one is for its reader to find
}

var (
	errTooLong  = errors.New("item is larger than 16 MiB: split it up")
	errNoComma  = errors.New("a comma is missing before this item: write one between the items of an array")
	errComma    = errors.New("a comma without an item before it: remove it")
	errTrailing = errors.New("a comma before the ]: remove it")
	errNotEnded = errors.New("the array does not end: the input was cut off, or a ] is missing")
	errNoArray  = errors.New("a ] or a comma where no array is: write JSON values one after another, or one array of them")
)

// items takes an input apart into its JSON values: objects one after another, on a line each or over several, and the items of
// arrays. Each comes with the bytes it was written with. It holds one item at a time.
//
// It only finds where values begin and end. Of a broken one it finds the end as well as can be, so that those behind it are not
// lost with it: at the line's end where a string is still open there, before a line that begins with "{" where no value can stand,
// and where items have a line each, before every line that begins so.
type items struct {
	in     *bufio.Reader
	line   int  // of the next byte
	start  bool // the next byte is the first of a line
	number int

	array   bool // inside of an array
	after   byte // in an array what came before: '[', ',', or 'v' for a value
	oneLine bool // the item before had a line of its own
	queue   []item

	body    []byte
	tooLong bool
}

func newItems(r io.Reader) *items {
	s := &items{in: bufio.NewReaderSize(r, 64<<10), line: 1, start: true}
	return s
}

// next returns io.EOF behind the last item, and other errors of reading. An item is the caller's to keep.
func (s *items) next() (item, error) {
	if s.line == 1 && s.start {
		if mark, err := s.in.Peek(3); err == nil && bytes.Equal(mark, []byte("\ufeff")) {
			if _, err := s.in.Discard(3); err != nil { // it tells how a file is written, and is no part of an event
				return item{}, err
			}
		}
	}
	for {
		if len(s.queue) > 0 {
			it := s.queue[0]
			s.queue = s.queue[1:]
			return it, nil
		}
		c, err := s.read()
		switch {
		case errors.Is(err, io.EOF) && s.array:
			s.array = false
			return item{number: s.number, line: s.line, err: errNotEnded}, nil
		case err != nil:
			return item{}, err
		case isSpace(c):
		case !s.array && c == '[':
			s.array, s.after = true, '['
		case c == ',' || c == ']':
			if it, ok := s.punctuation(c); !ok {
				return it, nil
			}
		case s.array && s.after == 'v':
			if err := s.unread(c); err != nil {
				return item{}, err
			}
			s.after = ','
			return item{number: s.number + 1, line: s.line, err: errNoComma}, nil
		default:
			s.after = 'v'
			return s.value(c)
		}
	}
}

// punctuation takes a comma or a ] between items. Where that does not belong there it returns an item that says so, and false.
func (s *items) punctuation(c byte) (item, bool) {
	var misplaced error
	switch {
	case !s.array:
		misplaced = errNoArray
	case c == ',' && s.after != 'v':
		misplaced = errComma
	case c == ']' && s.after == ',':
		misplaced = errTrailing
	}
	s.array = s.array && c == ','
	s.after = ','
	return item{number: s.number, line: s.line, err: misplaced}, misplaced == nil
}

// value reads the item that begins with c.
func (s *items) value(c byte) (item, error) {
	s.number++
	s.body, s.tooLong = nil, false
	found := item{number: s.number, line: s.line}
	s.keep(c)
	var err error
	switch c {
	case '{', '[':
		err = s.nested(c)
	case '"':
		_, err = s.text()
	default:
		err = s.word()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return item{}, err
	}
	found.body = s.body
	switch {
	case s.tooLong:
		found.body, found.err = nil, errTooLong
	case s.oneLine && !s.array && bytes.Contains(found.body, []byte("\n{")) && !json.Valid(found.body):
		return s.split(found), nil
	}
	s.oneLine = found.line == s.line && !s.array
	return found, nil
}

// split takes a broken item apart that swallowed the lines after its own. It returns the first and queues the others.
func (s *items) split(broken item) item {
	line := broken.line
	for i, part := range bytes.Split(broken.body, []byte("\n{")) {
		if i > 0 {
			part = append([]byte("{"), part...)
		}
		s.queue = append(s.queue, item{number: broken.number + i, line: line, body: bytes.TrimRight(part, " \t\r\n")})
		line += bytes.Count(part, []byte("\n")) + 1
	}
	s.number = broken.number + len(s.queue) - 1
	first := s.queue[0]
	s.queue = s.queue[1:]
	return first
}

// nested reads an object or array to its end.
func (s *items) nested(opening byte) error {
	open := []byte{opening}
	last := opening // the last byte that is no space
	for {
		atStart := s.start
		c, err := s.read()
		if err != nil {
			return err
		}
		if c == '{' && atStart && !s.array && !strings.ContainsRune(":,[", rune(last)) {
			return s.unread(c)
		}
		switch c {
		case '{', '[':
			open = append(open, c)
		case '}', ']':
			depth := bytes.LastIndexByte(open, c-2) // '[' and '{' stand two before ']' and '}'
			if depth < 0 && s.array && c == ']' {
				return s.unread(c)
			}
			if depth >= 0 {
				open = open[:depth]
			}
		}
		s.keep(c)
		if len(open) == 0 {
			return nil
		}
		if c == '"' {
			whole, err := s.text()
			if err != nil || !whole {
				return err
			}
		}
		if !isSpace(c) {
			last = c
		}
	}
}

// text reads a string behind its opening quote. It is not whole if the line ends first.
func (s *items) text() (whole bool, err error) {
	for escaped := false; ; {
		c, err := s.read()
		if err != nil {
			return false, err
		}
		if c == '\n' {
			return false, s.unread(c)
		}
		s.keep(c)
		switch {
		case escaped:
			escaped = false
		case c == '\\':
			escaped = true
		case c == '"':
			return true, nil
		}
	}
}

// word reads a number, true, false, null, or what is no JSON at all: to the end of its line.
func (s *items) word() error {
	for {
		c, err := s.read()
		if err != nil {
			return err
		}
		if c == '\n' || s.array && (c == ',' || c == ']') {
			return s.unread(c)
		}
		s.keep(c)
	}
}

func (s *items) keep(c byte) {
	if len(s.body) >= maxItem {
		s.tooLong = true
		return
	}
	s.body = append(s.body, c)
}

func (s *items) read() (byte, error) {
	c, err := s.in.ReadByte()
	if err != nil {
		return 0, err
	}
	s.start = c == '\n'
	if s.start {
		s.line++
	}
	return c, nil
}

// unread gives back c, the byte read last.
func (s *items) unread(c byte) error {
	if err := s.in.UnreadByte(); err != nil {
		return err
	}
	if c == '\n' {
		s.line--
	}
	s.start = false
	return nil
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }
