package socketio

import "sync"

// acks that a socket waits for.
type acks struct {
	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan *Reply
	closed  bool
}

// expect reserves an id; its channel gets the reply, or is closed when the socket is over.
func (a *acks) expect() (uint64, chan *Reply, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return 0, nil, false
	}
	if a.waiting == nil {
		a.waiting = make(map[uint64]chan *Reply, 1)
	}
	id := a.last
	a.last++
	reply := make(chan *Reply, 1)
	a.waiting[id] = reply
	return id, reply, true
}

// settle hands a reply over; one that nobody waits for any more is dropped.
func (a *acks) settle(id uint64, r *Reply) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if reply, ok := a.waiting[id]; ok {
		delete(a.waiting, id)
		reply <- r
	}
}

func (a *acks) cancel(id uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, id)
}

func (a *acks) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	for _, reply := range a.waiting {
		close(reply)
	}
	a.waiting = nil
}
