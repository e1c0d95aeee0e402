package embedded_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus/embedded"
)

func TestStoreBelongsToOneProcess(t *testing.T) {
	dir := t.TempDir()
	kill := serveInProcess(t, dir)

	_, err := embedded.Start(context.Background(), embedded.Options{StoreDir: dir})
	require.ErrorIs(t, err, embedded.ErrStoreInUse)
	require.ErrorContains(t, err, dir)
	require.ErrorContains(t, err, "name another folder")

	kill()
	start(t, embedded.Options{StoreDir: dir})
}

func TestStoreBelongsToOneServerOfAProcess(t *testing.T) {
	dir := t.TempDir()
	first := start(t, embedded.Options{StoreDir: dir})
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))

	_, err := embedded.Start(context.Background(), embedded.Options{StoreDir: link})
	require.ErrorIs(t, err, embedded.ErrStoreInUse)

	shutdown(t, first)
	start(t, embedded.Options{StoreDir: link})
}

func TestStoreIsUncleanOnlyAfterARunThatDidNotEndByShutdown(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by", "start")

	s := start(t, embedded.Options{StoreDir: dir})
	require.False(t, s.Unclean(), "a new store")
	require.Equal(t, dir, s.StoreDir())
	shutdown(t, s)

	s = start(t, embedded.Options{StoreDir: dir})
	require.False(t, s.Unclean(), "after Shutdown")
	shutdown(t, s)

	serveInProcess(t, dir)()
	s = start(t, embedded.Options{StoreDir: dir})
	require.True(t, s.Unclean(), "after a kill")
	m, err := connect(t, s).Stream(t.Context(), "S")
	require.NoError(t, err)
	stored, err := m.GetMsg(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, "kept", string(stored.Data))
	shutdown(t, s)

	s = start(t, embedded.Options{StoreDir: dir})
	require.False(t, s.Unclean(), "after the Shutdown that followed")
}

func TestStoreStaysUncleanThroughAStartThatFails(t *testing.T) {
	dir := t.TempDir()
	serveInProcess(t, dir)()

	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := embedded.Start(canceled, embedded.Options{StoreDir: dir})
	require.ErrorIs(t, err, embedded.ErrNotReady)

	require.True(t, start(t, embedded.Options{StoreDir: dir}).Unclean())
}

func TestStoreStaysUncleanWhileItIsHeld(t *testing.T) {
	dir := t.TempDir()

	s := start(t, embedded.Options{StoreDir: dir})
	s.HoldUnclean()
	release := s.HoldUnclean()
	release()
	release() // releases its own hold only
	shutdown(t, s)

	s = start(t, embedded.Options{StoreDir: dir})
	require.True(t, s.Unclean())
	s.HoldUnclean()()
	shutdown(t, s)

	require.False(t, start(t, embedded.Options{StoreDir: dir}).Unclean())
}

func TestStoreStaysUncleanAfterTheServerFailed(t *testing.T) {
	dir := t.TempDir()
	s := start(t, embedded.Options{StoreDir: dir})
	require.NoError(t, s.Server().ShutdownJetStream())
	requireFailed(t, s)
	shutdown(t, s)

	require.True(t, start(t, embedded.Options{StoreDir: dir}).Unclean())
}

func TestStoreFolderThatCannotBeUsedIsNamed(t *testing.T) {
	base := t.TempDir()
	file := filepath.Join(base, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	locked := filepath.Join(base, "locked")
	require.NoError(t, os.MkdirAll(filepath.Join(locked, "cimbus.lock"), 0o700))

	for name, dir := range map[string]string{
		"a file":                 file,
		"below a file":           filepath.Join(file, "store"),
		"lock cannot be written": locked,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := embedded.Start(context.Background(), embedded.Options{StoreDir: dir})
			require.ErrorContains(t, err, file[:len(base)])
			require.ErrorContains(t, err, "store folder: ")
			require.ErrorContains(t, err, "name a folder that can be")
		})
	}
}

func TestStoreWhoseStreamsCannotBeOpenedIsAnErrorOfStart(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "jetstream"), nil, 0o600))
	_, err := embedded.Start(context.Background(), embedded.Options{StoreDir: dir})
	require.ErrorContains(t, err, "Can't start JetStream")
}
