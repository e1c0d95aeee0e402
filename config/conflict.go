package config

import (
	"net"
	"net/netip"
	"strings"
)

// rule is a check that needs more than one setting. It is skipped while any of
// them is bad by itself.
type rule struct {
	key     string   // the setting to blame
	others  []string // what it was held against, named in the problem
	broken  func(*Config) bool
	problem string
	remedy  string
}

func rules() []rule {
	all := []rule{
		{key: "store",
			broken:  func(c *Config) bool { return !c.External() && c.Store == "" },
			problem: "is empty", remedy: "name a folder for the embedded server's streams, or set nats.url"},
		{key: "nats.context", others: []string{"nats.url"},
			broken:  func(c *Config) bool { return c.NATS.Context != "" && c.NATS.URL != "" },
			problem: "is a second name of the server", remedy: "keep one of the two"},
		{key: "nats.creds", others: []string{"nats.url", "nats.context"},
			broken:  func(c *Config) bool { return c.NATS.Creds != "" && !c.External() },
			problem: "is for an external server, and there is none", remedy: "set nats.url or nats.context too, or remove it"},
		{key: "streams.replicas", others: []string{"nats.url", "nats.context"},
			broken:  func(c *Config) bool { return c.Streams.Replicas > 1 && !c.External() },
			problem: "is more than the embedded server has", remedy: "write 0 or 1, or set nats.url to a cluster"},
		{key: "streams.duplicate_window", others: []string{"streams.events.max_age"},
			broken:  func(c *Config) bool { return c.Streams.DuplicateWindow > c.Streams.Events.MaxAge },
			problem: "is longer than events are kept", remedy: "shorten it, or raise streams.events.max_age"},
		{key: "retention", others: []string{"streams.events.max_age"},
			broken: func(c *Config) bool {
				for _, age := range c.Retention {
					if age > c.Streams.Events.MaxAge {
						return true
					}
				}
				return false
			},
			problem: "keeps a tenant's messages for longer than events are kept", remedy: "shorten it, or raise streams.events.max_age"},
		{key: "workers.pull_expiry", others: []string{"workers.pinned_ttl"},
			broken:  func(c *Config) bool { return c.Workers.PullExpiry >= c.Workers.PinnedTTL/2 },
			problem: "is not below half of the pin's time, and a worker at rest would lose it",
			remedy:  "shorten it, or raise workers.pinned_ttl"},
		{key: "retry.first", others: []string{"retry.longest"},
			broken:  func(c *Config) bool { return c.Retry.First > c.Retry.Longest },
			problem: "is longer than the longest pause", remedy: "shorten it, or raise retry.longest"},
	}
	return append(all, listeners()...)
}

// listeners are the rules of the addresses the process itself listens on. There
// are no identities that could guard a listener, and so none may be reached from
// another machine.
func listeners() []rule {
	type listener struct {
		key  string
		addr func(*Config) string // "" where it does not apply
	}
	embedded := func(c *Config, addr string) string {
		if c.External() {
			return ""
		}
		return addr
	}
	all := []listener{
		{"nats.addr", func(c *Config) string { return embedded(c, c.NATS.Addr) }},
		{"websocket.addr", func(c *Config) string { return embedded(c, c.WebSocket.Addr) }},
		{"http.addr", func(c *Config) string { return c.HTTP.Addr }},
	}
	var found []rule
	for i, l := range all {
		found = append(found, rule{key: l.key,
			broken:  func(c *Config) bool { return l.addr(c) != "" && !isLoopback(l.addr(c)) },
			problem: "is not on loopback, and open access exists only there",
			remedy:  "listen on 127.0.0.1, ::1 or localhost, behind a proxy that checks who connects"})
		for _, other := range all[:i] {
			found = append(found, rule{key: l.key, others: []string{other.key},
				broken:  func(c *Config) bool { return isSame(l.addr(c), other.addr(c)) },
				problem: "is taken by another listener", remedy: "give each a port of its own, or 0 for a free one"})
		}
	}
	return found
}

// conflicts checks the rules whose settings are not bad by themselves.
func (c *Config) conflicts(bad map[string]bool) Problems {
	values := map[string]Value{}
	for _, v := range c.values {
		values[v.Key] = v
	}
	var found Problems
next:
	for _, r := range rules() {
		for _, key := range append([]string{r.key}, r.others...) {
			if bad[key] {
				continue next
			}
		}
		if !r.broken(c) {
			continue
		}
		v := values[r.key]
		problem := []string{r.problem}
		for _, key := range r.others {
			problem = append(problem, "with "+key+" "+quote(values[key].Value)+" ("+values[key].Source.String()+")")
		}
		found = append(found, &Problem{Key: r.key, Value: v.Value, Source: v.Source, Problem: strings.Join(problem, ", "), Remedy: r.remedy})
	}
	return found
}

// isLoopback reports whether only this machine can reach host:port. A name other
// than localhost resolves to whatever someone else says.
func isLoopback(addr string) bool {
	host, _, _ := net.SplitHostPort(addr)
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// isSame reports whether two listeners want one host and port.
func isSame(a, b string) bool {
	_, port, err := net.SplitHostPort(a)
	return err == nil && a == b && port != "0"
}
