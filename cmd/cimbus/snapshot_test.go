package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
)

// copied is a daemon with conversations, and a snapshot of it.
func copied(t *testing.T) (served, string) {
	t.Helper()
	d := spoken(t)
	dir := filepath.Join(t.TempDir(), "copies", "first")
	got := invoke(t, "", d.on("streams", "snapshot", dir)...)
	require.Zero(t, got.code, got.stderr)
	require.Regexp(t, `(?m)^CIM_EVENTS +4 +1 +4 +CIM_EVENTS\.snapshot +[\d.]+ K?i?B$`, got.stdout)
	require.Contains(t, got.stderr, " in "+dir+": ")
	return d, dir
}

func TestASnapshotIsRestoredIntoAnotherStoreAndKnownAsOne(t *testing.T) {
	d, dir := copied(t)
	position := d.position(t, 4)
	d.do(t, `{"id":"2","name":"CUSTOMER_MESSAGE","conversationId":"c2"}`, "publish", "--tenant", "acme")
	beyond := d.position(t, 5)
	running := invoke(t, "", d.on("streams", "restore", dir, "--yes", "--force")...)
	require.Equal(t, exitFailed, running.code)
	require.Contains(t, running.stderr, "nothing was done: a process runs a handler: stop it first (onCimEvent); into a daemon's own store restore with --store")
	d.stopped(t)

	store := t.TempDir()
	asked := invoke(t, "", "streams", "restore", dir, "--store", store)
	require.Equal(t, exitFailed, asked.code)
	require.Contains(t, asked.stderr, "nothing was done: add --yes to restore the snapshot of ")
	require.Regexp(t, `(?m)^CIM_EVENTS +4 +4 +-$`, asked.stdout)
	for _, flags := range [][]string{{"--yes"}, {"--yes", "--force", "--json"}} { // the second time over itself
		got := invoke(t, "", append([]string{"streams", "restore", dir, "--store", store}, flags...)...)
		require.Zero(t, got.code, got.stderr)
		require.Contains(t, got.stderr, "restored 7 streams from the snapshot of ")
	}
	over := invoke(t, "", "streams", "restore", dir, "--store", store, "--yes")
	require.Equal(t, exitFailed, over.code)
	require.Contains(t, over.stderr, "nothing was done: there are streams that hold something, which would be lost")

	again := serve(t, "--store", store)
	require.Contains(t, again.stderr.String(), "the streams are restored from a snapshot")
	again.do(t, message("3"), "publish", "--tenant", "acme")
	require.Contains(t, again.do(t, "", "doctor"), "from the snapshot of ")
	require.Contains(t, invoke(t, "", again.on("streams", "info")...).stderr, "; restored from the snapshot of ")
	require.Regexp(t, `(?m)^restored +from the snapshot of .*, at `, again.do(t, "", "streams", "info", "CIM_DELIVERIES"))
	require.NotNil(t, lines[streamLine](t, again.do(t, "", "streams", "info", "--json"))[0].RestoredFrom)
	require.Contains(t, again.do(t, "", "conversation", "members", "--tenant", "acme", "--conversation", "c2"), "ann")
	again.do(t, `{"id":"4","name":"CUSTOMER_MESSAGE","conversationId":"c2"}`, "publish", "--tenant", "acme")
	require.Contains(t, again.do(t, "", "agent", "--tenant", "acme", "--agent", "ann", "--after", position, "--count", "1"), `"id":"4"`)
	expired := invoke(t, "", again.on("agent", "--tenant", "acme", "--agent", "ann", "--after", beyond, "--count", "1")...)
	require.Equal(t, exitFailed, expired.code)
	require.Contains(t, expired.stderr, "expired (restored)")
	require.True(t, strings.HasSuffix(again.do(t, "", "streams", "plan"), "nothing to do\n"))
}

func TestWhatIsNoWholeSnapshotIsRefusedForItsReason(t *testing.T) {
	d, dir := copied(t)
	manifest := filepath.Join(dir, "manifest.json")
	replace := func(old, with string) func(t *testing.T) {
		return func(t *testing.T) {
			b, err := os.ReadFile(manifest)
			require.NoError(t, err)
			require.Contains(t, string(b), old)
			require.NoError(t, os.WriteFile(manifest, []byte(strings.Replace(string(b), old, with, 1)), 0o600))
		}
	}
	file := filepath.Join(dir, "CIM_EVENTS.snapshot")
	for name, c := range map[string]struct {
		spoil func(t *testing.T)
		told  string
	}{
		"broken off":       {func(t *testing.T) { require.NoError(t, os.Remove(manifest)) }, "not a snapshot: there is no manifest.json"},
		"foreign":          {replace(`"cimbus-snapshot"`, `"nats-backup"`), "not a snapshot of a cimbus bus"},
		"newer":            {replace(`"format": 1`, `"format": 2`), "snapshot is of a newer cimbus: restore it with that (its format is 2, this one knows 1)"},
		"unknown stream":   {replace(`"stream": "CIM_REPLAYS"`, `"stream": "CIM_FUTURE"`), "stream CIM_FUTURE is not known here"},
		"without a stream": {replace(`"stream": "CIM_INDEX"`, `"stream": "CIM_FUTURE"`), "snapshot is damaged: it is without stream CIM_INDEX"},
		"no manifest":      {func(t *testing.T) { require.NoError(t, os.WriteFile(manifest, []byte("{"), 0o600)) }, "snapshot is damaged: manifest.json: "},
		"foreign file":     {replace(`"file": "CIM_EVENTS.snapshot"`, `"file": "../../secret"`), `snapshot is damaged: manifest.json names a file "../../secret"`},
		"file gone":        {func(t *testing.T) { require.NoError(t, os.Remove(file)) }, "snapshot is damaged: open "},
		"cut short":        {func(t *testing.T) { require.NoError(t, os.Truncate(file, 100)) }, "snapshot is damaged: CIM_EVENTS.snapshot has 100 bytes, not "},
		"changed": {func(t *testing.T) {
			b, err := os.ReadFile(file)
			require.NoError(t, err)
			b[len(b)/2]++
			require.NoError(t, os.WriteFile(file, b, 0o600))
		}, "snapshot is damaged: CIM_EVENTS.snapshot is not what was written"},
	} {
		t.Run(name, func(t *testing.T) {
			whole := t.TempDir()
			require.NoError(t, os.CopyFS(whole, os.DirFS(dir)))
			c.spoil(t)
			store := t.TempDir()
			got := invoke(t, "", "streams", "restore", dir, "--store", store, "--yes")
			require.Equal(t, exitFailed, got.code, got.stdout)
			require.Contains(t, got.stderr, c.told)
			info := invoke(t, "", "streams", "restore", whole, "--store", store, "--json")
			require.NotContains(t, info.stdout, `"exists":true`, "something was restored")
			require.NoError(t, os.RemoveAll(dir))
			require.NoError(t, os.CopyFS(dir, os.DirFS(whole)))
		})
	}
	into := invoke(t, "", d.on("streams", "snapshot", dir)...)
	require.Equal(t, exitFailed, into.code)
	require.Contains(t, into.stderr, dir+" is not empty: name a new folder")
	d.stopped(t)
	used := invoke(t, "", "streams", "restore", dir, "--store", "x", "--server", "nats://127.0.0.1:1")
	require.Equal(t, exitUsage, used.code)
}

func TestASnapshotThatIsBrokenOffLeavesNothing(t *testing.T) {
	d := spoken(t)
	nc, err := nats.Connect(d.NATS)
	require.NoError(t, err)
	defer nc.Close()
	b, err := bus.Open(t.Context(), bus.Options{Conn: nc, LeaveStreams: true})
	require.NoError(t, err)
	for _, stream := range []string{bus.StreamConversations, bus.StreamEvents} {
		ctx, cancel := context.WithCancel(t.Context())
		parent := t.TempDir()
		_, err := b.TakeSnapshot(ctx, filepath.Join(parent, "s"), bus.SnapshotOptions{Progress: func(p bus.SnapshotProgress) {
			if p.Stream == stream {
				cancel()
			}
		}})
		require.ErrorIs(t, err, context.Canceled)
		left, err := os.ReadDir(parent)
		require.NoError(t, err)
		require.Empty(t, left)
		cancel()
	}
	require.NoError(t, b.Close(t.Context()))
}
