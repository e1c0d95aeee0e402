package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// record is something noted down about an entry or a replay, behind what was noted before.
type record struct {
	of       string // what it is about, for errors
	stream   string
	family   string // of subjects
	subject  string
	body     []byte
	expected uint64 // sequence of the last record of its subject, 0 = there is none
}

// errRecordOvertaken: somebody else has noted something down meanwhile.
var errRecordOvertaken = errors.New("another record is ahead")

// publishRecord stores a record exactly once and returns its sequence, provided that the last one is still where it is expected;
// otherwise it returns errRecordOvertaken. What became of a record that was not acknowledged is read from the leader.
func (b *Bus) publishRecord(ctx context.Context, r record) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, defaultRetryFor)
	defer cancel()
	for tries := 0; ; tries++ {
		try, cancel := context.WithTimeout(ctx, min(firstAckWait<<min(tries, maxBackoff), defaultAckWait))
		ack, err := b.js.PublishMsg(try, &nats.Msg{Subject: r.subject, Data: r.body}, jetstream.WithExpectStream(r.stream), jetstream.WithExpectLastSequencePerSubject(r.expected))
		cancel()
		if err == nil {
			return ack.Sequence, nil
		}
		if err := b.recordDenied(r); err != nil {
			return 0, err
		}
		if errors.Is(err, jetstream.ErrNoStreamResponse) {
			return 0, fmt.Errorf("record of %s: stream %s is missing or does not take %s: run cimbus streams apply: %w", r.of, r.stream, r.family, err)
		}
		last, readErr := b.LastMessage(ctx, r.stream, r.subject)
		switch {
		case readErr == nil && bytes.Equal(last.Data, r.body):
			return last.Sequence, nil
		case readErr == nil && last.Sequence != r.expected, errors.Is(readErr, ErrNoMessage) && r.expected != 0:
			return 0, errRecordOvertaken
		case refusedForGood(err):
			return 0, fmt.Errorf("record of %s: %w", r.of, err)
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("record of %s: %w", r.of, err)
		case <-time.After(retryPause):
		}
	}
}

// recordDenied returns the server's complaint that this connection may not publish records. It comes beside the publish, which then is
// never answered; of several at once only the last is kept, so any of them will do.
func (b *Bus) recordDenied(r record) error {
	err := b.nc.LastError()
	if errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), `"`+strings.TrimSuffix(r.family, ">")) {
		return fmt.Errorf("record of %s: %w: this user may not publish on %s: %w", r.of, ErrUnauthorized, r.family, err)
	}
	return nil
}

// The server's err_codes of a message that expected another one before it.
const (
	codeWrongLastSequence = 10071
	codeSequencesCompete  = 10164
)

// refusedForGood tells whether the server refused a message in a way that trying again does not change.
func refusedForGood(err error) bool {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return errors.Is(err, nats.ErrConnectionClosed)
	}
	switch api.ErrorCode {
	case codeClusterUnavailable, codeClusterNotLeader, codeTooManyRequests, codeWrongLastSequence, codeSequencesCompete:
		return false
	}
	return true
}
