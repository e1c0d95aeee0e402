//go:build unix

package socketio_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/handlers/socketio"
)

// raw is a client that costs as little as one can: it connects by hand, and throws away what it gets.
func raw(b *testing.B, addr string) net.Conn {
	b.Helper()
	conn, err := (&net.Dialer{}).DialContext(b.Context(), "tcp", addr)
	require.NoError(b, err)
	_, err = fmt.Fprintf(conn, "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	require.NoError(b, err)
	reader := bufio.NewReader(conn)
	for line := "x"; line != "\r\n"; {
		line, err = reader.ReadString('\n')
		require.NoError(b, err)
	}
	_, err = conn.Write([]byte{0x81, 0x82, 0, 0, 0, 0, '4', '0'})
	require.NoError(b, err)
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	return conn
}

// BenchmarkDeliver is an event of 6 KB to two of a thousand sockets over the loopback: encoding, queueing, writing, and the kernel's part;
// the clients' reading runs beside it and counts too. One op is one delivery.
func BenchmarkDeliver(b *testing.B) {
	const agents = 1000
	payload := socketio.Verbatim(`{"cimEvent":"` + strings.Repeat("x", 6000) + `"}`)
	for _, prepared := range []bool{true, false} {
		b.Run(fmt.Sprintf("prepared=%t", prepared), func(b *testing.B) {
			var mu sync.Mutex
			var sockets []*socketio.Socket
			all := make(chan struct{})
			srv, err := socketio.New(socketio.Options{})
			require.NoError(b, err)
			ns := srv.Of("/")
			ns.OnConnect(func(s *socketio.Socket) {
				mu.Lock()
				defer mu.Unlock()
				if sockets = append(sockets, s); len(sockets) == agents {
					close(all)
				}
			})
			web := httptest.NewServer(srv)
			defer web.Close()
			for range agents {
				conn := raw(b, web.Listener.Addr().String())
				defer conn.Close()
			}
			<-all
			b.ReportAllocs()
			began := cpu(b)
			b.ResetTimer()
			for i := 0; i < b.N; i += 2 {
				var m *socketio.Message
				if prepared {
					m, err = ns.Prepare("12345", "onCimEvent", payload)
					require.NoError(b, err)
				}
				for j := range 2 {
					s := sockets[(i+j*500)%agents]
					if prepared {
						err = s.EmitPrepared(m)
					} else {
						err = s.Emit("onCimEvent", payload)
					}
					require.NoError(b, err)
				}
				if i%1024 == 0 {
					require.NoError(b, sockets[i%agents].Room(b.Context()))
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(cpu(b)-began)/float64(b.N), "cpu-ns/op")
			require.NoError(b, srv.Close(context.Background()))
		})
	}
}

// cpu is what this process has used of it: a busy machine stretches the time, not this.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkPrepare is the encoding alone.
func BenchmarkPrepare(b *testing.B) {
	srv, err := socketio.New(socketio.Options{})
	require.NoError(b, err)
	ns := srv.Of("/")
	text := strings.Repeat(`{"id":"67c1cb75","text":"hello"},`, 190)
	for name, arg := range map[string]any{
		"verbatim":        socketio.Verbatim("[" + text + "1]"),
		"json.RawMessage": []byte("[" + text + "1]"),
		"string":          text,
	} {
		if bytes, ok := arg.([]byte); ok {
			arg = json.RawMessage(bytes)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ns.Prepare("12345", "onCimEvent", arg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
