package handlers

import (
	"context"
	"sync"
)

// gate lets a bounded number of events be worked on at once, tenants taking turns: where one floods the bus, another's next event
// is the next but one. A tenant alone may fill three quarters of the places, so that a handler which hangs on its events leaves
// room for others'.
type gate struct {
	places int // free ones
	share  int // the most one tenant may hold

	mu      sync.Mutex
	tenants map[string]*turn
	queue   []*turn // tenants with somebody waiting and a place to their name, in the order of their turns
}

// turn is one tenant at the gate.
type turn struct {
	tenant  string
	held    int
	waiting []chan struct{} // closed when its place is given
	queued  bool
}

func newGate(places int) *gate {
	return &gate{places: places, share: max(1, places*3/4), tenants: map[string]*turn{}}
}

// enter waits for a place; every place entered is left once.
func (g *gate) enter(ctx context.Context, tenant string) error {
	g.mu.Lock()
	t := g.tenants[tenant]
	if t == nil {
		t = &turn{tenant: tenant}
		g.tenants[tenant] = t
	}
	if g.places > 0 && t.held < g.share && len(t.waiting) == 0 {
		g.places--
		t.held++
		g.mu.Unlock()
		return nil
	}
	given := make(chan struct{})
	t.waiting = append(t.waiting, given)
	g.line(t)
	g.mu.Unlock()
	select {
	case <-given:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, w := range t.waiting {
		if w == given {
			t.waiting = append(t.waiting[:i], t.waiting[i+1:]...)
			g.forget(t)
			return ctx.Err()
		}
	}
	g.leaveLocked(t) // it was given while ctx ended
	return ctx.Err()
}

func (g *gate) leave(tenant string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leaveLocked(g.tenants[tenant])
}

func (g *gate) leaveLocked(t *turn) {
	g.places++
	t.held--
	g.line(t)
	for g.places > 0 && len(g.queue) > 0 {
		next := g.queue[0]
		g.queue = g.queue[1:]
		next.queued = false
		if len(next.waiting) == 0 || next.held >= g.share {
			g.forget(next)
			continue
		}
		g.places--
		next.held++
		close(next.waiting[0])
		next.waiting = next.waiting[1:]
		g.line(next)
	}
	g.forget(t)
}

// forget drops a tenant that neither works nor waits. The lock is held.
func (g *gate) forget(t *turn) {
	if t.held == 0 && len(t.waiting) == 0 && !t.queued {
		delete(g.tenants, t.tenant)
	}
}

// line puts a tenant at the end of the queue if it waits and may have a place. The lock is held.
func (g *gate) line(t *turn) {
	if !t.queued && len(t.waiting) > 0 && t.held < g.share {
		t.queued = true
		g.queue = append(g.queue, t)
	}
}
