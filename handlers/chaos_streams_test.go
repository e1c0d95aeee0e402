package handlers_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// whole is a bus in this process, with a worker, the control service and a listener for the crowd.
func whole(t *testing.T) *bus.Bus {
	t.Helper()
	b := openWhole(t, bus.Options{Embedded: embedded.Options{StoreDir: t.TempDir(), Durability: embedded.Balanced, NATSAddr: "127.0.0.1:0"}})
	control(t, b)
	return b
}

func TestChaosNothingIsLostOrRepeatedWhenTheConsumerIsDeletedUnderLoad(t *testing.T) {
	rng, seed := chaos(t)
	b := whole(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	c := startCrowd(t, crowdOptions{url: b.Server().NATSURL(), seed: seed, every: 3 * time.Millisecond})
	for range shortOrLong(3, 60) {
		c.more(t, rng.Int64N(200))
		err := b.JetStream().DeleteConsumer(t.Context(), bus.StreamEvents, "handler-"+oncimevent.Name)
		if !errors.Is(err, jetstream.ErrConsumerNotFound) { // the last one is not made good yet
			require.NoError(t, err)
		}
	}
	c.more(t, 100)
	c.end(t)
	bustest.Eventually(t, 30*time.Second, func() error {
		_, err := b.JetStream().Consumer(t.Context(), bus.StreamEvents, "handler-"+oncimevent.Name)
		return err
	})
	c.account(t, b, 0)
}

// What was in a deleted stream is gone. What can still be promised: no event is lost, everything published after the stream is there
// again is delivered once, in order, and nothing of before comes again; the work does not stop.
func TestChaosWorkGoesOnWhenCIM_DELIVERIESIsDeletedAndMadeAgainUnderLoad(t *testing.T) {
	_, seed := chaos(t)
	b := whole(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	c := startCrowd(t, crowdOptions{url: b.Server().NATSURL(), seed: seed, every: 3 * time.Millisecond})
	c.more(t, 300)
	for _, d := range c.desks {
		bustest.Eventually(t, 30*time.Second, func() error {
			if len(d.soFar()) == 0 || d.resumed.Load() < 2 {
				return fmt.Errorf("agent %s has no position yet", d.name)
			}
			return nil
		})
	}
	require.NoError(t, b.JetStream().DeleteStream(t.Context(), bus.StreamDeliveries))
	back(t, b, bus.StreamDeliveries)
	events, err := b.LastMessage(t.Context(), bus.StreamEvents, ">")
	require.NoError(t, err)
	c.more(t, 300)
	c.end(t)
	drained(t, b)
	s := c.events(t, b)
	t.Log(s)
	require.Zero(t, s.lost+s.repeated+s.misordered)
	report, err := bustest.Audit(t.Context(), b.JetStream())
	require.NoError(t, err)
	t.Log(report)
	require.Empty(t, report.Repeated)
	require.Empty(t, report.Misordered)
	require.Empty(t, report.Unexpected)
	for _, e := range report.Lost {
		require.Equal(t, bus.StreamDeliveries, e.Stream, "%v", e)
		require.LessOrEqual(t, e.Sequence, events.Sequence, "published after the stream was there again: %v", e)
	}
	for _, d := range c.desks {
		var expired *bus.ExpiredError
		bustest.Eventually(t, 30*time.Second, func() error {
			if err := d.failure(); !errors.As(err, &expired) {
				return fmt.Errorf("agent %s was not told that its position has expired, but: %w", d.name, err)
			}
			return nil
		})
	}
}

// back waits until the worker has made a deleted stream again.
func back(t *testing.T, b *bus.Bus, stream string) {
	t.Helper()
	bustest.Eventually(t, 30*time.Second, func() error {
		_, err := b.JetStream().Stream(t.Context(), stream)
		return err
	})
}

// writtenAgain waits until the durable says that everything below its floor is in the stream that there is now.
func writtenAgain(t *testing.T, b *bus.Bus, name string) {
	t.Helper()
	if name == bus.StreamConversations {
		return // written as the conversations go on
	}
	bustest.Eventually(t, 30*time.Second, func() error {
		stream, err := b.JetStream().Stream(t.Context(), name)
		if err != nil {
			return err
		}
		now := stream.CachedInfo().Created.UTC().Format(time.RFC3339Nano)
		if known := consumer(t, b).Config.Metadata["cimbus-created-"+name]; known != now {
			return fmt.Errorf("%s was created at %s, the consumer knows one of %s", name, now, known)
		}
		return nil
	})
}

// What was made of the events is made of them again: nothing at all is missing, neither what was committed before nor after.
func TestChaosNothingIsLostOrRepeatedWhenAStreamOfTheWorkersIsDeletedUnderLoad(t *testing.T) {
	for _, on := range shortOrLong([]string{"a server"}, []string{"a server", "a cluster"}) {
		for _, name := range []string{bus.StreamIndex, bus.StreamMembers, bus.StreamConversations} {
			t.Run(name+" on "+on, func(t *testing.T) {
				_, seed := chaos(t)
				var b *bus.Bus
				o := crowdOptions{seed: seed, every: 3 * time.Millisecond}
				if on == "a cluster" {
					o.url, o.every = strings.Join(bustest.Cluster(t, 3).URLs(), ","), 20*time.Millisecond
					b = openWhole(t, bus.Options{URL: o.url})
					control(t, b)
				} else {
					b = whole(t)
					o.url = b.Server().NATSURL()
				}
				start(t, b, oncimevent.New(oncimevent.Options{}))
				c := startCrowd(t, o)
				for range shortOrLong(1, 10) {
					c.more(t, 200)
					require.NoError(t, b.JetStream().DeleteStream(t.Context(), name))
					back(t, b, name)
					writtenAgain(t, b, name)
				}
				c.more(t, 200)
				c.end(t)
				c.account(t, b, 0)
			})
		}
	}
}

// With CIM_EVENTS goes what was not handled yet. What is published once it is there again is delivered, once and in order, to those
// who were members before, and nothing of before comes again.
func TestChaosWorkGoesOnWhenCIM_EVENTSIsDeletedUnderLoad(t *testing.T) {
	_, _ = chaos(t)
	b := whole(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	const conversations = 10
	for i := range conversations {
		for _, agent := range crowdAgents {
			id := fmt.Sprintf("j%d-%s", i, agent)
			publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join(id, fmt.Sprintf("k%d", i), agent, "PRIMARY"))
		}
	}
	drained(t, b)
	for range shortOrLong(2, 20) {
		talk := func(n int) (first, last uint64) {
			for i := range n {
				s := publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(nuid.Next(), fmt.Sprintf("k%d", i%conversations)))
				first, last = min(first, s), s
				if i == 0 {
					first = s
				}
			}
			return first, last
		}
		_, before := talk(150) // the last of them are not handled yet
		require.NoError(t, b.JetStream().DeleteStream(t.Context(), bus.StreamEvents))
		back(t, b, bus.StreamEvents)
		first, last := talk(150)
		require.Greater(t, first, before)
		bustest.Eventually(t, 60*time.Second, func() error {
			n := 0
			for m, err := range b.Read(t.Context(), bus.Range{Stream: bus.StreamDeliveries, Filter: ">"}) {
				require.NoError(t, err)
				if bus.SequenceOf(m.Header) >= first {
					n++
				}
			}
			if want := int(last-first+1) * len(crowdAgents); n != want {
				return fmt.Errorf("%d of %d deliveries", n, want)
			}
			return nil
		})
		heard := map[string]uint64{}
		for m, err := range b.Read(t.Context(), bus.Range{Stream: bus.StreamDeliveries, Filter: ">"}) {
			require.NoError(t, err)
			require.Greater(t, bus.SequenceOf(m.Header), heard[m.Subject], "repeated or out of order: %s", m.Subject)
			heard[m.Subject] = bus.SequenceOf(m.Header)
		}
	}
}
