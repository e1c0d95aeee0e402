package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

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
		switch s.Action {
		case ActionCreate:
		case ActionRefuse:
			if _, err := b.js.Stream(ctx, s.Stream); IsStreamGone(err) {
				return made, &PlanError{Plan: plan}
			}
			continue
		default:
			continue
		}
		if err := b.applyStream(ctx, s); err != nil {
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

// firstSequence is where a stream begins that is made beside others of the bus: it had a predecessor, whose sequences may be named
// anywhere. A CIM_EVENTS that began at 1 again would lose its events, each taken for one that was delivered long ago; a CIM_INDEX the
// entries below the place where a checkpoint says they go on. The time in microseconds is above whatever a stream has counted to that
// did not take a million messages a second since 1970, and below 2^53, which JSON numbers in JavaScript can hold.
func firstSequence(now time.Time) uint64 { return uint64(now.UnixMicro()) }
