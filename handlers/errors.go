package handlers

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"
)

// The reasons of dead letters that the runtime gives by itself; cim's decoding adds its own, handlers theirs.
const (
	ReasonSubjectMismatch = "subject-mismatch" // the event's name is not the subject's
	ReasonBadSubject      = "bad-subject"      // the subject is not in canonical form
	ReasonNoConversation  = "no-conversation"  // no conversation id anywhere
	ReasonBadConversation = "bad-conversation" // the conversation id cannot be a subject token
	ReasonInvalidEvent    = "invalid-event"    // decodable, but not what its name promises
	ReasonFailed          = "handler-failed"   // the last attempt failed
	ReasonPanic           = "panic"            // the handler panicked
	ReasonBadDelivery     = "bad-delivery"     // the handler returned what cannot be delivered
	ReasonStuck           = "stuck"            // it held up more than 4,096 later events of its conversation
	ReasonTooLarge        = "too-large"        // a delivery is above the server's payload limit
)

// retryError, deadLetterError and dropError are the classes of a handler's errors.
type retryError struct {
	after time.Duration
	err   error
}

func (e *retryError) Error() string { return e.err.Error() }
func (e *retryError) Unwrap() error { return e.err }

type deadLetterError struct {
	reason string
	err    error
}

func (e *deadLetterError) Error() string { return e.reason + ": " + e.err.Error() }
func (e *deadLetterError) Unwrap() error { return e.err }

type dropError struct{ reason string }

func (e *dropError) Error() string { return "dropped: " + e.reason }

// Retry says that err may pass: the event is tried again after the given time, or by the policy's backoff if it is zero.
// It counts as an attempt.
func Retry(err error, after time.Duration) error { return &retryError{after: after, err: err} }

// DeadLetter says that trying again is of no use: the event becomes a dead letter with this reason, a short stable class such as
// "unknown-customer", and err's message.
func DeadLetter(reason string, err error) error { return &deadLetterError{reason: reason, err: err} }

// Drop says that nothing is to be done for the event. It is committed without deliveries.
func Drop(reason string) error { return &dropError{reason: reason} }

// contained calls f and makes a panic of it an error that goes to the dead letters with the top of its stack.
func contained[T any](f func() (T, error)) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			buf := make([]byte, 4096)
			err = &deadLetterError{reason: ReasonPanic, err: fmt.Errorf("%v\n%s", p, stackTop(string(buf[:runtime.Stack(buf, false)])))}
		}
	}()
	return f()
}

// stackTop leaves of a stack what lies above the handler's own frames: the lines from the panic on, sixteen at most.
func stackTop(stack string) string {
	lines := strings.Split(strings.TrimSpace(stack), "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, "panic(") && i+2 < len(lines) {
			lines = lines[i+2:]
			break
		}
	}
	return strings.Join(lines[:min(len(lines), 16)], "\n")
}

// errOvertaken says that another worker has gone further in this conversation: what is known of it is stale.
var errOvertaken = errors.New("another worker is ahead in this conversation")

// errStuck ends the attempts at an event that holds up too many others.
var errStuck = errors.New("more than 4,096 later events of the conversation wait for it")

// errTooLarge is a message that the server will never take.
var errTooLarge = errors.New("message above the server's payload limit")
