package bus

import "slices"

// Level is how bad a finding is.
type Level string

// The levels, the worst last.
const (
	LevelOK   Level = "ok"
	LevelWarn Level = "warn" // works, but not as it should or not for long
	LevelFail Level = "fail" // does not work, or something was lost
)

// Finding is the result of one check, in words for the people who run the bus. Every field is filled in, whatever the level.
type Finding struct {
	Check  string `json:"check"`  // what was looked at: "room", "lost", "lag", …
	Of     string `json:"of"`     // the stream or consumer it is about, "" where it is about the bus
	Level  Level  `json:"level"`  // ok, warn or fail
	Found  string `json:"found"`  // what is the case
	Why    string `json:"why"`    // why it matters
	Remedy string `json:"remedy"` // what to do; "nothing" where all is well
}

// nothing is the remedy where there is nothing to be done.
const nothing = "nothing"

// Worst is the highest level among findings, LevelOK if there are none.
func Worst(findings []Finding) Level {
	order := []Level{LevelOK, LevelWarn, LevelFail}
	worst := 0
	for _, f := range findings {
		worst = max(worst, slices.Index(order, f.Level))
	}
	return order[worst]
}
