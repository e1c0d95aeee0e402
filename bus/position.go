package bus

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"time"
)

// Position is a place in the stream of an agent's deliveries: everything up to and including Sequence was received. It is kept
// as its string, "<stream identity>-<sequence>-<stored at>", opaque to its keeper. Identity tells a recreated stream from the
// one it was taken of, Stored a restored copy whose sequences were given out again. People may write a plain sequence; it
// carries no proof and is believed.
type Position struct {
	Identity string    // of CIM_DELIVERIES, "" for a plain number
	Sequence uint64    // in CIM_DELIVERIES, 0 = before everything
	Stored   time.Time // when the message at Sequence was stored; zero if unknown
}

// ErrBadPosition is returned for text that is no position.
var ErrBadPosition = errors.New("not a position")

// String writes the position as it is kept. A position without identity is written as a plain number.
func (p Position) String() string {
	if p.Identity == "" {
		return strconv.FormatUint(p.Sequence, 10)
	}
	var at int64
	if !p.Stored.IsZero() {
		at = p.Stored.UnixNano()
	}
	return p.Identity + "-" + strconv.FormatUint(p.Sequence, 10) + "-" + strconv.FormatInt(at, 36)
}

// ParsePosition reads what String wrote, or a plain sequence number.
func ParsePosition(s string) (Position, error) {
	bad := func() (Position, error) {
		return Position{}, fmt.Errorf("position %.60q: %w: give one as it was handed out, or a plain sequence number", s, ErrBadPosition)
	}
	parts := strings.Split(s, "-")
	switch len(parts) {
	case 1:
		seq, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return bad()
		}
		return Position{Sequence: seq}, nil
	case 3:
		seq, err := strconv.ParseUint(parts[1], 10, 64)
		if err != nil || parts[0] == "" {
			return bad()
		}
		at, err := strconv.ParseInt(parts[2], 36, 64)
		if err != nil || at < 0 {
			return bad()
		}
		p := Position{Identity: parts[0], Sequence: seq}
		if at > 0 {
			p.Stored = time.Unix(0, at).UTC()
		}
		return p, nil
	}
	return bad()
}

// streamIdentity names one creation of a stream.
func streamIdentity(created time.Time) string {
	h := fnv.New64a()
	// A hash never fails to be written to.
	_, _ = h.Write([]byte(created.UTC().Format(time.RFC3339Nano)))
	return strconv.FormatUint(h.Sum64(), 36)
}
