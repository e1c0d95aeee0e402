package bus

import (
	"iter"

	"github.com/nats-io/nats.go/jetstream"
)

// How a stretch is read from its end. A server reads forwards only: it is read in parts, the last one first, and of each part what was
// found is kept until its end.
const (
	backWidth = 4096    // sequences of the first part; while little is found in a part the next is twice as wide
	backBytes = 8 << 20 // kept of one part, and one message more
)

// located is where a message stands, and about what it takes in memory.
type located struct {
	sequence uint64
	bytes    int
}

func locate(m *jetstream.RawStreamMsg) located {
	return located{m.Sequence, len(m.Data) + headerSize(m.Header) + 512}
}

// backwards turns a reading round.
type backwards[T any] struct {
	forward func(Span) iter.Seq2[T, error]
	at      func(T) located
}

// read yields what forward does, the last first. Of a part with more than fits, the oldest are let go and read again with the part
// before, which is then no wider than what was kept.
func (r backwards[T]) read(span Span) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		width := uint64(backWidth)
		for last := span.Last; last >= span.First && last > 0; {
			part := Span{Stream: span.Stream, First: span.First, Last: last}
			if last-span.First >= width {
				part.First = last - width + 1
			}
			kept, bytes, dropped := []T(nil), 0, uint64(0)
			for t, err := range r.forward(part) {
				if err != nil {
					yield(t, err)
					return
				}
				kept, bytes = append(kept, t), bytes+r.at(t).bytes
				for bytes > backBytes && len(kept) > 1 {
					oldest := r.at(kept[0])
					bytes, dropped = bytes-oldest.bytes, oldest.sequence
					clear(kept[:1])
					kept = kept[1:]
				}
			}
			for i := range kept {
				if !yield(kept[len(kept)-1-i], nil) {
					return
				}
			}
			switch {
			case dropped != 0:
				width, last = last-dropped, dropped
			case bytes < backBytes/4:
				width, last = 2*width, part.First-1
			default:
				last = part.First - 1
			}
		}
	}
}
