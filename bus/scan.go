package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// Scan is a stretch of a stream to be read from one end to the other, by a consumer of its own: named, ephemeral, in the server's
// memory and without acknowledgements, so that it disturbs nobody and leaves nothing behind.
type Scan struct {
	Stream   string
	Subjects []string // filters that do not overlap; none = every subject
	From     uint64   // first sequence; 0 and 1 are the beginning
	Upto     uint64   // last sequence; 0 = the last one there is at the start. Not heeded with Follow
	Follow   bool     // go on with what is stored later, until ctx ends
	// HeadersOnly leaves the bodies out; the header Nats-Msg-Size then tells how long each was.
	HeadersOnly bool
	Name        string // the beginning of the consumer's name, by which operators know it; default "cimbus-scan"
}

// How a scan asks. Two requests are under way at a time; together they stay far below the 64 MiB the server lets wait for a client.
const (
	scanBatch     = 2048
	scanPulls     = 2
	scanBytes     = 1<<22 + 15 // a prime, as for workers: a request whose bytes are used up to the last ends without a word
	scanExpires   = 30 * time.Second
	scanHeartbeat = 2 * time.Second
	scanIdle      = 5 * time.Minute  // after which the server forgets the consumer of somebody who went away
	scanPatience  = 30 * time.Second // how long the server may be away before the scan gives up
)

// Scan reads the messages of a stretch in the order of the stream, each once, with the headers it was stored with: complete as of
// the leader at the start, whatever happens to the connection or the server meanwhile. The last pair of an incomplete scan is an
// error, ctx's own where it ended; breaking off early is fine. The memory it takes does not grow with the stream. Messages may be
// kept.
func (b *Bus) Scan(ctx context.Context, s Scan) iter.Seq2[*jetstream.RawStreamMsg, error] {
	return func(yield func(*jetstream.RawStreamMsg, error) bool) {
		r := &scanner{bus: b, Scan: s, next: max(s.From, 1)}
		err := r.run(ctx, func(m *jetstream.RawStreamMsg) bool { return yield(m, nil) })
		r.close(ctx)
		if err != nil && !errors.Is(err, errScanned) {
			yield(nil, fmt.Errorf("scan of stream %s: %w", s.Stream, err))
		}
	}
}

// errScanned ends a scan that is complete, or that nobody wants more of.
var errScanned = errors.New("scanned")

// errScanAgain has the consumer made anew, behind what was read.
var errScanAgain = errors.New("the consumer has to be made again")

// scanner is a Scan at work.
type scanner struct {
	Scan
	bus  *Bus
	next uint64 // sequence from which on nothing was read

	sub      *nats.Subscription
	messages chan *nats.Msg
	broken   chan nats.Status // tells when the connection was lost
	inbox    string
	consumer string
	created  time.Time // when the stream was, as it was first found
	expected uint64    // consumer sequence of the next message
	owed     int       // messages that requests under way may still bring
	requests int
}

func (r *scanner) run(ctx context.Context, yield func(*jetstream.RawStreamMsg) bool) error {
	info, err := r.bus.streamInfo(ctx, r.Stream)
	if err != nil {
		return err
	}
	r.created = info.Created
	if !r.Follow && r.Upto == 0 {
		r.Upto = info.State.LastSeq
	}
	lost := time.Time{} // since when there is no answer
	for {
		before := r.next
		err := r.read(ctx, yield)
		if r.next > before {
			lost = time.Time{}
		}
		switch {
		case ctx.Err() != nil && !errors.Is(err, errScanned):
			return ctx.Err()
		case !errors.Is(err, errScanAgain):
			return err
		case lost.IsZero():
			lost = time.Now()
		case time.Since(lost) > scanPatience && !r.Follow:
			return fmt.Errorf("no answer for %s: %w", scanPatience, err)
		}
		r.close(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryPause):
		}
		// What can be asked for again is asked for by its number, which another stream has given out, too.
		if now, err := r.bus.streamInfo(ctx, r.Stream); err == nil && !now.Created.Equal(r.created) {
			return errors.New("it was deleted and made anew meanwhile")
		}
	}
}

// read makes a consumer and reads from it to the end, or until it is of no more use.
func (r *scanner) read(ctx context.Context, yield func(*jetstream.RawStreamMsg) bool) error {
	if !r.Follow && r.next > r.Upto {
		return errScanned
	}
	waits, err := r.open(ctx)
	if err != nil {
		return err
	}
	if waits == 0 {
		if err := r.atEnd(ctx); err != nil {
			return err
		}
	}
	for {
		if err := r.pull(); err != nil {
			return fmt.Errorf("%w: %w", errScanAgain, err)
		}
		m, err := r.receive(ctx)
		if err != nil {
			return err
		}
		if strings.HasPrefix(m.Subject, r.inbox) {
			idle, err := r.status(m)
			if err == nil && idle {
				// A server that has nothing to send may have had: what was still to come is deleted, or has expired.
				err = r.atEnd(ctx)
			}
			if err != nil {
				return err
			}
			continue
		}
		raw, at, err := scanned(m)
		if err != nil {
			return err
		}
		if at.consumer != r.expected {
			return fmt.Errorf("%w: message %d of the consumer came as %d", errScanAgain, r.expected, at.consumer)
		}
		r.expected++
		r.owed--
		if !r.Follow && raw.Sequence > r.Upto {
			return errScanned
		}
		r.next = raw.Sequence + 1
		if !yield(raw) || !r.Follow && r.next > r.Upto {
			return errScanned
		}
		if at.pending == 0 {
			if err := r.atEnd(ctx); err != nil {
				return err
			}
		}
	}
}

// open makes the consumer, and tells how many messages it has.
func (r *scanner) open(ctx context.Context) (waits uint64, err error) {
	nc := r.bus.nc
	name := r.Name
	if name == "" {
		name = "cimbus-scan"
	}
	r.consumer, r.inbox = name+"-"+nuid.Next(), nc.NewInbox()
	r.expected, r.owed, r.requests = 1, 0, 0
	r.broken = nc.StatusChanged(nats.RECONNECTING)
	// Room for what is asked for, and for what the server says besides.
	r.messages = make(chan *nats.Msg, 2*scanBatch*scanPulls)
	if r.sub, err = nc.ChanSubscribe(r.inbox+".*", r.messages); err != nil {
		return 0, err
	}
	var c jetstream.Consumer
	err = r.bus.patiently(ctx, func(ctx context.Context) error {
		c, err = r.bus.js.CreateConsumer(ctx, r.Stream, jetstream.ConsumerConfig{
			Name: r.consumer, Description: "reads once from end to end", MemoryStorage: true, Replicas: 1, InactiveThreshold: scanIdle,
			AckPolicy: jetstream.AckNonePolicy, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: r.next,
			FilterSubjects: r.Subjects, HeadersOnly: r.HeadersOnly, MaxWaiting: 2 * scanPulls,
		})
		return err
	})
	switch {
	case err == nil:
		return c.CachedInfo().NumPending, nil
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout), errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse):
		return 0, fmt.Errorf("%w: %w", errScanAgain, err)
	}
	return 0, err
}

// close lets go of what open made.
func (r *scanner) close(ctx context.Context) {
	if r.broken != nil {
		r.bus.nc.RemoveStatusListener(r.broken)
		r.broken = nil
	}
	if r.sub != nil {
		_ = r.sub.Unsubscribe() // fails only on a closed connection
		r.sub = nil
	}
	if r.consumer == "" {
		return
	}
	// Where this fails the server forgets it by itself.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = r.bus.js.DeleteConsumer(ctx, r.Stream, r.consumer)
	r.consumer = ""
}

// pull keeps enough asked for, and nothing behind the end: short stretches are read too.
func (r *scanner) pull() error {
	for r.owed <= scanBatch*(scanPulls-1) {
		batch := scanBatch
		if !r.Follow {
			if left := r.Upto - r.next + 1; left < uint64(r.owed+batch) {
				batch = int(left) - r.owed
			}
		}
		if batch <= 0 {
			return nil
		}
		r.requests++
		body, err := json.Marshal(struct {
			Batch     int           `json:"batch"`
			MaxBytes  int           `json:"max_bytes"`
			Expires   time.Duration `json:"expires"`
			Heartbeat time.Duration `json:"idle_heartbeat"`
		}{batch, max(scanBytes, 2*int(r.bus.nc.MaxPayload())), scanExpires, scanHeartbeat})
		if err != nil {
			return err
		}
		if err := r.bus.nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+r.Stream+"."+r.consumer, r.inbox+"."+strconv.Itoa(r.requests), body); err != nil {
			return err
		}
		r.owed += batch
	}
	return nil
}

// receive waits for the next message, no longer than a server that is there is silent.
func (r *scanner) receive(ctx context.Context) (*nats.Msg, error) {
	// Who reads slower than the server sends always has more here: that must not keep the scan from ending.
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// What is there already is had without a timer.
	select {
	case m := <-r.messages:
		return m, nil
	default:
	}
	silence := time.NewTimer(3 * scanHeartbeat)
	defer silence.Stop()
	select {
	case m := <-r.messages:
		return m, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-r.broken:
		// Consumer and requests outlive it, and what was on its way is lost.
		return nil, fmt.Errorf("%w: the connection was lost", errScanAgain)
	case <-silence.C:
	}
	if r.bus.nc.IsClosed() {
		return nil, nats.ErrConnectionClosed
	}
	return nil, fmt.Errorf("%w: the server is silent", errScanAgain)
}

// status is the server's word about a request: a sign of life, its ordinary end, or that of the consumer. It tells whether the server has
// nothing to send: a request that ends because it got all it asked for says nothing of what there is besides.
func (r *scanner) status(m *nats.Msg) (idle bool, err error) {
	description := strings.ToLower(m.Header.Get("Description"))
	switch m.Header.Get("Status") {
	case "100":
		// It comes behind what it tells of: that was lost.
		if last, err := strconv.ParseUint(m.Header.Get("Nats-Last-Consumer"), 10, 64); err == nil && last >= r.expected {
			return false, fmt.Errorf("%w: message %d of the consumer did not come", errScanAgain, r.expected)
		}
		return true, nil
	case "404", "408":
		idle = true
	case "409":
		if !strings.Contains(description, "batch completed") && !strings.Contains(description, "exceeds maxbytes") {
			return false, fmt.Errorf("%w: %s", errScanAgain, description)
		}
	default:
		return false, fmt.Errorf("%w: %s %s", errScanAgain, m.Header.Get("Status"), description)
	}
	left, err := strconv.Atoi(m.Header.Get("Nats-Pending-Messages"))
	if err != nil {
		return false, fmt.Errorf("%w: a request ended without saying what is left of it", errScanAgain)
	}
	r.owed -= left
	return idle, nil
}

// atEnd ends a scan that has read all there is. The consumer lives on one replica; that there is no more is the leader's to say.
func (r *scanner) atEnd(ctx context.Context) error {
	if r.Follow {
		return nil
	}
	filters := r.Subjects
	if len(filters) == 0 {
		filters = []string{">"}
	}
	for _, filter := range filters {
		if r.next > r.Upto {
			break
		}
		m, err := r.bus.NextMessage(ctx, r.Stream, r.next, filter)
		switch {
		case errors.Is(err, ErrNoMessage):
		case err != nil:
			return fmt.Errorf("%w: %w", errScanAgain, err)
		case m.Sequence <= r.Upto:
			return nil // it comes
		}
	}
	return errScanned
}

// placed is what the reply subject of a consumer's message tells of it.
type placed struct {
	consumer, pending uint64
}

// scanned makes of a consumer's message the one that is stored.
func scanned(m *nats.Msg) (*jetstream.RawStreamMsg, placed, error) {
	// $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>[.<random>]
	var tokens [12]string
	n := 0
	for t := range strings.SplitSeq(m.Reply, ".") {
		if n == len(tokens) {
			break
		}
		tokens[n] = t
		n++
	}
	at := 5
	if n > 9 {
		at = 7
	}
	var numbers [4]uint64
	for i := range numbers {
		var err error
		if numbers[i], err = strconv.ParseUint(tokens[at+i], 10, 64); err != nil {
			return nil, placed{}, fmt.Errorf("message on %s: its place in the stream cannot be read from %q", m.Subject, m.Reply)
		}
	}
	raw := &jetstream.RawStreamMsg{
		Subject: m.Subject, Sequence: numbers[0], Header: m.Header, Data: m.Data, Time: time.Unix(0, int64(numbers[2])).UTC(),
	}
	return raw, placed{consumer: numbers[1], pending: numbers[3]}, nil
}
