package subjects_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cimbus/cimbus/subjects"
)

// family is one kind of subject, for the properties that all of them have.
// Parts are its names in the order of its tokens.
type family struct {
	name    string
	prefix  string
	fields  []string // "channel" and "conversation" may be none
	subject func(parts []string) (string, error)
	parse   func(subject string) ([]string, error)
	all     string // the pattern that holds the family
}

func families() []family {
	return []family{
		{"event", "cim.", []string{"tenant", "channel", "event"},
			func(p []string) (string, error) {
				return subjects.Event{Tenant: p[0], Channel: p[1], Event: p[2]}.Subject()
			},
			func(s string) ([]string, error) {
				e, err := subjects.ParseEvent(s)
				return []string{e.Tenant, e.Channel, e.Event}, err
			}, subjects.AllEvents},
		{"delivery", "cim-agent.", []string{"tenant", "agent", "type", "conversation"},
			func(p []string) (string, error) { return subjects.Delivery{p[0], p[1], p[2], p[3]}.Subject() },
			func(s string) ([]string, error) {
				d, err := subjects.ParseDelivery(s)
				return []string{d.Tenant, d.Agent, d.Type, d.Conversation}, err
			}, subjects.AllDeliveries},
		{"live", "cim-live.", []string{"tenant", "agent", "type", "conversation"},
			func(p []string) (string, error) { return subjects.Delivery{p[0], p[1], p[2], p[3]}.Live() },
			func(s string) ([]string, error) {
				d, err := subjects.ParseLive(s)
				return []string{d.Tenant, d.Agent, d.Type, d.Conversation}, err
			}, subjects.AllLive},
		{"index", "cim-index.", []string{"tenant", "conversation"},
			func(p []string) (string, error) { return subjects.Index{p[0], p[1]}.Subject() },
			func(s string) ([]string, error) {
				i, err := subjects.ParseIndex(s)
				return []string{i.Tenant, i.Conversation}, err
			}, subjects.AllIndex},
		{"dead letter", "cim-dead.", []string{"handler", "tenant", "channel", "event"},
			func(p []string) (string, error) { return subjects.DeadLetter{p[0], p[1], p[2], p[3], 42}.Subject() },
			func(s string) ([]string, error) {
				d, err := subjects.ParseDeadLetter(s)
				return []string{d.Handler, d.Tenant, d.Channel, d.Event}, err
			}, subjects.AllDeadLetters},
		{"redrive", "cim-redrive.", []string{"handler", "tenant", "channel", "event"},
			func(p []string) (string, error) { return subjects.DeadLetter{p[0], p[1], p[2], p[3], 42}.Redrive() },
			func(s string) ([]string, error) {
				d, err := subjects.ParseRedrive(s)
				return []string{d.Handler, d.Tenant, d.Channel, d.Event}, err
			}, subjects.AllRedrives},
		{"replay", "cim-replay.", []string{"replay"},
			func(p []string) (string, error) { return subjects.Replay{p[0]}.Subject() },
			func(s string) ([]string, error) {
				r, err := subjects.ParseReplay(s)
				return []string{r.ID}, err
			}, subjects.AllReplays},
		{"desk", "cim-desk.", []string{"tenant", "agent", "desk event"},
			func(p []string) (string, error) { return subjects.Desk{p[0], p[1], p[2]}.Subject() },
			func(s string) ([]string, error) {
				d, err := subjects.ParseDesk(s)
				return []string{d.Tenant, d.Agent, d.Event}, err
			}, subjects.AllDesk},
		{"control", "cim-ctl.", []string{"tenant", "agent", "verb"},
			func(p []string) (string, error) { return subjects.Control{p[0], p[1], p[2]}.Subject() },
			func(s string) ([]string, error) {
				c, err := subjects.ParseControl(s)
				return []string{c.Tenant, c.Agent, c.Verb}, err
			}, subjects.AllControl},
		{"member key", "", []string{"tenant", "agent", "conversation"},
			func(p []string) (string, error) { return subjects.MemberKey{p[0], p[1], p[2]}.Key() },
			func(s string) ([]string, error) {
				k, err := subjects.ParseMemberKey(s)
				return []string{k.Tenant, k.Agent, k.Conversation}, err
			}, ">"},
		{"conversation key", "", []string{"tenant", "conversation"},
			func(p []string) (string, error) { return subjects.ConversationKey{p[0], p[1]}.Key() },
			func(s string) ([]string, error) {
				k, err := subjects.ParseConversationKey(s)
				return []string{k.Tenant, k.Conversation}, err
			}, ">"},
	}
}

func optional(field string) bool { return field == "channel" || field == "conversation" }

// draw makes parts for the family, some of its optional ones none.
func (f family) draw(t *rapid.T, label string) []string {
	parts := make([]string, len(f.fields))
	for i, field := range f.fields {
		g := names()
		if optional(field) {
			g = rapid.OneOf(g, rapid.Just(""))
		}
		parts[i] = g.Draw(t, label+" "+field)
	}
	return parts
}

// folded is parts as parsing gives them back: the channel in ASCII lower case.
func (f family) folded(parts []string) []string {
	out := make([]string, len(parts))
	for i, part := range parts {
		out[i] = part
		if f.fields[i] == "channel" {
			out[i] = asciiLower(part)
		}
	}
	return out
}

func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func forEachFamily(t *testing.T, check func(t *rapid.T, f family)) {
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { check(t, f) })
		})
	}
}

func TestSubjectsHaveTheDocumentedForm(t *testing.T) {
	for want, build := range map[string]func() (string, error){
		"cim.acme.web.BOT_SUGGESTION":              subjects.Event{Tenant: "acme", Channel: "WEB", Event: "BOT_SUGGESTION"}.Subject,
		"cim.acme.cx_voice.HOLD_TIMER":             subjects.Event{Tenant: "acme", Channel: "CX_VOICE", Event: "HOLD_TIMER"}.Subject,
		"cim.acme._.CUSTOMER_LEFT":                 subjects.Event{Tenant: "acme", Event: "CUSTOMER_LEFT"}.Subject,
		"cim.acme.=5F.CUSTOMER_LEFT":               subjects.Event{Tenant: "acme", Channel: "_", Event: "CUSTOMER_LEFT"}.Subject,
		"cim.acme.=C3=84rger.X":                    subjects.Event{Tenant: "acme", Channel: "ÄRGER", Event: "X"}.Subject,
		"cim-agent.acme.a-1.onCimEvent.65b3":       subjects.Delivery{Tenant: "acme", Agent: "a-1", Type: "onCimEvent", Conversation: "65b3"}.Subject,
		"cim-agent.acme.a-1.taskRequest._":         subjects.Delivery{Tenant: "acme", Agent: "a-1", Type: "taskRequest"}.Subject,
		"cim-live.acme.a-1.onCimEvent.65b3":        subjects.Delivery{Tenant: "acme", Agent: "a-1", Type: "onCimEvent", Conversation: "65b3"}.Live,
		"cim-index.acme.65b3":                      subjects.Index{Tenant: "acme", Conversation: "65b3"}.Subject,
		"cim-index.acme._":                         subjects.Index{Tenant: "acme"}.Subject,
		"cim-dead.onCimEvent.acme.web.X.17":        subjects.DeadLetter{Handler: "onCimEvent", Tenant: "acme", Channel: "Web", Event: "X", Sequence: 17}.Subject,
		"cim-dead.h.acme._.X.18446744073709551615": subjects.DeadLetter{Handler: "h", Tenant: "acme", Event: "X", Sequence: 1<<64 - 1}.Subject,
		"cim-redrive.h.acme.web.X.17":              subjects.DeadLetter{Handler: "h", Tenant: "acme", Channel: "WEB", Event: "X", Sequence: 17}.Redrive,
		"cim-replay.again=2E1":                     subjects.Replay{ID: "again.1"}.Subject,
		"cim-replaying.again=2E1":                  subjects.Replay{ID: "again.1"}.Running,
		"cim-desk.acme.a-1.consultRequest":         subjects.Desk{Tenant: "acme", Agent: "a-1", Event: "consultRequest"}.Subject,
		"cim-ctl.acme.a-1.resume":                  subjects.Control{Tenant: "acme", Agent: "a-1", Verb: "resume"}.Subject,
		"cim-inbox.acme.a=2E1":                     subjects.Inbox{Tenant: "acme", Agent: "a.1"}.Prefix,
		"cim-inbox.acme.a=2E1.>":                   subjects.Inbox{Tenant: "acme", Agent: "a.1"}.Filter,
		"acme.a-1.65b3":                            subjects.MemberKey{Tenant: "acme", Agent: "a-1", Conversation: "65b3"}.Key,
		"$KV.CIM_MEMBERS.acme.a-1.65b3":            subjects.MemberKey{Tenant: "acme", Agent: "a-1", Conversation: "65b3"}.Subject,
		"acme.65b3":                                subjects.ConversationKey{Tenant: "acme", Conversation: "65b3"}.Key,
		"$KV.CIM_CONVERSATIONS.acme.65b3":          subjects.ConversationKey{Tenant: "acme", Conversation: "65b3"}.Subject,
	} {
		got, err := build()
		require.NoError(t, err, want)
		require.Equal(t, want, got)
	}
}

func TestNamesComeBackFromTheirSubject(t *testing.T) {
	forEachFamily(t, func(t *rapid.T, f family) {
		parts := f.draw(t, "")
		subject, err := f.subject(parts)
		require.NoError(t, err)
		back, err := f.parse(subject)
		require.NoError(t, err)
		require.Equal(t, f.folded(parts), back)
	})
}

func TestTwoNamesNeverShareASubject(t *testing.T) {
	forEachFamily(t, func(t *rapid.T, f family) {
		// Mostly alike, or a collision would hardly ever be tried.
		a := f.draw(t, "a")
		b := append([]string(nil), a...)
		i := rapid.IntRange(0, len(b)-1).Draw(t, "differs in")
		b[i] = f.draw(t, "b")[i]
		x, err := f.subject(a)
		require.NoError(t, err)
		y, err := f.subject(b)
		require.NoError(t, err)
		require.Equal(t, strings.Join(f.folded(a), "\n") == strings.Join(f.folded(b), "\n"), x == y, "%s and %s", x, y)
	})
}

func TestNoInputAddsATokenOrAWildcard(t *testing.T) {
	forEachFamily(t, func(t *rapid.T, f family) {
		parts := make([]string, len(f.fields))
		for i := range parts {
			parts[i] = anything().Draw(t, f.fields[i])
		}
		subject, err := f.subject(parts)
		if err != nil {
			var e *subjects.Error
			require.ErrorAs(t, err, &e)
			require.Contains(t, f.fields, e.Field)
			require.Empty(t, subject)
			return
		}
		require.True(t, strings.HasPrefix(subject, f.prefix))
		require.True(t, server.IsValidLiteralSubject(subject))
		require.True(t, server.SubjectMatchesFilter(subject, f.all))
		tokens := strings.Split(strings.TrimPrefix(subject, f.prefix), ".")
		if f.name == "dead letter" || f.name == "redrive" {
			require.Equal(t, "42", tokens[len(tokens)-1])
			tokens = tokens[:len(tokens)-1]
		}
		require.Len(t, tokens, len(f.fields))
		for i, token := range tokens {
			require.Regexp(t, canonical, token)
			require.Equal(t, parts[i] == "" && optional(f.fields[i]), token == "_", "%q as %q", parts[i], token)
		}
	})
}

func TestEveryRefusedNameIsNamedByItsField(t *testing.T) {
	for _, f := range families() {
		for i, field := range f.fields {
			for _, bad := range []string{"", strings.Repeat("x", 129), strings.Repeat("*", 43)} {
				if bad == "" && optional(field) {
					continue
				}
				parts := strings.Split("a,b,c,d", ",")[:len(f.fields)]
				parts[i] = bad
				_, err := f.subject(parts)
				require.ErrorIs(t, err, subjects.ErrInvalid)
				var e *subjects.Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, field, e.Field)
				require.Equal(t, bad, e.Name)
			}
		}
	}
}

func TestParseAcceptsOnlyWhatBuildingWrites(t *testing.T) {
	for _, f := range families() {
		good := f.prefix + strings.Join(strings.Split("a,b,c,d", ",")[:len(f.fields)], ".")
		if f.name == "dead letter" || f.name == "redrive" {
			good += ".7"
		}
		_, err := f.parse(good)
		require.NoError(t, err, good)

		bad := []string{"", ".", "cim", "cim.", f.prefix, good + ".", good + ".x", "." + good, good + " ",
			strings.Replace(good, "a", "*", 1), strings.Replace(good, "a", ">", 1), strings.Replace(good, "a", "", 1),
			strings.Replace(good, "a", "=2a", 1), strings.Replace(good, "a", "=41", 1), strings.Replace(good, "a", "ä", 1)}
		if f.prefix != "" {
			bad = append(bad, "x"+good, strings.ToUpper(f.prefix)+strings.TrimPrefix(good, f.prefix), strings.TrimPrefix(good, f.prefix))
		}
		for i, field := range f.fields {
			token := string("abcd"[i])
			dotted := "." + token
			if i == 0 && f.prefix == "" {
				dotted = token
			}
			replacement := strings.Replace(good, dotted, strings.Replace(dotted, token, "_", 1), 1)
			if !optional(field) {
				bad = append(bad, replacement)
			} else {
				_, err := f.parse(replacement)
				require.NoError(t, err, replacement)
			}
		}
		for _, s := range bad {
			parts, err := f.parse(s)
			require.ErrorIs(t, err, subjects.ErrInvalid, "%s: %q", f.name, s)
			require.Empty(t, strings.Join(parts, ""), "%s: %q gave names with its error", f.name, s)
		}
	}
	for _, s := range []string{"cim.acme.WEB.X", "cim.acme.wEb.X", "cim-dead.h.acme.Web.X.1"} {
		_, err := subjects.ParseEvent(s)
		_, err2 := subjects.ParseDeadLetter(s)
		require.Error(t, err)
		require.Error(t, err2)
		require.Contains(t, err.Error()+err2.Error(), "is not lower case")
	}
}

func TestADeadLetterHasACanonicalSequence(t *testing.T) {
	_, err := subjects.DeadLetter{Handler: "h", Tenant: "t", Channel: "c", Event: "e"}.Subject()
	require.ErrorContains(t, err, `sequence "0" is not a stream sequence; it is a decimal number from 1`)

	for _, s := range []string{"0", "01", "+1", "-1", "1.0", "1e3", "", " 1", "0x1", "1_0", "18446744073709551616"} {
		_, err := subjects.ParseDeadLetter("cim-dead.h.t.c.e." + s)
		require.ErrorIs(t, err, subjects.ErrInvalid, "%q", s)
	}
	rapid.Check(t, func(t *rapid.T) {
		want := subjects.DeadLetter{Handler: "h", Tenant: "t", Event: "e", Sequence: rapid.Uint64Min(1).Draw(t, "sequence")}
		s, err := want.Subject()
		require.NoError(t, err)
		got, err := subjects.ParseDeadLetter(s)
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

func TestKeySubjectsAreTheKeyBelowTheBucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := subjects.MemberKey{Tenant: names().Draw(t, "t"), Agent: names().Draw(t, "a"), Conversation: names().Draw(t, "c")}
		key, err := m.Key()
		require.NoError(t, err)
		require.Regexp(t, `^[-/_=\.a-zA-Z0-9]+$`, key, "as nats.go checks keys")
		subject, err := m.Subject()
		require.NoError(t, err)
		require.Equal(t, "$KV.CIM_MEMBERS."+key, subject)

		c := subjects.ConversationKey{Tenant: m.Tenant, Conversation: m.Conversation}
		key, err = c.Key()
		require.NoError(t, err)
		subject, err = c.Subject()
		require.NoError(t, err)
		require.Equal(t, "$KV.CIM_CONVERSATIONS."+key, subject)
	})
}
