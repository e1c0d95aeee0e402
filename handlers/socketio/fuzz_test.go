package socketio

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/handlers/socketio/engineio"
)

// polled is a message as a polling client reads it.
func polled(m *engineio.Message) string { return m.String() }

// Whatever parses can be sent on, and is then the same packet.
func FuzzPacket(f *testing.F) {
	for _, seed := range []string{
		"0", `0/custom,{"token":"123"}`, "1/custom,", `2["foo",1,"2",{"3":[true]}]`, `2/admin,456["bar"]`, "312[]",
		`52-/admin,7["baz",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`, `61-15["bar",{"_placeholder":true,"num":0}]`,
		"abc", "2{}", "2[]", `51-["a",{"_placeholder":true,"num":9}]`, "2[\"\xff\"]", "29007199254740992[\"a\"]", `2["a"]]`, "5", "5-", "0/",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		before := bytes.Clone(text)
		p, err := parsePacket(text, 10)
		require.Equal(t, before, text)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		if p.kind != packetEvent && p.kind != packetBinaryEvent && p.kind != packetAck && p.kind != packetBinaryAck {
			return
		}
		var e encoder
		if p.name != "" || p.kind == packetEvent || p.kind == packetBinaryEvent {
			require.NoError(t, e.add(p.name))
		}
		for _, arg := range p.args {
			require.NoError(t, e.add(arg))
		}
		e.attachments = make([][]byte, p.attachments)
		var id *uint64
		if p.hasID {
			id = &p.id
		}
		kind := byte(packetEvent)
		if p.kind == packetAck || p.kind == packetBinaryAck {
			kind = packetAck
		}
		again, err := parsePacket([]byte(polled(e.packet(kind, p.namespace, id)[0])[1:]), 10)
		require.NoError(t, err)
		if p.attachments == 0 { // a binary packet without attachments is sent on as a plain one
			again.kind = p.kind
		}
		require.Equal(t, p, again)
	})
}

// Placeholders are found in any JSON without a panic, and none is let through that has no attachment.
func FuzzAttachments(f *testing.F) {
	for _, seed := range []string{
		`[{"_placeholder":true,"num":0}]`, `[{"a":{"num":1,"_placeholder":true}}]`, `{"_placeholder":true}`, `[[[]]]`, `"_placeholder"`,
		`[{"_placeholder":true,"num":1e0}]`, `[{"num":0,"num":7,"_placeholder":true}]`, `[`, `{"a":1}}`, `[{"_plACeholdEr":true,"num":1}]`,
	} {
		f.Add([]byte(seed), 1)
	}
	f.Fuzz(func(t *testing.T, text []byte, attachments int) {
		if !json.Valid(text) || attachments < 0 || attachments > 10 {
			return
		}
		if checkPlaceholders(text, attachments) != nil {
			return
		}
		var args []json.RawMessage
		if json.Unmarshal(text, &args) != nil {
			return
		}
		for _, arg := range args {
			var p map[string]any
			if json.Unmarshal(arg, &p) == nil && p["_placeholder"] == true {
				_, ok := attachmentOf(arg, make([][]byte, attachments))
				require.True(t, ok, "%s", arg)
			}
		}
	})
}

// Whatever one client posts, it is answered with one of the protocol's statuses, and another client notices nothing.
func FuzzConnection(f *testing.F) {
	for _, seed := range []string{
		"40", "40\x1e42[\"message\",1]\x1e41", "40/custom,{\"pid\":\"p\",\"offset\":\"1\"}", "40/nowhere", "40\x1e4512-[\"message\"]\x1ebAQ==",
		"40\x1e452-[\"message\",{\"_placeholder\":true,\"num\":1}]\x1ebAQ==\x1eb", "40\x1e40", "3\x1e40\x1e430[]", "42[\"message\"]", "bAQ==", "40\x1e41\x1e40",
	} {
		f.Add([]byte(seed))
	}
	srv, err := New(Options{})
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, srv.Close(context.Background())) })
	for _, name := range []string{"/", "/custom"} {
		srv.Of(name).On("message", func(s *Socket, e *Event) { _ = s.Emit("back", e.Placeholders()) })
	}
	do := func(method, sid, body string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		target := "/socket.io/?EIO=4&transport=polling&sid=" + url.QueryEscape(sid)
		srv.ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), method, target, strings.NewReader(body)))
		return w
	}
	open := func(t *testing.T) string {
		var opening struct{ SID string }
		require.NoError(t, json.Unmarshal(do(http.MethodGet, "", "").Body.Bytes()[1:], &opening))
		return opening.SID
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for packet := range bytes.SplitSeq(body, []byte{0x1e}) {
			if len(packet) > 0 && packet[0] == '1' {
				return // a close waits for the poll of its instant
			}
		}
		sid, other := open(t), open(t)
		require.Equal(t, http.StatusOK, do(http.MethodPost, other, "40").Code)
		require.Contains(t, []int{http.StatusOK, http.StatusBadRequest}, do(http.MethodPost, sid, string(body)).Code)
		require.Contains(t, do(http.MethodGet, other, "").Body.String(), `40{"sid"`)
		for _, end := range []string{sid, other} {
			require.Equal(t, http.StatusBadRequest, do(http.MethodPost, end, "x").Code)
			require.Equal(t, http.StatusBadRequest, do(http.MethodGet, end, "").Code)
		}
	})
}
