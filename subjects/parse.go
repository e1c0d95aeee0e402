package subjects

import (
	"strconv"
	"strings"
)

const validSequence = "is not a stream sequence; it is a decimal number from 1, without leading zeros"

// parser takes a subject apart, token by token; its first error stays.
type parser struct {
	rest string
	err  error
}

// parse starts on the subject's first token after prefix. shape is the form of
// the whole subject: it gives the number of tokens, and what an error says is
// valid. kind is "subject" or "key".
func parse(kind, subject, prefix, shape string) parser {
	rest, ok := subject, true
	if prefix != "" {
		if rest, ok = strings.CutPrefix(subject, prefix); ok {
			rest, ok = strings.CutPrefix(rest, ".")
		}
	}
	if !ok || strings.Count(subject, ".") != strings.Count(shape, ".") {
		return parser{err: &Error{Field: kind, Name: subject, Problem: "is not " + shape}}
	}
	return parser{rest: rest}
}

// name takes a name that must be given.
func (p *parser) name(field string) string {
	token := p.next()
	return p.decode(field, token)
}

// channel takes a channel type, "" for none. One that is not lower case is not
// canonical.
func (p *parser) channel() string {
	token := p.next()
	if token == none {
		return ""
	}
	name := p.decode(fieldChannel, token)
	if hasUpper(name) {
		p.fail(fieldChannel, token, "is not lower case, as every channel in a subject is")
	}
	return name
}

// conversation takes a conversation id, "" for none.
func (p *parser) conversation() string {
	token := p.next()
	if token == none {
		return ""
	}
	return p.decode(fieldConversation, token)
}

func (p *parser) sequence() uint64 {
	token := p.next()
	n, err := strconv.ParseUint(token, 10, 64)
	if err != nil || token[0] < '1' || token[0] > '9' {
		p.fail(fieldSequence, token, validSequence)
	}
	return n
}

func (p *parser) next() string {
	token, rest, _ := strings.Cut(p.rest, ".")
	p.rest = rest
	return token
}

func (p *parser) decode(field, token string) string {
	name, problem := decode(token)
	if problem != "" {
		p.fail(field, token, problem)
	}
	return name
}

func (p *parser) fail(field, name, problem string) {
	if p.err == nil {
		p.err = &Error{Field: field, Name: name, Problem: problem}
	}
}
