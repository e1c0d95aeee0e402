package bus

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// SnapshotOptions are how a snapshot is taken.
type SnapshotOptions struct {
	Version string // of the program that takes it, for the manifest
	// Progress hears how far it is, often; nil = nobody does. It must not block.
	Progress func(SnapshotProgress)
}

// SnapshotProgress is how far the snapshot, or the restoring, of a stream is.
type SnapshotProgress struct {
	Stream string
	Bytes  int64 // of the file, compressed
	Of     int64 // bytes there are in all; of a snapshot as they are stored, uncompressed
}

// snapshotTimeout is how long the server may be silent in the middle of a snapshot.
const snapshotTimeout = 30 * time.Second

// TakeSnapshot copies all declared streams, with their consumers, into a new folder while everything goes on. Nothing is at dir until all of
// it is whole; when it is broken off nothing is left.
//
// The streams are not copied at one moment. They are copied in the reverse order in which they are written: first the checkpoints, then the
// index, then what its entries speak of, last CIM_EVENTS. So nothing in the snapshot speaks of what is not in it. And before all that it is
// noted up to where each handler had come: restored, handlers do again what follows, and their fences find what is there already.
func (b *Bus) TakeSnapshot(ctx context.Context, dir string, o SnapshotOptions) (*Snapshot, error) {
	s, err := b.takeSnapshot(ctx, dir, o)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	b.log.Info("snapshot taken", "dir", dir, "streams", len(s.Streams))
	return s, nil
}

func (b *Bus) takeSnapshot(ctx context.Context, dir string, o SnapshotOptions) (s *Snapshot, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if there, err := os.ReadDir(dir); err == nil && len(there) > 0 {
		return nil, fmt.Errorf("%s is not empty: name a new folder", dir)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil {
		return nil, err
	}
	part, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".part-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(part))
		}
	}()
	s = &Snapshot{Kind: snapshotKind, Format: snapshotFormat, Version: o.Version, Taken: time.Now().UTC(), dir: part}
	if s.Handlers, err = b.handlerFloors(ctx); err != nil {
		return nil, err
	}
	var names []string
	for _, declared := range b.streams.declare(place{maxBytes: -1, replicas: 1}) {
		names = append(names, declared.Name)
	}
	for _, name := range snapshotOrder(names) {
		copied, err := b.snapshotStream(ctx, part, name, o.Progress)
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", name, err)
		}
		s.Streams = append(s.Streams, copied)
	}
	if err := s.writeManifest(); err != nil {
		return nil, err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := os.Rename(part, dir); err != nil {
		return nil, err
	}
	s.dir = dir
	return s, syncDir(filepath.Dir(dir))
}

// snapshotOrder is the reverse of the order in which streams are written for an event. What else is declared speaks of them, too.
func snapshotOrder(names []string) []string {
	order := []string{StreamConversations, StreamIndex, StreamDeadLetters, StreamDeliveries, StreamMembers, StreamEvents}
	rank := func(name string) int { return slices.Index(order, name) } // -1, the others, is first
	names = slices.Clone(names)
	slices.SortStableFunc(names, func(x, y string) int { return rank(x) - rank(y) })
	return names
}

// handlerFloors are the sequences up to which each handler's consumer has everything behind it.
func (b *Bus) handlerFloors(ctx context.Context) (map[string]uint64, error) {
	events, err := b.streamStatus(ctx, StreamEvents)
	if err != nil {
		return nil, err
	}
	floors := map[string]uint64{}
	for _, c := range events.Consumers {
		if c.handler() != "" {
			floors[c.Name] = c.AckFloor
		}
	}
	return floors, nil
}

// snapshotStream copies one stream.
func (b *Bus) snapshotStream(ctx context.Context, dir, name string, progress func(SnapshotProgress)) (SnapshotStream, error) {
	info, err := b.streamInfo(ctx, name)
	if err != nil {
		return SnapshotStream{}, err
	}
	if from := info.Config.Metadata[metadataRestoring]; from != "" {
		return SnapshotStream{}, fmt.Errorf("restoring the snapshot of %s was broken off: finish that first", from)
	}
	s := SnapshotStream{Stream: name, Created: info.Created}
	tell := func(n int64) {
		if progress != nil {
			progress(SnapshotProgress{name, n, int64(info.State.Bytes)})
		}
	}
	s.SnapshotFile, err = writeFile(dir, name+".snapshot", func(w *bufio.Writer) error {
		answer, err := b.download(ctx, name, w, tell)
		if err != nil {
			return err
		}
		s.State = answer.State
		return json.Unmarshal(answer.State, &struct {
			Messages *uint64 `json:"messages"`
			First    *uint64 `json:"first_seq"`
			Last     *uint64 `json:"last_seq"`
		}{&s.Messages, &s.First, &s.Last})
	})
	if err != nil {
		return s, err
	}
	if info, err = b.streamInfo(ctx, name); err != nil { // its marks are not behind its messages
		return s, err
	}
	s.Lineage = lineageOf(info.Config.Metadata).after(streamIdentity(info.Created), s.Last)
	s.Metadata = maps.Clone(info.Config.Metadata)
	maps.DeleteFunc(s.Metadata, func(key, _ string) bool { return !strings.HasPrefix(key, metadataPurged) })
	if info.Config.MaxMsgsPerSubject != 1 {
		return s, nil
	}
	// A message that is replaced while the stream is copied is not in the copy, and the one in its place comes after its end.
	late, err := writeFile(dir, name+".late", func(w *bufio.Writer) error {
		out := json.NewEncoder(w)
		for m, err := range b.Read(ctx, Range{Stream: name, Filter: ">", From: s.Last + 1, Batch: 1024}) {
			if err != nil {
				return err
			}
			if err := out.Encode(lateMessage{m.Subject, m.Header, m.Data}); err != nil {
				return err
			}
		}
		return nil
	})
	s.Late = &late
	return s, err
}

// lateMessage is a message of a stream that keeps one of each subject, stored while the stream was copied.
type lateMessage struct {
	Subject string      `json:"subject"`
	Header  nats.Header `json:"header"`
	Data    []byte      `json:"data"`
}

// snapshotAnswer is the server's answer to a snapshot request.
type snapshotAnswer struct {
	Error *jetstream.APIError `json:"error"`
	State json.RawMessage     `json:"state"`
}

// download has the server send a stream: in chunks, of which it has some on the way at a time, each acknowledged; the last is empty.
func (b *Bus) download(ctx context.Context, stream string, w *bufio.Writer, tell func(int64)) (snapshotAnswer, error) {
	var answer snapshotAnswer
	inbox := b.nc.NewInbox()
	sub, err := b.nc.SubscribeSync(inbox)
	if err != nil {
		return answer, err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection, and then it is over anyway
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return answer, err
	}
	request, err := json.Marshal(map[string]any{"deliver_subject": inbox, "chunk_size": snapshotChunk})
	if err != nil {
		return answer, err
	}
	if err := b.ask(ctx, "$JS.API.STREAM.SNAPSHOT."+stream, request, &answer); err != nil {
		return answer, err
	}
	if answer.Error != nil {
		return answer, answer.Error
	}
	for n := int64(0); ; {
		m, err := nextWithin(ctx, sub, snapshotTimeout)
		if err != nil {
			return answer, err
		}
		if len(m.Data) == 0 {
			if status := m.Header.Get("Status"); status != "" && status != "204" {
				return answer, fmt.Errorf("the server broke it off: %s %s", status, m.Header.Get("Description"))
			}
			return answer, nil
		}
		if _, err := w.Write(m.Data); err != nil {
			return answer, err
		}
		if m.Reply != "" {
			if err := m.Respond(nil); err != nil {
				return answer, err
			}
		}
		n += int64(len(m.Data))
		tell(n)
	}
}

// snapshotChunk is how many bytes go in one message.
const snapshotChunk = 128 << 10

func nextWithin(ctx context.Context, sub *nats.Subscription, d time.Duration) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, d, fmt.Errorf("the server was silent for %s", d))
	defer cancel()
	m, err := sub.NextMsgWithContext(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return m, err
}

// ask asks the streams API a question and reads its answer.
func (b *Bus) ask(ctx context.Context, subject string, request []byte, answer any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, snapshotTimeout, fmt.Errorf("the server was silent for %s", snapshotTimeout))
	defer cancel()
	reply, err := b.nc.RequestWithContext(ctx, subject, request)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return err
	}
	if len(reply.Data) == 0 {
		return nil
	}
	return json.Unmarshal(reply.Data, answer)
}
