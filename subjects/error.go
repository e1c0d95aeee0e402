package subjects

import (
	"errors"
	"strconv"
)

// ErrInvalid is what every error of this package is, for errors.Is.
var ErrInvalid = errors.New("invalid subject")

// quoted is how many bytes of a refused name a message shows.
const quoted = 64

// What is valid, the end of every message.
const (
	validName  = "a name has 1 to 128 bytes as a token, where a byte outside A-Z a-z 0-9 _ - counts three"
	validToken = "a token is 1 to 128 of A-Z a-z 0-9 _ - with =XX (upper-case hex) for every other byte"
)

// Error tells which part of a subject was refused, and why.
type Error struct {
	Field   string // what was refused: "tenant", "channel", …; "name", "token", "subject" or "key" where no field is known
	Name    string // the refused name, token or subject, in full
	Problem string // what is wrong with it and what is valid
}

// Error names the field, quotes the name (its first 64 bytes), and says what is
// wrong and what is valid.
func (e *Error) Error() string {
	name, more := e.Name, ""
	if len(name) > quoted {
		name, more = name[:quoted], "…"
	}
	return e.Field + " " + strconv.Quote(name) + more + " " + e.Problem
}

// Is reports whether target is ErrInvalid.
func (e *Error) Is(target error) bool { return target == ErrInvalid }
