package bus

import (
	"fmt"
	"time"
)

// AlarmThreshold is the share of a limit from which it is told that it comes near.
const AlarmThreshold = 0.8

// largestReserve is the room an event of the largest size needs; with less left, or a twentieth of a small limit, a stream counts as full.
const largestReserve = 1 << 20

// whenFull says what becomes of the bus when a stream is full: some refuse, which may stop what needs them, the others forget
// their oldest messages early.
func whenFull(stream string) (level Level, forgets bool, consequence string) {
	switch stream {
	case StreamEvents:
		return LevelFail, false, "publishers are refused (event store is full) until events age out or there are more bytes"
	case StreamMembers:
		return LevelFail, false, "events by which members come or go cannot be committed, and their conversations wait"
	case StreamConversations:
		return LevelWarn, false, "checkpoints are not written, and after a start more events are folded again"
	case StreamDeliveries:
		return LevelWarn, true, "the oldest deliveries go before their age: agents that were away longer hear that their position has expired"
	case StreamIndex:
		return LevelWarn, true, "the oldest entries go before their age: histories begin later, and states are folded from less"
	case StreamReplays:
		return LevelWarn, true, "the oldest records of replays go before their age"
	}
	return LevelWarn, true, "the oldest dead letters go before their age and cannot be redriven any more"
}

// Room judges how near a stream is to its limit of bytes; threshold is the share from which that is a warning.
func (s StreamStatus) Room(threshold float64) Finding {
	level, forgets, consequence := whenFull(s.Stream)
	f := Finding{Check: "room", Of: s.Stream, Level: LevelOK, Why: "when it is full, " + consequence, Remedy: nothing}
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
	f.Level, f.Remedy = LevelWarn, "give the streams more bytes (store_limits.max_bytes, or the account's limit), or keep their messages for less time (streams.….max_age)"
	if s.Bytes+min(limit/20, largestReserve) < limit {
		return f
	}
	f.Found += ": full"
	f.Level = level
	if forgets && s.FirstTime != nil && s.MaxAge > 0 {
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
