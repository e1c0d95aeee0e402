package engineio

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// maxBatch of frames that are written at once, in bytes.
const maxBatch = 64 << 10

// socket is one WebSocket. coder/websocket does the handshake and reads; whole data frames are written by this package, straight to
// the connection: that way a frame is encoded once for all its receivers, and many are written at once.
type socket struct {
	conn *websocket.Conn
	wire *wire
	read chan struct{} // closed when nobody reads any more
}

// wire is the network connection under a WebSocket. A Write is whole frames, ours or a control frame of coder/websocket, so that frames
// do not mix.
type wire struct {
	net.Conn
	mu      sync.Mutex
	timeout time.Duration
}

func (c *wire) Write(frames []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(frames)
}

// hijacker gives coder/websocket a wire, and buffers that fit desks: they say little, and what is said to them does not pass through.
type hijacker struct {
	http.ResponseWriter
	timeout time.Duration
	wire    *wire
}

// Sizes of a socket's buffers: net/http's would be 4 KiB each.
const (
	readBuffer    = 1 << 10
	controlBuffer = 256
)

// Hijack is http.Hijacker.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffers, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	// The server's own deadlines were for the request.
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	h.wire = &wire{Conn: conn, timeout: h.timeout}
	reader := buffers.Reader
	if reader.Buffered() == 0 {
		reader = bufio.NewReaderSize(h.wire, readBuffer)
	}
	return h.wire, bufio.NewReadWriter(reader, bufio.NewWriterSize(h.wire, controlBuffer)), nil
}

// accept answers the handshake, an error included.
func (srv *Server) accept(w http.ResponseWriter, r *http.Request) (*socket, error) {
	h := &hijacker{ResponseWriter: w, timeout: srv.options.WriteTimeout}
	// The origin has been checked. Frames that all receivers share cannot be compressed with each one's window.
	conn, err := websocket.Accept(h, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(int64(srv.options.MaxPayload))
	return &socket{conn: conn, wire: h.wire, read: make(chan struct{})}, nil
}

// next reads one packet. No buffer is held while it waits.
func (s *Session) next(ws *socket) (packet, error) {
	kind, reader, err := ws.conn.Reader(context.Background()) // ended by close
	if err != nil {
		return packet{}, readError(err)
	}
	scratch := s.server.takeBuffer()
	defer s.server.giveBuffer(scratch)
	buffer := bytes.NewBuffer(*scratch)
	_, err = buffer.ReadFrom(reader)
	*scratch = buffer.Bytes()
	if err != nil {
		return packet{}, readError(err)
	}
	if kind == websocket.MessageBinary {
		return packet{kind: packetMessage, binary: true, data: append([]byte{}, *scratch...)}, nil
	}
	p, err := parsePacket(*scratch)
	p.data = append([]byte{}, p.data...)
	return p, err
}

func readError(err error) error {
	switch status := websocket.CloseStatus(err); {
	case errors.Is(err, websocket.ErrMessageTooBig):
		return ErrTooLarge
	case status != -1 || errors.Is(err, io.EOF):
		return ErrPeerClosed
	default:
		return fmt.Errorf("%w: %w", ErrTransport, err)
	}
}

// close says why in a close frame, waits a moment for the client's own, so that nothing under way to it is lost, and lets go of the
// connection.
func (ws *socket) close(reason error) {
	defer ws.conn.CloseNow() //nolint:errcheck // it may be closed by the client already, and there is nobody to tell
	if errors.Is(reason, ErrTransport) || errors.Is(reason, ErrPingTimeout) || errors.Is(reason, ErrSlow) {
		return // nobody is there who reads
	}
	code := websocket.StatusNormalClosure
	switch {
	case errors.Is(reason, ErrMalformed):
		code = websocket.StatusUnsupportedData
	case errors.Is(reason, ErrTooLarge):
		code = websocket.StatusMessageTooBig
	case errors.Is(reason, ErrServerClosed):
		code = websocket.StatusGoingAway
	}
	frame := binary.BigEndian.AppendUint16(appendHeader(nil, finalClose, 2), uint16(code))
	if _, err := ws.wire.Write(frame); err != nil {
		return
	}
	timer := time.NewTimer(closeGrace)
	defer timer.Stop()
	select {
	case <-ws.read:
	case <-timer.C:
	}
}

// reading is the goroutine of a session's WebSocket: an upgrade first, if it is one, then the client's packets until the end.
func (s *Session) reading(ws *socket, upgrading bool) {
	defer close(ws.read)
	if upgrading && !s.upgrade(ws) {
		return
	}
	for {
		p, err := s.next(ws)
		if err == nil {
			err = s.receive(p)
		}
		if err != nil {
			s.abort(err)
			return
		}
	}
}

// flush is the goroutine that writes while there is something to write.
func (s *Session) flush() {
	buffer := s.server.takeBuffer()
	defer s.server.giveBuffer(buffer)
	for {
		s.mu.Lock()
		if s.ended || len(s.queue.waiting) == 0 {
			s.flushing = false
			s.mu.Unlock()
			return
		}
		batch := s.takeLocked(maxBatch)
		ws := s.socket
		s.mu.Unlock()
		last := batch[len(batch)-1] == s.server.packets.close
		if last {
			batch = batch[:len(batch)-1] // the close frame says it
		}
		if err := ws.write(batch, buffer); err != nil {
			s.abort(fmt.Errorf("%w: %w", ErrTransport, err))
		} else if last {
			s.abort(ErrClosed)
		}
	}
}

// write sends frames in one go: a single one as it is, for all its receivers share it.
func (ws *socket) write(batch []*Message, buffer *[]byte) error {
	var frames []byte
	switch len(batch) {
	case 0:
		return nil
	case 1:
		frames = batch[0].frame
	default:
		frames = (*buffer)[:0]
		for _, m := range batch {
			frames = append(frames, m.frame...)
		}
		*buffer = frames
	}
	_, err := ws.wire.Write(frames)
	return err
}
