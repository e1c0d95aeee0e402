package subjects_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cimbus/cimbus/subjects"
)

// canonical is the token grammar, written down a second time.
var canonical = regexp.MustCompile(`^(?:[A-Za-z0-9_-]|=[0-9A-F]{2}){1,128}$`)

// names draws what people and machines call things, and what they should not.
func names() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringMatching(`[A-Za-z0-9_-]{1,24}`),
		rapid.StringMatching(`[A-Z]{2,8}(_[A-Z]{2,8}){0,3}`),
		rapid.SampledFrom([]string{"_", "__", "=5F", "=", "*", ">", ".", " ", "a.b", "a b", "a=2Eb", "a%2Eb", "$SYS", "ä", "\x00", "\xff", "-"}),
		rapid.StringN(1, 20, 40),
		rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 1, 42).Draw(t, "bytes")) }),
	)
}

// anything draws names that may be too long or empty as well.
func anything() *rapid.Generator[string] {
	return rapid.OneOf(
		names(),
		rapid.String(),
		rapid.Custom(func(t *rapid.T) string {
			return strings.Repeat(names().Draw(t, "part"), rapid.IntRange(0, 200).Draw(t, "times"))
		}),
	)
}

func TestEncodeWritesTheDocumentedForm(t *testing.T) {
	for name, token := range map[string]string{
		"acme":                       "acme",
		"BOT_SUGGESTION":             "BOT_SUGGESTION",
		"65b3ad18-3b5e_9":            "65b3ad18-3b5e_9",
		"a.b":                        "a=2Eb",
		"*":                          "=2A",
		">":                          "=3E",
		" ":                          "=20",
		"a=b":                        "a=3Db",
		"_":                          "=5F",
		"__":                         "__",
		"=5F":                        "=3D5F",
		"Zoë":                        "Zo=C3=AB",
		"\x00\xff":                   "=00=FF",
		"a\r\nb":                     "a=0D=0Ab",
		strings.Repeat("a", 128):     strings.Repeat("a", 128),
		strings.Repeat(".", 42):      strings.Repeat("=2E", 42),
		strings.Repeat("_", 128):     strings.Repeat("_", 128),
		"x" + strings.Repeat("-", 2): "x--",
	} {
		got, err := subjects.Encode(name)
		require.NoError(t, err, "%q", name)
		require.Equal(t, token, got)

		back, err := subjects.Decode(token)
		require.NoError(t, err, "%q", token)
		require.Equal(t, name, back)
	}
}

func TestEncodeRefusesTheEmptyAndTheOverlongName(t *testing.T) {
	for _, name := range []string{
		"",
		strings.Repeat("a", 129),
		strings.Repeat(".", 43),
		strings.Repeat("a", 126) + ".",
		strings.Repeat("x", 1<<20),
	} {
		_, err := subjects.Encode(name)
		require.ErrorIs(t, err, subjects.ErrInvalid)
		var e *subjects.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, "name", e.Field)
		require.Equal(t, name, e.Name)
		require.Contains(t, err.Error(), "a name has 1 to 128 bytes")
		require.Less(t, len(err.Error()), 400)
	}
}

func TestDecodeAcceptsOnlyWhatEncodeWrites(t *testing.T) {
	for token, problem := range map[string]string{
		"":                        "is empty",
		"_":                       "stands for none",
		"a.b":                     "must be encoded",
		"a b":                     "must be encoded",
		"*":                       "must be encoded",
		"a>":                      "must be encoded",
		"Zoë":                     "must be encoded",
		"a\x00":                   "must be encoded",
		"a%2E":                    "must be encoded",
		"a=2e":                    "two upper-case hex digits",
		"a=G0":                    "two upper-case hex digits",
		"a==2E":                   "two upper-case hex digits",
		"a=":                      "ends within",
		"a=2":                     "ends within",
		"=41":                     "is written as it is",
		"a=5F":                    "is written as it is",
		"=5F=5F":                  "is written as it is",
		"=2D":                     "is written as it is",
		strings.Repeat("a", 129):  "is too long",
		strings.Repeat("=2E", 43): "is too long",
	} {
		_, err := subjects.Decode(token)
		require.ErrorIs(t, err, subjects.ErrInvalid, "%q", token)
		require.ErrorContains(t, err, "token ")
		require.ErrorContains(t, err, problem)
		require.ErrorContains(t, err, "a token is 1 to 128 of A-Z a-z 0-9 _ -")
	}
}

func TestEveryNameIsRefusedOrComesBackFromACanonicalToken(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := anything().Draw(t, "name")
		token, err := subjects.Encode(name)
		if err != nil {
			require.ErrorIs(t, err, subjects.ErrInvalid)
			return
		}
		require.Regexp(t, canonical, token)
		require.LessOrEqual(t, len(token), subjects.MaxToken)
		require.NotEqual(t, "_", token)
		back, err := subjects.Decode(token)
		require.NoError(t, err)
		require.Equal(t, name, back)
	})
}

func TestTwoNamesNeverShareAToken(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := names().Draw(t, "a"), names().Draw(t, "b")
		x, errX := subjects.Encode(a)
		y, errY := subjects.Encode(b)
		if errX == nil && errY == nil {
			require.Equal(t, a == b, x == y)
		}
	})
}

func TestErrorShowsFieldQuotedNameAndRemedy(t *testing.T) {
	long := strings.Repeat("é", 100)
	_, err := subjects.Event{Tenant: long, Event: "X"}.Subject()
	var e *subjects.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "tenant", e.Field)
	require.Equal(t, long, e.Name)
	require.Equal(t, `tenant "`+strings.Repeat("é", 32)+`"… is too long; a name has 1 to 128 bytes as a token, `+
		`where a byte outside A-Z a-z 0-9 _ - counts three`, err.Error())

	_, err = subjects.Decode("a\x1b[31m b")
	require.NotContains(t, err.Error(), "\x1b", "a name must not write to the reader's terminal")
	require.NotErrorIs(t, err, errors.New("invalid subject"))
}
