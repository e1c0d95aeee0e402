//go:build unix

package bustest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// NATSCluster is a cluster of nats-servers in processes of their own, numbered from 0: what kills, freezes or cuts off one of them does
// to it what it does in life. Its methods are for one goroutine.
type NATSCluster struct {
	t     testing.TB
	nodes []*NATSServer
	links [][]*Proxy // from, to; nil from one to itself
}

// nowhere is what a node tells the others of itself: they know each other by the links alone.
const nowhere = "127.0.0.1:1"

// Processes starts a cluster of n nodes, each with the given lines of configuration, and waits until its streams can be used. Every
// connection between two of them goes through a proxy.
func Processes(t testing.TB, n int, config ...string) *NATSCluster {
	t.Helper()
	c := &NATSCluster{t: t, links: make([][]*Proxy, n)}
	listen := make([]string, n)
	for i := range listen {
		listen[i] = address(t)
	}
	for i := range n {
		c.links[i] = make([]*Proxy, n)
		var routes []string
		for j, to := range listen {
			if i != j {
				c.links[i][j] = NewProxy(t, to)
				routes = append(routes, fmt.Sprintf("%q", "nats://"+c.links[i][j].Addr()))
			}
		}
		c.nodes = append(c.nodes, newProcess(t, append([]string{
			fmt.Sprintf("server_name: node-%d", i),
			fmt.Sprintf("cluster { name: bustest, listen: %q, advertise: %q, routes: [%s] }", listen[i], nowhere, strings.Join(routes, ", ")),
		}, config...)))
	}
	for _, s := range c.nodes {
		s.start()
	}
	for _, s := range c.nodes {
		s.waitReady()
	}
	return c
}

// Len is the number of nodes.
func (c *NATSCluster) Len() int { return len(c.nodes) }

// Node is one of the nodes, to kill or freeze. Its Restart waits until it takes part again.
func (c *NATSCluster) Node(i int) *NATSServer { return c.nodes[i] }

// URL names all nodes.
func (c *NATSCluster) URL() string {
	urls := make([]string, len(c.nodes))
	for i, s := range c.nodes {
		urls[i] = s.URL()
	}
	return strings.Join(urls, ",")
}

// CutOff cuts a node off from the others, until Rejoin. Its clients stay with it.
func (c *NATSCluster) CutOff(i int) { c.each(i, (*Proxy).Down) }

// Rejoin ends CutOff.
func (c *NATSCluster) Rejoin(i int) { c.each(i, (*Proxy).Up) }

// WaitCurrent waits until every node can be asked, and every stream has a leader and replicas that have caught up.
func (c *NATSCluster) WaitCurrent() {
	c.t.Helper()
	for _, s := range c.nodes {
		Eventually(c.t, processTimeout, func() error { return current(s.URL()) })
	}
}

func current(url string) error {
	nc, err := nats.Connect(url, nats.MaxReconnects(0), nats.IgnoreDiscoveredServers())
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	streams := js.ListStreams(ctx)
	for info := range streams.Info() {
		if info.Cluster == nil || info.Cluster.Leader == "" {
			err = fmt.Errorf("%s: stream %s has no leader", url, info.Config.Name)
			continue // the list must be read to its end
		}
		for _, r := range info.Cluster.Replicas {
			if !r.Current || r.Offline {
				err = fmt.Errorf("%s: stream %s: %s has not caught up", url, info.Config.Name, r.Name)
			}
		}
	}
	return errors.Join(err, streams.Err())
}

// each does something to every link of a node.
func (c *NATSCluster) each(i int, do func(*Proxy)) {
	for j := range c.nodes {
		if i != j {
			do(c.links[i][j])
			do(c.links[j][i])
		}
	}
}
