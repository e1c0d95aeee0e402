package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

func TestJoiningTwiceIsHarmlessAndEachReturnsOnceItIsStored(t *testing.T) {
	d := serve(t)
	for i := range 2 {
		r := lines[bus.Receipt](t, d.do(t, "", "conversation", "join", "--tenant", "acme", "--conversation", "c1", "--agent", "ann"))
		require.Equal(t, []bus.Receipt{{Subject: "cim.acme._.AGENT_SUBSCRIBED", Stream: "CIM_EVENTS", Sequence: uint64(i + 1)}}, r)
	}
	d.receive(t, "0", 2)
	require.Equal(t, "AGENT  ROLE     SINCE\nann    PRIMARY      1\n", d.do(t, "", "conversation", "members", "--tenant", "acme", "--conversation", "c1"))
}

func TestMembersAreThoseWhoJoinedAndDidNotLeave(t *testing.T) {
	d := serve(t)
	for _, args := range [][]string{
		{"join", "--agent", "ann"}, {"join", "--agent", "bob", "--role", "SILENT_MONITOR"}, {"join", "--agent", "cyd"}, {"leave", "--agent", "ann", "--role", "PRIMARY"},
	} {
		d.do(t, "", append([]string{"conversation", args[0], "--tenant", "acme", "--conversation", "c1"}, args[1:]...)...)
	}
	// Ann's notice comes when all of it is done.
	all := d.receive(t, "0", 4)
	require.Equal(t, "topicUnsubscription", all[3].Event)
	require.Equal(t, `{"agent":"bob","role":"SILENT_MONITOR","since":2}`+"\n"+`{"agent":"cyd","role":"PRIMARY","since":3}`+"\n",
		d.do(t, "", "conversation", "members", "--tenant", "acme", "--conversation", "c1", "--json"))

	none := invoke(t, "", d.on("conversation", "members", "--tenant", "acme", "--conversation", "c2")...)
	require.Equal(t, result{exitDone, "", "no members\n"}, none)
}

func TestShowPrintsTheStateAndTheLatestEvents(t *testing.T) {
	d := joined(t)
	const session = `"channelSession":{"id":"s1","state":"ACTIVE","channel":{"channelType":{"name":"WEB"}}}`
	var in strings.Builder
	for _, id := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "x\\u001b[31m"} {
		in.WriteString(`{"id":"` + id + `","name":"CUSTOMER_MESSAGE","conversationId":"c1",` + session + "}\n")
	}
	d.do(t, in.String(), "publish", "--tenant", "acme")
	d.receive(t, "0", 12)
	args := []string{"conversation", "show", "--tenant", "acme", "--conversation", "c1"}
	var shown view
	bustest.Eventually(t, patience, func() error {
		shown = lines[view](t, d.do(t, "", append(args, "--json")...))[0]
		if shown.Sequence != 12 {
			return fmt.Errorf("the state is at %d", shown.Sequence)
		}
		return nil
	})
	require.Equal(t, "c1", shown.ID)
	require.Equal(t, "PRIMARY", shown.Members["ann"].Role)
	require.Contains(t, shown.Sessions, "s1")
	require.Len(t, shown.Latest, latest)
	require.Equal(t, uint64(3), shown.Latest[0].Sequence)
	require.Equal(t, uint64(12), shown.Latest[latest-1].Sequence)

	text := d.do(t, "", args...)
	for _, want := range []string{"CONVERSATION  c1\n", "tenant        acme\n", "channel       WEB\n", "sessions      s1\n", "ann    PRIMARY      1\n", "  delivered\n", `"x\x1b[31m"`} {
		require.Contains(t, text, want)
	}
	require.NotContains(t, text, "\x1b")

	got := invoke(t, "", d.on("conversation", "show", "--tenant", "acme", "--conversation", "c2")...)
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.stderr, `conversation "c2" of tenant "acme" is not known`)
}
