package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// meter counts the events of a traffic that arrived, and takes the time and the process's CPU time from one count to another.
type meter struct {
	from, to int64
	n        atomic.Int64
	began    time.Time
	cpu      time.Duration
	took     time.Duration // from from to to
	done     chan struct{} // closed at to
}

func newMeter(from, to int) *meter {
	return &meter{from: int64(from), to: int64(to), done: make(chan struct{})}
}

// event counts an event by its id; the joins are none of the traffic's. It may be called from several goroutines at once.
func (m *meter) event(id string) {
	if number(id) < 0 {
		return
	}
	switch m.n.Add(1) {
	case m.from:
		m.began, m.cpu = time.Now(), processCPU()
	case m.to:
		m.took, m.cpu = time.Since(m.began), processCPU()-m.cpu
		close(m.done)
	}
}

// wait returns when the second count is reached.
func (m *meter) wait(ctx context.Context) error { return m.reach(ctx, int(m.to)) }

// reach returns when n events have arrived; none for a long time is an error.
func (m *meter) reach(ctx context.Context, n int) error {
	last, moved := int64(-1), time.Now()
	for {
		have := m.n.Load()
		switch {
		case have >= m.to:
			<-m.done
			return nil
		case have >= int64(n):
			return nil
		case have != last:
			last, moved = have, time.Now()
		case time.Since(moved) > benchTimeout:
			return fmt.Errorf("%d of %d events arrived, then none for %v", have, n, benchTimeout)
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// measured is one round of one side.
type measured struct {
	rate float64 // events a second
	cpu  float64 // microseconds of the whole process for an event, 0 where the system does not tell
}

func newMeasured(events int, took, cpu time.Duration) measured {
	return measured{rate: float64(events) / took.Seconds(), cpu: float64(cpu.Microseconds()) / float64(events)}
}
