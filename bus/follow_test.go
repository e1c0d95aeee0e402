package bus_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/cim"
)

// joinedAt is the event of the worker's script that makes ada a member, and scripted how many there are.
const (
	joinedAt = 4
	scripted = 12
)

// script is what a worker writes for the events of one conversation, in single steps: record, delivery, index entry.
func (r *road) script(conversation string) []func() {
	var steps []func()
	for s := uint64(1); s <= scripted; s++ {
		if s == joinedAt {
			steps = append(steps, func() { r.member("ada", conversation, s, 0) })
		}
		if s >= joinedAt {
			steps = append(steps, func() { r.deliverNamed("ada", conversation, s) })
		}
		steps = append(steps, func() { r.index(conversation, s) })
	}
	return steps
}

// deliverNamed stores a delivery that names its event.
func (r *road) deliverNamed(agent, conversation string, s uint64) {
	h := sequenceHeader(s)
	h.Set(bus.HeaderEventName, cim.CustomerMessage)
	if s == joinedAt {
		h.Set(bus.HeaderEventName, cim.AgentSubscribed)
	}
	r.publish(&nats.Msg{Subject: deliverySubject(agent, bus.TypeEvent, conversation), Header: h, Data: []byte("{}")})
}

// joined is what a way of joining gives: the sequences of the snapshot, and those that follow.
type joined struct {
	snapshot []uint64
	next     func(ctx context.Context) (uint64, error)
	close    func()
}

// way joins a conversation; between its own steps it lets the worker do some of its.
type way func(ctx context.Context, r *road, conversation string, meanwhile func()) (joined, error)

func properly(ctx context.Context, r *road, conversation string, _ func()) (joined, error) {
	f, err := r.bus.Follow(ctx, "acme", "ada", conversation)
	if err != nil {
		return joined{}, err
	}
	j := joined{close: func() { require.NoError(r.t, f.Close()) }}
	for _, e := range f.Snapshot {
		j.snapshot = append(j.snapshot, e.Sequence)
	}
	j.next = func(ctx context.Context) (uint64, error) {
		d, err := f.Next(ctx)
		return d.Sequence, err
	}
	return j, nil
}

// history reads the index as it is.
func history(ctx context.Context, r *road, conversation string) (out []uint64, err error) {
	for e, err := range r.bus.History(ctx, "acme", conversation, 0, 0) {
		if err != nil {
			return nil, err
		}
		out = append(out, e.Sequence)
	}
	return out, nil
}

// live hears the live copies after subscribing, those above the snapshot.
func live(r *road, conversation string) (*nats.Subscription, func(s uint64) func(context.Context) (uint64, error), error) {
	sub, err := r.bus.Conn().SubscribeSync("cim-live.acme.ada.*." + conversation)
	if err != nil {
		return nil, nil, err
	}
	return sub, func(s uint64) func(context.Context) (uint64, error) {
		return func(ctx context.Context) (uint64, error) {
			for {
				m, err := sub.NextMsgWithContext(ctx)
				if err != nil {
					return 0, err
				}
				if n := bus.SequenceOf(m.Header); n > s {
					return n, nil
				}
			}
		}
	}, r.bus.Conn().Flush()
}

func last(snapshot []uint64) uint64 {
	if len(snapshot) == 0 {
		return 0
	}
	return snapshot[len(snapshot)-1]
}

// subscribingLate takes the snapshot, then subscribes.
func subscribingLate(ctx context.Context, r *road, conversation string, meanwhile func()) (joined, error) {
	snapshot, err := history(ctx, r, conversation)
	if err != nil {
		return joined{}, err
	}
	meanwhile()
	sub, next, err := live(r, conversation)
	return joined{snapshot, next(last(snapshot)), func() { _ = sub.Unsubscribe() }}, err
}

// withoutBarrier subscribes first, but takes for granted that what is not in the snapshot is still to come.
func withoutBarrier(ctx context.Context, r *road, conversation string, meanwhile func()) (joined, error) {
	sub, next, err := live(r, conversation)
	if err != nil {
		return joined{}, err
	}
	meanwhile()
	snapshot, err := history(ctx, r, conversation)
	return joined{snapshot, next(last(snapshot)), func() { _ = sub.Unsubscribe() }}, err
}

// whole returns an error unless snapshot and what follows are the events 1…n, each once, in order.
func (j joined) whole(n uint64, patience time.Duration) error {
	defer j.close()
	want := uint64(1)
	for _, s := range j.snapshot {
		if s != want {
			return fmt.Errorf("snapshot has %d for %d", s, want)
		}
		want++
	}
	for ; want <= n; want++ {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		s, err := j.next(ctx)
		cancel()
		if err != nil {
			return fmt.Errorf("waiting for %d: %w", want, err)
		}
		if s != want {
			return fmt.Errorf("%d came for %d", s, want)
		}
	}
	return nil
}

// atEveryStep joins at every step of the worker's script, which stands still meanwhile but for a few steps in the middle, and
// returns what went wrong at which.
func atEveryStep(t *testing.T, name string, join way, patience time.Duration) map[int]error {
	t.Helper()
	r := newRoad(t, bus.StreamOptions{})
	wrong := map[int]error{}
	total := len(r.script("x"))
	for i := 0; i <= total; i++ {
		for _, pace := range []int{0, 1, 3} {
			conversation := fmt.Sprint(name, i, "-", pace)
			steps := r.script(conversation)
			for _, step := range steps[:i] {
				step()
			}
			at := i
			advance := func(n int) {
				for ; n > 0 && at < len(steps); n-- {
					steps[at]()
					at++
				}
			}
			result := make(chan error, 1)
			joinedIt := make(chan struct{})
			go func() {
				j, err := join(r.within(time.Minute), r, conversation, func() { advance(pace) })
				close(joinedIt)
				if err == nil {
					err = j.whole(scripted, patience)
				}
				result <- err
			}()
			// Who is no member yet waits for the worker.
			if _, err := r.bus.Member(t.Context(), "acme", "ada", conversation); err == nil || name != "properly" {
				<-joinedIt
			}
			advance(total)
			if err := <-result; err != nil {
				wrong[i] = err
			}
		}
	}
	return wrong
}

func TestFollowingIsWholeAtWhateverStepOfTheWorkerItJoins(t *testing.T) {
	require.Empty(t, atEveryStep(t, "properly", properly, 20*time.Second))
}

func TestTheNaiveWaysOfJoiningHaveHoles(t *testing.T) {
	for name, join := range map[string]way{"subscribing-late": subscribingLate, "without-barrier": withoutBarrier} {
		t.Run(name, func(t *testing.T) {
			wrong := atEveryStep(t, name, join, 20*time.Millisecond)
			later := 0
			for step := range wrong {
				if step > 3*joinedAt { // well after it became a member
					later++
				}
			}
			require.NotZero(t, later, "the test sees no hole where there must be one: %v", wrong)
		})
	}
}

func TestFollowingIsWholeWhileTheWorkerWorks(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{DeliveriesPerSubject: 1_000_000})
	ctx, stop := context.WithCancel(t.Context())
	worked := make(chan uint64, 1)
	r.member("ada", "c", 1, 0)
	go func() {
		s := uint64(0)
		for ctx.Err() == nil {
			s++
			r.deliverNamed("ada", "c", s)
			if s%3 == 0 {
				runtime.Gosched()
			}
			r.index("c", s)
		}
		worked <- s
	}()
	bustest.Eventually(t, 10*time.Second, func() error {
		if r.last(bus.StreamIndex) < 10 {
			return errors.New("the worker has not begun")
		}
		return nil
	})
	for range 20 {
		j, err := properly(r.within(time.Minute), r, "c", nil)
		require.NoError(t, err)
		require.NoError(t, j.whole(last(j.snapshot)+20, 20*time.Second))
	}
	stop()
	n := <-worked
	j, err := properly(r.within(time.Minute), r, "c", nil)
	require.NoError(t, err)
	require.Equal(t, n, last(j.snapshot))
	require.NoError(t, j.whole(n, time.Second))
}

func TestFollowingMakesGoodForAnIndexThatIsBehind(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	// A power cut took the index entries 4 to 9; the worker writes them again.
	r.member("ada", "c", 1, 0)
	for s := uint64(1); s <= 9; s++ {
		r.deliver("ben", "c", s)
		r.deliverNamed("ada", "c", s)
	}
	for s := uint64(1); s <= 3; s++ {
		r.index("c", s)
	}
	j, err := properly(r.within(time.Minute), r, "c", nil)
	require.NoError(t, err)
	require.Equal(t, []uint64{1, 2, 3}, j.snapshot)
	for s := uint64(4); s <= 9; s++ {
		r.index("c", s)
	}
	require.NoError(t, j.whole(9, 10*time.Second))
}

func TestFollowingHearsOnlyTheConversationsOwnWorker(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.member("ada", "c", 1, 0)
	r.deliverNamed("ada", "c", 1)
	r.index("c", 1, bus.HeaderEventName, "X", bus.HeaderEventID, "e1", bus.HeaderChannel, "WEB", bus.HeaderSourceSubject, "cim.acme.web.X")
	f, err := r.bus.Follow(r.within(time.Minute), "acme", "ada", "c")
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	require.Len(t, f.Snapshot, 1)
	require.WithinDuration(t, time.Now(), f.Snapshot[0].Committed, time.Minute)
	f.Snapshot[0].Committed = time.Time{}
	require.Equal(t, []bus.Entry{{
		Sequence: 1, Conversation: "c", EventID: "e1", EventName: "X", Channel: "WEB", Outcome: bus.OutcomeDelivered, Subject: "cim.acme.web.X",
		IndexSequence: 1,
	}}, f.Snapshot)
	for _, kind := range []string{"replay", "mine"} {
		r.publish(&nats.Msg{Subject: deliverySubject("ada", kind, "c"), Header: sequenceHeader(2)})
	}
	r.deliverNamed("ada", "other", 2)
	r.deliverNamed("ben", "c", 2)
	require.NoError(t, r.bus.Conn().PublishMsg(&nats.Msg{Subject: "cim-live.acme.ada.onCimEvent.c", Header: nats.Header{bus.HeaderTransient: {"true"}}}))
	r.deliverNamed("ada", "c", 3)
	r.publish(&nats.Msg{Subject: deliverySubject("ada", bus.TypeUnsubscribed, "c"), Header: sequenceHeader(4)})
	ctx := r.within(10 * time.Second)
	var got []string
	for range 3 {
		d, err := f.Next(ctx)
		require.NoError(t, err)
		got = append(got, fmt.Sprint(d.Type, " ", d.Sequence, " ", d.Transient))
	}
	require.Equal(t, []string{"onCimEvent 0 true", "onCimEvent 3 false", "topicUnsubscription 4 false"}, got)
	_, err = r.bus.Follow(r.within(50*time.Millisecond), "acme", "ben", "c")
	require.ErrorIs(t, err, context.DeadlineExceeded, "who is no member waits")
	_, err = r.bus.Follow(t.Context(), "acme", "ben", "")
	require.ErrorContains(t, err, "conversation is missing")
}
