package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
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

func TestAContextNamesTheServerAndAFlagOverridesIt(t *testing.T) {
	url := jetStream(t, users)
	home := t.TempDir()
	dir := filepath.Join(home, "nats", "context")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	good, stale := filepath.Join(dir, "good.json"), filepath.Join(dir, "stale.json")
	require.NoError(t, os.WriteFile(good, []byte(`{"url":"`+url+`","user":"bus","password":"pw"}`), 0o600))
	require.NoError(t, os.WriteFile(stale, []byte(`{"url":"nats://127.0.0.1:1","user":"bus","password":"pw"}`), 0o600))
	t.Setenv("XDG_CONFIG_HOME", home)

	for _, c := range []struct {
		environ, flags []string
		code           int
		complaint      string
	}{
		{nil, []string{"--context", "good"}, exitDone, ""},
		{nil, []string{"--context", good}, exitDone, ""},
		{[]string{"NATS_CONTEXT=good"}, nil, exitDone, ""},
		{[]string{"NATS_URL=" + as("bus", url)}, nil, exitDone, ""},
		{[]string{"NATS_URL=nats://127.0.0.1:1"}, []string{"--context", "good"}, exitDone, ""},
		{[]string{"NATS_CONTEXT=stale"}, []string{"--server", as("bus", url)}, exitDone, ""},
		{nil, []string{"--context", "stale", "--server", url}, exitDone, ""},
		{nil, []string{"--context", "stale"}, exitFailed, `no NATS server reachable at context "stale"`},
		{nil, []string{"--context", "none"}, exitFailed, `unknown context "none"`},
		{nil, []string{"--server", url}, exitFailed, "NATS server refused the credentials at " + url + ": check the user, token or credentials file"},
		{nil, []string{"--server", "nats://bus:wrong@" + url[len("nats://"):]}, exitFailed, "refused the credentials at " + url},
		{nil, []string{"--server", url, "--creds", "/no/such.creds"}, exitFailed, "give the path of a credentials file"},
		{nil, []string{"--server", "nats://me:secret@127.0.0.1:1"}, exitFailed, "no NATS server reachable at nats://127.0.0.1:1: check the address"},
	} {
		got := invokeIn(t, c.environ, "", append([]string{"streams", "info"}, c.flags...)...)
		require.Equal(t, c.code, got.code, "%v %v: %s", c.environ, c.flags, got.stderr)
		require.Contains(t, got.stderr, c.complaint)
		require.NotContains(t, got.stderr, "secret")
		require.NotContains(t, got.stderr, "wrong@")
	}
}

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
