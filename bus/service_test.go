package bus_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

// discovered is what services answer to a request of the nats command line, which it sends so and reads until it has waited long enough.
func discovered(t testing.TB, nc *nats.Conn, subject string, n int) []map[string]any {
	t.Helper()
	inbox := nats.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	require.NoError(t, err)
	require.NoError(t, nc.PublishMsg(&nats.Msg{Subject: subject, Reply: inbox, Header: nats.Header{"Accept-Encoding": {"snappy"}}, Data: []byte("{}")}))
	var all []map[string]any
	for range n {
		m, err := sub.NextMsg(20 * time.Second)
		require.NoError(t, err, subject)
		require.Empty(t, m.Header.Get("Content-Encoding"))
		var answer map[string]any
		require.NoError(t, json.Unmarshal(m.Data, &answer))
		all = append(all, answer)
	}
	require.NoError(t, nc.Flush())
	_, err = sub.NextMsg(50 * time.Millisecond)
	if n == 0 {
		require.ErrorIs(t, err, nats.ErrNoResponders)
	} else {
		require.ErrorIs(t, err, nats.ErrTimeout, "no instance answers twice, and no other at all")
	}
	require.NoError(t, sub.Unsubscribe())
	return all
}

func TestTheServiceIsListedDescribedAndCountedAsTheNATSCommandLineAsks(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.serve(bus.ControlOptions{Version: "1.2.3-rc.1"})
	r.serve(bus.ControlOptions{})
	nc := r.connect("bus")
	var ids []string
	for _, ping := range discovered(t, nc, "$SRV.PING", 2) {
		require.Equal(t, "io.nats.micro.v1.ping_response", ping["type"])
		require.Equal(t, "cimbus", ping["name"])
		require.Equal(t, map[string]any{}, ping["metadata"])
		require.Contains(t, []any{"1.2.3-rc.1", "0.0.0"}, ping["version"])
		require.Len(t, ping, 5)
		ids = append(ids, ping["id"].(string))
	}
	require.NotEqual(t, ids[0], ids[1])
	discovered(t, nc, "$SRV.PING.cimbus", 2)
	discovered(t, nc, "$SRV.PING.another", 0)

	names := slices.Sorted(slices.Values(verbs))
	for _, id := range ids {
		require.Equal(t, id, discovered(t, nc, "$SRV.PING.cimbus."+id, 1)[0]["id"])
		info := discovered(t, nc, "$SRV.INFO.cimbus."+id, 1)[0]
		require.Equal(t, "io.nats.micro.v1.info_response", info["type"])
		require.Equal(t, id, info["id"])
		require.NotEmpty(t, info["description"])
		require.Len(t, info, 7)
		stats := discovered(t, nc, "$SRV.STATS.cimbus."+id, 1)[0]
		require.Equal(t, "io.nats.micro.v1.stats_response", stats["type"])
		started, err := time.Parse(time.RFC3339Nano, stats["started"].(string))
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), started, time.Minute)
		require.Len(t, stats, 7)
		endpoints, counted := info["endpoints"].([]any), stats["endpoints"].([]any)
		require.Len(t, endpoints, len(names))
		require.Len(t, counted, len(names))
		for i, name := range names {
			subject := "cim-ctl.*.*." + name
			require.Equal(t, map[string]any{"name": name, "subject": subject, "queue_group": "cimbus", "metadata": map[string]any{}}, endpoints[i])
			require.Equal(t, map[string]any{
				"name": name, "subject": subject, "queue_group": "cimbus",
				"num_requests": 0.0, "num_errors": 0.0, "last_error": "", "processing_time": 0.0, "average_processing_time": 0.0,
			}, counted[i])
		}
	}
	for _, subject := range []string{"$SRV.INFO", "$SRV.INFO.cimbus", "$SRV.STATS", "$SRV.STATS.cimbus"} {
		discovered(t, nc, subject, 2)
	}
}

func TestTheServiceCountsEveryRequestWithItsErrorAndTheWholeTimeItTook(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	r.serve(bus.ControlOptions{})
	ada, nc := r.caller("ada"), r.connect("bus", nats.SkipSubjectValidation())
	ada.ask(bus.VerbCheck, "")
	ada.ask(bus.VerbCheck, `{"after":"0"}`)
	ada.ask(bus.VerbCheck, `{"after":"nonsense"}`)
	require.NoError(t, nc.PublishRequest("cim-ctl.acme.ada.check", "cim.acme.web.X", nil))
	ada.ask(bus.VerbJoin, `{"conversation":"c"}`)
	count := func(name string) (found map[string]any) {
		for _, e := range discovered(t, nc, "$SRV.STATS.cimbus", 1)[0]["endpoints"].([]any) {
			if e.(map[string]any)["name"] == name {
				found = e.(map[string]any)
			}
		}
		return found
	}
	var check map[string]any
	// An answer is there before it is counted.
	bustest.Eventually(t, 20*time.Second, func() error {
		if check = count("check"); check["num_requests"] != 4.0 || count("join")["num_requests"] != 1.0 {
			return fmt.Errorf("counted %v", check)
		}
		return nil
	})
	require.Equal(t, 2.0, check["num_errors"])
	require.NotEmpty(t, check["last_error"])
	require.InDelta(t, check["processing_time"], check["average_processing_time"].(float64)*4, 4)
	join := count("join")
	require.Equal(t, 0.0, join["num_errors"])
	// A join is stored on the way, long after the subscription's handler returned.
	require.Greater(t, join["processing_time"], float64(20*time.Microsecond))
}

func TestDiscoveryIsAnsweredToInboxesOnly(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	control := r.serve(bus.ControlOptions{})
	nc := r.connect("bus", nats.SkipSubjectValidation())
	spy, err := r.connect("bus").SubscribeSync(">")
	require.NoError(t, err)
	sent := uint64(0)
	for _, reply := range append(hostile[1:len(hostile)-2:len(hostile)-2], "_INBOX", "_INBOX.", "_INBOX.*", "_INBOX_ops.>", "_INBOX.a..b", "INBOX.a", "orders.new") {
		for _, subject := range []string{"$SRV.PING", "$SRV.INFO.cimbus", "$SRV.STATS"} {
			require.NoError(t, nc.PublishRequest(subject, reply, nil))
			sent++
		}
	}
	require.NoError(t, nc.Publish("$SRV.PING", nil))
	sent++
	bustest.Eventually(t, 20*time.Second, func() error {
		if n := control.Dropped(); n != sent {
			return fmt.Errorf("%d of %d dropped", n, sent)
		}
		return nil
	})
	require.NoError(t, r.bus.Conn().Flush())
	for {
		m, err := spy.NextMsg(200 * time.Millisecond)
		if errors.Is(err, nats.ErrTimeout) {
			break
		}
		require.NoError(t, err)
		require.NotContains(t, string(m.Data), "io.nats.micro", m.Subject)
	}
	ops := r.connect("bus", nats.CustomInboxPrefix("_INBOX_ops"))
	m, err := ops.Request("$SRV.PING", nil, 5*time.Second)
	require.NoError(t, err, "an operator may have a prefix of their own")
	require.Contains(t, string(m.Data), "io.nats.micro.v1.ping_response")
}

func TestAServiceVersionThatToolsCannotReadIsRefused(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	for _, version := range []string{"1", "v1.2.3", "(devel)", "1.2", strings.Repeat("9", 1000)} {
		_, err := b.ServeControl(t.Context(), bus.ControlOptions{Version: version})
		require.ErrorContains(t, err, "give a semantic version")
	}
	_, err := b.ServeControl(t.Context(), bus.ControlOptions{Version: "0.0.0-20260930120000-abcdef123456+dirty"})
	require.NoError(t, err)
}
