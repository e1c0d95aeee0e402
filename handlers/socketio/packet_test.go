package socketio

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAPacketIsReadAsItCame(t *testing.T) {
	raw := func(texts ...string) []json.RawMessage {
		args := []json.RawMessage{}
		for _, text := range texts {
			args = append(args, json.RawMessage(text))
		}
		return args
	}
	for text, want := range map[string]packet{
		`0`:                         {kind: '0', namespace: "/"},
		`0{"token":"123"}`:          {kind: '0', namespace: "/", auth: json.RawMessage(`{"token":"123"}`)},
		`0/custom`:                  {kind: '0', namespace: "/custom"},
		`0/custom,`:                 {kind: '0', namespace: "/custom"},
		`0/custom,{ "a" : [1, 2] }`: {kind: '0', namespace: "/custom", auth: json.RawMessage(`{"a":[1,2]}`)},
		`1`:                         {kind: '1', namespace: "/"},
		`1/custom,`:                 {kind: '1', namespace: "/custom"},
		`2["foo"]`:                  {kind: '2', namespace: "/", name: "foo", args: raw()},
		`2["foo", 1e400, "<&>", "\u00e9", {"b":2,"a":1}]`: {kind: '2', namespace: "/", name: "foo", args: raw(`1e400`, `"<&>"`, `"\u00e9"`, `{"b":2,"a":1}`)},
		`2/admin,456["bar",null]`:                         {kind: '2', namespace: "/admin", name: "bar", id: 456, hasID: true, args: raw(`null`)},
		`20["bar"]`:                                       {kind: '2', namespace: "/", name: "bar", hasID: true, args: raw()},
		`312[]`:                                           {kind: '3', namespace: "/", id: 12, hasID: true, args: raw()},
		`51-["baz",{"_placeholder":true,"num":0}]`:        {kind: '5', namespace: "/", attachments: 1, name: "baz", args: raw(`{"_placeholder":true,"num":0}`)},
		`52-/admin,7["baz",{"num":1,"_placeholder":true}]`: {
			kind: '5', namespace: "/admin", id: 7, hasID: true, attachments: 2, name: "baz", args: raw(`{"num":1,"_placeholder":true}`),
		},
		`61-15["bar",{"_placeholder":true,"num":0}]`: {
			kind: '6', namespace: "/", id: 15, hasID: true, attachments: 1, args: raw(`"bar"`, `{"_placeholder":true,"num":0}`),
		},
	} {
		got, err := parsePacket([]byte(text), 10)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
}

func TestWhatDoesNotParseIsMalformed(t *testing.T) {
	for _, text := range []string{
		"", "7", "abc", "x", "0[]", `0"auth"`, "0null", "0{", "0{}{}", "0/custom,abc", "1{}", `4{"message":"x"}`,
		"2", "2[]", "2{}", "2[1]", "2[null]", `2["connect"]`, `2["disconnect",1]`, `2["connect_error"]`, `2["newListener"]`, `2["a"`, `2["a"]x`,
		`2abc["a"]`, `2-1["a"]`, `29007199254740992["a"]`, `299999999999999999999999["a"]`, "2[\"\xff\"]",
		`3["a"]`, "31", "31{}", "3abc[]", `5["a"]`, `5-["a"]`, `5x-["a"]`, `5-1-["a"]`, `511-["a"]`, `599999999999-["a"]`,
		`51-["a",{"_placeholder":true,"num":1}]`, `51-["a",{"_placeholder":true,"num":-1}]`, `51-["a",{"_placeholder":true,"num":0.5}]`,
		`51-["a",{"_placeholder":true}]`, `51-["a",{"_placeholder":true,"num":"0"}]`, `51-["a",[{"b":{"num":9,"_placeholder":true}}]]`, `50-["a",{"_placeholder":true,"num":0}]`,
		`51-["a",{"\u005fplaceholder":true,"num":3}]`,
	} {
		_, err := parsePacket([]byte(text), 10)
		require.ErrorIs(t, err, ErrMalformed, "%q", text)
	}
}

func TestPlaceholdersAreToldFromWhatLooksLikeThem(t *testing.T) {
	for _, text := range []string{
		`[{"_placeholder":false,"num":9}]`,
		`[{"_placeholder":{"_placeholder":1,"num":9}}]`,
		`[{"a":"_placeholder","b":true,"num":9}]`,
		`["_placeholder",true,"num",9]`,
		`["{\"_placeholder\":true,\"num\":9}"]`,
		`[{"num":[9],"_placeholder":[true]}]`,
	} {
		require.NoError(t, checkPlaceholders([]byte(text), 0), text)
	}
	require.Error(t, checkPlaceholders([]byte(`[{"x":[{},{"_placeholder":true,"y":{"num":0},"num":1}]}]`), 1))
}

// A hostile packet nests as deep as JSON may; reading it must not cost its size squared.
func TestDeepNestingIsReadOnce(t *testing.T) {
	deep := strings.Repeat(`[{"a":`, 4000) + "1" + strings.Repeat("}]", 4000)
	_, err := parsePacket([]byte(`51-["a",`+deep+`,{"_placeholder":true,"num":0}]`), 10)
	require.NoError(t, err)
	tooDeep := strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)
	_, err = parsePacket([]byte(`51-["a",`+tooDeep+`]`), 10)
	require.ErrorIs(t, err, ErrMalformed)
}

func TestWhatIsEncodedParsesBack(t *testing.T) {
	id := uint64(7)
	for _, namespace := range []string{"/", "/custom"} {
		parts, err := encodeEvent(namespace, "näme<&>", "off", &id, []any{1, "<&>", "ü<&>", []byte{1}, json.RawMessage(`{ "a": 1 }`), Verbatim(`[2]`), map[string]any{"x": nil}})
		require.NoError(t, err)
		require.Len(t, parts, 2)
		text := polled(parts[0])
		p, err := parsePacket([]byte(text[1:]), 10)
		require.NoError(t, err, text)
		require.Equal(t, packet{
			kind: '5', namespace: namespace, id: 7, hasID: true, attachments: 1, name: "näme<&>",
			args: []json.RawMessage{
				json.RawMessage("1"), json.RawMessage(`"<&>"`), json.RawMessage(`"ü<&>"`), json.RawMessage(`{"_placeholder":true,"num":0}`),
				json.RawMessage(`{"a":1}`), json.RawMessage("[2]"), json.RawMessage(`{"x":null}`), json.RawMessage(`"off"`),
			},
		}, p)
	}
	for _, bad := range [][]any{{func() {}}, {json.RawMessage("{")}, {Placeholders{}, 1}} {
		_, err := encodeEvent("/", "a", "", nil, bad)
		require.ErrorContains(t, err, "a", bad)
	}
}
