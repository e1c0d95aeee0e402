package handlers

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// invalid says why a stored message is no event.
type invalid struct {
	reason string
	err    error
}

func (i *invalid) Error() string { return i.reason + ": " + i.err.Error() }
func (i *invalid) Unwrap() error { return i.err }

// reasonImported is why an event is not handled that was imported as history: nothing is wrong with it, it gets its index entry and no
// dead letter.
const reasonImported = "imported"

var errImported = errors.New("imported as history")

func (i *invalid) imported() bool { return i != nil && i.reason == reasonImported }

// laneKey names the lane of an event: its conversation, or "" for all events of the tenant that have no usable one.
type laneKey struct{ tenant, conversation string }

// decode reads a stored message. An event that is not valid comes with as much as could be found of it, so that it still has
// a lane and its dead letter a subject.
func decode(subject string, header nats.Header, data []byte, sequence uint64, stored time.Time) (Event, laneKey, *invalid) {
	e := Event{Subject: subject, Header: header, Payload: data, Sequence: sequence, Stored: stored}
	source, err := subjects.ParseEvent(subject)
	if err != nil {
		e.Source = salvage(subject)
		return e, laneKey{tenant: e.Source.Tenant}, &invalid{ReasonBadSubject, err}
	}
	e.Source = source
	key := laneKey{tenant: source.Tenant}
	history := bus.IsImportedHistory(header)
	e.Event, err = cim.Decode(data, bus.LastHeader(header, bus.HeaderConversation))
	if e.Conversation != "" {
		if _, tokenErr := subjects.Encode(e.Conversation); tokenErr != nil {
			return e, key, &invalid{ReasonBadConversation, tokenErr}
		}
		key.conversation = e.Conversation
	}
	var ce *cim.Error
	switch {
	case history:
		return e, key, &invalid{reasonImported, errImported}
	case errors.As(err, &ce):
		return e, key, &invalid{ce.Reason, err}
	case err != nil:
		return e, key, &invalid{ReasonInvalidEvent, err}
	case e.Name != source.Event:
		return e, key, &invalid{ReasonSubjectMismatch, fmt.Errorf("the event is named %.80q, its subject says %.80q: publish it on the subject of its name", e.Name, source.Event)}
	case e.Conversation == "":
		return e, key, &invalid{ReasonNoConversation, fmt.Errorf("no conversation id in the %s header, the wrapper or the event: set one", bus.HeaderConversation)}
	}
	return e, key, nil
}

// salvage names the tokens of a subject that is not canonical as they stand, shortened where they are too long to be names.
func salvage(subject string) subjects.Event {
	tokens := append(strings.Split(subject, "."), "", "", "", "")
	name := func(token string) string {
		if _, err := subjects.Encode(token); err == nil {
			return token
		}
		h := fnv.New64a()
		// A hash never fails to be written to.
		_, _ = h.Write([]byte(token))
		return "unreadable-" + strconv.FormatUint(h.Sum64(), 36)
	}
	return subjects.Event{Tenant: name(tokens[1]), Channel: name(tokens[2]), Event: name(tokens[3])}
}
