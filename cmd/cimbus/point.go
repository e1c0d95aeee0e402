package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/cimbus/cimbus/bus"
)

// pointHelp says what parsePoint takes.
const pointHelp = `A place in the stream is a sequence (4711); an age (90m, 2h, 7d: so long ago); a time (now, today, yesterday, 14:30, 2026-01-31,
"2026-01-31 14:30", or RFC 3339), where no zone is given in yours; or an agent's position.`

// parsePoint reads a place in a stream, "" is none.
func parsePoint(flag, text string, now time.Time) (bus.Point, error) {
	if text == "" {
		return bus.Point{}, nil
	}
	if n, err := strconv.ParseUint(text, 10, 64); err == nil && n > 0 {
		return bus.Point{Sequence: n}, nil
	}
	switch {
	case text == "0" && flag == "from":
		return bus.Point{Time: time.Unix(0, 0)}, nil // as --after 0 of an agent: whatever there is
	case text == "0":
		return bus.Point{}, usagef("--%s 0: sequences begin at 1", flag)
	}
	if at, ok := parseMoment(text, now); ok {
		return bus.Point{Time: at}, nil
	}
	if p, err := bus.ParsePosition(text); err == nil && p.Identity != "" {
		return bus.Point{Position: p}, nil
	}
	return bus.Point{}, usagef("--%s %q: give a sequence, an age as 2h or 7d, a time as today, 14:30, 2026-01-31 or 2026-01-31T14:30:00Z, or a position", flag, text)
}

// parseMoment reads a time, or an age before now. A day is its beginning.
func parseMoment(text string, now time.Time) (time.Time, bool) {
	today := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, now.Location())
	switch strings.ToLower(text) {
	case "now":
		return now, true
	case "today":
		return today, true
	case "yesterday":
		return today.AddDate(0, 0, -1), true
	}
	if d, err := parseAge(text); err == nil {
		return now.Add(-d), true
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02", "2006-01-02 15:04", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if at, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return at, true
		}
	}
	for _, layout := range []string{"15:04", "15:04:05"} {
		if at, err := time.Parse(layout, text); err == nil {
			return today.Add(time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute + time.Duration(at.Second())*time.Second), true
		}
	}
	return time.Time{}, false
}

// inOrder tells of a stretch that ends before it begins, where both ends are of one kind.
func inOrder(from, until bus.Point) error {
	if from.Sequence != 0 && until.Sequence != 0 && until.Sequence < from.Sequence || !from.Time.IsZero() && !until.Time.IsZero() && until.Time.Before(from.Time) {
		return usagef("--from %s is behind --until %s: give the earlier one first", from, until)
	}
	return nil
}
