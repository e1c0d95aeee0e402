package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// stopped ends a daemon in good order.
func (s served) stopped(t *testing.T) {
	t.Helper()
	s.interrupt()
	require.Zero(t, s.wait(), s.stderr.String())
}

// position is where the agent ann is after count deliveries.
func (s served) position(t *testing.T, count int) string {
	t.Helper()
	all := s.receive(t, "0", count)
	return all[count-1].Position
}

// A position names the stream it was taken of and when its delivery was stored. One of a store that is not there any more is
// never resumed from as if it were the same: what its agent saw would be taken for something else, or the other way round.
func TestAPositionOfAStoreThatIsNoMoreIsAnsweredAsExpired(t *testing.T) {
	join := []string{"conversation", "join", "--tenant", "acme", "--conversation", "c1", "--agent", "ann"}
	for name, c := range map[string]struct {
		// after makes the store another one: it returns the position of an agent that has seen more.
		after  func(t *testing.T, store string) string
		reason string
	}{
		"restored from an old copy": {func(t *testing.T, store string) string {
			old := t.TempDir()
			first := serve(t, "--store", store)
			first.do(t, "", join...)
			first.receive(t, "0", 1)
			first.stopped(t)
			require.NoError(t, os.CopyFS(old, os.DirFS(store)))

			second := serve(t, "--store", store)
			second.do(t, message("1")+message("2"), "publish", "--tenant", "acme")
			position := second.position(t, 3)
			second.stopped(t)

			require.NoError(t, os.RemoveAll(store))
			require.NoError(t, os.CopyFS(store, os.DirFS(old)))
			return position
		}, "ahead"},
		"restored from an old copy, and gone on": {func(t *testing.T, store string) string {
			old := t.TempDir()
			first := serve(t, "--store", store)
			first.do(t, "", join...)
			first.receive(t, "0", 1)
			first.stopped(t)
			require.NoError(t, os.CopyFS(old, os.DirFS(store)))

			second := serve(t, "--store", store)
			second.do(t, message("1"), "publish", "--tenant", "acme")
			position := second.position(t, 2)
			second.stopped(t)

			require.NoError(t, os.RemoveAll(store))
			require.NoError(t, os.CopyFS(store, os.DirFS(old)))
			third := serve(t, "--store", store)
			third.do(t, message("3")+message("4")+message("5"), "publish", "--tenant", "acme")
			third.receive(t, "0", 4)
			third.stopped(t)
			return position
		}, "restored"},
		"recreated": {func(t *testing.T, store string) string {
			first := serve(t, "--store", store)
			first.do(t, "", join...)
			position := first.position(t, 1)
			first.stopped(t)
			require.NoError(t, os.RemoveAll(store))
			second := serve(t, "--store", store)
			second.do(t, "", join...)
			second.receive(t, "0", 1)
			second.stopped(t)
			return position
		}, "recreated"},
	} {
		t.Run(name, func(t *testing.T) {
			store := t.TempDir()
			position := c.after(t, store)
			d := serve(t, "--store", store)
			got := invoke(t, "", d.on("agent", "--tenant", "acme", "--agent", "ann", "--after", position, "--count", "1")...)
			require.Equal(t, exitFailed, got.code, got.stdout+got.stderr)
			require.Empty(t, got.stdout, "a delivery was handed out behind a position that means nothing here")
			require.Contains(t, got.stderr, "expired ("+c.reason+")")
			// What is left can be had on purpose.
			require.NotEmpty(t, strings.TrimSpace(d.do(t, "", "agent", "--tenant", "acme", "--agent", "ann", "--after", "0", "--count", "1")))
		})
	}
}
