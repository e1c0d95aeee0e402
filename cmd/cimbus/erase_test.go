package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus/bustest"
)

// spoken is a daemon with conversation c1, of which ann was a member, and c2, of which she is.
func spoken(t *testing.T) served {
	t.Helper()
	d := serve(t)
	for _, c := range []string{"c1", "c2"} {
		d.do(t, "", "conversation", "join", "--tenant", "acme", "--conversation", c, "--agent", "ann")
	}
	d.do(t, `{"id":"1","name":"CUSTOMER_MESSAGE","conversationId":"c1","channelSession":{"id":"s","customer":{"_id":"cust-1"}},"data":{"text":"secret"}}`,
		"publish", "--tenant", "acme")
	d.do(t, "", "conversation", "leave", "--tenant", "acme", "--conversation", "c1", "--agent", "ann")
	d.receive(t, "0", 4)
	return d
}

func TestEraseShowsItsPlanAsksAndProves(t *testing.T) {
	d := spoken(t)
	asked := invoke(t, "", d.on("erase", "--tenant", "acme", "--conversation", "c1")...)
	require.Equal(t, exitFailed, asked.code)
	require.Regexp(t, `(?m)^CONVERSATION  EVENTS  WAITING  MEMBERS\nc1 +3 +0  -$`, asked.stdout)
	require.Regexp(t, `(?m)^CIM_DELIVERIES +3 +[\d.]+ K?i?B$`, asked.stdout)
	require.Contains(t, asked.stderr, "nothing was done: add --yes to erase ")

	got := invoke(t, "", d.on("erase", "--tenant", "acme", "--conversation", "c1", "--yes", "--operator", "olga", "--json")...)
	require.Zero(t, got.code, got.stderr)
	var report eraseReportLine
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &report))
	require.Equal(t, "olga", report.Operator)
	require.True(t, report.Proven)
	for _, n := range report.Left {
		require.Zero(t, n.Messages, n.Stream)
	}
	require.NotContains(t, got.stdout+got.stderr, "secret")
	require.Contains(t, d.do(t, "", "agent", "--tenant", "acme", "--agent", "ann", "--after", "0", "--count", "1"), `"conversation":"c2"`)
	again := invoke(t, "", d.on("erase", "--tenant", "acme", "--conversation", "c1")...)
	require.Zero(t, again.code, "nothing is left, and that is proven")
	require.Contains(t, again.stdout, "searched again up to event 4: 0 found\n")
}

func TestEraseRefusesAConversationThatIsWorkedOnUnlessForced(t *testing.T) {
	d := spoken(t)
	live := invoke(t, "", d.on("erase", "--tenant", "acme", "--conversation", "c2", "--yes")...)
	require.Equal(t, exitFailed, live.code)
	require.Contains(t, live.stderr, `nothing was done: conversation "c2" still has members or events that wait`)
	require.Contains(t, d.do(t, "", "conversation", "members", "--tenant", "acme", "--conversation", "c2"), "ann")
	require.Zero(t, invoke(t, "", d.on("erase", "--tenant", "acme", "--conversation", "c2", "--yes", "--force")...).code)
	require.NotContains(t, d.do(t, "", "conversation", "members", "--tenant", "acme", "--conversation", "c2"), "ann")
}

func TestACustomerIsErasedByItsID(t *testing.T) {
	d := spoken(t)
	var plan erasePlanLine
	bustest.Eventually(t, patience, func() error { // the leaving may not be acknowledged yet
		got := invoke(t, "", d.on("erase", "--tenant", "acme", "--customer", "cust-1", "--json")...)
		if got.code != exitFailed || json.Unmarshal([]byte(got.stdout), &plan) != nil || plan.Conversations[0].Waiting > 0 {
			return fmt.Errorf("%d: %s%s", got.code, got.stdout, got.stderr)
		}
		return nil
	})
	require.Len(t, plan.Conversations, 1)
	require.Equal(t, "c1", plan.Conversations[0].Conversation)
	require.Equal(t, []string{"ann"}, plan.Agents)
	require.Zero(t, invoke(t, "", d.on("erase", "--tenant", "acme", "--customer", "cust-1", "--yes")...).code)
	none := invoke(t, "", d.on("erase", "--tenant", "acme", "--customer", "cust-1", "--json")...)
	require.Contains(t, strings.Split(none.stdout, "\n")[0], `"conversations":[],"agents":[]`)
	require.Contains(t, none.stderr, `names a customer "cust-1": check the id, unless it was erased before`)
}

func TestEraseWantsExactlyOneOfConversationAndCustomer(t *testing.T) {
	for _, args := range [][]string{
		{"--tenant", "acme"}, {"--tenant", "acme", "--conversation", "c1", "--customer", "x"}, {"--conversation", "c1"},
	} {
		got := invoke(t, "", append([]string{"erase"}, args...)...)
		require.Equal(t, exitUsage, got.code, got.stderr)
	}
}
