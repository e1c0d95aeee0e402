package bus_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/subjects"
)

// road is a bus with a stand-in for the conversation's worker: it writes what a worker writes, in the order of the commit
// protocol, when the test says so.
type road struct {
	t      testing.TB
	server *embedded.Server
	bus    *bus.Bus
	js     jetstream.JetStream
}

// newRoad opens a bus on a server of its own, which takes clients as "bus" (everything), as "ada" and "ben" (an agent's
// permissions) of tenant acme.
func newRoad(t testing.TB, o bus.StreamOptions, opts ...func(*embedded.Options)) *road {
	t.Helper()
	opts = append([]func(*embedded.Options){func(o *embedded.Options) {
		o.Configure = func(so *server.Options) { so.Users = roadUsers() }
	}}, opts...)
	r := &road{t: t, server: bustest.Server(t, opts...)}
	b, err := bus.Open(r.within(time.Minute), bus.Options{Conn: r.connect("bus"), Streams: o})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, b.Close(ctx))
	})
	r.bus, r.js = b, b.JetStream()
	return r
}

func roadUsers() []*server.User {
	users := []*server.User{{Username: "bus", Password: "secret"}}
	for _, agent := range []string{"ada", "ben"} {
		users = append(users, &server.User{Username: agent, Password: "secret", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{"cim-ctl.acme." + agent + ".*"}},
			Subscribe: &server.SubjectPermission{Allow: []string{"cim-live.acme." + agent + ".>", "cim-inbox.acme." + agent + ".>"}},
		}})
	}
	return users
}

func (r *road) connect(user string, opts ...nats.Option) *nats.Conn {
	r.t.Helper()
	opts = append([]nats.Option{nats.UserInfo(user, "secret"), nats.MaxReconnects(-1), nats.ReconnectWait(10 * time.Millisecond),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})}, opts...)
	nc, err := r.server.Connect(opts...)
	require.NoError(r.t, err)
	r.t.Cleanup(nc.Close)
	return nc
}

// dial connects over an address, which may be a proxy's.
func (r *road) dial(url, user string) *nats.Conn {
	r.t.Helper()
	nc, err := nats.Connect(url, nats.UserInfo(user, "secret"), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond), nats.IgnoreDiscoveredServers(),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	require.NoError(r.t, err)
	r.t.Cleanup(nc.Close)
	return nc
}

func (r *road) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	r.t.Cleanup(cancel)
	return ctx
}

func (r *road) publish(m *nats.Msg) uint64 {
	r.t.Helper()
	ack, err := r.js.PublishMsg(r.within(time.Minute), m)
	require.NoError(r.t, err)
	return ack.Sequence
}

func sequenceHeader(s uint64) nats.Header {
	return nats.Header{bus.HeaderSequence: []string{strconv.FormatUint(s, 10)}}
}

// deliver stores a delivery of event s and returns its sequence in CIM_DELIVERIES.
func (r *road) deliver(agent, conversation string, s uint64) uint64 {
	r.t.Helper()
	return r.publish(&nats.Msg{Subject: deliverySubject(agent, "onCimEvent", conversation), Header: sequenceHeader(s), Data: fmt.Appendf(nil, `{"s":%d}`, s)})
}

func deliverySubject(agent, kind, conversation string) string {
	s, err := subjects.Delivery{Tenant: "acme", Agent: agent, Type: kind, Conversation: conversation}.Subject()
	if err != nil {
		panic(err)
	}
	return s
}

// index commits event s.
func (r *road) index(conversation string, s uint64, headers ...string) {
	r.t.Helper()
	subject, err := subjects.Index{Tenant: "acme", Conversation: conversation}.Subject()
	require.NoError(r.t, err)
	h := sequenceHeader(s)
	h.Set(bus.HeaderOutcome, bus.OutcomeDelivered)
	for i := 0; i+1 < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	r.publish(&nats.Msg{Subject: subject, Header: h})
}

// member writes an agent's record.
func (r *road) member(agent, conversation string, since, left uint64) {
	r.t.Helper()
	subject, err := subjects.MemberKey{Tenant: "acme", Agent: agent, Conversation: conversation}.Subject()
	require.NoError(r.t, err)
	r.publish(&nats.Msg{Subject: subject, Data: fmt.Appendf(nil, `{"role":"PRIMARY","since":%d,"left":%d}`, since, left)})
}

// event stores an event and returns its sequence, which is its Cim-Sequence.
func (r *road) event(conversation, id string) uint64 {
	r.t.Helper()
	body := fmt.Appendf(nil, `{"id":%q,"name":"CUSTOMER_MESSAGE","conversationId":%q}`, id, conversation)
	return r.publish(&nats.Msg{Subject: "cim.acme.web.CUSTOMER_MESSAGE", Header: nats.Header{}, Data: body})
}

func (r *road) serve(o bus.ControlOptions) *bus.Control {
	r.t.Helper()
	c, err := r.bus.ServeControl(r.within(time.Minute), o)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { require.NoError(r.t, c.Close()) })
	return c
}

// last is a stream's last sequence.
func (r *road) last(stream string) uint64 {
	r.t.Helper()
	s, err := r.js.Stream(r.within(time.Minute), stream)
	require.NoError(r.t, err)
	return s.CachedInfo().State.LastSeq
}

// caller sends control requests by hand, as a client in any language would.
type caller struct {
	t     testing.TB
	nc    *nats.Conn
	agent string
	inbox string
	sub   *nats.Subscription
	n     int
}

func (r *road) caller(user string) *caller {
	r.t.Helper()
	c := &caller{t: r.t, nc: r.connect(user), agent: user, inbox: "cim-inbox.acme." + user + ".hand."}
	var err error
	c.sub, err = c.nc.SubscribeSync(c.inbox + "*")
	require.NoError(r.t, err)
	return c
}

// ask returns the messages of the answer and the body of its last.
func (c *caller) ask(verb, body string) (messages []*nats.Msg, end string) {
	c.t.Helper()
	c.n++
	reply := c.inbox + strconv.Itoa(c.n)
	require.NoError(c.t, c.nc.PublishRequest("cim-ctl.acme."+c.agent+"."+verb, reply, []byte(body)))
	for {
		m, err := c.sub.NextMsg(10 * time.Second)
		require.NoError(c.t, err, "%s %s", verb, body)
		if m.Subject != reply {
			continue
		}
		if m.Header.Get(bus.HeaderStatus) == bus.StatusEnd {
			return messages, string(m.Data)
		}
		messages = append(messages, m)
	}
}
