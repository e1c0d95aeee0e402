package bus_test

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/subjects"
)

func TestAMemberIsWhoseRecordSaysSo(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	ctx := t.Context()
	_, err := r.bus.Member(ctx, "acme", "ada", "c1")
	require.ErrorIs(t, err, bus.ErrNotMember)

	r.member("ada", "c1", 7, 0)
	m, err := r.bus.Member(ctx, "acme", "ada", "c1")
	require.NoError(t, err)
	require.Equal(t, bus.Member{Agent: "ada", Conversation: "c1", Role: "PRIMARY", Since: 7}, m)

	r.member("ada", "c1", 7, 9)
	m, err = r.bus.Member(ctx, "acme", "ada", "c1")
	require.ErrorIs(t, err, bus.ErrNotMember)
	require.Equal(t, uint64(9), m.Left)

	_, err = r.bus.Member(ctx, "acme", "", "c1")
	require.ErrorIs(t, err, subjects.ErrInvalid)
}

func TestListsHoldTheMembersOfNowAndNobodyElse(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	ctx := t.Context()
	r.member("ada", "c1", 1, 0)
	r.member("ben", "c1", 2, 0)
	r.member("ada", "c2", 3, 0)
	r.member("cleo", "c1", 4, 0)
	r.member("cleo", "c1", 4, 8)
	r.member("ben", "c2", 5, 9)
	r.member("ben", "c2", 10, 0)
	r.member("a.*", "c1", 6, 0)
	gone, err := subjects.MemberKey{Tenant: "acme", Agent: "dan", Conversation: "c1"}.Subject()
	require.NoError(t, err)
	r.member("dan", "c1", 11, 0)
	r.publish(&nats.Msg{Subject: gone, Header: nats.Header{"KV-Operation": {"DEL"}}})
	// What nobody can read hides nobody.
	bad, err := subjects.MemberKey{Tenant: "acme", Agent: "eve", Conversation: "c1"}.Subject()
	require.NoError(t, err)
	r.publish(&nats.Msg{Subject: bad, Data: []byte("{")})

	who := func(members []bus.Member, err error) (out []string) {
		require.NoError(t, err)
		for _, m := range members {
			out = append(out, m.Agent+"@"+m.Conversation)
		}
		return out
	}
	require.Equal(t, []string{"a.*@c1", "ada@c1", "ben@c1"}, who(r.bus.Members(ctx, "acme", "c1")))
	require.Equal(t, []string{"ada@c2", "ben@c2"}, who(r.bus.Members(ctx, "acme", "c2")))
	require.Equal(t, []string{"ada@c1", "ada@c2"}, who(r.bus.Memberships(ctx, "acme", "ada")))
	require.Empty(t, who(r.bus.Memberships(ctx, "other", "ada")))
	require.Empty(t, who(r.bus.Memberships(ctx, "acme", "dan")))
}
