package handlers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// errRemade ends an epoch when one of the streams its conversations were read from is not the one of its beginning.
var errRemade = errors.New("a stream was deleted and made again")

// creations are when the streams were created that a committing handler reads back: a stream that was deleted and made again is
// empty, and its silence would pass for "this conversation is new".
type creations map[string]time.Time

// readBack are the streams a committing handler reads back and can write again from the others. Checkpoints are not among them:
// without one the conversation is folded from its index.
var readBack = [...]string{bus.StreamIndex, bus.StreamMembers}

// derivedStreams are all that a committing handler writes.
var derivedStreams = [...]string{bus.StreamIndex, bus.StreamMembers, bus.StreamConversations, bus.StreamDeliveries, bus.StreamDeadLetters}

// metadataKey keeps, in the durable's metadata, when a stream was created that everything below the durable's floor is in.
func metadataKey(stream string) string { return "cimbus-created-" + stream }

// restore makes sure, before anything is read back in an epoch, that index and member records are whole: where one was deleted
// and made again since the durable's floor was reached, it is written again. It returns what the epoch holds for given.
func (w *Worker) restore(ctx context.Context) (creations, error) {
	if !w.commits() {
		return nil, nil
	}
	info, err := w.lookUp()
	if err != nil {
		return nil, err
	}
	now, err := w.created(ctx, readBack[:])
	if err != nil {
		return nil, err
	}
	config, changed := info.Config, false
	config.Metadata = maps.Clone(config.Metadata)
	for _, name := range readBack {
		at := now[name].UTC().Format(time.RFC3339Nano)
		known := config.Metadata[metadataKey(name)]
		if known == at {
			continue
		}
		if known != "" {
			// What was finished may be known better than the durable knows, which may have been made anew itself.
			if err := w.rebuild(ctx, name, max(info.AckFloor.Stream+1, w.resumeAt)-1); err != nil {
				return nil, fmt.Errorf("write stream %s again: %w", name, err)
			}
		}
		if config.Metadata == nil {
			config.Metadata = map[string]string{}
		}
		config.Metadata[metadataKey(name)], changed = at, true
	}
	if changed {
		if _, err := w.js.UpdateConsumer(ctx, bus.StreamEvents, config); err != nil {
			return nil, fmt.Errorf("update consumer %s: %w", w.handler.durable(), err)
		}
	}
	w.metadata = config.Metadata
	return now, nil
}

// created asks when the streams were created.
func (w *Worker) created(ctx context.Context, streams []string) (creations, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	c := creations{}
	for _, name := range streams {
		stream, err := w.js.Stream(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", name, err)
		}
		c[name] = stream.CachedInfo().Created
	}
	return c, nil
}

// watchStreams ends the epoch when a stream it reads back is another one than at its beginning, whoever made it. It notices that one is
// gone, too, before it is needed.
func (e *epoch) watchStreams() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-tick.C:
			err := e.sameStreams(e.ctx, derivedStreams[:])
			switch {
			case errors.Is(err, errRemade):
				e.end(err)
				return
			case err == nil:
				e.w.outage.over("streams")
			case e.ctx.Err() == nil:
				e.w.trouble(e.ctx, "streams", err)
			}
		}
	}
}

// watchEvery is how often the streams are looked at. Nothing wrong is written meanwhile: conversation.sameIndex asks where it matters.
const watchEvery = 2 * time.Second

// sameStreams tells whether streams are there, and are those of the epoch's beginning.
func (e *epoch) sameStreams(ctx context.Context, streams []string) error {
	now, err := e.w.created(ctx, streams)
	if err != nil {
		return err
	}
	for name, at := range e.made {
		if then, asked := now[name]; asked && !then.Equal(at) {
			return fmt.Errorf("%w: %s", errRemade, name)
		}
	}
	return nil
}

// rebuild writes one of the streams again that were made anew.
func (w *Worker) rebuild(ctx context.Context, name string, floor uint64) error {
	began := time.Now()
	w.log.Error("a stream was deleted and made again, writing it from the events", "stream", name, "up_to", floor)
	write := w.rebuildIndex
	if name == bus.StreamMembers {
		write = w.rebuildMembers
	}
	n, err := write(ctx, floor)
	if err == nil {
		w.log.Warn("stream written again", "stream", name, "messages", n, "took", time.Since(began).Round(time.Millisecond))
	}
	return err
}

// rebuildIndex writes an entry for every event up to the floor; those above it are done again anyway, which writes theirs. Each message
// expects the last of the whole stream to be the one before it, so that two who do this at once cannot both go on.
func (w *Worker) rebuildIndex(ctx context.Context, floor uint64) (int, error) {
	r := indexRebuild{w: w, committed: map[string]uint64{}, channel: map[string]string{}}
	if err := r.readEntries(ctx); err != nil {
		return 0, err
	}
	var err error
	if r.dead, err = w.buried(ctx); err != nil {
		return 0, err
	}
	if floor == 0 {
		return 0, nil
	}
	for m, err := range w.bus.Read(ctx, bus.Range{Stream: bus.StreamEvents, Filter: subjects.AllEvents, Upto: floor}) {
		if err == nil {
			err = r.write(ctx, m)
		}
		if err != nil {
			return r.written, errors.Join(err, ctx.Err())
		}
	}
	return r.written, r.settle(0)
}

type indexRebuild struct {
	w         *Worker
	last      uint64            // sequence of the last message of the index, sent ones included
	committed map[string]uint64 // by subject: Cim-Sequence of its last entry
	channel   map[string]string // by subject: the channel used last
	dead      map[uint64]bool   // sequences of the handler's dead letters
	sent      []jetstream.PubAckFuture
	written   int
}

// inFlight bounds the entries on their way.
const inFlight = 1024

// readEntries reads what the index has already: a rebuild that was broken off is gone on with.
func (r *indexRebuild) readEntries(ctx context.Context) error {
	stream, err := r.w.js.Stream(ctx, bus.StreamIndex)
	if err != nil {
		return err
	}
	if r.last = stream.CachedInfo().State.LastSeq; r.last == 0 {
		return nil
	}
	for m, err := range r.w.bus.Read(ctx, bus.Range{Stream: bus.StreamIndex, Filter: subjects.AllIndex, Upto: r.last}) {
		if err != nil {
			return err
		}
		r.committed[m.Subject] = bus.SequenceOf(m.Header)
	}
	return nil
}

// buried are the sequences of the events that became dead letters of this handler.
func (w *Worker) buried(ctx context.Context) (map[uint64]bool, error) {
	filter, err := subjects.DeadLetterFilter{Handler: subjects.Is(w.handler.Name)}.Subject()
	if err != nil {
		return nil, err
	}
	dead := map[uint64]bool{}
	for m, err := range w.bus.Read(ctx, bus.Range{Stream: bus.StreamDeadLetters, Filter: filter}) {
		if err != nil {
			return nil, err
		}
		dead[bus.SequenceOf(m.Header)] = true
	}
	return dead, nil
}

func (r *indexRebuild) write(ctx context.Context, m *jetstream.RawStreamMsg) error {
	e, key, why := decode(m.Subject, m.Header, m.Data, m.Sequence, m.Time)
	subject, err := subjects.Index{Tenant: key.tenant, Conversation: key.conversation}.Subject()
	if err != nil {
		return err
	}
	if r.committed[subject] >= e.Sequence || why == nil && cim.IsTransient(e.Name) {
		return nil
	}
	if others, err := newConversation(r.w, key).redrivenForOthers(ctx, &e); err != nil || others {
		return err
	}
	// An event that was dropped cannot be told from one that was delivered to nobody.
	outcome := bus.OutcomeDelivered
	if why != nil || r.dead[e.Sequence] {
		outcome = bus.OutcomeDeadLetter
	}
	h := indexHeader(&e, outcome, r.channel[subject])
	r.channel[subject] = bus.LastHeader(h, bus.HeaderChannel)
	f, err := r.w.js.PublishMsgAsync(&nats.Msg{Subject: subject, Header: h}, jetstream.WithExpectLastSequence(r.last))
	if err != nil {
		return err
	}
	r.last++
	r.committed[subject] = e.Sequence
	r.sent = append(r.sent, f)
	return r.settle(inFlight)
}

// settle waits until no more than so many entries are on their way.
func (r *indexRebuild) settle(most int) error {
	for len(r.sent) > most {
		select {
		case <-r.sent[0].Ok():
			r.written++
		case err := <-r.sent[0].Err():
			return err
		}
		r.sent = r.sent[1:]
	}
	return nil
}

// rebuildMembers writes the member records as they were at the floor: of the members, by the conversations' states, and of those who left,
// as far back as the events go.
func (w *Worker) rebuildMembers(ctx context.Context, floor uint64) (int, error) {
	changes, err := w.membershipChanges(ctx, floor)
	if err != nil {
		return 0, err
	}
	keys, err := w.conversations(ctx)
	if err != nil {
		return 0, err
	}
	written := 0
	for _, key := range keys {
		l := loader{bus: w.bus, log: w.log, newState: w.handler.NewState, key: key, before: floor + 1}
		state, err := l.load(ctx, mark{})
		if err != nil {
			return written, err
		}
		records := memberships(state, changes[key])
		for _, agent := range slices.Sorted(maps.Keys(records)) {
			d, err := w.memberRecord(key, records[agent])
			if err == nil {
				err = newConversation(w, key).publish(ctx, max(floor, 1), d)
			}
			// A record that is there already was written by somebody who knew more.
			if err != nil && !errors.Is(err, errOvertaken) {
				return written, err
			}
			written++
		}
	}
	return written, nil
}

// membershipChanges are the last change of every membership up to the floor that the stored events tell of.
func (w *Worker) membershipChanges(ctx context.Context, floor uint64) (map[laneKey]map[string]membership, error) {
	states := map[laneKey]State{}
	changes := map[laneKey]map[string]membership{}
	if floor == 0 {
		return changes, nil
	}
	for m, err := range w.bus.Read(ctx, bus.Range{Stream: bus.StreamEvents, Filter: subjects.AllEvents, Upto: floor}) {
		if err != nil {
			return nil, err
		}
		if source, err := subjects.ParseEvent(m.Subject); err != nil || !cim.IsMembership(source.Event) {
			continue
		}
		e, key, why := decode(m.Subject, m.Header, m.Data, m.Sequence, m.Time)
		if why != nil {
			continue
		}
		if others, err := newConversation(w, key).redrivenForOthers(ctx, &e); err != nil || others {
			if err != nil {
				return nil, err
			}
			continue
		}
		if states[key] == nil {
			states[key], changes[key] = w.handler.NewState(key.tenant, key.conversation), map[string]membership{}
		}
		changed, err := states[key].Fold(&e)
		if err != nil {
			continue // a dead letter
		}
		for _, c := range changed {
			changes[key][c.Agent] = membership{MemberChange: c, sequence: e.Sequence, stored: e.Stored}
		}
	}
	return changes, nil
}

// memberships are a conversation's records: of the members its state has, and of those who left by what changed.
func memberships(state State, changes map[string]membership) map[string]membership {
	records := map[string]membership{}
	for agent, r := range changes {
		if r.Left != 0 {
			records[agent] = r
		}
	}
	for _, recipient := range state.Audience(&Event{}) {
		m, member := state.Member(recipient.Agent)
		if !member {
			continue
		}
		records[m.Agent] = membership{MemberChange: m, sequence: m.Since}
		if r := changes[m.Agent]; r.MemberChange == m {
			records[m.Agent] = r
		}
	}
	return records
}

// conversations are all that the index or a checkpoint tells of.
func (w *Worker) conversations(ctx context.Context) ([]laneKey, error) {
	keys := map[laneKey]bool{}
	for _, from := range []struct {
		stream, filter string
		parse          func(string) (laneKey, error)
	}{
		{bus.StreamIndex, subjects.AllIndex, func(s string) (laneKey, error) {
			i, err := subjects.ParseIndex(s)
			return laneKey{i.Tenant, i.Conversation}, err
		}},
		{bus.StreamConversations, subjects.AllConversations, func(s string) (laneKey, error) {
			c, err := subjects.ParseConversationKey(strings.TrimPrefix(s, "$KV."+bus.BucketConversations+"."))
			return laneKey{c.Tenant, c.Conversation}, err
		}},
	} {
		stream, err := w.js.Stream(ctx, from.stream)
		if err != nil {
			return nil, err
		}
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(from.filter))
		if err != nil {
			return nil, err
		}
		for subject := range info.State.Subjects {
			if key, err := from.parse(subject); err == nil {
				keys[key] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(keys), func(x, y laneKey) int {
		return cmp.Or(strings.Compare(x.tenant, y.tenant), strings.Compare(x.conversation, y.conversation))
	}), nil
}
