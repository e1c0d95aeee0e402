package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// MinRetention is the shortest time a tenant's messages may be kept.
const MinRetention = time.Second

// retentionEvery is how often what is older than age is looked for: what is kept too long is kept so a tenth longer at most, and an hour.
// No more often: to delete one tenant's messages the server reads every block that has any of them, and holds the stream meanwhile, for
// about half a second a gigabyte.
func retentionEvery(ages map[string]time.Duration) time.Duration {
	every := time.Hour
	for _, age := range ages {
		every = min(every, max(age/10, time.Second))
	}
	return every
}

// RetentionOptions say how long which tenant's messages are kept.
type RetentionOptions struct {
	// Tenants is how long a tenant's events, deliveries, index entries and dead letters are kept, from when they were stored. What the
	// streams keep for a shorter time goes with that.
	Tenants map[string]time.Duration
	// Every is how often what is older is looked for, default a tenth of the shortest time, 1 s at least and 1 h at most.
	Every time.Duration
	// Cover writes the checkpoint of a conversation, so that its state can do without the events that go; see handlers.Checkpoint. Without
	// it a conversation whose checkpoint lacks a committed event keeps that, and with it what is after it.
	Cover func(ctx context.Context, tenant, conversation string) error
}

// Validate tells of every setting that cannot be.
func (o RetentionOptions) Validate() error {
	var errs []error
	for _, tenant := range slices.Sorted(maps.Keys(o.Tenants)) {
		if _, err := subjects.Encode(tenant); err != nil {
			errs = append(errs, fmt.Errorf("retention: tenant: %w", err))
		}
		if age := o.Tenants[tenant]; age < MinRetention {
			errs = append(errs, fmt.Errorf("retention of tenant %q %v: give at least %v", tenant, age, MinRetention))
		}
	}
	return errors.Join(errs...)
}

// Retention deletes what is older than its tenant's messages are kept. It never deletes an event that a handler has not finished, nor
// anything stored since the oldest of those was; who is a member is not touched, nor are checkpoints. Agents whose position lies before
// what was deleted are told that it has expired.
//
// Several processes may do this at once. The host ends it with Close, before it closes the bus.
type Retention struct {
	bus    *Bus
	o      RetentionOptions
	log    hclog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
}

// WatchRetention begins to delete what is older than o says.
func (b *Bus) WatchRetention(o RetentionOptions) (*Retention, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.Every = cmp.Or(o.Every, retentionEvery(o.Tenants))
	r := &Retention{bus: b, o: o, log: b.log.Named("retention"), done: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(b.ctx)
	go r.run()
	return r, nil
}

// Close ends it. It may be called more than once.
func (r *Retention) Close() error {
	r.cancel()
	<-r.done
	return nil
}

func (r *Retention) run() {
	defer close(r.done)
	troubled := map[string]bool{}
	for {
		next := r.o.Every
		for _, tenant := range slices.Sorted(maps.Keys(r.o.Tenants)) {
			purged, err := r.bus.retain(r.ctx, tenant, r.o.Tenants[tenant], r.o.Cover)
			if r.ctx.Err() != nil {
				return
			}
			switch {
			case err != nil && !troubled[tenant]:
				r.log.Warn("what is older than a tenant's messages are kept is not deleted, trying again", "tenant", tenant, "error", err)
			case err == nil && troubled[tenant]:
				r.log.Info("what is older than a tenant's messages are kept is deleted again", "tenant", tenant)
			}
			if troubled[tenant] = err != nil; err != nil {
				next = min(next, time.Minute)
			}
			if purged > 0 {
				r.log.Debug("deleted what is older than the tenant's messages are kept", "tenant", tenant, "messages", purged)
			}
		}
		select {
		case <-r.ctx.Done():
			return
		case <-time.After(next):
		}
	}
}

// retain deletes what of a tenant is older than age; it returns how many messages that were.
func (b *Bus) retain(ctx context.Context, tenant string, age time.Duration, cover func(context.Context, string, string) error) (uint64, error) {
	cutoff, floor, err := b.retainable(ctx, age)
	if err != nil || cutoff.IsZero() {
		return 0, err
	}
	of := retained{bus: b, tenant: tenant, cutoff: cutoff}
	if err := of.bounds(ctx); err != nil {
		return 0, err
	}
	of.before[StreamEvents] = min(of.before[StreamEvents], floor)
	if err := of.keepUncovered(ctx, cover); err != nil {
		return 0, err
	}
	return of.purge(ctx)
}

// retainable is the time before which everything may go that is older than age, and the sequence in CIM_EVENTS: nothing that a handler has
// not finished, and nothing that is made of it. Zero: nothing may.
func (b *Bus) retainable(ctx context.Context, age time.Duration) (time.Time, uint64, error) {
	info, err := b.streamInfo(ctx, StreamEvents)
	if err != nil {
		return time.Time{}, 0, err
	}
	now := info.TimeStamp
	if now.IsZero() {
		now = time.Now()
	}
	cutoff, floor := now.Add(-age), info.State.LastSeq+1
	events, err := b.streamStatus(ctx, StreamEvents)
	if err != nil {
		return time.Time{}, 0, err
	}
	handlers := 0
	for _, c := range events.Consumers {
		if c.handler() == "" {
			continue
		}
		handlers++
		if c.Lag == 0 {
			continue
		}
		floor = min(floor, c.AckFloor+1)
		oldest, err := b.oldestWaiting(ctx, c)
		if err != nil {
			return time.Time{}, 0, err
		}
		if !oldest.IsZero() && oldest.Before(cutoff) {
			cutoff = oldest
		}
	}
	if handlers == 0 {
		return time.Time{}, 0, nil // nobody has handled anything
	}
	return cutoff, floor, nil
}

// retained is what of a tenant is to go.
type retained struct {
	bus    *Bus
	tenant string
	cutoff time.Time
	before map[string]uint64 // by stream: what lies before this sequence goes
}

// filters are the tenant's subjects in the streams that are retained, in the order in which they are purged.
func (r *retained) filters() ([]retainedFilter, error) {
	var all []retainedFilter
	tenant := subjects.Is(r.tenant)
	dead := subjects.DeadLetterFilter{Tenant: tenant}
	for _, f := range []struct {
		stream string
		filter filter
	}{
		{StreamDeliveries, filterOf(subjects.DeliveryFilter{Tenant: tenant}.Subject())},
		{StreamDeadLetters, filterOf(dead.Subject())},
		{StreamDeadLetters, filterOf(dead.Redrive())},
		{StreamEvents, filterOf(subjects.EventFilter{Tenant: tenant}.Subject())},
		{StreamIndex, filterOf(subjects.IndexFilter{Tenant: tenant}.Subject())},
	} {
		if f.filter.err != nil {
			return nil, f.filter.err
		}
		all = append(all, retainedFilter{f.stream, f.filter.subject})
	}
	return all, nil
}

type retainedFilter struct{ stream, subject string }

// bounds finds where in each stream the cutoff lies.
func (r *retained) bounds(ctx context.Context) error {
	r.before = map[string]uint64{}
	for _, name := range []string{StreamDeliveries, StreamDeadLetters, StreamEvents, StreamIndex} {
		info, err := r.bus.streamInfo(ctx, name)
		if err != nil {
			return err
		}
		if info.State.Msgs == 0 {
			continue
		}
		at := &RangeError{Stream: name, First: info.State.FirstSeq, Last: info.State.LastSeq}
		if r.before[name], err = r.bus.firstSince(ctx, at, r.cutoff); err != nil {
			return err
		}
	}
	return nil
}

// span is what of a conversation is to go.
type span struct {
	event, entry uint64 // the first event and the first index entry, 0 = none
	last         uint64 // the last event, or the one the last entry is of
}

// keepUncovered makes sure that every conversation's state can be loaded without what goes: its checkpoint has to have that folded in.
// Where it has not, and cannot be made to, that stays, and all after it.
func (r *retained) keepUncovered(ctx context.Context, cover func(context.Context, string, string) error) error {
	spans, err := r.spans(ctx)
	if err != nil {
		return err
	}
	for conversation, s := range spans {
		covered, err := r.covered(ctx, conversation, s.last)
		if err == nil && !covered && cover != nil {
			if err = cover(ctx, r.tenant, conversation); err == nil {
				covered, err = r.covered(ctx, conversation, s.last)
			}
		}
		if err != nil {
			return fmt.Errorf("checkpoint of a conversation: %w", err)
		}
		if covered {
			continue
		}
		if s.event > 0 {
			r.before[StreamEvents] = min(r.before[StreamEvents], s.event)
		}
		if s.entry > 0 {
			r.before[StreamIndex] = min(r.before[StreamIndex], s.entry)
		}
	}
	return nil
}

// spans are what is to go, by conversation. An entry is stored later than its event, perhaps much later: both are looked at.
func (r *retained) spans(ctx context.Context) (map[string]*span, error) {
	spans := map[string]*span{}
	of := func(conversation string) *span {
		if spans[conversation] == nil {
			spans[conversation] = &span{}
		}
		return spans[conversation]
	}
	err := r.read(ctx, StreamEvents, filterOf(subjects.EventFilter{Tenant: subjects.Is(r.tenant)}.Subject()), func(m *jetstream.RawStreamMsg) {
		name, err := subjects.ParseEvent(m.Subject)
		conversation := conversationIn(m)
		if err != nil || conversation == "" || cim.IsTransient(name.Event) {
			return // of no state
		}
		if _, err := subjects.Encode(conversation); err != nil {
			return
		}
		s := of(conversation)
		s.event, s.last = cmp.Or(s.event, m.Sequence), max(s.last, m.Sequence)
	})
	if err != nil {
		return nil, err
	}
	err = r.read(ctx, StreamIndex, filterOf(subjects.IndexFilter{Tenant: subjects.Is(r.tenant)}.Subject()), func(m *jetstream.RawStreamMsg) {
		if name, err := subjects.ParseIndex(m.Subject); err == nil && name.Conversation != "" {
			s := of(name.Conversation)
			s.entry, s.last = cmp.Or(s.entry, m.Sequence), max(s.last, SequenceOf(m.Header))
		}
	})
	return spans, err
}

// read visits what of a stream is to go.
func (r *retained) read(ctx context.Context, stream string, filter filter, visit func(*jetstream.RawStreamMsg)) error {
	if filter.err != nil || r.before[stream] < 2 {
		return filter.err
	}
	for m, err := range r.bus.Read(ctx, Range{Stream: stream, Filter: filter.subject, Upto: r.before[stream] - 1, Batch: 1024}) {
		if err != nil {
			return err
		}
		visit(m)
	}
	return nil
}

// covered tells whether a conversation's checkpoint has an event folded in, or all there is.
func (r *retained) covered(ctx context.Context, conversation string, event uint64) (bool, error) {
	last, err := r.bus.lastEntry(ctx, r.tenant, conversation)
	if errors.Is(err, ErrNoMessage) {
		return true, nil // nothing is loaded from the index
	}
	if err != nil {
		return false, err
	}
	subject, err := subjects.ConversationKey{Tenant: r.tenant, Conversation: conversation}.Subject()
	if err != nil {
		return false, err
	}
	m, err := r.bus.LastMessage(ctx, StreamConversations, subject)
	if errors.Is(err, ErrNoMessage) {
		return false, nil
	}
	return err == nil && SequenceOf(m.Header) >= min(event, last.Sequence), err
}

// purge deletes what goes. Before deliveries go it is noted where, for the positions of agents.
func (r *retained) purge(ctx context.Context) (uint64, error) {
	filters, err := r.filters()
	if err != nil {
		return 0, err
	}
	var purged uint64
	for _, f := range filters {
		before := r.before[f.stream]
		first, err := r.bus.NextMessage(ctx, f.stream, 1, f.subject)
		if errors.Is(err, ErrNoMessage) || err == nil && first.Sequence >= before {
			continue
		}
		if err != nil {
			return purged, err
		}
		if f.stream == StreamDeliveries {
			if err := r.note(ctx, before); err != nil {
				return purged, err
			}
		}
		stream, err := r.bus.js.Stream(ctx, f.stream)
		if err != nil {
			return purged, err
		}
		had := stream.CachedInfo().State.Msgs
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(f.subject), jetstream.WithPurgeSequence(before)); err != nil {
			return purged, fmt.Errorf("purge %s: %w", f.stream, err)
		}
		if info, err := stream.Info(ctx); err == nil && info.State.Msgs < had {
			purged += had - info.State.Msgs // about: others store and delete, too
		}
	}
	return purged, nil
}

// metadataPurged and a tenant's token is the key in the metadata of CIM_DELIVERIES of the sequence before which the tenant's deliveries were
// deleted.
const metadataPurged = "cimbus-purged-"

func (r *retained) note(ctx context.Context, before uint64) error {
	token, err := subjects.Encode(r.tenant)
	if err != nil {
		return err
	}
	return r.bus.patiently(ctx, func(ctx context.Context) error {
		stream, err := r.bus.js.Stream(ctx, StreamDeliveries)
		if err != nil {
			return err
		}
		config := stream.CachedInfo().Config
		config.Metadata = maps.Clone(config.Metadata)
		if config.Metadata == nil {
			config.Metadata = map[string]string{}
		}
		if purgedBefore(config.Metadata, token) >= before {
			return nil
		}
		config.Metadata[metadataPurged+token] = strconv.FormatUint(before, 10)
		_, err = r.bus.js.UpdateStream(ctx, config)
		return err
	})
}

// purgedBefore is the sequence before which deliveries of a tenant were deleted, 0 if none were.
func purgedBefore(metadata map[string]string, token string) uint64 {
	n, err := strconv.ParseUint(metadata[metadataPurged+token], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// tenantToken is the tenant's token in a subject or filter; "" where that is no literal.
func tenantToken(subject string) string {
	_, rest, _ := strings.Cut(subject, ".")
	token, _, _ := strings.Cut(rest, ".")
	return token
}
