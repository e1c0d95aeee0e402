//go:build unix

package handlers_test

import (
	"testing"
	"time"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// nodeFaults happen to one node of a cluster at a time.
var nodeFaults = []struct {
	name   string
	begin  func(c *bustest.NATSCluster, node int)
	finish func(c *bustest.NATSCluster, node int)
}{
	{"killed", func(c *bustest.NATSCluster, i int) { c.Node(i).Kill() }, func(c *bustest.NATSCluster, i int) { c.Node(i).Restart() }},
	{"frozen", func(c *bustest.NATSCluster, i int) { c.Node(i).Freeze() }, func(c *bustest.NATSCluster, i int) { c.Node(i).Thaw() }},
	{"cut off", (*bustest.NATSCluster).CutOff, (*bustest.NATSCluster).Rejoin},
}

// stepDown makes a stream's leader give up.
func stepDown(b *bus.Bus, stream string) {
	// Whether there is one at the moment does not matter: that is the fault.
	_, _ = b.Conn().Request("$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil, time.Second)
}

// Every second a leader steps down, and all the while some node is killed, frozen or cut off, with its clients: publishers, desks, the
// worker or the one that stands by.
func TestChaosNothingIsLostOrRepeatedWhenLeadersStepDownAndNodesAreKilledFrozenAndCutOff(t *testing.T) {
	rng, seed := chaos(t)
	nodes := bustest.Processes(t, 3)
	for range 2 {
		b := openWhole(t, bus.Options{URL: nodes.URL()})
		control(t, b)
		start(t, b, oncimevent.New(oncimevent.Options{}))
	}
	b := onlooker(t, nodes.URL())
	c := startCrowd(t, crowdOptions{url: nodes.URL(), seed: seed, every: 20 * time.Millisecond, verified: true})
	c.more(t, 20)
	counts := map[string]int{}
	began := time.Now()
	for i := 0; i < len(nodeFaults) || time.Since(began) < shortOrLong(0, 2*time.Minute); i++ {
		fault := nodeFaults[i%len(nodeFaults)]
		node := rng.IntN(nodes.Len())
		counts[fault.name]++
		fault.begin(nodes, node)
		for range shortOrLong(2, 2+rng.IntN(8)) {
			stepDown(b, []string{bus.StreamEvents, bus.StreamDeliveries, bus.StreamIndex, bus.StreamMembers}[rng.IntN(4)])
			counts["leader stepped down"]++
			elapse(time.Second)
		}
		fault.finish(nodes, node)
		c.more(t, 20)
	}
	c.end(t)
	t.Logf("%v in %v", counts, time.Since(began).Round(time.Second))
	nodes.WaitCurrent()
	c.account(t, b, 0)
}
