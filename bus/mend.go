package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrLeftAlone is returned by MendStreams of a bus that was opened with LeaveStreams.
var ErrLeftAlone = errors.New("this bus leaves the streams alone")

// IsStreamGone reports whether err says that a stream does not exist: that it was deleted, for every bus makes what is missing when
// it opens.
func IsStreamGone(err error) bool {
	return errors.Is(err, jetstream.ErrStreamNotFound) || errorCode(err) == codeStreamMissing
}

// MendStreams makes the declared streams that are gone, and touches none that is there. What was in a deleted stream is lost; with
// the stream back, what comes after it is not. It returns the streams it made, empty. Doing it twice, or in two processes at once, is
// harmless.
func (b *Bus) MendStreams(ctx context.Context) ([]string, error) {
	if b.leaveStreams {
		return nil, ErrLeftAlone
	}
	plan, err := b.PlanStreams(ctx)
	if err != nil {
		return nil, err
	}
	var made []string
	for _, s := range plan.Streams {
		if s.Action != ActionCreate {
			continue
		}
		if err := b.applyStream(ctx, s); err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return made, fmt.Errorf("create stream %s: %w", s.Stream, explain(err, s.grows))
		}
		if rebuilt(s.Stream) {
			b.log.Warn("a stream was gone and is made again, empty until it is written again", "stream", s.Stream)
		} else {
			b.log.Error("a stream was gone and is made again, what was in it is lost", "stream", s.Stream)
		}
		made = append(made, s.Stream)
	}
	if len(made) > 0 && b.server != nil {
		return made, b.server.Sync()
	}
	return made, nil
}

// rebuilt reports whether the committing handler writes a stream again that was made anew.
func rebuilt(stream string) bool {
	return stream == StreamIndex || stream == StreamMembers || stream == StreamConversations
}

// sequenceStep separates the sequences of a stream that was made again from those of the one before it. It is more than can lie between
// the highest of them and the one that is known.
const sequenceStep = 1 << 20

// firstSequence is where a stream that is to be made begins: above every sequence of its predecessor that anything else still names. A
// CIM_EVENTS that began at 1 again would lose its events, each taken for one that was delivered long ago, and a CIM_INDEX the entries
// that lie below the place where a checkpoint says they go on. 0, the server's own choice, where nothing is named.
func (b *Bus) firstSequence(ctx context.Context, stream string) (uint64, error) {
	var highest uint64
	for _, named := range namedBy(stream) {
		var m *jetstream.RawStreamMsg
		err := b.patiently(ctx, func(ctx context.Context) (err error) {
			m, err = b.LastMessage(ctx, named.in, ">")
			return err
		})
		switch {
		case errors.Is(err, ErrNoMessage), IsStreamGone(err):
			continue
		case err != nil:
			return 0, err
		}
		if s, err := strconv.ParseUint(LastHeader(m.Header, named.header), 10, 64); err == nil {
			highest = max(highest, s)
		}
	}
	if highest == 0 {
		return 0, nil
	}
	return (highest/sequenceStep+2)*sequenceStep + 1, nil
}

// naming is where sequences of another stream are named.
type naming struct{ in, header string }

func namedBy(stream string) []naming {
	switch stream {
	case StreamEvents:
		return []naming{
			{StreamIndex, HeaderSequence},
			{StreamDeliveries, HeaderSequence},
			{StreamDeadLetters, HeaderSequence},
			{StreamMembers, HeaderSequence},
			{StreamConversations, HeaderSequence},
		}
	case StreamIndex:
		return []naming{{StreamConversations, HeaderIndexSequence}}
	}
	return nil
}
