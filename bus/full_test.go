package bus_test

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
)

// Whatever limit is reached, the publisher hears the same name for it, what is stored stays, and the next event after there is room
// is stored by the same bus and the same publisher.
func TestEveryLimitIsHeardAsAFullStoreHarmsNothingAndPasses(t *testing.T) {
	for name, c := range map[string]struct {
		server  func(*embedded.Options)
		streams bus.StreamOptions
	}{
		"of the stream": {func(*embedded.Options) {}, bus.StreamOptions{MaxBytes: 100_000}},
		"of the server": {func(o *embedded.Options) { o.MaxStore = 50_000 }, bus.StreamOptions{MaxBytes: -1}},
		"of the account": {func(o *embedded.Options) {
			o.Configure = func(so *server.Options) {
				account := server.NewAccount("limited")
				so.Accounts = []*server.Account{account}
				so.Users = []*server.User{{Username: "bus", Password: "pw", Account: account}}
				so.NoAuthUser = "bus"
			}
		}, bus.StreamOptions{MaxBytes: -1}},
	} {
		t.Run(name, func(t *testing.T) {
			s := bustest.Server(t, c.server)
			if name == "of the account" {
				account, err := s.Server().LookupAccount("limited")
				require.NoError(t, err)
				require.NoError(t, account.EnableJetStream(map[string]server.JetStreamAccountLimits{
					"": {MaxMemory: -1, MaxStore: 50_000, MaxStreams: -1, MaxConsumers: -1},
				}, nil))
			}
			b := openOn(t, testConn(t, s), c.streams)
			p := newPublisher(t, b, bus.PublisherOptions{})
			stored, err := fill(t, b, "a")
			require.ErrorIs(t, err, bus.ErrStoreFull)
			require.NotErrorIs(t, err, bus.ErrUnknownOutcome)
			require.Positive(t, stored)
			q, err := p.Publish(t.Context(), event(t, "b", "c1"))
			require.NoError(t, err)
			_, err = q.Receipt()
			require.ErrorIs(t, err, bus.ErrStoreFull)

			streams, err := b.Streams(t.Context())
			require.NoError(t, err)
			require.EqualValues(t, stored, streams[0].Messages, "what was acknowledged is not what is there")
			for i := range stored {
				m, err := b.MessageAt(t.Context(), bus.StreamEvents, uint64(i+1))
				require.NoError(t, err)
				require.Equal(t, fmt.Sprint("a", i), bus.LastHeader(m.Header, bus.HeaderEventID))
			}

			stream, err := b.JetStream().Stream(t.Context(), bus.StreamEvents)
			require.NoError(t, err)
			for i := range min(stored, 10) { // events age out
				require.NoError(t, stream.DeleteMsg(t.Context(), uint64(i+1)))
			}
			q, err = p.Publish(t.Context(), event(t, "b", "c1"))
			require.NoError(t, err)
			receipt, err := q.Receipt()
			require.NoError(t, err)
			require.EqualValues(t, stored+1, receipt.Sequence)
			require.False(t, receipt.Duplicate)
		})
	}
}
