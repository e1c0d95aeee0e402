package cim

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnErrorNamesFieldOffsetProblemAndRemedy(t *testing.T) {
	for name, c := range map[string]struct {
		body, reason, field string
		offset              int64
		says                string
	}{
		"empty":                  {"", ReasonNotJSON, "body", 0, "body is empty at byte 0: send one JSON object"},
		"white space":            {" \n", ReasonNotJSON, "body", 2, "body is empty"},
		"text":                   {"hello", ReasonNotJSON, "body", 0, "unexpected 'h'"},
		"cut off":                {`{"id":"1","na`, ReasonNotJSON, "body", 13, "unexpected end"},
		"cut off in an escape":   {`{"id":"\`, ReasonNotJSON, "body", 8, "unexpected end"},
		"not quoted":             {`{id:1}`, ReasonNotJSON, "body", 1, "unexpected 'i'"},
		"an umlaut":              {`{"id":ä}`, ReasonNotJSON, "body", 6, "unexpected 'ä'"},
		"trailing comma":         {`{"id":"1",}`, ReasonNotJSON, "body", 10, "unexpected '}'"},
		"trailing garbage":       {`{"id":"1"} {}`, ReasonNotJSON, "body", 11, "something follows its value"},
		"line break in a string": {"{\"id\":\"1\n\"}", ReasonNotJSON, "body", 8, "raw control character"},
		"NUL":                    {"{\"id\":\x00}", ReasonNotJSON, "body", 6, `unexpected '\x00'`},
		"bad escape":             {`{"id":"\x31"}`, ReasonNotJSON, "body", 8, "unexpected 'x'"},
		"bad unicode escape":     {`{"id":"\u12G4"}`, ReasonNotJSON, "body", 11, "unexpected 'G'"},
		"leading zero":           {`{"id":01}`, ReasonNotJSON, "body", 7, "unexpected '1'"},
		"byte order mark":        {"\ufeff{}", ReasonNotJSON, "body", 0, "byte order mark at byte 0: send UTF-8 without one"},
		"not UTF-8":              {"{\"id\":\"\xc3\"}", ReasonNotJSON, "body", 7, "not UTF-8 (byte 0xC3) at byte 7"},
		"array":                  {`[{"id":"1","name":"X"}]`, ReasonNotAnEvent, "body", 0, "body is an array, not an event: publish the items of an array one by one"},
		"broken array":           {`[{"id":"1",]`, ReasonNotJSON, "body", 11, "unexpected ']'"},
		"number":                 {` -1.5e3`, ReasonNotAnEvent, "body", 0, "is a number"},
		"string":                 {`"x"`, ReasonNotAnEvent, "body", 0, "is a string"},
		"boolean":                {`true`, ReasonNotAnEvent, "body", 0, "is a boolean"},
		"null":                   {`null`, ReasonNotAnEvent, "body", 0, "is null"},
		"wrapped null":           {`{"cimEvent":null}`, ReasonNotAnEvent, "cimEvent", 0, "cimEvent is null, not an event: send the event as an object"},
		"wrapped array":          {`{"cimEvent":[]}`, ReasonNotAnEvent, "cimEvent", 0, "cimEvent is an array"},
		"wrapped text":           {`{"cimEvent":" hello"}`, ReasonNotJSON, "cimEvent", 1, "cimEvent is not JSON (unexpected 'h') at byte 1: send the event as an object, or as a string"},
		"wrapped empty string":   {`{"cimEvent":""}`, ReasonNotJSON, "cimEvent", 0, "cimEvent is empty"},
		"wrapped garbage":        {`{"cimEvent":"{}\n}"}`, ReasonNotJSON, "cimEvent", 3, "something follows"},
		"wrapped number":         {`{"cimEvent":"5"}`, ReasonNotAnEvent, "cimEvent", 0, "is a number"},
		"wrapped twice":          {`{"cimEvent":{"cimEvent":{"id":"1","name":"X"}}}`, ReasonNoName, "name", 0, "name is missing"},
		"nothing":                {`{}`, ReasonNoName, "name", 0, "name is missing: set it to the event's name, such as CUSTOMER_MESSAGE"},
		"name is a number":       {`{"name":5,"id":"1"}`, ReasonNoName, "name", 0, "name is a number, not a string"},
		"name is null":           {`{"name":null,"id":"1"}`, ReasonNoName, "name", 0, "name is null, not a string"},
		"name is empty":          {`{"name":"","id":"1"}`, ReasonNoName, "name", 0, "name is empty"},
		"no id":                  {`{"name":"X"}`, ReasonNoID, "id", 0, "id is missing: give every event an id of its own"},
		"id is an object":        {`{"name":"X","id":{}}`, ReasonNoID, "id", 0, "id is an object, not a string"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Decode([]byte(c.body), "")
			var invalid *Error
			require.ErrorAs(t, err, &invalid)
			require.Equal(t, c.reason, invalid.Reason)
			require.Equal(t, c.field, invalid.Field)
			require.Equal(t, c.offset, invalid.Offset)
			require.NotEmpty(t, invalid.Remedy)
			require.Contains(t, err.Error(), c.says)
		})
	}
}

func TestDeepNestingIsRefusedWithoutFollowingIt(t *testing.T) {
	const before = `{"id":"1","name":"X","data":`
	nested := func(depth int) string { // the event's own object is one level
		return before + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + "}"
	}
	_, err := Decode([]byte(nested(MaxDepth)), "")
	require.NoError(t, err)
	_, err = Decode([]byte(before+`[`+strings.Repeat(`[{"a":1,"b":[]}],{},`, 2*MaxDepth)+`0]}`), "")
	require.NoError(t, err, "side by side is not nested")

	for name, c := range map[string]struct {
		body   string
		field  string
		offset int64
	}{
		"one too deep": {nested(MaxDepth + 1), "body", int64(len(before)) + MaxDepth - 1},
		"1 MiB of [":   {strings.Repeat("[", 1<<20), "body", MaxDepth},
		"1 MiB of {":   {strings.Repeat(`{"data":`, 1<<17), "body", MaxDepth * 8},
		"in a string":  {`{"cimEvent":"` + strings.Repeat("[", 1<<20) + `"}`, "cimEvent", MaxDepth},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Decode([]byte(c.body), "")
			var invalid *Error
			require.ErrorAs(t, err, &invalid)
			require.Equal(t, ReasonTooDeep, invalid.Reason)
			require.Equal(t, c.field, invalid.Field)
			require.Equal(t, c.offset, invalid.Offset)
			require.Contains(t, err.Error(), "nest objects and arrays at most 512 deep")
		})
	}
}

func TestAnErrorComesWithWhatCouldBeRead(t *testing.T) {
	e, err := Decode([]byte(`{"conversationId":"c","name":"X","channelSession":{"state":"A"}}`), "")
	require.ErrorContains(t, err, "id is missing")
	require.Equal(t, "c", e.Conversation)
	require.Equal(t, "X", e.Name)
	require.Equal(t, "A", e.Status())
	require.NotEmpty(t, e.Body)

	e, err = Decode([]byte(`{"conversationId":"c","id":"1"}`), "")
	require.ErrorContains(t, err, "name is missing")
	require.Equal(t, "1", e.ID)

	e, err = Decode([]byte(`{"cimEvent":"not JSON","topicId":"c"}`), "")
	require.Error(t, err)
	require.Equal(t, "c", e.Conversation)

	e, err = Decode([]byte(`{"conversationId":"c"`), "header")
	require.Error(t, err)
	require.Equal(t, Event{Conversation: "header"}, e, "of what is not JSON nothing is believed")
}
