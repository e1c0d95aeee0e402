package bus

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Source is the event that a message is made of.
type Source struct {
	Conversation string
	Channel      string // original spelling, "" where it is not known
	ID, Name     string
	Sequence     uint64
	Subject      string
	Stored       time.Time
}

// maxHeaderValue bounds what an event's own words may take in the headers of what is made of it, in bytes.
const maxHeaderValue = 512

// maxTakenOver bounds the publisher's own headers on what is made of an event, in bytes. The server takes 64 KiB of headers a message,
// and a dead letter has some KiB more than its event: one legal event would stop its conversation for ever.
const maxTakenOver = 48 << 10

// DerivedHeader are the headers of everything made of an event: those it was published with that are not reserved, trace context
// included, and the bus's own. The caller may set others, and changes no value in place.
func DerivedHeader(published nats.Header, s Source) nats.Header {
	h := takenOver(published)
	values := make([]string, 0, 7) // one for all, of which each header has its part
	set := func(key, value string) {
		// A header cannot hold a line break; the body and the subject have the name as it is.
		if value != "" && !strings.ContainsAny(value, "\r\n") {
			n := len(values)
			values = append(values, value[:min(len(value), maxHeaderValue)])
			h[key] = values[n : n+1 : n+1]
		}
	}
	set(HeaderConversation, s.Conversation)
	set(HeaderChannel, cmp.Or(s.Channel, LastHeader(published, HeaderChannel)))
	set(HeaderEventID, s.ID)
	set(HeaderEventName, s.Name)
	set(HeaderSequence, strconv.FormatUint(s.Sequence, 10))
	set(HeaderSourceSubject, s.Subject)
	set(HeaderSourceTime, s.Stored.UTC().Format(time.RFC3339Nano))
	return h
}

// takenOver are the headers a publisher sent that are not reserved; where they are too many the largest are left out.
func takenOver(published nats.Header) nats.Header {
	h := Foreign(published)
	size := func(key string) int {
		n := 0
		for _, v := range h[key] {
			n += len(key) + len(v) + len(": \r\n")
		}
		return n
	}
	total := 0
	for key := range h {
		total += size(key)
	}
	if total <= maxTakenOver {
		return h
	}
	keys := slices.SortedFunc(maps.Keys(h), func(x, y string) int { return cmp.Or(cmp.Compare(size(y), size(x)), cmp.Compare(x, y)) })
	for _, key := range keys {
		if total <= maxTakenOver {
			break
		}
		total -= size(key)
		delete(h, key)
	}
	return h
}
