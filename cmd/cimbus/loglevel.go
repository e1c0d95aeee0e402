package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
)

// logLevel is the level of the daemon's log, which can be changed while it runs: by signals, and by a request to the HTTP listener.
type logLevel struct {
	log        hclog.Logger // all others are named after it and share its level
	configured hclog.Level

	mu sync.Mutex // held by who changes it
}

func newLogLevel(log hclog.Logger) *logLevel {
	return &logLevel{log: log, configured: log.GetLevel()}
}

// set changes the level and says so in one line, if only one of both levels lets it through.
func (l *logLevel) set(level hclog.Level, by string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.change(l.log.GetLevel(), level, by)
}

// more makes the log one level more verbose.
func (l *logLevel) more(by string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.log.GetLevel()
	l.change(was, max(was-1, hclog.Trace), by)
}

// reset goes back to the level that is configured.
func (l *logLevel) reset(by string) { l.set(l.configured, by) }

// change is called with the lock held.
func (l *logLevel) change(was, level hclog.Level, by string) {
	if was == level {
		return
	}
	if level < was {
		l.log.SetLevel(level)
	}
	if shown := max(min(was, level), hclog.Info); shown < hclog.Off {
		l.log.Log(shown, "log level changed", "from", was.String(), "to", level.String(), "by", by)
	}
	l.log.SetLevel(level)
}

// levelAnswer is what is answered about the level.
type levelAnswer struct {
	Level      string `json:"level"`
	Configured string `json:"configured"`
}

const levels = "trace, debug, info, warn, error or off"

// ServeHTTP answers GET and PUT /log/level. The body of a PUT is the level. A page that somebody has open in a browser on this machine
// reaches the listener too, by any name that leads here: such requests are refused, as is everything from elsewhere.
func (l *logLevel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if err := fromHere(r); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if r.Method == http.MethodPut {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64))
		level := hclog.LevelFromString(strings.TrimSpace(string(body)))
		if err != nil || level == hclog.NoLevel {
			http.Error(w, "not a level: send one of "+levels, http.StatusBadRequest)
			return
		}
		l.set(level, r.Method+" "+r.URL.Path)
	}
	answer, err := json.Marshal(levelAnswer{l.log.GetLevel().String(), l.configured.String()})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// A client that hangs up need not hear the answer.
	_, _ = w.Write(append(answer, '\n'))
}

// fromHere refuses a request that did not come from a program of this machine, asked for by this machine's address.
func fromHere(r *http.Request) error {
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		return fmt.Errorf("refused: %w", err)
	}
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err != nil || !at.Addr().Unmap().IsLoopback() {
		return fmt.Errorf("refused: ask from the machine the daemon runs on")
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if at, err := netip.ParseAddr(strings.Trim(host, "[]")); host != "localhost" && (err != nil || !at.IsLoopback()) {
		return fmt.Errorf("refused: ask for it at localhost or a loopback address, not at %q", host)
	}
	return nil
}
