package bus

import (
	"fmt"
	"time"
)

// AlarmThreshold is the share of a limit from which it is told that it comes near.
const AlarmThreshold = 0.8

// largestReserve bounds what must be left in a stream that refuses for it not to count as full: the largest event.
const largestReserve = 1 << 20

// fullStreams says of each stream what becomes of the bus when it is full: those that refuse stop something, the others forget
// their oldest messages early.
var fullStreams = map[string]struct {
	refuses     bool
	consequence string
}{
	StreamEvents:        {true, "publishers are refused (event store is full) until events age out or there are more bytes"},
	StreamMembers:       {true, "events by which members come or go cannot be committed, and their conversations wait"},
	StreamConversations: {true, "checkpoints cannot be written, and their conversations wait"},
	StreamDeliveries:    {false, "the oldest deliveries go before their age: agents that were away longer hear that their position has expired"},
	StreamIndex:         {false, "the oldest entries go before their age: histories begin later, and states are folded from less"},
	StreamDeadLetters:   {false, "the oldest dead letters go before their age and cannot be redriven any more"},
}

// Room judges how near a stream is to its limit of bytes; threshold is the share from which that is a warning.
func (s StreamStatus) Room(threshold float64) Finding {
	full := fullStreams[s.Stream]
	f := Finding{Check: "room", Of: s.Stream, Level: LevelOK, Why: "when it is full, " + full.consequence, Remedy: nothing}
	if s.MaxBytes <= 0 {
		f.Found = fmt.Sprintf("%s, no limit of its own: the account's or the server's applies", bytesOf(s.Bytes))
		return f
	}
	limit := uint64(s.MaxBytes)
	used := float64(s.Bytes) / float64(limit)
	f.Found = fmt.Sprintf("%s of %s, %.0f %%", bytesOf(s.Bytes), bytesOf(limit), used*100)
	if used < threshold {
		return f
	}
	f.Level, f.Remedy = LevelWarn, "give the streams more bytes, or keep their messages for less time"
	if s.Bytes+min(limit/100, largestReserve) < limit {
		return f
	}
	f.Found += ": full"
	if full.refuses {
		f.Level = LevelFail
		return f
	}
	if s.FirstTime != nil && s.MaxAge > 0 {
		kept := time.Since(*s.FirstTime).Round(time.Second)
		f.Found += fmt.Sprintf(", it reaches back %s instead of %s", kept, time.Duration(s.MaxAge*float64(time.Second)))
	}
	return f
}

// Loss judges whether the server knows of messages it lost.
func (s StreamStatus) Loss() Finding {
	f := Finding{
		Check: "lost", Of: s.Stream, Level: LevelOK, Found: "the server knows of no lost message", Remedy: nothing,
		Why: "a message whose block cannot be read is gone though it was acknowledged",
	}
	if s.Lost > 0 {
		f.Level = LevelFail
		f.Found = fmt.Sprintf("the server lost %d messages that were stored", s.Lost)
		f.Remedy = "check the disk, and publish again what is missing: find its gaps by sequence"
		if s.Replicas <= 1 {
			f.Remedy += "; keep three replicas on a cluster"
		}
	}
	return f
}

// bytesOf is a number of bytes for people.
func bytesOf(n uint64) string {
	f := float64(n)
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if f < 1024 {
			return fmt.Sprintf("%.4g %s", f, unit)
		}
		f /= 1024
	}
	return fmt.Sprintf("%.4g TiB", f)
}
