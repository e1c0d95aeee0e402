package subjects_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cimbus/cimbus/subjects"
)

func TestFiltersHaveTheDocumentedForm(t *testing.T) {
	is := subjects.Is
	for want, build := range map[string]func() (string, error){
		"cim.>":                          subjects.EventFilter{}.Subject,
		"cim.acme.>":                     subjects.EventFilter{Tenant: is("acme")}.Subject,
		"cim.acme.web.*":                 subjects.EventFilter{Tenant: is("acme"), Channel: is("WEB")}.Subject,
		"cim.acme._.*":                   subjects.EventFilter{Tenant: is("acme"), Channel: subjects.None}.Subject,
		"cim.acme.*.HOLD_TIMER":          subjects.EventFilter{Tenant: is("acme"), Event: is("HOLD_TIMER")}.Subject,
		"cim.*.*.HOLD_TIMER":             subjects.EventFilter{Event: is("HOLD_TIMER")}.Subject,
		"cim.=2A.=3E.=5F":                subjects.EventFilter{Tenant: is("*"), Channel: is(">"), Event: is("_")}.Subject,
		"cim-agent.>":                    subjects.DeliveryFilter{}.Subject,
		"cim-agent.acme.a-1.*.65b3":      subjects.DeliveryFilter{Tenant: is("acme"), Agent: is("a-1"), Conversation: is("65b3")}.Subject,
		"cim-live.acme.a-1.>":            subjects.DeliveryFilter{Tenant: is("acme"), Agent: is("a-1")}.Live,
		"cim-live.acme.a-1.onCimEvent.*": subjects.DeliveryFilter{Tenant: is("acme"), Agent: is("a-1"), Type: is("onCimEvent")}.Live,
		"cim-index.>":                    subjects.IndexFilter{}.Subject,
		"cim-index.acme.*":               subjects.IndexFilter{Tenant: is("acme")}.Subject,
		"cim-index.acme._":               subjects.IndexFilter{Tenant: is("acme"), Conversation: subjects.None}.Subject,
		"cim-dead.>":                     subjects.DeadLetterFilter{}.Subject,
		"cim-dead.*.acme.>":              subjects.DeadLetterFilter{Tenant: is("acme")}.Subject,
		"cim-dead.h.acme.*.X.*":          subjects.DeadLetterFilter{Handler: is("h"), Tenant: is("acme"), Event: is("X")}.Subject,
		"cim-redrive.>":                  subjects.DeadLetterFilter{}.Redrive,
		"cim-redrive.h.*.web.>":          subjects.DeadLetterFilter{Handler: is("h"), Channel: is("WEB")}.Redrive,
		"cim-ctl.acme.a-1.*":             subjects.ControlFilter{Tenant: is("acme"), Agent: is("a-1")}.Subject,
		"cim-ctl.*.*.resume":             subjects.ControlFilter{Verb: is("resume")}.Subject,
		">":                              subjects.MemberFilter{}.Key,
		"acme.>":                         subjects.MemberFilter{Tenant: is("acme")}.Key,
		"acme.a-1.*":                     subjects.MemberFilter{Tenant: is("acme"), Agent: is("a-1")}.Key,
		"acme.*.65b3":                    subjects.MemberFilter{Tenant: is("acme"), Conversation: is("65b3")}.Key,
		"$KV.CIM_MEMBERS.*.*.65b3":       subjects.MemberFilter{Conversation: is("65b3")}.Subject,
		"$KV.CIM_MEMBERS.>":              subjects.MemberFilter{}.Subject,
	} {
		got, err := build()
		require.NoError(t, err, want)
		require.Equal(t, want, got)
	}
}

func TestAFilterRefusesTheNamesASubjectRefuses(t *testing.T) {
	for field, f := range map[string]subjects.DeadLetterFilter{
		"handler": {Handler: subjects.None},
		"tenant":  {Tenant: subjects.Is("")},
		"channel": {Channel: subjects.Is(strings.Repeat("x", 129))},
		"event":   {Event: subjects.Is(strings.Repeat("*", 43))},
	} {
		_, err := f.Subject()
		require.ErrorIs(t, err, subjects.ErrInvalid)
		var e *subjects.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, field, e.Field)
	}
}

// A filter of Is alone is the subject, and with any of its names opened it holds
// exactly the subjects that agree on the others.
func TestAFilterHoldsExactlyTheSubjectsThatAgreeWithIt(t *testing.T) {
	f := family{fields: []string{"tenant", "agent", "type", "conversation"}}
	rapid.Check(t, func(t *rapid.T) {
		want := f.draw(t, "filter")
		subject := append([]string(nil), want...)
		i := rapid.IntRange(0, 3).Draw(t, "differs in")
		subject[i] = f.draw(t, "subject")[i]

		agrees := true
		match := make([]subjects.Match, 4)
		for i := range match {
			if !rapid.Bool().Draw(t, "any "+f.fields[i]) {
				match[i] = subjects.Is(want[i])
				agrees = agrees && want[i] == subject[i]
			}
		}
		d := subjects.Delivery{Tenant: subject[0], Agent: subject[1], Type: subject[2], Conversation: subject[3]}
		df := subjects.DeliveryFilter{Tenant: match[0], Agent: match[1], Type: match[2], Conversation: match[3]}
		holds(t, df.Subject, d.Subject, agrees)
		holds(t, df.Live, d.Live, agrees)
	})
}

func holds(t *rapid.T, filter, subject func() (string, error), want bool) {
	fs, err := filter()
	require.NoError(t, err)
	s, err := subject()
	require.NoError(t, err)
	require.True(t, server.IsValidSubject(fs))
	require.Equal(t, want, server.SubjectMatchesFilter(s, fs), "%s by %s", s, fs)
}

func TestAFilterOfNamesAloneIsTheSubject(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := family{fields: []string{"tenant", "channel", "event"}}.draw(t, "")
		s, err := subjects.Event{Tenant: p[0], Channel: p[1], Event: p[2]}.Subject()
		require.NoError(t, err)
		fs, err := subjects.EventFilter{Tenant: subjects.Is(p[0]), Channel: subjects.Is(p[1]), Event: subjects.Is(p[2])}.Subject()
		require.NoError(t, err)
		require.Equal(t, s, fs)
	})
}

func TestAMatchWantsItsNameAndNoOther(t *testing.T) {
	require.True(t, subjects.Any.Matches("acme"))
	require.True(t, subjects.Any.Matches(""))
	require.True(t, subjects.Is("acme").Matches("acme"))
	require.False(t, subjects.Is("acme").Matches("Acme"))
	require.True(t, subjects.None.Matches(""))
	require.False(t, subjects.None.Matches("_"), "it is the token of none, not none")
}
