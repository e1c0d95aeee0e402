package handlers

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
)

// Of a thousand conversations one heals while the next one fails, again and again: each change was a line.
func TestTroubleThatComesAndGoesIsLoggedLessThanOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := &reports{log: hclog.New(&hclog.LoggerOptions{Output: &log}), message: "trouble"}
		const seconds = 60
		for range seconds * 100 {
			r.report("stream", errors.New("no responders"))
			time.Sleep(5 * time.Millisecond)
			r.over("stream")
			time.Sleep(5 * time.Millisecond)
		}
		lines := strings.Count(log.String(), "\n")
		require.Less(t, lines, seconds)
		require.Contains(t, log.String(), "times=1000", "nothing goes uncounted")

		log.Reset()
		r.report("stream", errors.New("no responders"))
		time.Sleep(reportEvery)
		r.report("stream", errors.New("no responders"))
		require.Equal(t, 1, strings.Count(log.String(), "[WARN]"), "one that stays is told of once")
		r.over("stream")
		r.over("stream")
		require.Equal(t, 1, strings.Count(log.String(), "over"))
	})
}

func TestATroubleThatLastsIsOneLineAndAnotherOnlyForAnotherError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := &reports{log: hclog.New(&hclog.LoggerOptions{Output: &log}), message: "trouble"}
		day := func(err func(n int) error) int {
			log.Reset()
			for n := range 24 * 60 * 60 {
				r.report("stream", err(n))
				time.Sleep(time.Second)
			}
			lines := strings.Count(log.String(), "\n")
			r.over("stream")
			require.Contains(t, log.String(), "after=24h0m0s")
			return lines
		}
		require.Equal(t, 1, day(func(int) error { return errors.New("no responders") }))
		require.Equal(t, 2, day(func(n int) error {
			return map[bool]error{true: errors.New("timeout"), false: errors.New("refused")}[n > 7000]
		}))
		errs := []error{errors.New("timeout"), errors.New("refused")}
		require.Less(t, day(func(n int) error { return errs[n*7/3%2] }), 24*60/10+20, "one that goes to and fro")

		// What happens again and again is no state: that there is more of it is news.
		r.events = true
		log.Reset()
		for range 60 {
			r.report("not-json", errors.New("not JSON"))
			time.Sleep(time.Second)
		}
		require.Equal(t, 6, strings.Count(log.String(), "\n"))
		require.Contains(t, log.String(), "times=51")
	})
}
