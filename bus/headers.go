package bus

import (
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
)

// The headers of the bus, spelled exactly so on the wire.
const (
	HeaderConversation   = "Cim-Conversation-Id"  // conversation of an event; the first in the chain that finds it
	HeaderChannel        = "Cim-Channel"          // the channel type's name in its original spelling
	HeaderEventID        = "Cim-Event-Id"         // the event's id
	HeaderEventName      = "Cim-Event-Name"       // the event's name
	HeaderSequence       = "Cim-Sequence"         // on derived messages: the event's sequence in CIM_EVENTS, decimal
	HeaderSourceSubject  = "Cim-Source-Subject"   // on derived messages: the subject the event was published on
	HeaderSourceTime     = "Cim-Source-Time"      // on derived messages: when the event was stored, RFC 3339
	HeaderOutcome        = "Cim-Outcome"          // on index entries: what became of the event
	HeaderReplayID       = "Cim-Replay-Id"        // on what a replay sent
	HeaderTransient      = "Cim-Transient"        // "true" on live messages that no stream keeps
	HeaderStatus         = "Cim-Status"           // on control replies: "end" closes a page
	HeaderRedriveOf      = "Cim-Redrive-Of"       // on redriven events, and the dead letters they become: the dead letter's sequence
	HeaderRedriveHandler = "Cim-Redrive-Handler"  // on redriven and replayed events: the only handler that acts on it
	HeaderReplayOf       = "Cim-Replay-Of"        // on events replayed for a handler: the sequence of the event they are a copy of
	HeaderImport         = "Cim-Import"           // on imported events: "history" = no handler acts on it, or "handle"
	HeaderReason         = "Cim-Reason"           // on dead letters: the reason's class
	HeaderError          = "Cim-Error"            // on dead letters: the message of the last error
	HeaderAttempts       = "Cim-Attempts"         // on dead letters: how often the event was tried, decimal
	HeaderHandler        = "Cim-Handler"          // on dead letters: the handler that gave up
	HeaderFirstAttempt   = "Cim-First-Attempt"    // on dead letters: when the event was first tried, RFC 3339
	HeaderLastAttempt    = "Cim-Last-Attempt"     // on dead letters: when it was given up, RFC 3339
	HeaderIndexSequence  = "Cim-Index-Sequence"   // on checkpoints: the index entry of the event they end with
	HeaderTruncated      = "Cim-Payload-Left-Out" // on dead letters that went without a payload too large for the server: its size in bytes
)

// Outcomes of an event, as its index entry names them.
const (
	OutcomeDelivered  = "delivered"
	OutcomeDropped    = "dropped"
	OutcomeDeadLetter = "dead-letter"
	OutcomeImported   = "imported" // as history: no handler acted on it, and it is not in the state
)

// LastHeader returns the last value of key, "" if there is none. The server appends its own Nats-* headers after those a
// publisher sent, so the last value is the server's and the first may be forged; nats.Header.Get reads the first.
func LastHeader(h nats.Header, key string) string {
	if v := h[key]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// SequenceOf returns the Cim-Sequence of a derived message, 0 if it carries none that can be read.
func SequenceOf(h nats.Header) uint64 {
	s, err := strconv.ParseUint(LastHeader(h, HeaderSequence), 10, 64)
	if err != nil {
		return 0
	}
	return s
}

// Foreign returns a copy of h without any Nats-* or Cim-* header, in whatever case: what may be taken over from a message
// that somebody else published, its trace context among it. A copied Nats-Expected-Stream makes a derived publish fail, a forged Nats-Sequence would be
// read for the server's. Status and Description go too: with an empty body, as index entries have, nats.go's consumers take a
// message that carries them for a word of the server.
func Foreign(h nats.Header) nats.Header {
	out := make(nats.Header)
	for k, v := range h {
		if !reserved(k) {
			out[k] = slices.Clone(v)
		}
	}
	return out
}

func reserved(key string) bool {
	return len(key) >= 4 && strings.EqualFold(key[:4], "cim-") || len(key) >= 5 && strings.EqualFold(key[:5], "nats-") ||
		strings.EqualFold(key, "Status") || strings.EqualFold(key, "Description")
}
