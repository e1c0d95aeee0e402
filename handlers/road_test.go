package handlers_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// places are the kinds of NATS a bus lives on; what is promised is promised on all of them.
var places = map[string]func(t *testing.T) bus.Options{
	"in-process": func(t *testing.T) bus.Options {
		return bus.Options{Embedded: embedded.Options{StoreDir: t.TempDir(), Durability: embedded.Balanced}}
	},
	"in-process with listeners, strict": func(t *testing.T) bus.Options {
		return bus.Options{Embedded: embedded.Options{StoreDir: t.TempDir(), NATSAddr: "127.0.0.1:0", WebSocketAddr: "127.0.0.1:0"}}
	},
	"external server": func(t *testing.T) bus.Options {
		return bus.Options{URL: bustest.Process(t).URL()}
	},
	"given connection": func(t *testing.T) bus.Options {
		nc, err := bustest.Server(t).Connect()
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		return bus.Options{Conn: nc}
	},
	"three-node cluster": func(t *testing.T) bus.Options {
		nodes := bustest.Cluster(t, 3)
		return bus.Options{URL: strings.Join(nodes.URLs(), ",")}
	},
}

func everywhere(t *testing.T, test func(t *testing.T, b *bus.Bus)) {
	for name, place := range places {
		t.Run(name, func(t *testing.T) {
			o := place(t)
			b := openBusOn(t, o)
			start(t, b, oncimevent.New(oncimevent.Options{}))
			test(t, b)
			if o.Conn != nil {
				require.NoError(t, b.Close(t.Context()))
				require.True(t, o.Conn.IsConnected(), "a given connection stays open")
			}
		})
	}
}

// openAgent opens an agent's stream after a position, nil = from now.
func openAgent(t *testing.T, b *bus.Bus, name string, after *bus.Position) *bus.Agent {
	t.Helper()
	a, err := b.Agent(t.Context(), bus.AgentOptions{Tenant: tenant, Agent: name, After: after})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	return a
}

func next(t *testing.T, a *bus.Agent) bus.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	d, err := a.Next(ctx)
	require.NoError(t, err)
	return d
}

func TestEveryKindOfEventReachesTheAgentWithItsOwnBytes(t *testing.T) {
	files, err := filepath.Glob("../bus/cim/testdata/events/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	everywhere(t, func(t *testing.T, b *bus.Bus) {
		publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
		agent := openAgent(t, b, "ada", &bus.Position{})
		require.Equal(t, "onCimEvent", next(t, agent).Type)
		for _, file := range files {
			body, err := os.ReadFile(file)
			require.NoError(t, err)
			name := strings.TrimSuffix(filepath.Base(file), ".json")
			// All of them in one conversation: the header is the first that is asked.
			_, err = b.JetStream().PublishMsg(t.Context(), &nats.Msg{
				Subject: "cim.acme.web." + name, Data: body, Header: nats.Header{bus.HeaderConversation: {"c1"}},
			})
			require.NoError(t, err)
			d := next(t, agent)
			require.Equal(t, "cim-agent.acme.ada.onCimEvent.c1", d.Subject)
			var parts map[string]json.RawMessage
			require.NoError(t, json.Unmarshal(d.Body, &parts))
			require.Equal(t, strings.TrimSpace(string(body)), string(parts["cimEvent"]), name)
			require.Equal(t, name, bus.LastHeader(d.Header, bus.HeaderEventName))
		}
		drained(t, b)
		audit(t, b)
	})
}

func TestDisconnectedAgentResumesExactlyTheHundredEventsItMissed(t *testing.T) {
	everywhere(t, func(t *testing.T, b *bus.Bus) {
		publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
		agent := openAgent(t, b, "ada", &bus.Position{})
		next(t, agent)
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("seen", "c1"))
		require.Equal(t, "seen", bus.LastHeader(next(t, agent).Header, bus.HeaderEventID))
		position, err := bus.ParsePosition(agent.Position().String())
		require.NoError(t, err)
		require.NoError(t, agent.Close())

		for i := range 100 {
			publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprintf("missed-%d", i), "c1"))
		}
		drained(t, b)
		back := openAgent(t, b, "ada", &position)
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("after", "c1"))
		for i := range 100 {
			require.Equal(t, fmt.Sprintf("missed-%d", i), bus.LastHeader(next(t, back).Header, bus.HeaderEventID))
		}
		require.Equal(t, "after", bus.LastHeader(next(t, back).Header, bus.HeaderEventID))
		drained(t, b)
		audit(t, b)
	})
}

func TestOneAgentDoesNotReceiveAnothersConversation(t *testing.T) {
	everywhere(t, func(t *testing.T, b *bus.Bus) {
		ada, ben := openAgent(t, b, "ada", &bus.Position{}), openAgent(t, b, "ben", &bus.Position{})
		publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j1", "c1", "ada", "PRIMARY"))
		publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j2", "c2", "ben", "PRIMARY"))
		// The same names, another tenant.
		publish(t, b, "cim.other._.AGENT_SUBSCRIBED", join("j3", "c1", "ben", "PRIMARY"))
		publish(t, b, "cim.other.web.AGENT_MESSAGE", message("theirs", "c1"))
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("m1", "c1"))
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("m2", "c2"))
		for agent, want := range map[*bus.Agent][]string{ada: {"j1", "m1"}, ben: {"j2", "m2"}} {
			for _, id := range want {
				require.Equal(t, id, bus.LastHeader(next(t, agent).Header, bus.HeaderEventID))
			}
		}
		drained(t, b)
		audit(t, b)
	})
}

func TestClusterKeepsThreeReplicasOfEverything(t *testing.T) {
	nodes := bustest.Cluster(t, 3)
	b := openBusOn(t, bus.Options{URL: strings.Join(nodes.URLs(), ",")})
	start(t, b, oncimevent.New(oncimevent.Options{}))
	for _, name := range []string{
		bus.StreamEvents, bus.StreamDeliveries, bus.StreamIndex, bus.StreamDeadLetters, bus.StreamMembers, bus.StreamConversations,
	} {
		stream, err := b.JetStream().Stream(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, 3, stream.CachedInfo().Config.Replicas, name)
	}
}

func TestNothingIsLostOrRepeatedWhenANodeOfTheClusterGoesDown(t *testing.T) {
	nodes := bustest.Cluster(t, 3)
	b := openBusOn(t, bus.Options{URL: strings.Join(nodes.URLs(), ",")})
	start(t, b, oncimevent.New(oncimevent.Options{}))
	tr := startTraffic(t, b, 1, 20, 2*time.Millisecond)
	tr.retry.Store(true)
	tr.sentMore(t, 200)
	down := nodes.StreamLeader(bus.StreamEvents)
	nodes.Stop(down)
	tr.sentMore(t, 200)
	nodes.Start(down)
	tr.sentMore(t, 200)
	tr.end(t)
	nodes.WaitCurrent()
	drained(t, b)
	audit(t, b)
}

// publishSurely publishes under an id until it is acknowledged, through elections.
func publishSurely(ctx context.Context, b *bus.Bus, subject, id string, body []byte) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := b.JetStream().Publish(attempt, subject, body, jetstream.WithMsgID(id))
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}
