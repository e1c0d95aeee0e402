package bustest

import (
	"errors"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Proxy stands between clients and a server and is the network's ill will: it
// cuts connections with whatever is on its way in them, refuses new ones, or
// lets nothing through. A client learns a cluster's other addresses from the
// server and goes round the proxy unless it has nats.IgnoreDiscoveredServers.
//
// Its methods are safe for concurrent use.
type Proxy struct {
	target   string
	listener net.Listener
	work     sync.WaitGroup

	mu      sync.Mutex
	pairs   map[*pair]struct{}
	refuse  bool
	refused int
	closed  bool
	flowing chan struct{} // closed while bytes may pass
}

// pair is one client's connection and its continuation to the server.
type pair struct {
	client, server *net.TCPConn
	cut            chan struct{}
	once           sync.Once
}

// NewProxy starts a proxy to target, a URL ("nats://127.0.0.1:4222") or
// "host:port".
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	if u, err := url.Parse(target); err == nil && u.Host != "" {
		target = u.Host
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &Proxy{target: target, listener: l, pairs: map[*pair]struct{}{}, flowing: make(chan struct{})}
	close(p.flowing)
	p.work.Go(p.accept)
	t.Cleanup(func() { require.NoError(t, p.close()) })
	return p
}

// Addr is where clients connect, as "host:port"; URL is the same for NATS.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// URL is where clients connect.
func (p *Proxy) URL() string { return "nats://" + p.Addr() }

// Cut ends every connection at once, with what is on its way in it, and says
// how many there were. Clients may connect again.
func (p *Proxy) Cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		c.end()
	}
	return len(p.pairs)
}

// Down cuts every connection and refuses new ones until Up.
func (p *Proxy) Down() {
	p.mu.Lock()
	p.refuse = true
	p.mu.Unlock()
	p.Cut()
}

// Up ends Down.
func (p *Proxy) Up() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = false
}

// Refused is how many connections were refused so far: how long an outage was,
// in attempts to end it.
func (p *Proxy) Refused() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}

// Stall keeps every connection open and lets nothing through, until Flow:
// what a cable pulled or a frozen host looks like.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.flowing:
		p.flowing = make(chan struct{})
	default:
	}
}

// Flow ends Stall; what was held arrives.
func (p *Proxy) Flow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.flowing:
	default:
		close(p.flowing)
	}
}

func (p *Proxy) close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	err := p.listener.Close()
	p.Cut()
	p.work.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			p.work.Go(func() { p.join(client) })
		}
	}
}

// join carries one connection to its end.
func (p *Proxy) join(client net.Conn) {
	p.mu.Lock()
	refuse := p.refuse || p.closed
	if refuse {
		p.refused++
	}
	p.mu.Unlock()
	if refuse {
		reset(client)
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		reset(client)
		return
	}
	c := &pair{cut: make(chan struct{})}
	c.client, _ = client.(*net.TCPConn) // of a TCP listener
	c.server, _ = server.(*net.TCPConn) // dialled as TCP
	p.mu.Lock()
	if p.refuse || p.closed {
		c.end()
	}
	p.pairs[c] = struct{}{}
	p.mu.Unlock()

	var ways sync.WaitGroup
	ways.Go(func() { p.carry(c, c.client, c.server) })
	ways.Go(func() { p.carry(c, c.server, c.client) })
	ways.Wait()
	p.mu.Lock()
	delete(p.pairs, c)
	p.mu.Unlock()
	_ = client.Close()
	_ = server.Close()
}

// carry copies one way until its source ends, and passes the end on behind the
// last byte. The other way goes on by itself: a server's last words to a client
// that has gone must not cost the client's last words.
func (p *Proxy) carry(c *pair, from, to *net.TCPConn) {
	defer func() { _ = to.CloseWrite() }()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		flowing := p.flowing
		p.mu.Unlock()
		select {
		case <-flowing:
		case <-c.cut:
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// end cuts the pair.
func (c *pair) end() {
	c.once.Do(func() {
		close(c.cut)
		reset(c.client)
		reset(c.server)
	})
}

// reset closes a connection and drops what it still holds.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
