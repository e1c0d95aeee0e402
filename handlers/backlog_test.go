package handlers_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// sluice dials connections of a client that reads so many bytes and then, until it is let go on, none.
type sluice struct {
	mu     sync.Mutex
	left   int
	full   chan struct{} // closed when all were read
	goOn   chan struct{}
	opened sync.Once
}

func (s *sluice) open() { s.opened.Do(func() { close(s.goOn) }) }

func (s *sluice) Dial(network, address string) (net.Conn, error) {
	c, err := net.Dial(network, address)
	return sluicedConn{c, s}, err
}

type sluicedConn struct {
	net.Conn
	s *sluice
}

func (c sluicedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.s.mu.Lock()
	before := c.s.left
	c.s.left -= n
	after := c.s.left
	c.s.mu.Unlock()
	if before > 0 && after <= 0 {
		close(c.s.full)
	}
	if after <= 0 {
		<-c.s.goOn
	}
	return n, err
}

func TestABacklogOfManyRequestsIsReadInOneEpoch(t *testing.T) {
	b := openBus(t)
	for i := range 3000 {
		require.NoError(t, b.Conn().Publish("cim.acme.web.AGENT_MESSAGE", message(fmt.Sprint("e", i), fmt.Sprint("c", i%50))))
	}
	require.NoError(t, b.Conn().Flush())
	w := start(t, b, oncimevent.New(oncimevent.Options{}))
	drained(t, b)
	require.EqualValues(t, 1, w.Stats().Epochs)
	audit(t, b)
}

// The server sends what was asked for however slow the client reads, and cuts the connection when too much is on its way. A worker that
// asked for all it may hold at once was cut off by every larger backlog, and met it again when it was back.
func TestABacklogLargerThanWhatTheServerHoldsForAClientDoesNotCutItsConnection(t *testing.T) {
	const limit, size, events = 32 << 20, 1 << 20, 60
	s := bustest.Server(t, func(o *embedded.Options) {
		o.NATSAddr = "127.0.0.1:0"
		o.Configure = func(so *server.Options) { so.MaxPending = limit }
	})
	reading := &sluice{left: 3 << 20, full: make(chan struct{}), goOn: make(chan struct{})}
	b := openWhole(t, bus.Options{URL: s.NATSURL(), NATS: []nats.Option{nats.SetCustomDialer(reading)}})
	t.Cleanup(reading.open)
	text := strings.Repeat("x", size-1000)
	for i := range events {
		publish(t, b, "cim.acme.web.AGENT_MESSAGE",
			fmt.Appendf(nil, `{"id":"e%d","name":"AGENT_MESSAGE","conversationId":"c%d","data":{"text":%q}}`, i, i, text))
	}
	w := start(t, b, oncimevent.New(oncimevent.Options{}))
	<-reading.full
	// The server sends on, until all that was asked for is sent or too much of it is on its way.
	before, looks := -1, 0
	bustest.Eventually(t, 20*time.Second, func() error {
		info, err := s.Server().Connz(nil)
		if err != nil {
			return err
		}
		waiting := 0
		for _, c := range info.Conns {
			waiting += c.Pending
		}
		if looks++; waiting != before {
			before, looks = waiting, 0
		}
		if looks < 20 && s.Server().NumSlowConsumers() == 0 {
			return fmt.Errorf("%d bytes wait for the client, for %d looks", waiting, looks)
		}
		return nil
	})
	reading.open()
	drained(t, b)
	require.Zero(t, s.Server().NumSlowConsumers())
	require.EqualValues(t, 1, w.Stats().Epochs, "nothing ended the epoch")
}
