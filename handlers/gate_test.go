package handlers

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestTenantsTakeTurnsAtTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(4)
		var mu sync.Mutex
		var order []string
		var wg sync.WaitGroup
		work := func(tenant string) {
			wg.Go(func() {
				if g.enter(t.Context(), tenant) != nil {
					return
				}
				<-time.After(time.Millisecond)
				mu.Lock()
				order = append(order, tenant)
				mu.Unlock()
				g.leave(tenant)
			})
		}
		for range 100 {
			work("flood")
		}
		synctest.Wait()
		work("calm")
		wg.Wait()
		require.Len(t, order, 101)
		require.Contains(t, order[:8], "calm", "it waited for one round of places at most")
		require.Empty(t, g.tenants, "the gate forgets who is gone")
	})
}

func TestTenantWhoseHandlersHangLeavesRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(8)
		ctx, cancel := context.WithCancel(t.Context())
		var inside atomic.Int64
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if g.enter(ctx, "hangs") == nil {
					inside.Add(1)
					<-ctx.Done()
					g.leave("hangs")
				}
			})
		}
		synctest.Wait()
		require.EqualValues(t, 6, inside.Load())
		require.NoError(t, g.enter(ctx, "other"))
		g.leave("other")
		cancel()
		wg.Wait()
		require.Equal(t, 8, g.places)
	})
}

func TestGateGivesOutEveryPlaceAndTakesItBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		places := rapid.IntRange(1, 6).Draw(rt, "places")
		steps := rapid.SliceOfN(rapid.IntRange(0, 3), 1, 60).Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) {
			g := newGate(places)
			var wg sync.WaitGroup
			var inside, most atomic.Int64
			for i, step := range steps {
				tenant := string(rune('a' + step))
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%7)*time.Millisecond)
				wg.Go(func() {
					defer cancel()
					if g.enter(ctx, tenant) != nil {
						return
					}
					most.Store(max(most.Load(), inside.Add(1)))
					<-time.After(2 * time.Millisecond)
					inside.Add(-1)
					g.leave(tenant)
				})
			}
			wg.Wait()
			require.Equal(t, places, g.places)
			require.LessOrEqual(t, most.Load(), int64(places))
		})
	})
}
