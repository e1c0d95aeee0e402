package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

// Operators have the nats command line. What it sends, and what it reads of the answers, is put together here by hand.

// answered is a JSON answer, which has the type that the command line checks it against.
type answered map[string]any

// at is what is at a path of keys.
func (a answered) at(t testing.TB, path ...string) any {
	t.Helper()
	var v any = map[string]any(a)
	for _, key := range path {
		m, ok := v.(map[string]any)
		require.True(t, ok, "%v of %v", path, a)
		v = m[key]
	}
	return v
}

// named is the one of a list of objects that has a value at a path.
func named(t testing.TB, list any, value string, path ...string) answered {
	t.Helper()
	all, ok := list.([]any)
	require.True(t, ok, "%v", list)
	for _, each := range all {
		if a := answered(each.(map[string]any)); a.at(t, path...) == value {
			return a
		}
	}
	require.Fail(t, "not in the list", "%s in %v", value, list)
	return nil
}

// operatedBy is a daemon with one event delivered, and the connection of an operator, for each kind of server.
func operatedBy(t *testing.T, test func(t *testing.T, nc *nats.Conn)) {
	for name, args := range map[string]func(t *testing.T) []string{
		"embedded": func(*testing.T) []string { return nil },
		"external": func(t *testing.T) []string { return []string{"--nats-url", bustest.Process(t).URL()} },
	} {
		t.Run(name, func(t *testing.T) {
			d := serve(t, args(t)...)
			d.do(t, "", "conversation", "join", "--tenant", "acme", "--conversation", "c1", "--agent", "ada")
			d.do(t, "", "agent", "--tenant", "acme", "--agent", "ada", "--after", "0", "--count", "1")
			nc, err := nats.Connect(d.NATS, nats.Name("NATS CLI Version 0.3.0"))
			require.NoError(t, err)
			t.Cleanup(nc.Close)
			test(t, nc)
		})
	}
}

// asked sends a request as the command line does and returns the answer, which is of a type.
func asked(t testing.TB, nc *nats.Conn, subject, body, kind string) answered {
	t.Helper()
	m, err := nc.Request(subject, []byte(body), patience)
	require.NoError(t, err, subject)
	var a answered
	require.NoError(t, json.Unmarshal(m.Data, &a), "%s", m.Data)
	require.Nil(t, a["error"], subject)
	require.Equal(t, kind, a["type"], subject)
	return a
}

const apiType = "io.nats.jetstream.api.v1."

func TestStreamsAnswerTheNATSCommandLine(t *testing.T) {
	operatedBy(t, func(t *testing.T, nc *nats.Conn) {
		streams := map[string][]any{
			bus.StreamEvents: {"cim.*.*.*"}, bus.StreamDeliveries: {"cim-agent.>"}, bus.StreamIndex: {"cim-index.>"},
			bus.StreamMembers: {"$KV.CIM_MEMBERS.>"}, bus.StreamConversations: {"$KV.CIM_CONVERSATIONS.>"},
		}
		// nats stream ls, nats stream report; nats stream info; nats stream subjects
		list := asked(t, nc, "$JS.API.STREAM.LIST", `{"offset":0}`, apiType+"stream_list_response")
		names := asked(t, nc, "$JS.API.STREAM.NAMES", `{"offset":0}`, apiType+"stream_names_response")
		require.Equal(t, names["total"], list["total"])
		for name, subjects := range streams {
			require.Contains(t, names["streams"], name)
			listed := named(t, list["streams"], name, "config", "name")
			info := asked(t, nc, "$JS.API.STREAM.INFO."+name, `{"subjects_filter":">"}`, apiType+"stream_info_response")
			for _, a := range []answered{listed, info} {
				require.Equal(t, subjects, a.at(t, "config", "subjects"))
				require.Contains(t, a.at(t, "state"), "bytes", name)
				require.NotEmpty(t, a["created"])
			}
			if name == bus.StreamEvents { // the others may be written a moment later
				require.Equal(t, map[string]any{"cim.acme._.AGENT_SUBSCRIBED": 1.0}, info.at(t, "state", "subjects"))
			}
		}
		require.Contains(t, names["streams"], bus.StreamDeadLetters)

		// nats stream get, by sequence and by subject; nats stream view reads through a consumer of its own
		for _, body := range []string{`{"seq":1}`, `{"last_by_subj":"cim.acme._.AGENT_SUBSCRIBED"}`, `{"seq":1,"next_by_subj":"cim.>"}`} {
			stored := asked(t, nc, "$JS.API.STREAM.MSG.GET.CIM_EVENTS", body, apiType+"stream_msg_get_response")
			require.Equal(t, "cim.acme._.AGENT_SUBSCRIBED", stored.at(t, "message", "subject"))
			require.Equal(t, 1.0, stored.at(t, "message", "seq"))
			data, err := base64.StdEncoding.DecodeString(stored.at(t, "message", "data").(string))
			require.NoError(t, err)
			require.Contains(t, string(data), `"AGENT_SUBSCRIBED"`)
			headers, err := base64.StdEncoding.DecodeString(stored.at(t, "message", "hdrs").(string))
			require.NoError(t, err)
			require.Contains(t, string(headers), "Cim-Conversation-Id: c1")
			_, err = time.Parse(time.RFC3339Nano, stored.at(t, "message", "time").(string))
			require.NoError(t, err)
		}
		direct, err := nc.Request("$JS.API.DIRECT.GET.CIM_EVENTS", []byte(`{"seq":1}`), patience)
		require.NoError(t, err)
		require.Equal(t, "cim.acme._.AGENT_SUBSCRIBED", direct.Header.Get("Nats-Subject"))
		viewer := asked(t, nc, "$JS.API.CONSUMER.CREATE.CIM_EVENTS",
			`{"stream_name":"CIM_EVENTS","config":{"deliver_policy":"all","ack_policy":"none","inactive_threshold":3600000000000,"replay_policy":"instant"}}`,
			apiType+"consumer_create_response")
		viewed, err := nc.Request(fmt.Sprintf("$JS.API.CONSUMER.MSG.NEXT.CIM_EVENTS.%s", viewer["name"]), []byte(`{"batch":1}`), patience)
		require.NoError(t, err)
		require.Equal(t, "cim.acme._.AGENT_SUBSCRIBED", viewed.Subject)
		asked(t, nc, fmt.Sprintf("$JS.API.CONSUMER.DELETE.CIM_EVENTS.%s", viewer["name"]), "", apiType+"consumer_delete_response")
	})
}

func TestConsumersAnswerTheNATSCommandLine(t *testing.T) {
	operatedBy(t, func(t *testing.T, nc *nats.Conn) {
		durable := bus.HandlerConsumer("onCimEvent")
		// nats consumer ls, nats consumer report, nats consumer info
		list := asked(t, nc, "$JS.API.CONSUMER.LIST.CIM_EVENTS", `{"offset":0}`, apiType+"consumer_list_response")
		names := asked(t, nc, "$JS.API.CONSUMER.NAMES.CIM_EVENTS", `{"offset":0}`, apiType+"consumer_names_response")
		require.Equal(t, []any{durable}, names["consumers"])
		info := asked(t, nc, "$JS.API.CONSUMER.INFO.CIM_EVENTS."+durable, "", apiType+"consumer_info_response")
		for _, a := range []answered{named(t, list["consumers"], durable, "name"), info} {
			require.Equal(t, "CIM_EVENTS", a["stream_name"])
			require.Equal(t, durable, a.at(t, "config", "durable_name"))
			require.Equal(t, "explicit", a.at(t, "config", "ack_policy"))
			require.Equal(t, "pinned_client", a.at(t, "config", "priority_policy"))
			require.Contains(t, a, "num_pending")
			require.Contains(t, a, "num_ack_pending")
			require.Contains(t, a, "num_redelivered")
		}
		bustest.Eventually(t, patience, func() error {
			info = asked(t, nc, "$JS.API.CONSUMER.INFO.CIM_EVENTS."+durable, "", apiType+"consumer_info_response")
			if floor := info.at(t, "ack_floor", "stream_seq"); floor != 1.0 {
				return fmt.Errorf("finished up to %v", floor)
			}
			return nil
		})
	})
}

func TestBucketsAndAccountAnswerTheNATSCommandLine(t *testing.T) {
	operatedBy(t, func(t *testing.T, nc *nats.Conn) {
		// nats kv ls takes for a bucket what is named KV_ and has these subjects; nats kv get, nats kv history, nats kv ls BUCKET
		list := asked(t, nc, "$JS.API.STREAM.LIST", `{"subject":"$KV.*.>","offset":0}`, apiType+"stream_list_response")
		for _, bucket := range []string{bus.StreamMembers, bus.StreamConversations} {
			b := named(t, list["streams"], bucket, "config", "name")
			require.GreaterOrEqual(t, b.at(t, "config", "max_msgs_per_subject"), 1.0)
			require.Equal(t, true, b.at(t, "config", "allow_rollup_hdrs"))
			require.Equal(t, true, b.at(t, "config", "allow_direct"))
		}
		key := "$KV.CIM_MEMBERS.acme.ada.c1"
		member, err := nc.Request("$JS.API.DIRECT.GET.KV_CIM_MEMBERS."+key, nil, patience)
		require.NoError(t, err)
		require.JSONEq(t, `{"role":"PRIMARY","since":1,"left":0}`, string(member.Data))
		require.Equal(t, key, member.Header.Get("Nats-Subject"))

		// nats account info
		account := asked(t, nc, "$JS.API.INFO", "", apiType+"account_info_response")
		require.GreaterOrEqual(t, account["streams"], 6.0)
		require.Contains(t, account, "limits")
		user, err := nc.Request("$SYS.REQ.USER.INFO", nil, patience)
		require.NoError(t, err)
		require.Contains(t, string(user.Data), `"account":`)
	})
}

func TestTheServiceOfADaemonAnswersTheNATSCommandLine(t *testing.T) {
	operatedBy(t, func(t *testing.T, nc *nats.Conn) {
		// nats service ls asks all for their description, nats service info one, and then that one for its statistics
		listed := asked(t, nc, "$SRV.INFO", "{}", "io.nats.micro.v1.info_response")
		require.Equal(t, bus.ServiceName, listed["name"])
		require.Regexp(t, `^\d+\.\d+\.\d+`, listed["version"])
		id := listed["id"].(string)
		info := asked(t, nc, "$SRV.INFO.cimbus", "{}", "io.nats.micro.v1.info_response")
		require.Equal(t, listed, info)
		require.Equal(t, "cim-ctl.*.*.resume", named(t, info["endpoints"], "resume", "name")["subject"])
		stats := asked(t, nc, "$SRV.STATS.cimbus."+id, "{}", "io.nats.micro.v1.stats_response")
		require.Equal(t, id, stats["id"])
		require.Contains(t, named(t, stats["endpoints"], "resume", "name"), "num_requests")
		require.Equal(t, id, asked(t, nc, "$SRV.PING", "", "io.nats.micro.v1.ping_response")["id"])
	})
}
