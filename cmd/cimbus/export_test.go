package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

// storeRaw stores messages as a service of any language may.
func storeRaw(t *testing.T, url string, msgs ...*nats.Msg) {
	t.Helper()
	nc, err := nats.Connect(url)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	for _, m := range msgs {
		_, err := js.PublishMsg(t.Context(), m)
		require.NoError(t, err)
	}
}

// hostile are events with whatever a service may put into them.
func hostile(n int) []*nats.Msg {
	rng := rand.New(rand.NewPCG(uint64(n), 4))
	bodies := []string{
		`{"id":%q,"name":"A","conversationId":"c1","n":12345678901234567890123}`, "{\n  \"id\": %q,\n\"name\":\"A\", \"conversationId\":\"c1\"}\r\n",
		` {"id":%q,"name":"A","conversationId":"c1"} `, "%s\xff\xfe\x00", `"%s"`, "[%q]\t", "null %s", `{"id":%q,"name":"A","conversationId":"c1","payload":{"payload":"}\u2028"}}`,
	}
	values := []string{"", "a", "ü €", "\xff\xfe", `"quoted\"`, "a  b", strings.Repeat("x", 3000), "{}", "\x01\x7f"}
	keys := []string{"x-mine", "X-Mine", "X-MINE", "traceparent", "tracestate", "Cim-Channel", "Cim-Conversation-Id", "Cim-Event-Name", "a!#$%&'*+^`|~", "Status"}
	var all []*nats.Msg
	for i := range n {
		id := fmt.Sprintf("e%d", i)
		m := &nats.Msg{Subject: []string{"cim.acme.web.A", "cim.other=2Eone._.B=20C", "cim.acme.cx_voice.A"}[rng.IntN(3)], Header: nats.Header{}}
		m.Data = fmt.Appendf(nil, bodies[rng.IntN(len(bodies))], id)
		for range rng.IntN(4) {
			key := keys[rng.IntN(len(keys))]
			m.Header[key] = append(m.Header[key], values[rng.IntN(len(values))])
		}
		if rng.IntN(2) == 0 {
			m.Header[jetstream.MsgIDHeader] = []string{"id " + id}
		}
		if rng.IntN(3) == 0 {
			m.Header[jetstream.ExpectedStreamHeader] = []string{bus.StreamEvents}
		}
		all = append(all, m)
	}
	return all
}

// contents are the events of an export, without what an import changes: their order within a conversation is theirs.
func contents(t *testing.T, export string) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for each := range strings.Lines(export) {
		e, err := bus.ReadStoredEvent([]byte(each))
		require.NoError(t, err)
		key := e.Name.Tenant + " " + e.Conversation
		out[key] = append(out[key], fmt.Sprintf("%s %q %q", e.Subject, e.Header, e.Data))
	}
	return out
}

func TestAnExportThatIsImportedElsewhereAndExportedAgainIsTheSame(t *testing.T) {
	from := serve(t)
	storeRaw(t, from.NATS, hostile(300)...)
	file := filepath.Join(t.TempDir(), "events.ndjson")
	got := invoke(t, "", from.on("export", file)...)
	require.Zero(t, got.code, got.stderr)
	require.Empty(t, got.stdout)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, 300, strings.Count(string(text), "\n"))
	sum := sha256.Sum256(text)
	require.Regexp(t, `^exported 300 events, [\d.]+ [KM]iB, sha256 `+hex.EncodeToString(sum[:])+"\n$", got.stderr)
	require.NoFileExists(t, file+partSuffix)
	require.Equal(t, string(text), from.do(t, "", "export"), "stdout has the same")

	external := bustest.Process(t).URL()
	require.Zero(t, invoke(t, "", "streams", "apply", "--server", external).code)
	for _, to := range []string{serve(t).NATS, external} {
		back := invoke(t, "", "import", file, "--yes", "--server", to)
		require.Zero(t, back.code, back.stderr)
		require.Contains(t, back.stderr, "imported 300 events as history, 0 were stored before")
		again := invoke(t, "", "export", "--server", to)
		require.Zero(t, again.code, again.stderr)
		require.Equal(t, contents(t, string(text)), contents(t, again.stdout))

		twice := invoke(t, "", "import", file, "--yes", "--json", "--server", to)
		require.Zero(t, twice.code, twice.stderr)
		require.Equal(t, imported{Import: "history", Duplicates: 300}, lines[imported](t, twice.stdout)[0])
	}
	onto := invoke(t, string(text), from.on("import", "--yes", "--json", "-")...)
	require.Zero(t, onto.code, onto.stderr)
	require.Equal(t, imported{Import: "history", Duplicates: 300}, lines[imported](t, onto.stdout)[0], "it is all there")
}

func TestExportHasExactlyWhatIsSelectedAndSaysSo(t *testing.T) {
	d := serve(t)
	d.do(t, event("1", "CUSTOMER_MESSAGE", "c1")+event("2", "AGENT_MESSAGE", "c1")+event("3", "AGENT_MESSAGE", "c2"), "publish", "--tenant", "acme")
	file := filepath.Join(t.TempDir(), "events.ndjson")
	summary := lines[exported](t, d.do(t, "", "export", "--event", "AGENT_*", "--json", file))[0]
	require.Equal(t, 2, summary.Events)
	require.Equal(t, []uint64{2, 3}, []uint64{summary.From, summary.Upto})
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Len(t, text, int(summary.Bytes))
	require.Contains(t, string(text), `"id":"2"`)
	require.NotContains(t, string(text), `"id":"1"`)

	over := invoke(t, "", d.on("export", file)...)
	require.Equal(t, exitFailed, over.code)
	require.Contains(t, over.stderr, "is there already: remove it, or choose another name")
	for args, complaint := range map[string]string{
		"--from 99":            "sequence 99 is beyond the end: CIM_EVENTS holds 1 (",
		"--from 2099-01-01":    "is in the future: CIM_EVENTS holds 1 (",
		"/no/such/folder/file": "give the path of a file that can be written",
		os.TempDir():           "is a folder: give the path of a file in it",
	} {
		got := invoke(t, "", d.on(append([]string{"export"}, strings.Fields(args)...)...)...)
		require.Equal(t, exitFailed, got.code, args)
		require.Contains(t, got.stderr, complaint)
	}
}

func TestAnExportOfWhatThereIsNotSaysSoAlone(t *testing.T) {
	d := serve(t)
	d.do(t, message("1"), "publish", "--tenant", "acme")
	got := invoke(t, "", d.on("export", "--from", "99")...)
	require.Equal(t, exitFailed, got.code)
	require.Regexp(t, `^cimbus export: sequence 99 is beyond the end: CIM_EVENTS holds 1 \(.+\) to 1 \(.+\)\n$`, got.stderr)
}

func TestAnExportThatIsBrokenOffNeverLooksWhole(t *testing.T) {
	d := serve(t)
	storeRaw(t, d.NATS, hostile(400)...)
	file := filepath.Join(t.TempDir(), "events.ndjson")
	require.NoError(t, os.Symlink("/dev/full", file+partSuffix))
	full := invoke(t, "", d.on("export", file)...)
	require.Equal(t, exitFailed, full.code)
	require.Contains(t, full.stderr, "no space left on device: not whole, after ")
	require.NoFileExists(t, file)

	device := invoke(t, "", d.on("export", "/dev/full")...)
	require.Equal(t, exitFailed, device.code)
	require.Contains(t, device.stderr, "no space left on device: not whole")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stderr bustest.Buffer
	code := run(ctx, d.on("export"), strings.NewReader(""), &interrupting{Writer: io.Discard, cancel: cancel}, &stderr, nil)
	require.Equal(t, exitFailed, code)
	require.Regexp(t, `interrupted: not whole, after \d+ events and .+, up to sequence \d+`, stderr.String())
}

// interrupting is an output at whose first writing the operator presses Ctrl-C.
type interrupting struct {
	io.Writer
	cancel func()
}

func (w *interrupting) Write(p []byte) (int, error) {
	w.cancel()
	return w.Writer.Write(p)
}
