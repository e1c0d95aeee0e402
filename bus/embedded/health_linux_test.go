package embedded_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus/embedded"
)

// The server keeps its first write error for good and answers nobody who publishes: only a new start helps.
func TestAStreamThatCannotBeWrittenIsToldAndKeepsWhatWasAcknowledged(t *testing.T) {
	dir := t.TempDir()
	s, err := embedded.Start(t.Context(), embedded.Options{StoreDir: dir})
	require.NoError(t, err)
	js := connect(t, s)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	require.NoError(t, err)
	// Where the stream's second block will be there is no room.
	block := filepath.Join(dir, "jetstream", "$G", "streams", "S", "msgs", "2.blk")
	require.NoError(t, os.Symlink("/dev/full", block))
	acknowledged := uint64(0)
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		_, err = js.Publish(ctx, "s", make([]byte, 1<<20-100))
		cancel()
		if err != nil {
			break
		}
		acknowledged++
	}
	require.Error(t, err)
	require.Positive(t, acknowledged)
	requireFailed(t, s)
	require.ErrorContains(t, s.Err(), "S' write error")
	require.ErrorContains(t, s.Err(), "until the server is started again")
	js.Conn().Close()
	shutdown(t, s)

	require.NoError(t, os.Remove(block)) // there is room again
	again := start(t, embedded.Options{StoreDir: dir})
	js = connect(t, again)
	stream, err := js.Stream(t.Context(), "S")
	require.NoError(t, err)
	require.Equal(t, acknowledged, stream.CachedInfo().State.LastSeq)
	ack, err := js.Publish(t.Context(), "s", nil)
	require.NoError(t, err)
	require.Equal(t, acknowledged+1, ack.Sequence)
}
