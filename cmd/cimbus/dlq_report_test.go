package main

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
)

func TestOfManyEntriesThatWereNotDoneTheReportSaysWhyOnceAndWhatToDo(t *testing.T) {
	var results []bus.DeadLetterResult
	add := func(n int, o bus.EntryOutcome, refused bus.Refusal, err error) {
		for range n {
			r := bus.DeadLetterResult{Outcome: o, Err: err}
			r.Sequence, r.Refused = uint64(len(results)+1), refused
			results = append(results, r)
		}
	}
	add(3, bus.EntryRedriven, "", nil)
	add(1, bus.EntryFailed, "", errors.New("no room"))
	add(440, bus.EntrySkipped, "", nil)
	add(6, bus.EntryRefused, bus.RefusedRedriven, nil)
	add(1, bus.EntryRefused, bus.RefusedGone, nil)
	add(1, bus.EntryRefused, bus.RefusedChanged, nil)
	var stdout, stderr bytes.Buffer
	c := &dlqCommand{app: &app{stdout: &stdout, stderr: &stderr}}
	err := c.report(results, errors.New("redrive: no room"))
	require.EqualError(t, err, "redrive: no room: once that is mended repeat the command, it goes on where it was")
	require.Equal(t, "452 dead letters: 3 redriven, 8 refused, 1 failed, 440 skipped\n", stderr.String())
	require.Equal(t, `OUTCOME  ENTRIES                    SEQ  WHY
failed         1                      4  no room
skipped      440            5 6 7 8 9 …  one before it in its conversation failed, or all was broken off: repeat it
refused        6  445 446 447 448 449 …  redriven before; --force does it all the same
refused        1                    451  dropped, or expired
refused        1                    452  somebody else redrove it meanwhile; plan again
`, stdout.String())
}

func TestAVerdictNamesWhatIsNotWellTheWorstFirst(t *testing.T) {
	require.Equal(t, "1 check: all well", verdict([]bus.Finding{{Check: "clock", Level: bus.LevelOK}}))
	require.Equal(t, "4 checks: 1 failed (room CIM_EVENTS), 2 to be looked at (disk, paused onCimEvent)", verdict([]bus.Finding{
		{Check: "disk", Level: bus.LevelWarn}, {Check: "room", Of: "CIM_EVENTS", Level: bus.LevelFail},
		{Check: "clock", Level: bus.LevelOK}, {Check: "paused", Of: "onCimEvent", Level: bus.LevelWarn},
	}))
}
