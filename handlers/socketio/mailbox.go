package socketio

import (
	"context"
	"sync"
)

// mailbox is what waits for one socket's handlers. The goroutine that empties it exists while there is something in it. Its first entry is
// nil: the handshake. Its last one is the end.
type mailbox struct {
	socket *Socket

	mu      sync.Mutex
	events  []*Event
	ended   error         // why the socket is over; no event is taken any more
	running bool          // the goroutine is there
	room    chan struct{} // closed when an entry was taken, nil while nobody waits
}

// put waits for room. When the socket is over it does nothing.
func (m *mailbox) put(ctx context.Context, e *Event) error {
	for {
		m.mu.Lock()
		if m.overLocked() {
			m.mu.Unlock()
			return nil
		}
		if len(m.events) < m.socket.connection.server.options.MaxPending {
			m.events = append(m.events, e)
			m.startLocked()
			m.mu.Unlock()
			return nil
		}
		if m.room == nil {
			m.room = make(chan struct{})
		}
		room := m.room
		m.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *mailbox) overLocked() bool { return m.ended != nil }

// end is the last entry; it returns whether it is the first end.
func (m *mailbox) end(reason error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.overLocked() {
		return false
	}
	m.ended = reason
	m.wakeLocked()
	m.startLocked()
	return true
}

func (m *mailbox) startLocked() {
	if !m.running {
		m.running = true
		m.socket.connection.server.running.Go(m.run)
	}
}

func (m *mailbox) wakeLocked() {
	if m.room != nil {
		close(m.room)
		m.room = nil
	}
}

// run empties the mailbox.
func (m *mailbox) run() {
	for {
		m.mu.Lock()
		if len(m.events) == 0 {
			m.events = nil
			ended := m.ended
			m.running = ended != nil // after the end nothing starts it again
			m.mu.Unlock()
			if ended != nil {
				m.socket.finish(ended)
			}
			return
		}
		e := m.events[0]
		m.events = m.events[1:]
		m.wakeLocked()
		m.mu.Unlock()
		m.socket.handle(e)
	}
}
