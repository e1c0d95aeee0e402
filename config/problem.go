package config

import (
	"strconv"
	"strings"
)

// Problem is one thing that is wrong with the configuration.
type Problem struct {
	Key     string // the setting's path; for a name nobody knows, that name as written; "" for a file as a whole
	Value   string // the offending value without credentials, "" where there is none to show
	Source  Source // where it was set
	Problem string // what is wrong
	Remedy  string // what to do
	Err     error  // the cause, nil if the value itself is
}

// Error is one line: key, value, source, problem, remedy.
func (p *Problem) Error() string {
	var b strings.Builder
	if p.Key != "" {
		b.WriteString(word(clip(p.Key)) + " ")
		if p.Value != "" {
			b.WriteString(quote(p.Value) + " ")
		}
		b.WriteString("(" + p.Source.String() + ") ")
	} else {
		b.WriteString(p.Source.String() + " ")
	}
	b.WriteString(p.Problem)
	if p.Err != nil {
		b.WriteString(": " + p.Err.Error())
	}
	if p.Remedy != "" {
		b.WriteString("; " + p.Remedy)
	}
	return b.String()
}

// quote quotes the start of s: a message is to be read.
func quote(s string) string { return strconv.Quote(clip(s)) }

// word is s itself if it can be read as one word, else quoted.
func word(s string) string {
	if q := strconv.Quote(s); q != `"`+s+`"` || strings.Contains(s, " ") {
		return q
	}
	return s
}

func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

// Unwrap is the cause, for errors.Is and errors.As.
func (p *Problem) Unwrap() error { return p.Err }

// Problems is everything that is wrong with a configuration, never empty as an
// error: what the file, the environment and the flags hold that cannot be
// placed, then bad values in the order of the keys, then values that do not fit
// each other.
type Problems []*Problem

// Error is one line per problem, below a first line if there are several.
func (p Problems) Error() string {
	if len(p) == 1 {
		return "invalid configuration: " + p[0].Error()
	}
	var b strings.Builder
	b.WriteString("invalid configuration, " + strconv.Itoa(len(p)) + " problems:")
	for _, each := range p {
		b.WriteString("\n  " + each.Error())
	}
	return b.String()
}

// Unwrap gives the single problems to errors.Is and errors.As.
func (p Problems) Unwrap() []error {
	all := make([]error, len(p))
	for i, each := range p {
		all[i] = each
	}
	return all
}
