package bus

import (
	"fmt"
	"strings"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/cimbus/cimbus/subjects"
)

// LiveAgents are those who hear their deliveries live, as the server in this process sees them.
type LiveAgents struct {
	Connected       map[string]int // agents, by the name the tenant is counted under; one that is connected twice is one
	Slow            int            // agents on a connection for which the server holds back a megabyte or more
	SlowConnections uint64         // how often the server ended a connection, of whomever, that did not keep up; it counts some twice
	Connections     int            // open ones, of whomever
}

// slowPending is how much the server holds back for a connection that does not keep up; at 64 MiB it ends one.
const slowPending = 1 << 20

// connectionPage is how many connections the server is asked for at a time.
const connectionPage = 1024

// LiveAgents asks the server in this process who listens on the subjects of agents. Where the bus lives on another server nothing is
// known: false.
func (b *Bus) LiveAgents() (LiveAgents, bool, error) {
	if b.server == nil {
		return LiveAgents{}, false, nil
	}
	s := b.server.Server()
	type agent struct{ tenant, agent string }
	listen, slow := map[agent]bool{}, map[agent]bool{}
	all := LiveAgents{Connected: map[string]int{}, SlowConnections: s.NumSlowConsumersClients()}
	for offset, total := 0, 1; offset < total; offset += connectionPage {
		page, err := s.Connz(&server.ConnzOptions{Subscriptions: true, Offset: offset, Limit: connectionPage})
		if err != nil {
			return all, true, fmt.Errorf("connections of the server: %w", err)
		}
		total = page.Total
		all.Connections += len(page.Conns)
		for _, c := range page.Conns {
			for _, subject := range c.Subs {
				tenant, name, ok := liveAgent(subject)
				if !ok {
					continue
				}
				listen[agent{tenant, name}] = true
				if c.Pending >= slowPending {
					slow[agent{tenant, name}] = true
				}
			}
		}
	}
	for a := range listen {
		all.Connected[b.tenants.of(a.tenant)]++
	}
	all.Slow = len(slow)
	return all, true, nil
}

// liveAgent reads whose deliveries a subscription is for; one that takes several agents' is nobody's.
func liveAgent(subject string) (tenant, agent string, ok bool) {
	tokens := strings.SplitN(subject, ".", 4)
	if len(tokens) < 4 || tokens[0] != "cim-live" {
		return "", "", false
	}
	tenant, err := subjects.Decode(tokens[1])
	if err != nil {
		return "", "", false
	}
	agent, err = subjects.Decode(tokens[2])
	return tenant, agent, err == nil
}
