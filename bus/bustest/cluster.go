package bustest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus/embedded"
)

// clusterTimeout is how long elections and catching up may take; three nodes
// on two busy cores were seen to need a dozen seconds.
const clusterTimeout = 60 * time.Second

// Nodes is a cluster of JetStream servers within the process. Its nodes are
// numbered from 0 and may be stopped and started again one by one, from one
// goroutine.
type Nodes struct {
	t     testing.TB
	nodes []*node
}

type node struct {
	opts   embedded.Options
	server *embedded.Server // nil while stopped
}

// Cluster starts a cluster of n nodes and waits until it is ready for streams
// of n replicas.
func Cluster(t testing.TB, n int) *Nodes {
	t.Helper()
	c := &Nodes{t: t}
	dir := t.TempDir() // removed after the nodes have stopped
	stop := func() {
		for i := range c.nodes {
			c.Stop(i)
		}
	}
	t.Cleanup(stop)
	// A port that was free when it was chosen may be taken by now.
	for try := range 10 {
		c.nodes = newNodes(t, filepath.Join(dir, strconv.Itoa(try)), n)
		err := start(c.nodes...)
		if err == nil {
			c.WaitCurrent()
			return c
		}
		if !errors.Is(err, embedded.ErrAddressInUse) {
			require.NoError(t, err)
		}
		stop()
	}
	require.FailNow(t, "no free ports")
	return nil
}

func newNodes(t testing.TB, dir string, n int) []*node {
	t.Helper()
	routes, nodes := make([]string, n), make([]*node, n)
	for i := range routes {
		routes[i] = address(t)
	}
	for i := range nodes {
		nodes[i] = &node{opts: embedded.Options{
			StoreDir:   filepath.Join(dir, strconv.Itoa(i)),
			ServerName: fmt.Sprintf("node-%d", i),
			NATSAddr:   address(t),
			Durability: embedded.Balanced,
			Cluster:    &embedded.Cluster{Name: "bustest", Addr: routes[i], Routes: routes},
		}}
	}
	return nodes
}

// start starts nodes together: one after the other, the first election now and
// then took a dozen seconds instead of a third of one.
func start(nodes ...*node) error {
	errs := make([]error, len(nodes))
	var starts sync.WaitGroup
	for i, n := range nodes {
		starts.Go(func() { n.server, errs[i] = embedded.Start(context.Background(), n.opts) })
	}
	starts.Wait()
	return errors.Join(errs...)
}

// Start starts a stopped node again, on its store and its address, and waits
// until it is current.
func (c *Nodes) Start(i int) {
	c.t.Helper()
	if c.nodes[i].server == nil {
		require.NoError(c.t, start(c.nodes[i]))
	}
	c.WaitCurrent()
}

// Stop shuts a node down; the others go on.
func (c *Nodes) Stop(i int) {
	c.t.Helper()
	if s := c.nodes[i].server; s != nil {
		c.nodes[i].server = nil
		shutdown(c.t, s)
	}
}

// Len is the number of nodes, stopped ones included.
func (c *Nodes) Len() int { return len(c.nodes) }

// Node is the server of a node, nil while it is stopped.
func (c *Nodes) Node(i int) *embedded.Server { return c.nodes[i].server }

// Leader is the node that leads all the streams' administration, -1 if none
// does at the moment.
func (c *Nodes) Leader() int {
	return c.find(func(s *server.Server) bool { return s.JetStreamIsLeader() })
}

// StreamLeader is the node that leads a stream, -1 if none does at the moment.
func (c *Nodes) StreamLeader(stream string) int {
	return c.find(func(s *server.Server) bool {
		return s.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, stream)
	})
}

// ConsumerLeader is the node that leads a consumer, -1 if none does.
func (c *Nodes) ConsumerLeader(stream, consumer string) int {
	return c.find(func(s *server.Server) bool {
		return s.JetStreamIsConsumerLeader(server.DEFAULT_GLOBAL_ACCOUNT, stream, consumer)
	})
}

func (c *Nodes) find(is func(*server.Server) bool) int {
	for i, n := range c.nodes {
		if n.server != nil && is(n.server.Server()) {
			return i
		}
	}
	return -1
}

// URLs are the addresses of all nodes, whether they run or not.
func (c *Nodes) URLs() []string {
	urls := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		urls[i] = "nats://" + n.opts.NATSAddr
	}
	return urls
}

// Connect connects over TCP to any running node, and to another one when that
// stops. The caller closes the connection.
func (c *Nodes) Connect(opts ...nats.Option) (*nats.Conn, error) {
	all := append([]nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(50 * time.Millisecond)}, opts...)
	return nats.Connect(strings.Join(c.URLs(), ","), all...)
}

// WaitCurrent waits until every running node has joined, knows the leader, and
// has caught up with every stream and consumer it holds.
func (c *Nodes) WaitCurrent() {
	c.t.Helper()
	Eventually(c.t, clusterTimeout, func() error {
		leader := c.Leader()
		if leader < 0 {
			return errors.New("no leader")
		}
		running := 0
		for i, n := range c.nodes {
			if n.server == nil {
				continue
			}
			running++
			if h := n.server.Server().Healthz(&server.HealthzOptions{}); h.Error != "" {
				return fmt.Errorf("node %d: %s", i, h.Error)
			}
		}
		if peers := c.nodes[leader].server.Server().JetStreamClusterPeers(); len(peers) < running {
			return fmt.Errorf("%d of %d nodes have joined", len(peers), running)
		}
		return nil
	})
}
