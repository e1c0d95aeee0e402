package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
)

func TestAFullStoreRefusesByNameIsNotReadyAndIsExplained(t *testing.T) {
	file := write(t, "c.yaml", "store_limits: {max_bytes: 1MiB}\n")
	store := t.TempDir()
	d := serve(t, "--config", file, "--store", store)
	var events strings.Builder
	for i := range 200 {
		fmt.Fprintf(&events, `{"id":"e%d","name":"CUSTOMER_MESSAGE","conversationId":"c1","text":"%s"}`, i, strings.Repeat("x", 10_000))
	}
	got := invoke(t, events.String(), d.on("publish", "--tenant", "acme")...)
	require.Equal(t, exitFailed, got.code)
	require.NotEmpty(t, got.stdout, "what fits is stored")
	require.Contains(t, got.stderr, "event store is full")
	d.stopped(t)

	d = serve(t, "--config", file, "--store", store)
	code, body := d.get(t, "/readyz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Contains(t, body, `{"check":"room","ok":false,"reason":"CIM_EVENTS: `)
	require.Contains(t, body, "full: give the streams more bytes")
	code, _ = d.get(t, "/healthz")
	require.Equal(t, http.StatusOK, code, "to start it again would help nothing")
	_, body = d.get(t, "/metrics")
	require.Contains(t, body, `cimbus_alarm{check="room",level="fail",of="CIM_EVENTS"} 1`)
	require.Contains(t, body, `cimbus_stream_limit_bytes{stream="CIM_EVENTS"} 524250`)

	got = invoke(t, "", d.on("doctor", "--config", file, "--store", store, "--http", d.HTTP, "--json")...)
	require.Equal(t, exitFailed, got.code)
	found := lines[bus.Finding](t, got.stdout)
	require.Equal(t, bus.LevelFail, finding(t, found, "room", "CIM_EVENTS").Level)
	require.Contains(t, finding(t, found, "daemon", "").Found, "not ready: room: CIM_EVENTS")
}

func TestTheConfigurationSaysWhenAlarmsGoOff(t *testing.T) {
	file := write(t, "c.yaml", "store_limits: {max_bytes: 1MiB}\nalarms: {threshold: 2%}\n")
	store := t.TempDir()
	d := serve(t, "--config", file, "--store", store)
	var events strings.Builder
	for i := range 3 {
		fmt.Fprintf(&events, `{"id":"e%d","name":"CUSTOMER_MESSAGE","conversationId":"c1","text":"%s"}`, i, strings.Repeat("x", 10_000))
	}
	d.do(t, events.String(), "publish", "--tenant", "acme")
	d.stopped(t)
	d = serve(t, "--config", file, "--store", store)
	code, body := d.get(t, "/readyz")
	require.Equal(t, http.StatusOK, code, "there is room, though not for long")
	require.Regexp(t, `{"check":"room","ok":true,"reason":"CIM_EVENTS: \S+ KiB of 512 KiB, 6 %: give the streams more bytes`, body)
	got := d.do(t, "", "doctor", "--config", file, "--store", store, "--http", d.HTTP, "--json")
	require.Equal(t, bus.LevelWarn, finding(t, lines[bus.Finding](t, got), "room", "CIM_EVENTS").Level)
}

func TestTheConfigurationSaysHowMuchOfTheDiskStaysFree(t *testing.T) {
	file := write(t, "c.yaml", "alarms: {disk_reserve: 1000000TiB}\n")
	d := serve(t, "--config", file)
	got := invoke(t, message("1"), d.on("publish", "--tenant", "acme")...)
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.stderr, "event store is full")
	code, body := d.get(t, "/readyz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Contains(t, body, `{"check":"disk","ok":false,"reason":"disk: `)
	require.Contains(t, body, "CIM_EVENTS takes no more: make room on the disk, or keep less free: alarms.disk_reserve; ")
	got = invoke(t, "", d.on("doctor", "--config", file, "--store", d.Store, "--http", d.HTTP, "--json")...)
	require.Equal(t, exitFailed, got.code)
	found := lines[bus.Finding](t, got.stdout)
	require.Contains(t, finding(t, found, "disk", "").Found, "publishers are refused")
	require.Contains(t, finding(t, found, "streams", "CIM_EVENTS").Found, "the disk of its server is nearly full")
}
