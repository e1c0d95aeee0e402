package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// readItems reads an input to its end.
func readItems(t require.TestingT, in io.Reader) []item {
	var all []item
	for from := newItems(in); ; {
		it, err := from.next()
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		all = append(all, it)
	}
}

func bodies(all []item) []string {
	var texts []string
	for _, it := range all {
		switch {
		case it.err != nil:
			texts = append(texts, "! "+it.err.Error())
		default:
			texts = append(texts, string(it.body))
		}
	}
	return texts
}

func TestItemsKeepTheBytesTheyWereWrittenWith(t *testing.T) {
	for in, want := range map[string][]string{
		"":                                     nil,
		" \n\t\r\n":                            nil,
		"[]":                                   nil,
		"[ ]\n[ ]":                             nil,
		`{"a":1}`:                              {`{"a":1}`},
		"\ufeff{\"a\":1}":                      {`{"a":1}`},
		`{"a":1}{"a":2}`:                       {`{"a":1}`, `{"a":2}`},
		"{\"a\":1}\n\n{\"a\":2}\r\n":           {`{"a":1}`, `{"a":2}`},
		"{\n \"a\" : [1,\n2 ]\n}\n{\"a\":2}":   {"{\n \"a\" : [1,\n2 ]\n}", `{"a":2}`},
		`[{"a":1}, {"b" : "]},{"}]`:            {`{"a":1}`, `{"b" : "]},{"}`},
		"[\n{\"a\":1},\n{\"b\":2}\n]\n":        {`{"a":1}`, `{"b":2}`},
		`[1,"x\"]",null,[2,[3]]]`:              {`1`, `"x\"]"`, `null`, `[2,[3]]`},
		`[{"a":1}] {"b":2} [{"c":3}]`:          {`{"a":1}`, `{"b":2}`, `{"c":3}`},
		`{"a":"\\"}{"b":"\\\""}`:               {`{"a":"\\"}`, `{"b":"\\\""}`},
		"{\"a\":\n{\"b\":1}}\n{\"c\":\n[{}]}":  {"{\"a\":\n{\"b\":1}}", "{\"c\":\n[{}]}"},
		"[\n  {\n    \"a\": 1\n  },\n  2\n]\n": {"{\n    \"a\": 1\n  }", "2"},
	} {
		require.Equal(t, want, bodies(readItems(t, strings.NewReader(in))), "%q", in)
		require.Equal(t, want, bodies(readItems(t, iotest.OneByteReader(strings.NewReader(in)))), "%q", in)
	}
}

func TestABrokenItemDoesNotTakeTheNextWithIt(t *testing.T) {
	const whole = `{"b":2}`
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"{\"a\":1}\n{\"a\":\n" + whole + "\n" + whole, []string{`{"a":1}`, `{"a":`, whole, whole}},
		{"{\"a\":1}\n{\"a\":\n" + whole, []string{`{"a":1}`, `{"a":`, whole}},
		{"{\"a\":1}\n{\"a\":[\r\n" + whole + ",\n " + whole, []string{`{"a":1}`, `{"a":[`, whole + ",\n " + whole}},
		{"{\"a\":1,\n" + whole + "\n" + whole, []string{"{\"a\":1,\n" + whole + "\n", whole}},
		{"{\"a\":1\n" + whole, []string{"{\"a\":1\n", whole}},
		{"{\"a\n" + whole, []string{`{"a`, whole}},
		{"{\"a\":1]\n" + whole, []string{"{\"a\":1]\n", whole}},
		{"{\"a\":[1}\n" + whole, []string{`{"a":[1}`, whole}},
		{"nonsense, more\n" + whole, []string{"nonsense, more", whole}},
		{"{\n \"a\": {\n \"b\": 1\n}\n" + whole, []string{"{\n \"a\": {\n \"b\": 1\n}\n", whole}},
		{`[{"a":1]` + "\n" + whole, []string{`{"a":1`, whole}},
		{`[{"a":[1},` + whole + `]`, []string{`{"a":[1}`, whole}},
		{`[` + whole + whole + `]`, []string{whole, "! " + errNoComma.Error(), whole}},
		{`[` + whole + `,]`, []string{whole, "! " + errTrailing.Error()}},
		{`[,` + whole + `,,` + whole + `]`, []string{"! " + errComma.Error(), whole, "! " + errComma.Error(), whole}},
		{`[` + whole, []string{whole, "! " + errNotEnded.Error()}},
		{`[`, []string{"! " + errNotEnded.Error()}},
		{whole + `,` + whole, []string{whole, "! " + errNoArray.Error(), whole}},
		{whole + `]`, []string{whole, "! " + errNoArray.Error()}},
		{`{"a":"` + strings.Repeat("x", maxItem) + "\"}\n" + whole, []string{"! " + errTooLong.Error(), whole}},
	} {
		require.Equal(t, c.want, bodies(readItems(t, strings.NewReader(c.in))), "%.200q", c.in)
	}
}

func TestItemsKnowTheirPlace(t *testing.T) {
	type place struct{ number, line int }
	var places []place
	for _, it := range readItems(t, strings.NewReader("\n{\"a\":\n1}\n\n[{},\n\n{}\n,]\n5")) {
		places = append(places, place{it.number, it.line})
	}
	require.Equal(t, []place{{1, 2}, {2, 5}, {3, 7}, {3, 8}, {4, 9}}, places)
}

func TestItemsHandOnWhatCannotBeRead(t *testing.T) {
	broken := errors.New("disk is gone")
	from := newItems(io.MultiReader(strings.NewReader(`{"a":1} {"b`), iotest.ErrReader(broken)))
	it, err := from.next()
	require.NoError(t, err)
	require.Equal(t, `{"a":1}`, string(it.body))
	_, err = from.next()
	require.ErrorIs(t, err, broken)
}

// jsonText draws a JSON value as somebody may have written it.
func jsonText(t *rapid.T) string {
	var value func(depth int) any
	value = func(depth int) any {
		kinds := []string{"string", "number", "object", "array", "null"}
		if depth > 3 {
			kinds = []string{"string", "number", "null"}
		}
		switch rapid.SampledFrom(kinds).Draw(t, "kind") {
		case "string":
			return rapid.String().Draw(t, "string")
		case "number":
			return rapid.Int().Draw(t, "number")
		case "object":
			o := map[string]any{}
			for range rapid.IntRange(0, 3).Draw(t, "keys") {
				o[rapid.String().Draw(t, "key")] = value(depth + 1)
			}
			return o
		case "array":
			a := []any{}
			for range rapid.IntRange(0, 3).Draw(t, "items") {
				a = append(a, value(depth+1))
			}
			return a
		}
		return nil
	}
	text, err := json.Marshal(map[string]any{"event": value(0)})
	require.NoError(t, err)
	if rapid.Bool().Draw(t, "pretty") {
		var b bytes.Buffer
		require.NoError(t, json.Indent(&b, text, "", rapid.SampledFrom([]string{"", " ", "\t"}).Draw(t, "indent")))
		return b.String()
	}
	return string(text)
}

func TestWhateverIsValidComesOutAsItWentIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		written := rapid.SliceOfN(rapid.Custom(jsonText), 0, 5).Draw(t, "events")
		in := strings.Join(written, rapid.SampledFrom([]string{"\n", " ", "", "\r\n\r\n"}).Draw(t, "between"))
		if rapid.Bool().Draw(t, "array") {
			in = "[" + strings.Join(written, rapid.SampledFrom([]string{",", ",\n", "\n , \n"}).Draw(t, "between")) + "]"
		}
		var want []string
		want = append(want, written...)
		require.Equal(t, want, bodies(readItems(t, strings.NewReader(in))), "%q", in)
	})
}

// FuzzItems: whatever comes in, reading ends, no byte that is not white space or punctuation is lost, and objects that a JSON
// decoder finds one after another are found too.
func FuzzItems(f *testing.F) {
	for _, seed := range []string{"", `{"a":1}`, "[{},{}]", "{\"a\n{}", `[{"a":[1},{}]`, "\ufeff{}", `{"a":"\u00"}]`, "[1 2,,]", "{\"a\":\n{\n}}{}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		all := readItems(t, bytes.NewReader(in))
		size := 0
		for _, it := range all {
			size += len(it.body)
		}
		require.LessOrEqual(t, size, len(in))

		var want []string
		for dec := json.NewDecoder(bytes.NewReader(in)); ; {
			var raw json.RawMessage
			err := dec.Decode(&raw)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil || raw[0] != '{' {
				return // broken, or scalars and arrays: those are for the tests above
			}
			want = append(want, string(raw))
		}
		require.Equal(t, want, bodies(all), "%q", in)
	})
}
