package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// demoLine is what the tests read of a station.
type demoLine struct {
	Station    string   `json:"station"`
	NATS       string   `json:"nats"`
	Store      string   `json:"store"`
	Event      string   `json:"event"`
	OK         bool     `json:"ok"`
	Events     int      `json:"events"`
	Deliveries int      `json:"deliveries"`
	Problems   []string `json:"problems"`
}

// playDemo runs the program's demo, calls see for every station as it happens, and returns the exit code and the verdict.
func playDemo(t *testing.T, see func(demoLine)) (code int, verdict demoLine, stderr string) {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	out, in := io.Pipe()
	var errs bytes.Buffer
	done := make(chan int, 1)
	go func() {
		done <- run(t.Context(), []string{"demo", "--json"}, strings.NewReader(""), in, &errs, nil)
		_ = in.Close()
	}()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		verdict = demoLine{}
		require.NoError(t, json.Unmarshal(lines.Bytes(), &verdict), lines.Text())
		see(verdict)
	}
	require.NoError(t, lines.Err())
	code = <-done
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	require.NoError(t, err)
	require.Empty(t, left, "the temporary folder is removed")
	return code, verdict, errs.String()
}

func TestDemoShowsEveryStationAndExitsZero(t *testing.T) {
	var stations []string
	code, verdict, stderr := playDemo(t, func(l demoLine) { stations = append(stations, l.Station) })
	require.Equal(t, exitDone, code, verdict.Problems)
	require.Empty(t, stderr)
	require.True(t, verdict.OK)
	require.Equal(t, 14, verdict.Events)
	require.Equal(t, 22, verdict.Deliveries)
	for _, want := range []string{"started", "joined", "published", "stored", "acknowledged", "delivered", "received", "committed", "delivery", "dropped", "resumed"} {
		require.Contains(t, stations, want)
	}
	events := 0
	for _, s := range stations {
		if s == "event" {
			events++
		}
	}
	require.Equal(t, 12, events)
}

func TestDemoExitsOneWhenADeliveryArrivesThatNobodyPublished(t *testing.T) {
	var url string
	code, verdict, _ := playDemo(t, func(l demoLine) {
		switch l.Station {
		case "started":
			url = l.NATS
		case "resumed":
			nc, err := nats.Connect(url)
			require.NoError(t, err)
			defer nc.Close()
			_, err = nc.Request("cim-agent.acme.ada.onCimEvent.elsewhere", []byte("{}"), 5*time.Second)
			require.NoError(t, err)
		}
	})
	require.Equal(t, exitFailed, code)
	require.False(t, verdict.OK)
	require.NotEmpty(t, verdict.Problems)
}

func TestDemoExitsOneWhenDeliveriesAreLostWhileAnAgentIsAway(t *testing.T) {
	var url string
	away := 0
	code, verdict, _ := playDemo(t, func(l demoLine) {
		switch {
		case l.Station == "started":
			url = l.NATS
		case l.Station == "dropped":
			away = 1
		case away == 1 && l.Station == "event":
			away = 2
			nc, err := nats.Connect(url)
			require.NoError(t, err)
			defer nc.Close()
			js, err := jetstream.New(nc)
			require.NoError(t, err)
			stream, err := js.Stream(t.Context(), bus.StreamDeliveries)
			require.NoError(t, err)
			require.NoError(t, stream.Purge(t.Context()))
		}
	})
	require.Equal(t, exitFailed, code)
	require.False(t, verdict.OK)
	require.NotEmpty(t, verdict.Problems)
}

func TestDemoFindsABrokenTranslation(t *testing.T) {
	for name, c := range map[string]struct {
		breaks func(handlers.Event, []handlers.Delivery) []handlers.Delivery
		says   string
	}{
		"a receiver is forgotten": {
			breaks: func(e handlers.Event, out []handlers.Delivery) []handlers.Delivery { return out[:len(out)-1] },
			says:   "is missing",
		},
		"a stranger gets it too": {
			breaks: func(e handlers.Event, out []handlers.Delivery) []handlers.Delivery {
				return append(out, handlers.Delivery{Agent: "eve", Type: oncimevent.Type, Payload: out[0].Payload})
			},
			says: "CIM_DELIVERIES holds 23 messages, not 22",
		},
		"the event is changed": {
			breaks: func(e handlers.Event, out []handlers.Delivery) []handlers.Delivery {
				out[0].Payload = bytes.Replace(out[0].Payload, []byte("Quay"), []byte("quay"), 1)
				return out
			},
			says: "does not carry the event as it was published",
		},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := brokenDemo(t, func(e handlers.Event, out []handlers.Delivery) []handlers.Delivery {
				if e.Name == "WHISPER_MESSAGE" && e.Sequence == 7 {
					return c.breaks(e, out)
				}
				return out
			})
			require.ErrorIs(t, err, errReported)
			require.Contains(t, out, c.says)
			require.Contains(t, out, "✗")
		})
	}
}

// brokenDemo plays the demo for people, with a translation that breaks does something to.
func brokenDemo(t *testing.T, breaks func(handlers.Event, []handlers.Delivery) []handlers.Delivery) (string, error) {
	t.Helper()
	var out, errs bytes.Buffer
	d := newDemo(&app{stdout: &out, stderr: &errs})
	d.pace, d.patience = 20*time.Millisecond, 2*time.Second
	whole := d.handler.Handle
	d.handler.Handle = func(ctx context.Context, e handlers.Event) ([]handlers.Delivery, error) {
		deliveries, err := whole(ctx, e)
		if err != nil {
			return nil, err
		}
		return breaks(e, deliveries), nil
	}
	err := d.run(t.Context())
	require.Empty(t, errs.String())
	return out.String(), err
}

func TestDemoFitsInto100ColumnsAndNeedsNoTerminal(t *testing.T) {
	t.Setenv("TMPDIR", "/tmp")
	out, err := brokenDemo(t, func(_ handlers.Event, out []handlers.Delivery) []handlers.Delivery { return out })
	require.NoError(t, err)
	require.NotContains(t, out, "\x1b")
	for l := range strings.SplitSeq(out, "\n") {
		require.LessOrEqual(t, utf8.RuneCountInString(l), 100, l)
		require.Equal(t, strings.TrimRight(l, " "), l, "no blanks at the end")
	}
}

// demoLedger is a ledger of n events for one agent, the last of them its leaving, and what it receives when all is well.
func demoLedger(n int) (*ledger, []received) {
	l := newLedger()
	var got []received
	for i := range n {
		e := entered{name: fmt.Sprintf("EVENT_%d", i), sequence: uint64(2*i + 1), body: fmt.Appendf(nil, `{"n":%d}`, i)}
		kind, to, notice := oncimevent.Type, []string{ada}, ""
		if i == n-1 {
			kind, to, notice = oncimevent.Notice, nil, ada
		}
		l.enter(e, to, notice)
		got = append(got, received{Delivery: bus.Delivery{Type: kind, Sequence: e.sequence, Body: fmt.Appendf(nil, `{"cimEvent":%s}`, e.body)}})
	}
	return l, got
}

func TestLedgerFindsWhateverWasDoneToAHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, got := demoLedger(rapid.IntRange(3, 20).Draw(t, "events"))
		require.Empty(t, l.audit(ada, got))
		i := rapid.IntRange(0, len(got)-2).Draw(t, "at")
		switch rapid.SampledFrom([]string{"drop", "repeat", "swap", "alter", "stranger"}).Draw(t, "mutation") {
		case "drop":
			got = append(got[:i], got[i+1:]...)
		case "repeat":
			got = append(got, got[i])
		case "swap":
			got[i], got[i+1] = got[i+1], got[i]
		case "alter":
			got[i].Body = []byte(`{"cimEvent":{"n": -1}}`)
		case "stranger":
			got[i].Sequence++
		}
		require.NotEmpty(t, l.audit(ada, got))
	})
}
