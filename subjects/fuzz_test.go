package subjects_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/subjects"
)

func FuzzEncode(f *testing.F) {
	for _, name := range []string{"", "_", "acme", "a.b", "*", ">", "=5F", "ä", "\x00\xff", strings.Repeat("a", 129)} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		token, err := subjects.Encode(name)
		if err != nil {
			require.ErrorIs(t, err, subjects.ErrInvalid)
			return
		}
		require.Regexp(t, canonical, token)
		back, err := subjects.Decode(token)
		require.NoError(t, err)
		require.Equal(t, name, back)
	})
}

func FuzzDecode(f *testing.F) {
	for _, token := range []string{"", "_", "acme", "a=2Eb", "=5F", "=5F=5F", "=41", "=2e", "=", "=2", "a.b", "*"} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		name, err := subjects.Decode(token)
		if err != nil {
			require.ErrorIs(t, err, subjects.ErrInvalid)
			require.Empty(t, name)
			return
		}
		back, err := subjects.Encode(name)
		require.NoError(t, err)
		require.Equal(t, token, back)
	})
}

// fuzzParse: whatever parses is a literal subject that its names write again.
func fuzzParse(f *testing.F, name string, seeds ...string) {
	var fam family
	for _, each := range families() {
		if each.name == name {
			fam = each
		}
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		parts, err := fam.parse(s)
		if err != nil {
			require.ErrorIs(t, err, subjects.ErrInvalid)
			require.Empty(t, strings.Join(parts, ""))
			return
		}
		require.True(t, server.IsValidLiteralSubject(s))
		back, err := fam.subject(parts)
		require.NoError(t, err)
		require.Equal(t, s, back)
	})
}

func FuzzParseEvent(f *testing.F) {
	fuzzParse(f, "event", "cim.acme.web.BOT_SUGGESTION", "cim.acme._.X", "cim.acme.=5F.X", "cim.acme.WEB.X", "cim.*.*.*", "cim.a.b.c.d", "cim.a..c", "")
}

func FuzzParseDelivery(f *testing.F) {
	fuzzParse(f, "delivery", "cim-agent.acme.a-1.onCimEvent.65b3", "cim-agent.acme.a=2E1.taskRequest._", "cim-agent.>", "cim-agent.a.b.c", "cim-live.a.b.c.d")
}

func FuzzParseLive(f *testing.F) {
	fuzzParse(f, "live", "cim-live.acme.a-1.onCimEvent.65b3", "cim-live.acme.a-1.taskRequest._", "cim-live.>")
}

func FuzzParseMemberKey(f *testing.F) {
	fuzzParse(f, "member key", "acme.a-1.65b3", "acme.a-1._", "_._._", "a.b", "a.b.c.d", "a.*.c", "..")
}

func FuzzParseDeadLetter(f *testing.F) {
	for _, s := range []string{"cim-dead.h.acme.web.X.17", "cim-dead.h.acme._.X.18446744073709551615", "cim-dead.h.acme.web.X.017", "cim-dead.h.a.b.c.0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := subjects.ParseDeadLetter(s)
		if err != nil {
			require.ErrorIs(t, err, subjects.ErrInvalid)
			return
		}
		back, err := d.Subject()
		require.NoError(t, err)
		require.Equal(t, s, back)
	})
}

func FuzzInboxContains(f *testing.F) {
	f.Add("acme", "a-1", "cim-inbox.acme.a-1.x.y")
	f.Add("acme", "a.1", "cim-inbox.acme.a=2E1.x")
	f.Add("acme", "*", "cim-inbox.acme.*.x")
	f.Add("", ">", "cim-inbox..>")
	f.Fuzz(func(t *testing.T, tenant, agent, reply string) {
		checkInbox(t, subjects.Inbox{Tenant: tenant, Agent: agent}, reply)
	})
}

func FuzzFilter(f *testing.F) {
	f.Add("acme", "WEB", "BOT_SUGGESTION")
	f.Add("*", ">", ".")
	f.Add("a b", "", "_")
	f.Fuzz(func(t *testing.T, tenant, channel, event string) {
		s, errS := subjects.Event{Tenant: tenant, Channel: channel, Event: event}.Subject()
		fs, errF := subjects.EventFilter{Tenant: subjects.Is(tenant), Channel: subjects.Is(channel), Event: subjects.Is(event)}.Subject()
		require.Equal(t, errS, errF)
		require.Equal(t, s, fs)
		if errF == nil {
			require.True(t, server.IsValidLiteralSubject(fs))
		}
	})
}
