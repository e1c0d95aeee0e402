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
		require.Equal(t, 2, strings.Count(log.String(), "[WARN]"), "one that stays is told of every ten seconds")
		r.over("stream")
		r.over("stream")
		require.Equal(t, 1, strings.Count(log.String(), "over"))
	})
}
