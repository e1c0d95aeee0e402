package embedded_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus/embedded"
)

func TestAStoreWithAStreamThatCannotBeReadIsRefusedAndNotBegunAnew(t *testing.T) {
	dir := t.TempDir()
	s, err := embedded.Start(t.Context(), embedded.Options{StoreDir: dir})
	require.NoError(t, err)
	js := connect(t, s)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	require.NoError(t, err)
	_, err = js.Publish(t.Context(), "s", []byte("kept"))
	require.NoError(t, err)
	js.Conn().Close()
	shutdown(t, s)

	meta := filepath.Join(dir, "jetstream", "$G", "streams", "S", "meta.inf")
	good, err := os.ReadFile(meta)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(meta, []byte("{"), 0o600))
	for range 2 {
		_, err = embedded.Start(context.Background(), embedded.Options{StoreDir: dir})
		require.ErrorIs(t, err, embedded.ErrUnrecovered)
		require.ErrorContains(t, err, "'$G > S' could not be recovered")
		require.ErrorContains(t, err, "move its folder away")
	}

	require.NoError(t, os.WriteFile(meta, good, 0o600))
	again := start(t, embedded.Options{StoreDir: dir})
	stream, err := connect(t, again).Stream(t.Context(), "S")
	require.NoError(t, err)
	require.EqualValues(t, 1, stream.CachedInfo().State.Msgs, "what could not be read yet was harmed")
}

func TestTheRoomOfTheDiskIsThatOfTheFoldersFileSystem(t *testing.T) {
	d, err := embedded.ReadDisk(t.TempDir())
	require.NoError(t, err)
	require.Positive(t, d.Total)
	require.Less(t, d.Free, d.Total)
	_, err = embedded.ReadDisk(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
