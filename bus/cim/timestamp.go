package cim

import (
	"strconv"
	"time"
)

// timestamp reads both forms of the platform: epoch milliseconds as a number, on the live path, and ISO 8601 with a zone as a
// string, in stored events. Everything else, and what is not in the years 0 to 9999, is the zero time.
func timestamp(v value) time.Time {
	if v.kind() == '"' {
		return isoTime(v.text())
	}
	return epochTime(v)
}

// The years RFC 3339 can write, in epoch milliseconds.
const (
	firstMilli = -62167219200000
	lastMilli  = 253402300799999
)

func epochTime(v value) time.Time {
	if c := v.kind(); c != '-' && (c < '0' || c > '9') {
		return time.Time{}
	}
	milli, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil { // a fraction or an exponent
		float, err := strconv.ParseFloat(string(v), 64)
		if err != nil || float < firstMilli || float > lastMilli {
			return time.Time{}
		}
		milli = int64(float)
	}
	if milli < firstMilli || milli > lastMilli {
		return time.Time{}
	}
	return time.UnixMilli(milli).UTC()
}

// maxISOTime is more than any sensible form needs: 2024-01-26T12:59:36.836123456+00:00 has 35 bytes.
const maxISOTime = 64

func isoTime(text string) time.Time {
	if len(text) > maxISOTime {
		return time.Time{}
	}
	for _, layout := range [...]string{time.RFC3339, "2006-01-02T15:04:05Z0700"} {
		t, err := time.Parse(layout, text)
		if err != nil {
			continue
		}
		if t = t.UTC(); t.Year() >= 0 && t.Year() <= 9999 {
			return t
		}
	}
	return time.Time{}
}
