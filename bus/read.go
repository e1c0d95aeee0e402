package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// Range is a stretch of a stream to read.
type Range struct {
	Stream   string
	Filter   string // a subject, or a filter
	From     uint64 // first sequence; 0 and 1 are the beginning
	Upto     uint64 // last sequence; 0 = until the leader has no more
	Batch    int    // messages asked for at a time, default 256
	MaxBytes int    // bytes asked for at a time, default 1 MiB
}

const (
	defaultBatch      = 256
	defaultBatchBytes = 1 << 20
	batchTimeout      = 2 * time.Second
)

// Read reads a range in the order of the stream, complete as of the end of the reading: it reads in batches, which any replica
// may answer and which may stop short, and takes only the leader's word for there being no more. Messages have the headers
// they were stored with. The last pair of an incomplete reading is an error; breaking off early is fine. Reading a bucket gives
// what the leader held at the end of it, if a later message of a key replaces an earlier one.
func (b *Bus) Read(ctx context.Context, r Range) iter.Seq2[*jetstream.RawStreamMsg, error] {
	return func(yield func(*jetstream.RawStreamMsg, error) bool) {
		next := max(r.From, 1)
		for r.Upto == 0 || next <= r.Upto {
			n := 0
			for m := range b.readBatch(ctx, r, next) {
				if r.Upto != 0 && m.Sequence > r.Upto {
					return
				}
				n++
				next = m.Sequence + 1
				if !yield(m, nil) {
					return
				}
			}
			if n >= cmp.Or(r.Batch, defaultBatch) || r.Upto != 0 && next > r.Upto {
				continue
			}
			m, err := b.NextMessage(ctx, r.Stream, next, r.Filter)
			switch {
			case errors.Is(err, ErrNoMessage), err == nil && r.Upto != 0 && m.Sequence > r.Upto:
				return
			case err != nil:
				yield(nil, err)
				return
			}
			next = m.Sequence + 1
			if !yield(m, nil) {
				return
			}
		}
	}
}

// readBatch yields the messages of one batch read, as far as they certainly follow one another. Whatever is wrong with it ends
// it early: that the server is too old, that a stored message carries headers that look like the server's own answer, that a
// reply was lost on the way. The caller goes on with a leader read, which none of this can stop.
func (b *Bus) readBatch(ctx context.Context, r Range, from uint64) iter.Seq[*jetstream.RawStreamMsg] {
	return func(yield func(*jetstream.RawStreamMsg) bool) {
		ctx, cancel := context.WithTimeout(ctx, batchTimeout)
		defer cancel()
		batch, err := jetstreamext.GetBatch(ctx, b.js, r.Stream, cmp.Or(r.Batch, defaultBatch),
			jetstreamext.GetBatchSeq(from), jetstreamext.GetBatchSubject(r.Filter), jetstreamext.GetBatchMaxBytes(cmp.Or(r.MaxBytes, defaultBatchBytes)))
		if err != nil {
			return
		}
		last := uint64(0)
		for m, err := range batch {
			if err != nil || !stored(m, last) || m.Sequence < from {
				return
			}
			last = m.Sequence
			if !yield(m) {
				return
			}
		}
	}
}

// serverHeaders are what the server appends to a message it republishes or reads directly.
var serverHeaders = [...]string{
	jetstream.StreamHeader, jetstream.SubjectHeader, jetstream.SequenceHeader, jetstream.TimeStampHeaer, headerNumPending, jetstream.LastSequenceHeader,
}

const headerNumPending = "Nats-Num-Pending"

// stored makes of a directly read message the one that is stored: subject, sequence and time come from the server's headers,
// which are the last values where the stored message has its own of that name, and are taken off. It reports whether the
// message follows the one with sequence previous in its batch.
func stored(m *jetstream.RawStreamMsg, previous uint64) bool {
	var err error
	if m.Sequence, err = strconv.ParseUint(LastHeader(m.Header, jetstream.SequenceHeader), 10, 64); err != nil {
		return false
	}
	if m.Time, err = time.Parse(time.RFC3339Nano, LastHeader(m.Header, jetstream.TimeStampHeaer)); err != nil {
		return false
	}
	m.Subject = LastHeader(m.Header, jetstream.SubjectHeader)
	if LastHeader(m.Header, jetstream.LastSequenceHeader) != strconv.FormatUint(previous, 10) {
		return false
	}
	dropServerHeaders(m.Header)
	return true
}

// dropServerHeaders takes off what the server appended to a message, and leaves what it was stored with.
func dropServerHeaders(h nats.Header) {
	for _, key := range serverHeaders {
		if v := h[key]; len(v) > 1 {
			h[key] = v[:len(v)-1]
		} else {
			delete(h, key)
		}
	}
}

// pendingFrom is how many messages a replica has on filter at or after seq. On a stream with one replica that is exact.
func (b *Bus) pendingFrom(ctx context.Context, stream, filter string, seq uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	body := fmt.Appendf(nil, `{"seq":%d,"next_by_subj":%q,"batch":1}`, max(seq, 1), filter)
	reply, err := b.nc.RequestWithContext(ctx, "$JS.API.DIRECT.GET."+stream, body)
	if err != nil {
		return 0, fmt.Errorf("count in stream %s: %w", stream, err)
	}
	if pending := LastHeader(reply.Header, headerNumPending); pending != "" {
		n, err := strconv.ParseUint(pending, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("count in stream %s: answer of the server: %w", stream, err)
		}
		return n + 1, nil
	}
	if isStatus(reply, "404") {
		return 0, nil
	}
	return 0, fmt.Errorf("count in stream %s: the server answered %q", stream, reply.Header.Get("Description"))
}

// isStatus reports whether m is the server's own answer with that status and not a message: those it stored have a sequence.
func isStatus(m *nats.Msg, status string) bool {
	return len(m.Data) == 0 && m.Header.Get("Status") == status && LastHeader(m.Header, jetstream.SequenceHeader) == ""
}
