package handlers

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/subjects"
)

// Handler declares a handler to Start.
type Handler struct {
	// Name names the durable, the dead letters and the log lines: 1 to 32 of A-Z a-z 0-9 _ -. Processes that start a handler of the
	// same name on the same NATS share its work: one acts, the others stand by.
	Name string
	// Handle turns an event into deliveries.
	Handle Func
	// Types are the delivery types this handler owns; a delivery of another type is refused.
	Types []string
	// NewState makes the state of a conversation before its first event. With it the handler is the conversations' committing
	// one: it keeps member records, index and checkpoints, and there is one such handler on a bus, onCimEvent.
	NewState func(tenant, conversation string) State
	// FromStart makes a new durable begin with the oldest event stored instead of the next one published.
	FromStart bool
	// Retry is the policy for errors of Handle; the zero value is the default one.
	Retry RetryPolicy
	// AttemptTimeout bounds one call of Handle, default 30 s.
	AttemptTimeout time.Duration

	// AckWait is how long the server waits for an acknowledgement or a sign of life before it delivers again; default 5 s.
	AckWait time.Duration
	// PinnedTTL is how long a process that went silent keeps the work before a standby takes over; default 3 s.
	PinnedTTL time.Duration
	// PullExpiry is the life of one pull request and so the rhythm of the signs of life; below PinnedTTL/2, default 1 s.
	PullExpiry time.Duration
	// MaxAckPending bounds the events handed out and not acknowledged; default 16,384.
	MaxAckPending int
	// HoldBytes bounds the payloads held in memory, default 128 MiB. Of events taken beyond it only the sequence is kept, and they
	// are read again when their turn comes.
	HoldBytes int
	// Parallel bounds the events worked on at once, over which the tenants take turns; default 256.
	Parallel int
}

const (
	defaultAckWait        = 5 * time.Second
	defaultPinnedTTL      = 3 * time.Second
	defaultPullExpiry     = time.Second
	defaultMaxAckPending  = 16384
	defaultHoldBytes      = 128 << 20
	defaultParallel       = 256
	defaultAttemptTimeout = 30 * time.Second
	maxHandlerName        = 32

	// maxHeld is how many waiting events of one conversation are held whole; of those behind them only the sequence is kept.
	maxHeld = 256
	// maxWaiting is how many events of one conversation may wait at all; with more its head becomes a dead letter.
	maxWaiting = 4096
)

// withDefaults fills in what was left zero.
func (h Handler) withDefaults() Handler {
	h.Retry = h.Retry.withDefaults()
	h.AttemptTimeout = cmp.Or(h.AttemptTimeout, defaultAttemptTimeout)
	h.AckWait = cmp.Or(h.AckWait, defaultAckWait)
	h.PinnedTTL = cmp.Or(h.PinnedTTL, defaultPinnedTTL)
	h.PullExpiry = cmp.Or(h.PullExpiry, defaultPullExpiry)
	h.MaxAckPending = cmp.Or(h.MaxAckPending, defaultMaxAckPending)
	h.HoldBytes = cmp.Or(h.HoldBytes, defaultHoldBytes)
	h.Parallel = cmp.Or(h.Parallel, defaultParallel)
	return h
}

// Validate reports everything that is wrong with the declaration at once.
func (h Handler) Validate() error {
	h = h.withDefaults()
	var errs []error
	reserved := map[string]bool{"onCimEvent": true, "topicUnsubscription": true, "replay": true}
	bad := func(field, problem string) {
		errs = append(errs, fmt.Errorf("handler %q: %s: %s", h.Name, field, problem))
	}
	if token, err := subjects.Encode(h.Name); err != nil || token != h.Name || len(h.Name) > maxHandlerName {
		bad("name", "use 1 to 32 of A-Z a-z 0-9 _ -")
	}
	if h.Handle == nil {
		bad("handle", "missing; give the function that handles an event")
	}
	if len(h.Types) == 0 {
		bad("types", "empty; name the delivery types the handler makes")
	}
	for _, t := range h.Types {
		if reserved[t] && h.NewState == nil {
			bad("types", t+" belongs to the bus's own handlers; choose another name")
		}
		if _, err := subjects.Encode(t); err != nil {
			bad("types", err.Error())
		}
	}
	if h.PullExpiry >= h.PinnedTTL/2 {
		bad("pull expiry", fmt.Sprintf("%v must be below half of the pinned TTL of %v, or a busy worker loses its place", h.PullExpiry, h.PinnedTTL))
	}
	if h.AckWait < time.Second {
		bad("ack wait", fmt.Sprintf("%v is shorter than a second", h.AckWait))
	}
	if h.MaxAckPending < 1 {
		bad("max ack pending", fmt.Sprintf("%d is below 1", h.MaxAckPending))
	}
	if h.HoldBytes < 0 {
		bad("hold bytes", fmt.Sprintf("%d is negative", h.HoldBytes))
	}
	if h.Parallel < 1 {
		bad("parallel", fmt.Sprintf("%d is below 1", h.Parallel))
	}
	return errors.Join(append(errs, h.Retry.validate(h.Name))...)
}

// durable is the consumer's name on CIM_EVENTS.
func (h Handler) durable() string { return bus.HandlerConsumer(h.Name) }

// owns tells whether the handler may make deliveries of a type.
func (h Handler) owns(deliveryType string) bool {
	return slices.Contains(h.Types, deliveryType)
}
