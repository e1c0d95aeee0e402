package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

// exportOf is an export of a bus on which ann joins c1 and gets two messages.
func exportOf(t *testing.T) string {
	t.Helper()
	d := serve(t)
	d.do(t, "", "conversation", "join", "--tenant", "acme", "--conversation", "c1", "--agent", "ann")
	d.do(t, message("1")+message("2"), "publish", "--tenant", "acme")
	return d.do(t, "", "export")
}

func TestAnImportReachesNoAgentUnlessItIsToBeHandled(t *testing.T) {
	text := exportOf(t)
	d := joined(t) // with ann in c1
	d.settled(t)
	before := d.do(t, "", "agent", "--tenant", "acme", "--agent", "ann", "--after", "0", "--count", "1")
	got := invoke(t, text, d.on("import", "--yes")...)
	require.Zero(t, got.code, got.stderr)
	require.Contains(t, got.stdout, "agents          none")
	d.do(t, message("last"), "publish", "--tenant", "acme")
	all := d.do(t, "", "agent", "--tenant", "acme", "--agent", "ann", "--after", "0", "--count", "2")
	require.True(t, strings.HasPrefix(all, before))
	require.Contains(t, all[len(before):], `"id":"last"`, "what was imported before it did not come")
	var show struct {
		Latest []struct {
			Outcome string `json:"outcome"`
		} `json:"latest"`
	}
	require.NoError(t, json.Unmarshal([]byte(d.do(t, "", "conversation", "show", "--tenant", "acme", "--conversation", "c1", "--json")), &show))
	var outcomes []string
	for _, e := range show.Latest {
		outcomes = append(outcomes, e.Outcome)
	}
	require.Equal(t, []string{"delivered", "imported", "imported", "imported", "delivered"}, outcomes)
	d.shows(t, series{
		`cimbus_events_handled_total{handler="onCimEvent",outcome="imported",tenant="acme"}`:  3,
		`cimbus_events_handled_total{handler="onCimEvent",outcome="delivered",tenant="acme"}`: 2,
	})
	// What is selected by its conversation is read through the index: the imported are in it.
	require.Equal(t, 5, strings.Count(d.do(t, "", "export", "--tenant", "acme", "--conversation", "c1"), "\n"))

	other := serve(t)
	plan := invoke(t, text, other.on("import", "--handle")...)
	require.Equal(t, exitFailed, plan.code)
	require.Regexp(t, `(?m)^events +3 \(`, plan.stdout)
	require.Regexp(t, `(?m)^handlers +onCimEvent \((acts|waits)\)$`, plan.stdout)
	require.Regexp(t, `(?m)^agents +ann$`, plan.stdout)
	require.Contains(t, plan.stderr, "nothing was done: add --yes to have 3 events handled as if published now")
	require.Zero(t, invoke(t, text, other.on("import", "--handle", "--yes")...).code)
	delivered := other.receive(t, "0", 3)
	require.Equal(t, "onCimEvent", delivered[2].Event)
}

func TestABrokenLineIsToldWithItsNumberAndNothingIsImportedUnlessToldToKeepGoing(t *testing.T) {
	good := strings.Split(strings.TrimSpace(exportOf(t)), "\n")
	for broken, complaint := range map[string]string{
		good[1][:len(good[1])-9]:                                                          "line 2: not a line of an export: ",
		`{"subject":"cim.acme.web","payload":{}}`:                                         "line 2: subject \"cim.acme.web\": ",
		`{"subject":"$JS.API.STREAM.PURGE.CIM_EVENTS","payload":{}}`:                      "line 2: subject ",
		`{"subject":"cim-agent.acme.ann.onCimEvent.c1","payload":{}}`:                     "line 2: subject ",
		`{"subject":"cim.acme.*.A","payload":{}}`:                                         "line 2: subject ",
		`{"subject":"cim.acme.web.A"}`:                                                    "line 2: payload is missing",
		`{"subject":"cim.acme.web.A","payload":{},"headers":{"a":"b"}}`:                   "line 2: headers",
		`{"subject":"cim.acme.web.A","payload":{},"headers":{"a b":["c"]}}`:               "line 2: headers: \"a b\" cannot be a header's name",
		`{"subject":"cim.acme.web.A","payload":{},"headers":{"a":["b\r\nNats-TTL: 1s"]}}`: "line 2: headers: a \"b\\r\\nNats-TTL: 1s\" has line breaks",
		`{"subject":"cim.acme.web.A","payload":"` + strings.Repeat("x", 3<<20) + `"}`:     "line 2: it takes 3145",
	} {
		t.Run(complaint, func(t *testing.T) {
			d := serve(t)
			file := write(t, "broken.ndjson", strings.Join([]string{good[0], broken, good[2]}, "\n"))
			got := invoke(t, "", d.on("import", file, "--yes")...)
			require.Equal(t, exitFailed, got.code)
			require.Contains(t, got.stderr, file+": "+complaint)
			require.Contains(t, got.stderr, "nothing was imported: 1 broken line, told above")
			require.Empty(t, d.do(t, "", "export"))

			got = invoke(t, "", d.on("import", file, "--yes", "--keep-going", "--json")...)
			require.Equal(t, exitFailed, got.code)
			require.Equal(t, imported{Import: "history", Events: 2, Stored: 2, Broken: 1}, lines[imported](t, got.stdout)[0])
			require.Equal(t, 2, strings.Count(d.do(t, "", "export"), "\n"))
		})
	}
}

func TestAnImportOfAFileThatIsNotThereNamesIt(t *testing.T) {
	d := serve(t)
	file := filepath.Join(t.TempDir(), "none.ndjson")
	got := invoke(t, "", d.on("import", file, "--yes")...)
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.stderr, file+": no such file or directory: give the path of a readable file")
	require.Empty(t, got.stdout)
}

func TestImportLeavesOutHeadersThatAreAWordToServerOrBus(t *testing.T) {
	d := serve(t)
	text := `{"subject":"cim.acme.web.A","payload":{"id":"1","name":"A","conversationId":"c1"},"headers":{"X":["y"],"Nats-Expected-Last-Sequence":["99"],` +
		`"Nats-Rollup":["all"],"nats-ttl":["1s"],"Cim-Sequence":["7"],"Cim-Redrive-Of":["1"],"Cim-Import":["handle"],"Nats-Expected-Stream":["OTHER"],"Cim-Event-Id":["1"]}}`
	got := invoke(t, text, d.on("import", "--yes", "--json")...)
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, imported{Import: "history", Events: 1, Stored: 1, HeadersLost: 7}, lines[imported](t, got.stdout)[0])
	e, err := bus.ReadStoredEvent([]byte(d.do(t, "", "export")))
	require.NoError(t, err)
	require.Equal(t, nats.Header{"X": {"y"}, "Cim-Event-Id": {"1"}}, e.Header)

	handled := invoke(t, strings.Replace(text, `"id":"1"`, `"id":"2"`, 1), d.on("import", "--yes", "--json", "--handle")...)
	require.Zero(t, handled.code, handled.stderr)
	require.Equal(t, imported{Import: "handle", Copies: 1}, lines[imported](t, handled.stdout)[0], "its original is handled")
}

func TestAnImportThatIsBrokenOffIsRepeatedAndStoresEachEventOnce(t *testing.T) {
	var text strings.Builder
	const n = 3000
	for i := range n {
		_, _ = fmt.Fprintf(&text, `{"subject":"cim.acme.web.A","payload":{"id":"e%d","name":"A","conversationId":"c%d"},"headers":{}}`+"\n", i, i%3)
	}
	file := write(t, "events.ndjson", text.String())
	d := serve(t)
	nc, err := nats.Connect(d.NATS)
	require.NoError(t, err)
	defer nc.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err = nc.Subscribe("cim.acme.web.A", func(*nats.Msg) { cancel() })
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	var stdout, stderr bustest.Buffer
	require.Equal(t, exitFailed, run(ctx, d.on("import", file, "--yes", "--json"), strings.NewReader(""), &stdout, &stderr, nil))
	require.Contains(t, stderr.String(), "interrupted: repeat the command, it stores what is missing")
	first := lines[imported](t, stdout.String())[0]
	require.Less(t, first.Stored, n)

	again := invoke(t, "", d.on("import", file, "--yes", "--json")...)
	require.Zero(t, again.code, again.stderr)
	second := lines[imported](t, again.stdout)[0]
	require.Equal(t, n, second.Stored+second.Duplicates)
	require.Equal(t, n, strings.Count(d.do(t, "", "export"), "\n"))
}

// unending is an input that does not come to its end before the test does.
type unending struct{ opened, ended chan struct{} }

func (u unending) Read([]byte) (int, error) {
	close(u.opened)
	<-u.ended
	return 0, io.EOF
}

func TestAnInterruptedReadingOfStdinImportsNothingAndLeavesNoFileBehind(t *testing.T) {
	d := serve(t)
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	in := unending{make(chan struct{}), make(chan struct{})}
	defer close(in.ended)
	go func() {
		<-in.opened
		cancel()
	}()
	var stderr bustest.Buffer
	require.Equal(t, exitFailed, run(ctx, d.on("import", "--yes"), in, io.Discard, &stderr, nil))
	require.Contains(t, stderr.String(), "interrupted: nothing was imported")
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "*"))
	require.NoError(t, err)
	require.Empty(t, left)
}
