package handlers

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

func TestRequestThatHasBroughtItsShareEndsAndTheEpochGoesOn(t *testing.T) {
	for description, pending := range map[string]string{"Message Size Exceeds MaxBytes": "5", "Batch Completed": "0"} {
		t.Run(description, func(t *testing.T) {
			e := newTestEpoch(t)
			e.pulls["inbox.1"], e.owed = pull{batch: 10, deadline: time.Now().Add(time.Minute)}, 5
			e.receive(&nats.Msg{Subject: "inbox.1", Sub: &nats.Subscription{}, Header: nats.Header{
				"Status": {"409"}, "Description": {description}, "Nats-Pending-Messages": {pending}, "Nats-Pending-Bytes": {"12"},
			}})
			require.NoError(t, e.ctx.Err())
			require.Empty(t, e.pulls)
			require.Equal(t, pending == "0", e.owed == 5)
		})
	}
}

func TestServerIsSilentWhenMoreIsOwedThanAskedForAndNothingWasHeardForAsLong(t *testing.T) {
	const long = defaultPullExpiry + answerGrace + time.Second
	for name, c := range map[string]struct {
		heard  time.Duration // ago
		open   int           // asked for by a request whose time is not over
		silent bool
		owed   int
	}{
		"never heard": {heard: long, silent: true, owed: 7},
		"a request of which nothing is known ended": {heard: time.Second},
		"another request is open":                   {heard: long, open: 10, owed: 7},
		"another request is open for less":          {heard: time.Second, open: 3, owed: 3},
	} {
		t.Run(name, func(t *testing.T) {
			e, now := newTestEpoch(t), time.Now()
			e.owed, e.heard = 7, now.Add(-c.heard)
			e.pulls["over"] = pull{batch: 10, deadline: now.Add(-time.Millisecond)}
			if c.open > 0 {
				e.pulls["open"] = pull{batch: c.open, deadline: now.Add(time.Second)}
			}
			require.Equal(t, c.silent, e.silentLocked(now))
			require.Equal(t, c.owed, e.owed)
			require.NotContains(t, e.pulls, "over")
		})
	}
}
