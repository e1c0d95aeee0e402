package main

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/cimbus/cimbus/bus"
)

const (
	memoryEvents  = 100_000 // go through before the last look at the memory
	memoryLooks   = 5
	memoryBacklog = 2000 // events published and not yet received

	// memoryWindow is the duplicate window of this measurement. For as long as the window the server remembers every message id, some
	// 120 bytes each; with the usual ten minutes that would be all that is seen to grow.
	memoryWindow = time.Second
	// memoryRest is how long the server keeps blocks of its streams in memory after their last use, and some more.
	memoryRest = 13 * time.Second
)

// memory is what the process holds at rest after so many events, in bytes: server, worker, publisher and agents together.
type memory struct {
	Events int   `json:"events"`
	Heap   int64 `json:"heap"` // in use after a collection
	RSS    int64 `json:"rss"`  // 0 where the system does not tell
}

func lookAtMemory(events int) memory {
	// Twice: what pools hold goes with the second collection.
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return memory{Events: events, Heap: int64(s.HeapAlloc), RSS: residentMemory()}
}

// measureMemory lets events through and looks at the memory in between. What the server itself keeps of so many messages shows on
// both sides alike.
func (x *bench) measureMemory(ctx context.Context, side string) (looks []memory, err error) {
	g, err := x.newGround(ctx, bus.StreamOptions{DuplicateWindow: memoryWindow})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.close(ctx)) }()
	t := x.traffic()
	m := newMeter(1, x.memoryEvents)
	in, err := openReceivers(ctx, g, t, side == sideCimbus, m.event)
	defer func() { err = errors.Join(err, in.close()) }()
	if err != nil {
		return nil, err
	}
	if err := x.join(ctx, g, t, side); err != nil {
		return nil, err
	}
	r, err := x.startRoad(ctx, g, t, side)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close(ctx)) }()
	for look := range memoryLooks {
		from, upto := x.memoryEvents*look/memoryLooks, x.memoryEvents*(look+1)/memoryLooks
		x.report.progress("memory, %s, %d of %d events", side, upto, x.memoryEvents)
		if err := x.pass(ctx, g, t, m, side, from, upto); err != nil {
			return nil, err
		}
		if err := pause(ctx, x.memoryRest); err != nil {
			return nil, err
		}
		looks = append(looks, lookAtMemory(upto))
	}
	return looks, nil
}

// pass lets the events from one to another through, no faster than they arrive.
func (x *bench) pass(ctx context.Context, g *ground, t *traffic, m *meter, side string, from, upto int) error {
	s, err := newSender(ctx, g, side)
	if err != nil {
		return err
	}
	for i := from; i < upto && err == nil; i++ {
		if i%100 == 0 {
			err = m.reach(ctx, i-memoryBacklog)
		}
		if err == nil {
			err = s.publish(ctx, t.event(i))
		}
	}
	if err := errors.Join(err, s.close(ctx)); err != nil {
		return err
	}
	return m.reach(ctx, upto)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
