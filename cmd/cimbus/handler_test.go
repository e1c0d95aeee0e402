package main

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

// handlers lists them until the only one is as wanted.
func (s served) handlers(t *testing.T, want func(handlerLine) bool) handlerLine {
	t.Helper()
	var all []handlerLine
	bustest.Eventually(t, patience, func() error {
		all = lines[handlerLine](t, s.do(t, "", "handler", "ls", "--json"))
		if len(all) != 1 || !want(all[0]) {
			return fmt.Errorf("not yet: %+v", all)
		}
		return nil
	})
	return all[0]
}

func TestAPausedHandlerKeepsWhatComesIsToldOfEverywhereAndGoesOn(t *testing.T) {
	store := t.TempDir()
	d := serve(t, "--store", store)
	d.handlers(t, func(h handlerLine) bool { return h.Worker == bus.WorkerWaits })
	d.do(t, "", "conversation", "join", "--tenant", "acme", "--conversation", "c1", "--agent", "ann")
	position := d.receive(t, "0", 1)[0].Position
	d.handlers(t, func(h handlerLine) bool { return h.Worker == bus.WorkerActs && h.AckFloor == 1 })
	require.Regexp(t, `^HANDLER +WORKER +WAITING +OLDEST +IN WORK +REDELIVERED +PAUSED +DEAD LETTERS\nonCimEvent +acts +0 +- +0 +0 +- +0\n$`, d.do(t, "", "handler", "ls"))

	got := d.do(t, "", "handler", "pause", "onCimEvent")
	require.Equal(t, "onCimEvent is paused until it is resumed: events are stored and wait. cimbus handler resume onCimEvent lets them go on\n", got)
	for i := range 3 {
		d.do(t, message(fmt.Sprint(i)), "publish", "--tenant", "acme")
	}
	paused := d.handlers(t, func(h handlerLine) bool { return h.Waiting > 0 })
	require.True(t, paused.Paused)
	require.Nil(t, paused.PausedUntil)
	require.NotNil(t, paused.OldestTime)
	require.Regexp(t, `\nonCimEvent +acts +\d +\d+ ms +\d +0 +until resumed +0\n$|\nonCimEvent +acts +\d +\S+ s +\d +0 +until resumed +0\n$`, d.do(t, "", "handler", "ls"))

	// Also by a daemon that was started meanwhile.
	d.stopped(t)
	d = serve(t, "--store", store)
	code, body := d.get(t, "/readyz")
	require.Equal(t, http.StatusOK, code, "events are taken, and somebody wants it so")
	require.Contains(t, body, `{"check":"worker","ok":true,"reason":"is paused until it is resumed, and deliveries wait: cimbus handler resume onCimEvent; `)
	_, body = d.get(t, "/metrics")
	require.Contains(t, body, `cimbus_alarm{check="paused",level="warn",of="onCimEvent"} 1`)
	require.Regexp(t, `cimbus_handler_lag_events{handler="onCimEvent"} [1-3]\n`, body)
	require.Contains(t, body, `cimbus_handler_paused{handler="onCimEvent"} 1`)
	doctor := invoke(t, "", d.on("doctor", "--store", store, "--http", d.HTTP, "--json")...)
	require.Zero(t, doctor.code, doctor.stdout)
	f := finding(t, lines[bus.Finding](t, doctor.stdout), "paused", "onCimEvent")
	require.Equal(t, bus.LevelWarn, f.Level)
	require.Regexp(t, `^is paused until it is resumed; \d events wait, the oldest for \d+s$`, f.Found)
	require.Contains(t, f.Why, "after 168h0m0s it is gone")
	require.Contains(t, f.Remedy, "cimbus handler resume onCimEvent")
	require.Contains(t, d.stderr.String(), "alarm: check=paused of=onCimEvent")

	// A time may be set, and set anew.
	soon := time.Now().Add(30 * time.Hour).Truncate(time.Second)
	set := lines[handlerLine](t, d.do(t, "", "handler", "pause", "onCimEvent", "--until", soon.UTC().Format(time.RFC3339), "--json"))
	require.True(t, set[0].PausedUntil.Equal(soon))
	require.Contains(t, d.do(t, "", "handler", "ls"), "until "+minute(soon))
	require.Regexp(t, `^onCimEvent goes on: [1-3] events? waited\n$`, d.do(t, "", "handler", "resume", "onCimEvent"))
	var ids []string
	for _, r := range d.receive(t, position, 3) {
		ids = append(ids, r.Event+fmt.Sprint(*r.Sequence))
	}
	require.Equal(t, []string{"onCimEvent2", "onCimEvent3", "onCimEvent4"}, ids)
	require.Equal(t, "onCimEvent was not paused\n", d.do(t, "", "handler", "resume", "onCimEvent"))
	_, body = d.get(t, "/readyz")
	require.NotContains(t, body, "paused")
}

func TestAPauseForATimeEndsByItself(t *testing.T) {
	d := serve(t)
	d.do(t, "", "handler", "pause", "onCimEvent", "--for", "1500ms")
	d.do(t, "", "conversation", "join", "--tenant", "acme", "--conversation", "c1", "--agent", "ann")
	d.receive(t, "0", 1)
	d.handlers(t, func(h handlerLine) bool { return !h.Paused && h.Waiting == 0 && h.InWork == 0 })
}

func TestAPausedHandlerOfAnotherProcessIsToldOfToo(t *testing.T) {
	store := t.TempDir()
	d := serve(t, "--store", store)
	nc, err := nats.Connect(d.NATS)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	_, err = js.CreateConsumer(t.Context(), bus.StreamEvents, jetstream.ConsumerConfig{Durable: bus.HandlerConsumer("moody")})
	require.NoError(t, err)
	d.do(t, "", "handler", "pause", "moody")
	d.stopped(t)
	d = serve(t, "--store", store)
	code, body := d.get(t, "/readyz")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, "; handler moody is paused until it is resumed: cimbus handler resume moody, once ")
	require.NotContains(t, body, "handler onCimEvent")
}

func TestAHandlerCountsItsDeadLetters(t *testing.T) {
	d := serve(t)
	d.poison(t, "cim.acme.web.AGENT_MESSAGE", "not JSON", "nor this")
	d.handlers(t, func(h handlerLine) bool { return h.DeadLetters == 2 })
}

func TestWhatIsNoHandlerIsToldWhichThereAre(t *testing.T) {
	d := serve(t)
	for _, verb := range []string{"pause", "resume"} {
		got := invoke(t, "", d.on("handler", verb, "oncimevent")...)
		require.Equal(t, exitFailed, got.code)
		require.Equal(t, "cimbus handler "+verb+": "+verb+` handler "oncimevent": no such handler on this bus; there are onCimEvent`+"\n", got.stderr)
		require.Empty(t, got.stdout)
	}
	url := jetStream(t, nil)
	for _, args := range [][]string{{"ls"}, {"pause", "h"}, {"resume", "h"}} {
		got := invoke(t, "", append(append([]string{"handler"}, args...), "--server", url)...)
		require.Equal(t, exitFailed, got.code)
		require.Contains(t, got.stderr, "there is no bus at "+url+" yet: start a daemon with cimbus serve")
	}
	require.Zero(t, invoke(t, "", "streams", "apply", "--server", url).code)
	require.Equal(t, result{exitDone, "", "no handler has ever run here: start one with cimbus serve\n"}, invoke(t, "", "handler", "ls", "--server", url))
	require.Contains(t, invoke(t, "", "handler", "pause", "h", "--server", url).stderr, "none has ever run here: start cimbus serve")
}

func TestWhatAPauseIsToldWrongIsAUsageErrorThatSaysWhy(t *testing.T) {
	for message, args := range map[string][]string{
		"name a command, one of ls, pause, resume":       {},
		"give the name of one handler":                   {"pause"},
		"give the name of one handler, as":               {"resume", "a", "b"},
		`--for "soon": give a time as 90m, 24h or 7d`:    {"pause", "h", "--for", "soon"},
		`--for "0s": give a time`:                        {"pause", "h", "--for", "0s"},
		`--for "-1h": give a time`:                       {"pause", "h", "--for", "-1h"},
		`--until "monday": give a time as 2026-03-01`:    {"pause", "h", "--until", "monday"},
		"--until 2001-02-03 04:05:00 is over: it is ":    {"pause", "h", "--until", "2001-02-03 04:05"},
		"--for and --until both say when the pause ends": {"pause", "h", "--for", "1h", "--until", "2999-01-01 00:00"},
	} {
		got := invoke(t, "", append([]string{"handler"}, args...)...)
		require.Equal(t, exitUsage, got.code, "%v: %s", args, got.stderr)
		require.Contains(t, got.stderr, message)
		require.Empty(t, got.stdout)
	}
}

func TestTheTableOfHandlersReadsAsItAlwaysDid(t *testing.T) {
	until := time.Date(2026, 3, 1, 6, 0, 0, 0, time.Local)
	forGood := bus.UntilResumed()
	table := table{head: []string{"HANDLER", "PAUSED"}}
	for _, h := range []bus.HandlerStatus{
		{Handler: "a", Worker: bus.WorkerActs}, {Handler: "b", ConsumerStatus: bus.ConsumerStatus{PausedUntil: &until}},
		{Handler: "c", ConsumerStatus: bus.ConsumerStatus{PausedUntil: &forGood}},
	} {
		cells := describeHandler(h).cells()
		table.row(cells[0], cells[6])
	}
	var b bytes.Buffer
	require.NoError(t, table.write(&b))
	require.Equal(t, strings.Join([]string{
		"HANDLER  PAUSED", "a        -", "b        until 2026-03-01 06:00:00", "c        until resumed", "",
	}, "\n"), b.String())
}
