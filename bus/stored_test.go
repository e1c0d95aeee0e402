package bus_test

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
)

func FuzzStoredEventSurvivesItsLine(f *testing.F) {
	for _, body := range []string{`{"id":"1"}`, ` {"id":"1"}`, "{} ", "\t[]", "null", `"\ud800"`, "{\"a\":\"\u2028\"}", "\xff", "", "1e999", `{"a":1,"a":2}`, "[[[[", "{}\r", "\ufeff{}"} {
		f.Add([]byte(body), "X-Mine", "a", "b\xff")
		f.Add([]byte(body), "x\xfe", "", "\x00")
		f.Add([]byte(body), `"`, "\u2028", `\`)
	}
	f.Fuzz(func(t *testing.T, body []byte, key, v, w string) {
		e := bus.StoredEvent{RawStreamMsg: &jetstream.RawStreamMsg{
			Subject: "cim.acme.web.A", Sequence: 7, Time: time.Unix(1, 2).UTC(), Data: slices.Clone(body),
			Header: nats.Header{key: {v, w}, "other": {w}, "X": {v}},
		}}
		line := e.AppendJSON([]byte("before"))
		require.True(t, strings.HasPrefix(string(line), "before{"))
		line = line[len("before"):]
		require.True(t, utf8.Valid(line))
		require.NotContains(t, string(line), "\n")
		back, err := bus.ReadStoredEvent(line)
		require.NoError(t, err, "%q", line)
		require.Equal(t, string(e.Data), string(back.Data))
		require.Equal(t, e.Header, back.Header)
	})
}

func TestAStoredEventWithoutHeadersHasNoneBehindItsLine(t *testing.T) {
	for _, h := range []nats.Header{nil, {}} {
		e := bus.StoredEvent{RawStreamMsg: &jetstream.RawStreamMsg{Subject: "cim.acme.web.A", Header: h, Data: []byte("{}")}}
		back, err := bus.ReadStoredEvent(e.AppendJSON(nil))
		require.NoError(t, err)
		require.Nil(t, back.Header)
	}
	for _, headers := range []string{"null", "{}", `{"a":null}`, `{"a":[]}`} {
		back, err := bus.ReadStoredEvent([]byte(`{"subject":"cim.acme.web.A","payload":{},"headers":` + headers + `}`))
		require.NoError(t, err)
		require.Nil(t, back.Header)
	}
}

func FuzzReadStoredEventTakesNothingThatCannotBeImported(f *testing.F) {
	f.Add([]byte(`{"subject":"cim.acme.web.A","payload":{},"headers":{"a":["b"]},"headers_base64":[["YQ==","Yg=="]]}`))
	f.Add([]byte(`{"subject":"cim.acme.web.A","payload":null,"payload_base64":null}`))
	f.Add([]byte(`{"subject":"cim.a.b","payload":{}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := bus.ReadStoredEvent(line)
		if err != nil || e.CheckImport(1<<20) != nil {
			return
		}
		require.Regexp(t, `^cim\.[A-Za-z0-9_=-]+\.[A-Za-z0-9_=-]+\.[A-Za-z0-9_=-]+$`, e.Subject)
		require.NotEmpty(t, e.ImportID())
		again, err := bus.ReadStoredEvent(e.AppendJSON(nil))
		require.NoError(t, err)
		require.Equal(t, e.ImportID(), again.ImportID())
	})
}
