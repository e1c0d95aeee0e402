package bus_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/subjects"
)

const replayConversations = 5

// storedForReplay stores n events of one tenant in several conversations that ann and bob are members of.
func storedForReplay(r *road, n int) {
	for i := range n {
		r.publish(&nats.Msg{
			Subject: "cim.acme.web.CUSTOMER_MESSAGE",
			Data:    fmt.Appendf(nil, `{"id":"m%d","name":"CUSTOMER_MESSAGE","conversationId":"c%d"}`, i+1, i%replayConversations),
			Header:  nats.Header{"traceparent": {fmt.Sprintf("00-%032x-%016x-01", i+1, i+1)}, bus.HeaderConversation: {fmt.Sprintf("c%d", i%replayConversations)}},
		})
	}
	for c := range replayConversations {
		for _, agent := range []string{"ann", "bob"} {
			r.publish(&nats.Msg{Subject: fmt.Sprintf("$KV.CIM_MEMBERS.acme.%s.c%d", agent, c), Data: []byte(`{"role":"PRIMARY","since":1,"left":0}`)})
		}
	}
}

// place is a target, and how to read what it has.
type place struct {
	open func(t *testing.T, b *bus.Bus) bus.ReplayTarget
	// has lists the sequences of the events, by what has its own order.
	has func(t *testing.T, b *bus.Bus) map[string][]uint64
}

// storedBy lists what a replay stored, by lane.
func storedBy(t *testing.T, b *bus.Bus, stream string, header string, lane func(*jetstream.RawStreamMsg) string) map[string][]uint64 {
	t.Helper()
	has := map[string][]uint64{}
	for m, err := range b.Read(t.Context(), bus.Range{Stream: stream, Filter: ">"}) {
		require.NoError(t, err)
		if m.Header.Get(bus.HeaderReplayID) != "" {
			var sequence uint64
			_, err := fmt.Sscan(m.Header.Get(header), &sequence)
			require.NoError(t, err)
			has[lane(m)] = append(has[lane(m)], sequence)
		}
	}
	return has
}

func fileEvents(t *testing.T, path string) []uint64 {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var all []uint64
	for line := range strings.Lines(string(text)) {
		e, err := bus.ReadStoredEvent([]byte(line))
		require.NoError(t, err, line)
		all = append(all, e.Sequence)
	}
	return all
}

func replayPlaces(t *testing.T) map[string]place {
	path := filepath.Join(t.TempDir(), "events.ndjson")
	conversation := func(m *jetstream.RawStreamMsg) string { return m.Header.Get(bus.HeaderConversation) }
	return map[string]place{
		"file": {
			func(*testing.T, *bus.Bus) bus.ReplayTarget { return bus.ReplayToFile(path) },
			func(t *testing.T, _ *bus.Bus) map[string][]uint64 {
				return map[string][]uint64{"file": fileEvents(t, path)}
			},
		},
		"subject": {
			func(t *testing.T, b *bus.Bus) bus.ReplayTarget {
				_, err := b.JetStream().CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "MINE", Subjects: []string{"mine.>"}, Storage: jetstream.MemoryStorage, Duplicates: bus.MinDuplicateWindow})
				require.NoError(t, err)
				target, err := b.ReplayToSubject(t.Context(), "mine.>")
				require.NoError(t, err)
				return target
			},
			func(t *testing.T, b *bus.Bus) map[string][]uint64 {
				return storedBy(t, b, "MINE", bus.HeaderSequence, conversation)
			},
		},
		"handler": {
			func(t *testing.T, b *bus.Bus) bus.ReplayTarget {
				_, err := b.JetStream().CreateOrUpdateConsumer(t.Context(), bus.StreamEvents, jetstream.ConsumerConfig{Durable: bus.HandlerConsumer("crm")})
				require.NoError(t, err)
				target, err := b.ReplayToHandler(t.Context(), "crm")
				require.NoError(t, err)
				return target
			},
			func(t *testing.T, b *bus.Bus) map[string][]uint64 {
				return storedBy(t, b, bus.StreamEvents, bus.HeaderReplayOf, conversation)
			},
		},
		"agents": {
			func(t *testing.T, b *bus.Bus) bus.ReplayTarget {
				target, err := b.ReplayToAgents(bus.ReplayAgents{Tenant: "acme", Agents: []string{"ann", "bob"}})
				require.NoError(t, err)
				return target
			},
			func(t *testing.T, b *bus.Bus) map[string][]uint64 {
				return storedBy(t, b, bus.StreamDeliveries, bus.HeaderSequence, func(m *jetstream.RawStreamMsg) string { return m.Subject })
			},
		},
	}
}

// cut is a target that is cut off at an event: the process is killed there, or somebody stops it.
type cut struct {
	bus.ReplayTarget
	left   int
	kill   bool
	cancel context.CancelFunc
}

func (c *cut) Put(ctx context.Context, e bus.StoredEvent) (bool, error) {
	if c.left--; c.left == 0 {
		if c.kill {
			runtime.Goexit()
		}
		c.cancel()
	}
	return c.ReplayTarget.Put(ctx, e)
}

func TestAReplayThatIsStoppedOrKilledAnywhereMissesNothingAndRepeatsNothing(t *testing.T) {
	const n = 400
	for _, name := range []string{"file", "subject", "handler", "agents"} {
		for seed := range uint64(replaySeeds) {
			t.Run(fmt.Sprintf("%s/%d", name, seed), func(t *testing.T) {
				r := newRoad(t, bus.StreamOptions{})
				storedForReplay(r, n)
				at := replayPlaces(t)[name]
				rng := rand.New(rand.NewPCG(seed, 7))
				id := "again"
				span, err := r.bus.Span(t.Context(), bus.StreamEvents, bus.Point{}, bus.Point{})
				require.NoError(t, err)
				for turn := 0; ; turn++ {
					var replay *bus.Replay
					if turn == 0 {
						replay, err = r.bus.StartReplay(t.Context(), bus.NewReplay{ID: id, Operator: "eva", Target: name, Span: span})
					} else {
						replay, err = r.bus.ResumeReplay(t.Context(), id, "eva")
					}
					require.NoError(t, err)
					ctx, cancel := context.WithCancel(t.Context())
					target := &cut{ReplayTarget: at.open(t, r.bus), left: 1 + rng.IntN(n/2), kill: rng.IntN(2) == 0, cancel: cancel}
					killed := make(chan struct{})
					var record bus.ReplayRecord
					go func() {
						defer close(killed)
						record, err = replay.To(ctx, target)
					}()
					<-killed
					cancel()
					if target.kill && target.left <= 0 {
						continue
					}
					if errors.Is(err, bus.ErrReplayStopped) {
						require.Equal(t, bus.ReplayStopped, record.State)
						continue
					}
					require.NoError(t, err)
					require.Equal(t, bus.ReplayDone, record.State)
					require.EqualValues(t, n, record.Events)
					require.Len(t, record.Runs, turn+1)
					break
				}
				for lane, sequences := range at.has(t, r.bus) {
					for i := 1; i < len(sequences); i++ {
						require.Less(t, sequences[i-1], sequences[i], "%s: in order, and once", lane)
					}
				}
				total := 0
				for _, sequences := range at.has(t, r.bus) {
					total += len(sequences)
				}
				require.Equal(t, map[string]int{"file": n, "subject": n, "handler": n, "agents": 2 * n}[name], total)
				_, err = r.bus.ResumeReplay(t.Context(), id, "eva")
				require.ErrorIs(t, err, bus.ErrReplayDone)
			})
		}
	}
}

func TestOfTwoWhoGoOnWithAReplayOneDoes(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	storedForReplay(r, 10)
	span, err := r.bus.Span(t.Context(), bus.StreamEvents, bus.Point{}, bus.Point{})
	require.NoError(t, err)
	first, err := r.bus.StartReplay(t.Context(), bus.NewReplay{ID: "again", Operator: "eva", Target: "stdout", Span: span})
	require.NoError(t, err)
	_, err = r.bus.StartReplay(t.Context(), bus.NewReplay{ID: "again", Operator: "max", Target: "stdout", Span: span})
	require.ErrorIs(t, err, bus.ErrReplayExists)

	// It does not run, so somebody takes it up; the first one notices before it sends anything.
	var second strings.Builder
	other, err := r.bus.ResumeReplay(t.Context(), "again", "max")
	require.NoError(t, err)
	var out strings.Builder
	_, err = first.To(t.Context(), bus.ReplayToWriter(&out))
	require.ErrorIs(t, err, bus.ErrReplayTaken)
	require.Empty(t, out.String())
	record, err := other.To(t.Context(), bus.ReplayToWriter(&second))
	require.NoError(t, err)
	require.EqualValues(t, 10, record.Events)
	require.Equal(t, 10, strings.Count(second.String(), "\n"))
	require.Equal(t, []string{"eva", "max"}, []string{record.Runs[0].Operator, record.Runs[1].Operator})
}

// waits is a target whose events wait for a word.
type waits struct {
	bus.ReplayTarget
	came chan uint64
	on   chan struct{}
}

func (w *waits) Put(ctx context.Context, e bus.StoredEvent) (bool, error) {
	w.came <- e.Sequence
	select {
	case <-w.on:
	case <-ctx.Done():
	}
	return w.ReplayTarget.Put(ctx, e)
}

func TestARunningReplayIsNotTakenUpAndStopsWhenAskedTo(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	storedForReplay(r, 10)
	span, err := r.bus.Span(t.Context(), bus.StreamEvents, bus.Point{}, bus.Point{})
	require.NoError(t, err)
	replay, err := r.bus.StartReplay(t.Context(), bus.NewReplay{ID: "again", Operator: "eva", Target: "stdout", Span: span})
	require.NoError(t, err)
	var out strings.Builder
	target := &waits{bus.ReplayToWriter(&out), make(chan uint64, 10), make(chan struct{}, 10)}
	ended := make(chan error, 1)
	go func() {
		_, err := replay.To(t.Context(), target)
		ended <- err
	}()
	target.on <- struct{}{}
	<-target.came
	<-target.came
	require.True(t, r.bus.ReplayRuns(t.Context(), "again"))
	_, err = r.bus.ResumeReplay(t.Context(), "again", "max")
	require.ErrorIs(t, err, bus.ErrReplayRunning)
	record, err := r.bus.StopReplay(t.Context(), "again")
	require.NoError(t, err)
	require.ErrorIs(t, <-ended, bus.ErrReplayStopped)
	require.Equal(t, bus.ReplayStopped, record.State)
	require.EqualValues(t, strings.Count(out.String(), "\n"), record.Events)
	require.Equal(t, record.Events, record.Done)
	_, err = r.bus.StopReplay(t.Context(), "again")
	require.ErrorContains(t, err, `it is stopped`)
}

func TestAReplayedDeliveryIsThatOfItsEventButForItsTypeAndReplay(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	storedForReplay(r, 3)
	r.publish(&nats.Msg{Subject: "cim.acme.web.TYPING_INDICATOR", Data: []byte(`{"id":"t","name":"TYPING_INDICATOR","conversationId":"c0"}`)})
	r.publish(&nats.Msg{Subject: "cim.acme.web.CUSTOMER_MESSAGE", Data: []byte(`{"id":"x","name":"OTHER","conversationId":"c0"}`)})
	r.publish(&nats.Msg{Subject: "cim.acme.web.CUSTOMER_MESSAGE", Data: []byte(`{"id":"m1","name":"CUSTOMER_MESSAGE","conversationId":"c0"}`),
		Header: nats.Header{bus.HeaderRedriveHandler: {"crm"}, bus.HeaderReplayOf: {"1"}}})
	span, err := r.bus.Span(t.Context(), bus.StreamEvents, bus.Point{}, bus.Point{})
	require.NoError(t, err)
	sel := bus.EventSelection{Tenant: subjects.Is("acme")}
	plan, err := r.bus.PlanReplay(t.Context(), sel, span, []string{"ann", "cid"}, "")
	require.NoError(t, err)
	require.Equal(t, 6, plan.Events)
	require.Equal(t, 3, plan.ToReplay())
	require.Equal(t, map[string][]string{"cid": {"c0", "c1", "c2"}}, plan.NotMembers)

	replay, err := r.bus.StartReplay(t.Context(), bus.NewReplay{Operator: "eva", Target: "agent:ann", Span: span, Selection: sel})
	require.NoError(t, err)
	target, err := r.bus.ReplayToAgents(bus.ReplayAgents{Tenant: "acme", Agents: []string{"ann"}})
	require.NoError(t, err)
	record, err := replay.To(t.Context(), target)
	require.NoError(t, err)
	require.EqualValues(t, 6, record.Events)
	require.EqualValues(t, 3, record.LeftOut)
	m, err := r.bus.MessageAt(t.Context(), bus.StreamDeliveries, 2)
	require.NoError(t, err)
	require.Equal(t, "cim-agent.acme.ann.replay.c1", m.Subject)
	require.JSONEq(t, `{"cimEvent":{"id":"m2","name":"CUSTOMER_MESSAGE","conversationId":"c1"},"conversationId":"c1","id":"m2","channelSession":null,"status":null,"listId":null,"time":null}`, string(m.Data))
	source, err := r.bus.MessageAt(t.Context(), bus.StreamEvents, 2)
	require.NoError(t, err)
	for key, want := range map[string]string{
		bus.HeaderSequence: "2", bus.HeaderReplayID: record.ID, bus.HeaderEventID: "m2", bus.HeaderConversation: "c1", bus.HeaderChannel: "web",
		bus.HeaderSourceSubject: source.Subject, "traceparent": source.Header.Get("traceparent"),
	} {
		require.Equal(t, want, m.Header.Get(key), key)
	}

	// Without a plan, a stranger is found at its first event.
	replay, err = r.bus.StartReplay(t.Context(), bus.NewReplay{Operator: "eva", Target: "agent:cid", Span: span, Selection: sel})
	require.NoError(t, err)
	target, err = r.bus.ReplayToAgents(bus.ReplayAgents{Tenant: "acme", Agents: []string{"cid"}})
	require.NoError(t, err)
	record, err = replay.To(t.Context(), target)
	require.ErrorIs(t, err, bus.ErrNotMember)
	require.Equal(t, bus.ReplayFailed, record.State)
	require.Contains(t, record.Error, `agent "cid" in "c0"`)
}

func TestAReplayWhoseConnectionWasClosedAMomentAgoDoesNotRun(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	subject, err := subjects.Replay{ID: "ended"}.Running()
	require.NoError(t, err)
	sub, err := r.bus.Conn().SubscribeSync(subject)
	require.NoError(t, err)
	require.NoError(t, sub.AutoUnsubscribe(1), "the server does not know yet that it is gone")
	require.NoError(t, r.bus.Conn().Flush())
	require.False(t, r.bus.ReplayRuns(t.Context(), "ended"))
}
