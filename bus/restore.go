package bus

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// What keeps a snapshot from being restored.
var (
	ErrHandlersRun = errors.New("a process runs a handler: stop it first")
	ErrStreamsHold = errors.New("there are streams that hold something, which would be lost")
)

// RestorePlan is what restoring a snapshot would do, as of now.
type RestorePlan struct {
	Snapshot *Snapshot
	Streams  []RestoreStream
	Running  []string // handlers that a process runs: nothing is restored while there are any
}

// RestoreStream is one stream to be restored.
type RestoreStream struct {
	SnapshotStream
	Exists bool
	// Holds is what the stream that is there holds, and would be lost; 0 of one that is empty or was never restored to the end.
	Holds uint64
	// Aged: everything in the copy is older than the stream keeps, and goes at once.
	Aged bool

	config jetstream.StreamConfig
}

// Holds are the plan's streams that would lose something.
func (p RestorePlan) Holds() []RestoreStream {
	return slices.DeleteFunc(slices.Clone(p.Streams), func(s RestoreStream) bool { return s.Holds == 0 })
}

// PlanRestore tells what Restore would do. The streams are restored as they are declared here, whatever they were declared as when the
// snapshot was taken.
func (b *Bus) PlanRestore(ctx context.Context, s *Snapshot) (RestorePlan, error) {
	plan := RestorePlan{Snapshot: s}
	handlers, err := b.Handlers(ctx)
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return plan, fmt.Errorf("plan restore: %w", err)
	}
	for _, h := range handlers {
		if h.Worker != WorkerNone {
			plan.Running = append(plan.Running, h.Handler)
		}
	}
	if err := b.streams.Validate(); err != nil {
		return plan, err
	}
	p, err := b.place(ctx)
	if err != nil {
		return plan, fmt.Errorf("plan restore: %w", err)
	}
	declared := map[string]jetstream.StreamConfig{}
	for _, c := range b.streams.declare(p) {
		declared[c.Name] = c
	}
	for _, stream := range s.Streams {
		config, known := declared[stream.Stream]
		if !known {
			return plan, fmt.Errorf("%s: %w (stream %s is not known here)", s.dir, ErrNewerSnapshot, stream.Stream)
		}
		config.FirstSeq = 0 // the copy has its own beginning
		r := RestoreStream{SnapshotStream: stream, config: config}
		r.Aged = config.MaxAge > 0 && stream.Messages > 0 && time.Since(stream.lastTime()) > config.MaxAge
		info, err := b.streamInfo(ctx, stream.Stream)
		if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return plan, fmt.Errorf("plan restore: stream %s: %w", stream.Stream, err)
		}
		if r.Exists = err == nil; r.Exists && info.Config.Metadata[metadataRestoring] == "" {
			r.Holds = info.State.Msgs
		}
		plan.Streams = append(plan.Streams, r)
	}
	return plan, nil
}

func (s SnapshotStream) lastTime() time.Time {
	var state jetstream.StreamState
	if json.Unmarshal(s.State, &state) != nil {
		return time.Time{}
	}
	return state.LastTime
}

// RestoreOptions are how a snapshot is restored.
type RestoreOptions struct {
	// Force: streams that hold something are deleted for it.
	Force bool
	// Progress hears how far it is, often; nil = nobody does. It must not block.
	Progress func(SnapshotProgress)
}

// Restore carries out a plan of PlanRestore of the same bus: it verifies the snapshot, deletes the streams that are there and restores
// all, so that handlers go on where they were when the snapshot was taken. No process may run a handler meanwhile.
//
// A restored bus is recognised: its streams say of which snapshot they are, the log and the doctor too, and of the positions given out
// before those are good that lie within the snapshot; the others have expired, as ExpiredRestored.
//
// Broken off, nothing is left of it, or streams that no bus opens until they are restored to the end.
func (b *Bus) Restore(ctx context.Context, plan RestorePlan, o RestoreOptions) error {
	if err := plan.allowed(o.Force); err != nil {
		return err
	}
	if err := plan.Snapshot.Verify(ctx); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	// Between the plan and its confirmation, or while a large snapshot was read, a daemon may have started and events may have come.
	plan, err := b.PlanRestore(ctx, plan.Snapshot)
	if err != nil {
		return err
	}
	if err := plan.allowed(o.Force); err != nil {
		return err
	}
	r := restoring{bus: b, plan: plan, progress: o.Progress}
	if err := r.run(ctx); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), apiTry)
		defer cancel()
		return fmt.Errorf("restore: %w", errors.Join(err, r.undo(ctx)))
	}
	b.log.Info("restored from a snapshot", "taken", plan.Snapshot.Taken, "dir", plan.Snapshot.dir)
	return nil
}

// allowed tells why a plan must not be carried out.
func (p RestorePlan) allowed(force bool) error {
	if len(p.Running) > 0 {
		return fmt.Errorf("restore: %w (%s)", ErrHandlersRun, p.Running[0])
	}
	if holds := p.Holds(); len(holds) > 0 && !force {
		return fmt.Errorf("restore: %w: %s has %d messages; take a snapshot of them, then force it", ErrStreamsHold, holds[0].Stream, holds[0].Holds)
	}
	return nil
}

type restoring struct {
	bus      *Bus
	plan     RestorePlan
	progress func(SnapshotProgress)
	begun    []string // streams that were begun
}

func (r *restoring) run(ctx context.Context) error {
	for _, s := range r.plan.Streams {
		if s.Exists {
			if err := r.bus.js.DeleteStream(ctx, s.Stream); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
				return fmt.Errorf("delete stream %s: %w", s.Stream, err)
			}
		}
	}
	for _, s := range r.plan.Streams {
		r.begun = append(r.begun, s.Stream)
		if err := r.stream(ctx, s); err != nil {
			return fmt.Errorf("stream %s: %w", s.Stream, err)
		}
	}
	if err := r.handlers(ctx); err != nil {
		return err
	}
	for _, s := range r.plan.Streams {
		if err := r.finish(ctx, s); err != nil {
			return fmt.Errorf("stream %s: %w", s.Stream, err)
		}
	}
	if r.bus.server != nil {
		return r.bus.server.Sync()
	}
	return nil
}

// undo deletes what was begun: parts of a bus are none.
func (r *restoring) undo(ctx context.Context) error {
	var errs []error
	for _, name := range r.begun {
		if err := r.bus.js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			errs = append(errs, fmt.Errorf("stream %s is left, in parts: restore again: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// stream restores one stream, marked as not finished.
func (r *restoring) stream(ctx context.Context, s RestoreStream) error {
	config := s.config
	config.Metadata = map[string]string{metadataRestoring: r.plan.Snapshot.Taken.Format(time.RFC3339)}
	maps.Copy(config.Metadata, s.Metadata)
	request, err := json.Marshal(map[string]any{"config": config, "state": s.State})
	if err != nil {
		return err
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Deliver string              `json:"deliver_subject"`
	}
	if err := r.bus.ask(ctx, "$JS.API.STREAM.RESTORE."+s.Stream, request, &answer); err != nil {
		return err
	}
	if answer.Error != nil {
		return explain(answer.Error, max(config.MaxBytes, 0))
	}
	if err := r.upload(ctx, s, answer.Deliver); err != nil {
		return err
	}
	if err := r.replicated(ctx, s.Stream); err != nil {
		return err
	}
	if s.Late == nil {
		return nil
	}
	return r.late(ctx, *s.Late)
}

// restoreBlock is how much of a stream, uncompressed, is sent at a time. The server gives up where it takes more than five seconds to store
// what came at once; one that syncs each message stores some hundred in a second, and the blocks of a snapshot hold thousands.
const restoreBlock = 16 << 10

// upload sends the copy in blocks, each acknowledged once it is stored; an empty one is the end.
func (r *restoring) upload(ctx context.Context, s RestoreStream, subject string) (err error) {
	file, err := os.Open(filepath.Join(r.plan.Snapshot.dir, s.File))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	read := &counted{r: file}
	send := uploadTo(func(chunk []byte) error {
		var answer struct {
			Error *jetstream.APIError `json:"error"`
		}
		if err := r.bus.ask(ctx, subject, chunk, &answer); err != nil {
			return err
		}
		if answer.Error != nil {
			return explain(answer.Error, max(s.config.MaxBytes, 0))
		}
		if r.progress != nil {
			r.progress(SnapshotProgress{s.Stream, read.n, s.Bytes})
		}
		return nil
	})
	w := s2.NewWriter(send, s2.WriterBlockSize(restoreBlock), s2.WriterConcurrency(1))
	if _, err := io.Copy(w, s2.NewReader(read)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return send(nil)
}

// uploadTo sends what is written.
type uploadTo func([]byte) error

func (send uploadTo) Write(b []byte) (int, error) {
	if err := send(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// counted counts what is read.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

// late stores what came while the stream was copied.
func (r *restoring) late(ctx context.Context, f SnapshotFile) (err error) {
	file, err := os.Open(filepath.Join(r.plan.Snapshot.dir, f.File))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	for in := json.NewDecoder(bufio.NewReader(file)); ; {
		var m lateMessage
		if err := in.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		h := nats.Header{}
		for key, values := range m.Header {
			if key == headerTTL || !reserved(key) || len(key) >= 4 && key[:4] == "Cim-" { // not what was expected of another stream
				h[key] = values
			}
		}
		if _, err := r.bus.js.PublishMsg(ctx, &nats.Msg{Subject: m.Subject, Header: h, Data: m.Data}); err != nil {
			return err
		}
	}
}

const headerTTL = "Nats-TTL"

// replicated waits until every server that keeps the stream has it whole. The server answers before that, and who stores something
// meanwhile loses it.
func (r *restoring) replicated(ctx context.Context, name string) error {
	return r.eventually(ctx, func(ctx context.Context) error {
		s, err := r.bus.js.Stream(ctx, name)
		if err != nil {
			return err
		}
		c := s.CachedInfo().Cluster
		if c == nil {
			return nil
		}
		for _, p := range c.Replicas {
			if !p.Current || p.Lag > 0 {
				return fmt.Errorf("server %s has not all of it yet", p.Name)
			}
		}
		if c.Leader == "" {
			return errors.New("no server leads it")
		}
		return nil
	})
}

// eventually repeats what a cluster needs some time for.
func (r *restoring) eventually(ctx context.Context, f func(context.Context) error) error {
	for began := time.Now(); ; {
		try, cancel := context.WithTimeout(ctx, apiTry)
		err := f(try)
		cancel()
		if err == nil || ctx.Err() != nil || time.Since(began) > electionWait {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(apiPause):
		}
	}
}

// handlers sets every handler back to where it was before the first stream was copied, and tells it that the streams it reads
// back are whole.
func (r *restoring) handlers(ctx context.Context) error {
	made := map[string]string{}
	for _, s := range r.plan.Streams {
		info, err := r.bus.streamInfo(ctx, s.Stream)
		if err != nil {
			return fmt.Errorf("stream %s: %w", s.Stream, err)
		}
		made[CreatedMark(s.Stream)] = info.Created.UTC().Format(time.RFC3339Nano)
	}
	for _, name := range slices.Sorted(maps.Keys(r.plan.Snapshot.Handlers)) {
		err := r.eventually(ctx, func(ctx context.Context) error { return r.handler(ctx, name, made) })
		// One that was deleted while the snapshot was taken is not in it.
		if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return fmt.Errorf("consumer %s: %w", name, err)
		}
	}
	return nil
}

// handler sets one handler back, and fails until it reads that it is: on a cluster a consumer comes some time after its stream.
func (r *restoring) handler(ctx context.Context, name string, made map[string]string) error {
	c, err := r.bus.js.Consumer(ctx, StreamEvents, name)
	if err != nil {
		return err
	}
	info := c.CachedInfo()
	config := info.Config
	config.Metadata = maps.Clone(config.Metadata)
	whole := true
	for key := range config.Metadata {
		if at := made[key]; at != "" && at != config.Metadata[key] {
			config.Metadata[key], whole = at, false
		}
	}
	from := max(r.plan.Snapshot.Handlers[name]+1, config.OptStartSeq, 1)
	if whole && info.AckFloor.Stream == from-1 && info.NumAckPending == 0 {
		return nil
	}
	if !whole {
		if _, err := r.bus.js.UpdateConsumer(ctx, StreamEvents, config); err != nil {
			return err
		}
	}
	if _, err := r.bus.js.ResetConsumerToSequence(ctx, StreamEvents, name, from); err != nil {
		return fmt.Errorf("set it back to %d: %w", from, err)
	}
	return fmt.Errorf("it is at %d and not set back to %d yet", info.AckFloor.Stream, from)
}

// CreatedMark is the key in the metadata of a handler's durable under which the handler notes when a stream was created that
// everything it has finished is in. A stream that was created at another time it writes again.
func CreatedMark(stream string) string { return "cimbus-created-" + stream }

// finish says in the stream's metadata what it is.
func (r *restoring) finish(ctx context.Context, s RestoreStream) error {
	info, err := r.bus.streamInfo(ctx, s.Stream)
	if err != nil {
		return err
	}
	config := info.Config
	config.Metadata = maps.Clone(config.Metadata)
	delete(config.Metadata, metadataRestoring)
	config.Metadata[metadataRestored] = r.plan.Snapshot.Taken.Format(time.RFC3339Nano)
	config.Metadata[metadataAt] = time.Now().UTC().Format(time.RFC3339Nano)
	config.Metadata[metadataLineage] = s.Lineage.String()
	return r.bus.patiently(ctx, func(ctx context.Context) error {
		_, err := r.bus.js.UpdateStream(ctx, config)
		return err
	})
}
