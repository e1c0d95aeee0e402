package subjects_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cimbus/cimbus/subjects"
)

func TestAnInboxContainsOnlyLiteralSubjectsStrictlyBelowIt(t *testing.T) {
	in := subjects.Inbox{Tenant: "acme", Agent: "a.1"}
	for _, reply := range []string{
		"cim-inbox.acme.a=2E1.x",
		"cim-inbox.acme.a=2E1.2ZsGqUPfwUbcJVrnCPbgoz.1",
		"cim-inbox.acme.a=2E1._INBOX.$x.=5F",
	} {
		require.True(t, in.Contains(reply), reply)
	}
	for _, reply := range []string{
		"", ".", "cim-inbox", "cim-inbox.acme.a=2E1", "cim-inbox.acme.a=2E1.", "cim-inbox.acme.a=2E1..x",
		"cim-inbox.acme.a=2E1.x.", "cim-inbox.acme.a=2E1.x..y", "cim-inbox.acme.a=2E1.*", "cim-inbox.acme.a=2E1.>",
		"cim-inbox.acme.a=2E1.x.>", "cim-inbox.acme.a=2E1.x*", "cim-inbox.acme.a=2E1.x y", "cim-inbox.acme.a=2E1.x\ty",
		"cim-inbox.acme.a=2E1.x\r\nPUB", "cim-inbox.acme.a=2E1.\x00", "cim-inbox.acme.a=2E1.\x7f", "cim-inbox.acme.a=2E1.ä",
		"cim-inbox.acme.a=2E12.x", "cim-inbox.acme.a.1.x", "cim-inbox.acme.*.x", "cim-inbox.*.a=2E1.x", "cim-inbox.>",
		"cim-inbox.other.a=2E1.x", "CIM-INBOX.acme.a=2E1.x", "cim-inbox.acme.a=2e1.x", " cim-inbox.acme.a=2E1.x",
		"_INBOX.x", "$JS.API.STREAM.PURGE.CIM_EVENTS", "cim.acme.web.X", "cim-live.acme.a=2E1.x",
	} {
		require.False(t, in.Contains(reply), "%q", reply)
	}
}

func TestAnUnusableInboxContainsNothing(t *testing.T) {
	for _, in := range []subjects.Inbox{{}, {Tenant: "t"}, {Agent: "a"}, {Tenant: strings.Repeat("x", 129), Agent: "a"}} {
		_, err := in.Prefix()
		require.ErrorIs(t, err, subjects.ErrInvalid)
		_, err = in.Filter()
		require.ErrorIs(t, err, subjects.ErrInvalid)
		for _, reply := range []string{"cim-inbox.x", "cim-inbox..x", "cim-inbox.t..x", "cim-inbox...x", "cim-inbox.t.a.x"} {
			require.False(t, in.Contains(reply))
		}
	}
}

func TestAReplyBelongsToAtMostOneInbox(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := subjects.Inbox{Tenant: names().Draw(t, "tenant a"), Agent: names().Draw(t, "agent a")}
		b := subjects.Inbox{Tenant: names().Draw(t, "tenant b"), Agent: names().Draw(t, "agent b")}
		prefix, err := a.Prefix()
		require.NoError(t, err)
		reply := prefix + "." + rapid.StringMatching(`[A-Za-z0-9$_-]{1,22}(\.[A-Za-z0-9]{1,4})?`).Draw(t, "rest")
		require.True(t, a.Contains(reply))
		require.Equal(t, a == b, b.Contains(reply))
		checkInbox(t, b, rapid.String().Draw(t, "any reply"))
		checkInbox(t, a, prefix+rapid.String().Draw(t, "any rest"))
	})
}

// checkInbox holds Contains against the server's own reading of subjects.
func checkInbox(t require.TestingT, in subjects.Inbox, reply string) {
	filter, err := in.Filter()
	if err != nil {
		require.False(t, in.Contains(reply))
		return
	}
	if in.Contains(reply) {
		require.True(t, server.IsValidLiteralSubject(reply))
		require.True(t, server.SubjectMatchesFilter(reply, filter))
		require.NotContains(t, reply, " ")
	}
}
