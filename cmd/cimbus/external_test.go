package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
)

// jetStream is a NATS server that is nobody's bus yet, with a listener. It returns its URL.
func jetStream(t *testing.T, configure func(*server.Options)) string {
	t.Helper()
	s := bustest.Server(t, func(o *embedded.Options) {
		o.NATSAddr, o.ServerName = "127.0.0.1:0", "elsewhere"
		o.Configure = configure
	})
	return s.NATSURL()
}

// users lets in two users: the bus, who may do everything, and ann, who may do what an agent may.
func users(o *server.Options) {
	o.Users = []*server.User{
		{Username: "bus", Password: "pw"},
		{Username: "ann", Password: "pw", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{"cim-ctl.acme.ann.*"}},
			Subscribe: &server.SubjectPermission{Allow: []string{"cim-live.acme.ann.>", "cim-inbox.acme.ann.>"}},
		}},
	}
}

// as adds a user to a URL.
func as(user, url string) string { return "nats://" + user + ":pw@" + url[len("nats://"):] }

func TestAServerWithoutJetStreamIsToldWithItsRemedy(t *testing.T) {
	url := jetStream(t, func(o *server.Options) { o.JetStream = false })
	for _, args := range [][]string{
		{"publish", "--tenant", "acme", "--server", url},
		{"serve", "--nats-url", url, "--http-addr", ""},
	} {
		got := invoke(t, message("1"), args...)
		require.Equal(t, exitFailed, got.code)
		require.Contains(t, got.stderr, "NATS server has no JetStream at "+url+": start it with JetStream (-js)")
	}
}

// deleteStream takes a stream away behind everybody's back.
func deleteStream(t *testing.T, url, name string) {
	t.Helper()
	nc, err := nats.Connect(url)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	require.NoError(t, js.DeleteStream(t.Context(), name))
}

func TestReadinessIsAnsweredWithoutWaitingForAServerThatIsGone(t *testing.T) {
	proxy := bustest.NewProxy(t, jetStream(t, nil))
	r := start(t, "serve", "--nats-url", proxy.URL(), "--http-addr", "127.0.0.1:0")
	r.saw(&r.stdout, "\n")
	d := served{r, lines[announcement](t, r.stdout.String())[0]}
	proxy.Down()
	bustest.Eventually(t, patience, func() error {
		code, body := d.get(t, "/readyz")
		if code != http.StatusServiceUnavailable || !strings.Contains(body, `{"check":"streams","ok":false,"reason":"not asked: there is no server to answer"}`) {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	proxy.Up()
	bustest.Eventually(t, patience, func() error {
		if code, body := d.get(t, "/readyz"); code != http.StatusOK {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
}

// purgeEvents has the events before a sequence expire.
func purgeEvents(t *testing.T, url string, before uint64) {
	t.Helper()
	nc, err := nats.Connect(url)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	s, err := js.Stream(t.Context(), "CIM_EVENTS")
	require.NoError(t, err)
	require.NoError(t, s.Purge(t.Context(), jetstream.WithPurgeSequence(before)))
}

func TestAnOutageIsALineOfEachPartWhenItBeginsAndOneWhenItIsOver(t *testing.T) {
	proxy := bustest.NewProxy(t, jetStream(t, nil))
	r := start(t, "serve", "--nats-url", proxy.URL(), "--http-addr", "")
	r.saw(&r.stdout, "\n")
	shows := func(text string) {
		bustest.Eventually(t, 3*patience, func() error {
			if !strings.Contains(r.stderr.String(), text) {
				return errors.New("no line has " + text)
			}
			return nil
		})
	}
	proxy.Down()
	shows("connection to NATS lost")
	shows("cimbus.handler: NATS is in trouble")
	proxy.Up()
	shows("connection to NATS is back")
	shows("NATS is in trouble, trying again: over")
	r.interrupt()
	require.Zero(t, r.wait())
	_, outage, _ := strings.Cut(r.stderr.String(), "connection to NATS lost")
	require.Equal(t, 1, strings.Count(outage, "connection to NATS"), outage)
	require.LessOrEqual(t, strings.Count(outage, "\n"), 8, "lost, in trouble, back, over, told to end, ended, and room for a second trouble: %s", outage)
}
