package bus

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Pace is how fast a replay goes: as fast as it can (the zero value), at a multiple of the pace of the events themselves, or so
// many events a second. At most one of the two is set.
type Pace struct {
	Times     float64 // 2 = twice as fast as the events came
	PerSecond float64
}

var errBadPace = errors.New("give max, a multiple of the original pace as 1x or 2.5x, or a number a second as 50/s")

// ParsePace reads what String wrote; "" is as fast as possible, too.
func ParsePace(text string) (Pace, error) {
	if text == "" || text == "max" {
		return Pace{}, nil
	}
	var p Pace
	to := &p.Times
	number, ok := strings.CutSuffix(text, "x")
	if !ok {
		to = &p.PerSecond
		number, ok = strings.CutSuffix(text, "/s")
	}
	n, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(n >= 1e-6 && n <= 1e9) {
		return Pace{}, fmt.Errorf("pace %q: %w", text, errBadPace)
	}
	*to = n
	return p, nil
}

// String writes the pace as ParsePace reads it.
func (p Pace) String() string {
	switch {
	case p.Times != 0:
		return strconv.FormatFloat(p.Times, 'f', -1, 64) + "x"
	case p.PerSecond != 0:
		return strconv.FormatFloat(p.PerSecond, 'f', -1, 64) + "/s"
	}
	return "max"
}

// pacer tells when each event of a run is due.
type pacer struct {
	Pace
	began  time.Time // of the run
	first  time.Time // when its first event was stored
	events float64   // before this one
}

// due is when an event stored at a moment is to go. Events that are late go at once, and those behind them keep their distance to
// the beginning, so that the pace holds over the whole.
func (p *pacer) due(stored time.Time) time.Time {
	if p.began.IsZero() {
		p.began, p.first = time.Now(), stored
	}
	after := 0.0 // ns
	switch {
	case p.Times != 0:
		after = float64(stored.Sub(p.first)) / p.Times
	case p.PerSecond != 0:
		after = p.events / p.PerSecond * float64(time.Second)
	}
	p.events++
	return p.began.Add(time.Duration(min(after, math.MaxInt64/4)))
}
