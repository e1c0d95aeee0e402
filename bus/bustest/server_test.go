package bustest_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
)

func TestServerIsBalancedAndInProcessUnlessToldOtherwise(t *testing.T) {
	s := bustest.Server(t)
	require.Equal(t, embedded.Balanced, s.Durability())
	require.Empty(t, s.NATSURL())

	s = bustest.Server(t, func(o *embedded.Options) {
		o.Durability, o.NATSAddr = embedded.Strict, "127.0.0.1:0"
	})
	require.Equal(t, embedded.Strict, s.Durability())
	nc, err := nats.Connect(s.NATSURL())
	require.NoError(t, err)
	nc.Close()
}

func TestClusterServesWhileItsNodesStopAndStartOneByOne(t *testing.T) {
	c := bustest.Cluster(t, 3)
	nc, err := c.Connect()
	js := streams(t, nc, err)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3})
	require.NoError(t, err)

	published := 0
	publish := func() {
		bustest.Eventually(t, 30*time.Second, func() error {
			_, err := js.Publish(t.Context(), "s", nil, jetstream.WithMsgID(fmt.Sprint(published)))
			return err
		})
		published++
	}
	publish()
	for _, i := range []int{c.StreamLeader("S"), c.Leader()} {
		require.NotNil(t, c.Node(i))
		c.Stop(i)
		require.Nil(t, c.Node(i))
		publish()
		c.Start(i)
		publish()
	}
	stream, err := js.Stream(t.Context(), "S")
	require.NoError(t, err)
	info, err := stream.Info(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, published, info.State.LastSeq)
	require.Len(t, info.Cluster.Replicas, 2)
	require.Len(t, c.URLs(), c.Len())
	require.Equal(t, -1, c.ConsumerLeader("S", "none"))
}

func TestProcessKeepsItsStoreThroughKillAndTerminate(t *testing.T) {
	s := bustest.Process(t)
	nc, err := nats.Connect(s.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	js := streams(t, nc, err)
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	require.NoError(t, err)

	for i, restart := range []func(){s.Restart, func() { s.Terminate(); s.Restart() }, func() { s.Freeze(); s.Thaw() }} {
		bustest.Eventually(t, 10*time.Second, func() error {
			_, err := js.Publish(t.Context(), "s", nil, jetstream.WithMsgID(fmt.Sprint(i)))
			return err
		})
		restart()
		bustest.Eventually(t, 10*time.Second, func() error {
			info, err := stream.Info(t.Context())
			if err == nil && info.State.LastSeq != uint64(i+1) {
				err = fmt.Errorf("%d of %d messages", info.State.LastSeq, i+1)
			}
			return err
		})
	}
	require.Contains(t, s.Log(), "Server is ready")
}

func TestProcessTakesConfiguration(t *testing.T) {
	s := bustest.Process(t, "max_payload: 4096", `authorization { user: "bus", password: "correct" }`)
	_, err := nats.Connect(s.URL(), nats.UserInfo("bus", "wrong"))
	require.ErrorIs(t, err, nats.ErrAuthorization)
	nc, err := nats.Connect(s.URL(), nats.UserInfo("bus", "correct"))
	require.NoError(t, err)
	defer nc.Close()
	require.EqualValues(t, 4096, nc.MaxPayload())
}

func TestProxyCutsRefusesAndStalls(t *testing.T) {
	s := bustest.Server(t, func(o *embedded.Options) { o.NATSAddr = "127.0.0.1:0" })
	p := bustest.NewProxy(t, s.NATSURL())
	reconnects := make(chan struct{}, 16)
	nc, err := nats.Connect(p.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(time.Millisecond),
		nats.ReconnectHandler(func(*nats.Conn) { reconnects <- struct{}{} }))
	require.NoError(t, err)
	defer nc.Close()
	roundTrip := func() error { return nc.FlushTimeout(200 * time.Millisecond) }
	require.NoError(t, roundTrip())

	require.Equal(t, 1, p.Cut())
	<-reconnects
	require.NoError(t, roundTrip())

	p.Down()
	require.Error(t, roundTrip())
	_, err = nats.Connect(p.URL())
	require.Error(t, err)
	require.Positive(t, p.Refused())
	p.Up()
	<-reconnects
	require.NoError(t, roundTrip())

	p.Stall()
	p.Stall()
	require.ErrorIs(t, roundTrip(), nats.ErrTimeout)
	require.Equal(t, nats.CONNECTED, nc.Status())
	p.Flow()
	p.Flow()
	bustest.Eventually(t, 10*time.Second, roundTrip)
	require.Empty(t, reconnects, "a stall cut the connection")
}

func TestProxyLosesNothingOfAConnectionThatEndsByItself(t *testing.T) {
	s := bustest.Server(t, func(o *embedded.Options) { o.NATSAddr = "127.0.0.1:0" })
	inProcess, err := s.Connect()
	require.NoError(t, err)
	defer inProcess.Close()
	received, err := inProcess.SubscribeSync("s")
	require.NoError(t, err)
	require.NoError(t, inProcess.Flush())

	// Half-closed, so that the client's own system has no reason to reset it and to drop its last words.
	conn, err := net.Dial("tcp", strings.TrimPrefix(bustest.NewProxy(t, s.Server().Addr().String()).URL(), "nats://"))
	require.NoError(t, err)
	defer conn.Close()
	const messages = 1000
	_, err = fmt.Fprint(conn, "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n"+
		strings.Repeat("PUB s 1024\r\n"+strings.Repeat("x", 1024)+"\r\n", messages))
	require.NoError(t, err)
	tcp, ok := conn.(*net.TCPConn)
	require.True(t, ok)
	require.NoError(t, tcp.CloseWrite())
	for i := range messages {
		_, err := received.NextMsg(5 * time.Second)
		require.NoError(t, err, "message %d", i)
	}
}

func TestEventuallyFailsWithTheLastError(t *testing.T) {
	calls := 0
	f := &failure{TB: t}
	f.run(func() {
		bustest.Eventually(f, 50*time.Millisecond, func() error {
			calls++
			return fmt.Errorf("attempt %d", calls)
		})
	})
	require.Greater(t, calls, 1)
	require.Contains(t, f.message, fmt.Sprintf("attempt %d", calls))

	bustest.Eventually(t, time.Minute, func() error {
		if calls++; calls%2 == 0 {
			return errors.New("not yet")
		}
		return nil
	})
}

// failure is a test that fails without failing the test that runs it.
type failure struct {
	testing.TB
	message string
}

func (f *failure) Errorf(format string, args ...any) { f.message += fmt.Sprintf(format, args...) }

type failedNow struct{}

func (f *failure) FailNow() { panic(failedNow{}) }

func (f *failure) run(test func()) {
	defer func() {
		if r := recover(); r != nil && r != any(failedNow{}) {
			panic(r)
		}
	}()
	test()
}
