package bus

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus/embedded"
)

// Looked for with a blank that the server does not write, no acknowledgement was ever known, and all took the slow way unnoticed.
func TestServersAcknowledgementOfAStoredEventNeedsNoDecoder(t *testing.T) {
	b, err := Open(t.Context(), Options{Embedded: embedded.Options{StoreDir: t.TempDir(), Durability: embedded.Balanced}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close(context.WithoutCancel(t.Context()))) })
	e := Event{Tenant: "acme", Channel: "WEB", Name: "AGENT_MESSAGE", Conversation: "c1", ID: "e1", Body: []byte(`{}`)}
	m, err := e.message()
	require.NoError(t, err)
	for n, first := range []bool{true, false} {
		answer, err := b.Conn().RequestMsgWithContext(t.Context(), &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data})
		require.NoError(t, err)
		receipt, plain := plainReceipt(answer.Data)
		require.Equal(t, first, plain, "answer %d: %s", n, answer.Data)
		if first {
			require.Equal(t, Receipt{Stream: StreamEvents, Sequence: 1}, receipt)
		}
		read, kind, err := readAnswer(m.Subject, answer)
		require.NoError(t, err)
		require.Equal(t, answerStored, kind)
		require.Equal(t, Receipt{Subject: m.Subject, Stream: StreamEvents, Sequence: 1, Duplicate: !first}, read)
	}
}
