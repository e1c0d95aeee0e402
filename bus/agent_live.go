package bus

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/subjects"
)

// liveBuffer holds live messages until their turn. It never blocks the connection and never grows beyond its bounds: when it
// is full everything in it goes, which the log has anyway, and it takes nothing more until it is asked to.
type liveBuffer struct {
	messages, bytes int // bounds

	mu       sync.Mutex
	queue    []*nats.Msg
	head     int
	held     int // bytes
	overflow bool
}

func (l *liveBuffer) push(m *nats.Msg) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.overflow {
		return
	}
	size := m.Size()
	if len(l.queue)-l.head >= l.messages || l.held+size > l.bytes && l.held > 0 {
		l.queue, l.head, l.held, l.overflow = nil, 0, 0, true
		return
	}
	l.queue = append(l.queue, m)
	l.held += size
}

// pop returns nil when there is none.
func (l *liveBuffer) pop() *nats.Msg {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.head == len(l.queue) {
		return nil
	}
	m := l.queue[l.head]
	l.queue[l.head] = nil
	l.held -= m.Size()
	// Move up what is left once half of the space is used up, or a queue that never runs empty would grow for ever.
	if l.head++; l.head*2 >= len(l.queue) {
		n := copy(l.queue, l.queue[l.head:])
		clear(l.queue[n:])
		l.queue, l.head = l.queue[:n], 0
	}
	return m
}

// overflowed reports whether messages were dropped since the last call, and takes messages again.
func (l *liveBuffer) overflowed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.overflow
	l.overflow = false
	return was
}

// liveMessage is what the server sends when a delivery was stored.
type liveMessage struct {
	jetstream.RawStreamMsg
	previous uint64 // sequence of the one before on the same subject, 0 if there was none
}

// parseLive takes the server's headers off a copy of a stored message, live or of a page; it reports false for a message that
// has none. The server's values are the last of their name: a publisher may have sent its own.
func parseLive(m *nats.Msg) (*liveMessage, bool) {
	seq, err := strconv.ParseUint(LastHeader(m.Header, jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return nil, false
	}
	// Of a page, there is no previous one.
	previous, _ := strconv.ParseUint(LastHeader(m.Header, jetstream.LastSequenceHeader), 10, 64)
	// A time that cannot be read leaves a position without proof of it, not a delivery undelivered.
	at, _ := time.Parse(time.RFC3339Nano, LastHeader(m.Header, jetstream.TimeStampHeaer))
	live := &liveMessage{
		RawStreamMsg: jetstream.RawStreamMsg{Subject: LastHeader(m.Header, jetstream.SubjectHeader), Sequence: seq, Time: at, Data: m.Data, Header: m.Header},
		previous:     previous,
	}
	dropServerHeaders(m.Header)
	return live, true
}

// delivery is a stored message as its agent sees it. What is on no subject of the grammar is handed out all the same, with
// what is known of it: it is stored, and was meant for this agent.
func delivery(m *jetstream.RawStreamMsg) *Delivery {
	d := &Delivery{Subject: m.Subject, Sequence: SequenceOf(m.Header), Header: m.Header, Body: m.Data}
	if name, err := subjects.ParseDelivery(m.Subject); err == nil {
		d.Agent, d.Type, d.Conversation = name.Agent, name.Type, name.Conversation
	}
	return d
}

// transient is a message that no stream keeps, nil if it is none.
func transient(m *nats.Msg) *Delivery {
	if LastHeader(m.Header, HeaderTransient) != "true" {
		return nil
	}
	name, err := subjects.ParseLive(m.Subject)
	if err != nil {
		return nil
	}
	return &Delivery{
		Subject: "cim-agent" + strings.TrimPrefix(m.Subject, "cim-live"),
		Agent:   name.Agent, Type: name.Type, Conversation: name.Conversation,
		Header: m.Header, Body: m.Data, Transient: true,
	}
}
