package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
)

// put sends a level, or asks for it if there is none.
func (s served) put(t *testing.T, level string) (int, string) {
	t.Helper()
	method := http.MethodPut
	if level == "" {
		method = http.MethodGet
	}
	r, err := http.NewRequestWithContext(t.Context(), method, s.HTTP+"/log/level", strings.NewReader(level))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer func() { require.NoError(t, resp.Body.Close()) }()
	var body bytes.Buffer
	_, err = body.ReadFrom(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, body.String()
}

func TestTheLogsLevelCanBeChangedWhileTheDaemonRuns(t *testing.T) {
	d := serve(t)
	code, body := d.put(t, "")
	require.Equal(t, http.StatusOK, code)
	require.JSONEq(t, `{"level":"info","configured":"info"}`, body)
	require.NotContains(t, d.stderr.String(), "[DEBUG]")

	code, body = d.put(t, "debug\n")
	require.Equal(t, http.StatusOK, code)
	require.JSONEq(t, `{"level":"debug","configured":"info"}`, body)
	d.do(t, "", "conversation", "join", "--tenant", "acme", "--conversation", "c1", "--agent", "ann")
	d.saw(&d.stderr, "[DEBUG] cimbus.handler: epoch begins") // of a logger named after the one that was told
	_, _ = d.put(t, "debug")
	require.Equal(t, 1, strings.Count(d.stderr.String(), "log level changed"), "it did not change: %s", d.stderr.String())

	for _, wrong := range []string{"loud", "7", strings.Repeat("debug", 100)} {
		code, body = d.put(t, wrong)
		require.Equal(t, http.StatusBadRequest, code)
		require.Equal(t, "not a level: send one of trace, debug, info, warn, error or off\n", body)
	}
	_, body = d.put(t, "off")
	require.JSONEq(t, `{"level":"off","configured":"info"}`, body)
	d.stopped(t)
	require.Contains(t, d.stderr.String(), `log level changed: from=debug to=off by="PUT /log/level"`)
	require.NotContains(t, d.stderr.String(), "told to end", "it was off")
}

func TestEveryChangeOfTheLogsLevelIsOneLineUnlessNeitherLevelShowsIt(t *testing.T) {
	for _, c := range []struct {
		from, to hclog.Level
		shown    string
	}{
		{hclog.Info, hclog.Trace, "[INFO]"},
		{hclog.Trace, hclog.Info, "[INFO]"},
		{hclog.Info, hclog.Off, "[INFO]"},
		{hclog.Warn, hclog.Error, "[WARN]"},
		{hclog.Error, hclog.Warn, "[WARN]"},
		{hclog.Off, hclog.Error, "[ERROR]"},
		{hclog.Warn, hclog.Warn, ""},
	} {
		var out bytes.Buffer
		l := newLogLevel(hclog.New(&hclog.LoggerOptions{Level: c.from, Output: &out}))
		l.set(c.to, "test")
		require.Equal(t, c.to, l.log.GetLevel())
		require.Equal(t, map[bool]int{true: 1}[c.shown != ""], strings.Count(out.String(), "\n"), "%v to %v: %s", c.from, c.to, out.String())
		require.Contains(t, out.String(), c.shown)
	}
}

func TestTheLogsLevelIsNotChangedFromElsewhereOrByAPageInABrowser(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *http.Request)
		code   int
	}{
		"a program on this machine":         {func(*http.Request) {}, http.StatusOK},
		"by name":                           {func(r *http.Request) { r.Host = "localhost:8080" }, http.StatusOK},
		"over IPv6":                         {func(r *http.Request) { r.Host, r.RemoteAddr = "[::1]:8080", "[::1]:5" }, http.StatusOK},
		"a page of another site":            {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, http.StatusForbidden},
		"a page of another port":            {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }, http.StatusForbidden},
		"an old browser's page":             {func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") }, http.StatusForbidden},
		"a page whose name leads here":      {func(r *http.Request) { r.Host = "evil.example:8080"; r.Header.Set("Sec-Fetch-Site", "same-origin") }, http.StatusForbidden},
		"an old page whose name leads here": {func(r *http.Request) { r.Host = "evil.example"; r.Header.Set("Origin", "http://evil.example") }, http.StatusForbidden},
		"another machine":                   {func(r *http.Request) { r.RemoteAddr = "192.0.2.7:5" }, http.StatusForbidden},
		"another machine's address":         {func(r *http.Request) { r.Host = "192.0.2.7:8080" }, http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLogLevel(hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: &bytes.Buffer{}}))
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/log/level", strings.NewReader("debug"))
			r.Host, r.RemoteAddr = "127.0.0.1:8080", "127.0.0.1:5"
			c.change(r)
			w := httptest.NewRecorder()
			l.ServeHTTP(w, r)
			require.Equal(t, c.code, w.Code, w.Body.String())
			require.Equal(t, c.code == http.StatusOK, l.log.GetLevel() == hclog.Debug, l.log.GetLevel().String())
		})
	}
}
