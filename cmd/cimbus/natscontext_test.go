package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"
)

// contexts are the folders of the nats command line in a home of their own.
type contexts struct {
	t    *testing.T
	home string
	dir  string
}

func newContexts(t *testing.T) contexts {
	t.Helper()
	home := t.TempDir()
	dir := filepath.Join(home, ".config", "nats", "context")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	return contexts{t, home, dir}
}

// add writes a context with these fields and returns its path.
func (c contexts) add(name string, fields map[string]any) string {
	c.t.Helper()
	text, err := json.Marshal(fields)
	require.NoError(c.t, err)
	return c.write(name, string(text))
}

func (c contexts) write(name, text string) string {
	c.t.Helper()
	path := filepath.Join(c.dir, name+".json")
	require.NoError(c.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// selects makes a context the one that is used where none is named.
func (c contexts) selects(name string) {
	c.t.Helper()
	require.NoError(c.t, os.WriteFile(filepath.Join(c.home, ".config", "nats", "context.txt"), []byte(name+"\n"), 0o600))
}

const dead = "nats://127.0.0.1:1"

func TestServerContextAndEnvironmentComeInTheOrderOfTheNATSCommandLine(t *testing.T) {
	url := jetStream(t, users)
	c := newContexts(t)
	good := c.add("good", map[string]any{"url": url, "user": "bus", "password": "pw"})
	c.add("stale", map[string]any{"url": dead, "user": "bus", "password": "pw"})
	c.add("nobody", map[string]any{"url": url})
	c.add("secret", map[string]any{"url": "nats://bus:secret@127.0.0.1:1"})
	t.Chdir(c.dir)

	for _, each := range []struct {
		selected       string
		environ, flags []string
		code           int
		complaint      string
	}{
		{"", nil, []string{"--context", "good"}, exitDone, ""},
		{"", nil, []string{"--context", good}, exitDone, ""},
		{"", nil, []string{"--context", "good.json"}, exitDone, ""},
		{"", []string{"NATS_CONTEXT=good"}, nil, exitDone, ""},
		{"good", nil, nil, exitDone, ""},
		{"", []string{"NATS_URL=" + as("bus", url)}, nil, exitDone, ""},
		// A flag goes before the variable of the same meaning, and both before what was selected.
		{"", []string{"NATS_CONTEXT=stale"}, []string{"--context", "good"}, exitDone, ""},
		{"stale", []string{"NATS_CONTEXT=good"}, nil, exitDone, ""},
		{"stale", nil, []string{"--context", "good"}, exitDone, ""},
		{"", []string{"NATS_URL=" + dead}, []string{"--server", as("bus", url)}, exitDone, ""},
		// A URL takes the place of the context's, and leaves it the rest.
		{"", nil, []string{"--context", "stale", "--server", url}, exitDone, ""},
		{"", []string{"NATS_URL=" + url}, []string{"--context", "stale"}, exitDone, ""},
		{"stale", nil, []string{"--server", url}, exitDone, ""},
		{"stale", []string{"NATS_URL=" + url}, nil, exitDone, ""},
		{"", []string{"NATS_URL=" + dead}, []string{"--context", "good"}, exitFailed, `no NATS server reachable at ` + dead + ` (context "good")`},
		{"good", []string{"NATS_URL=" + dead}, nil, exitFailed, `no NATS server reachable at ` + dead + ` (selected context "good")`},
		{"", []string{"NATS_CONTEXT=nobody"}, []string{"--server", as("bus", url)}, exitDone, ""},
		{"good", nil, []string{"--server", dead}, exitFailed, "(the context is the one selected by nats context select; --context names another, --no-context none)"},
		{"good", nil, []string{"--no-context", "--server", url}, exitFailed, "NATS server refused the credentials at " + url + ": check"},
		{"good", []string{"NATS_CONTEXT=good", "NATS_URL=" + as("bus", url)}, []string{"--no-context"}, exitDone, ""},

		{"", nil, []string{"--context", "stale"}, exitFailed, `no NATS server reachable at context "stale"`},
		{"stale", nil, nil, exitFailed, `no NATS server reachable at selected context "stale"`},
		{"", nil, []string{"--context", "secret"}, exitFailed, `no NATS server reachable at context "secret"`},
		{"", nil, []string{"--server", url}, exitFailed, "NATS server refused the credentials at " + url + ": check the user, token or credentials file"},
		{"", nil, []string{"--server", "nats://bus:wrong@" + url[len("nats://"):]}, exitFailed, "refused the credentials at " + url},
		{"", nil, []string{"--server", url, "--creds", "/no/such.creds"}, exitFailed, "give the path of a credentials file"},
		{"", nil, []string{"--server", "nats://me:secret@127.0.0.1:1"}, exitFailed, "no NATS server reachable at nats://127.0.0.1:1: check the address"},
	} {
		c.selects(each.selected)
		got := invokeIn(t, append([]string{"HOME=" + c.home}, each.environ...), "", append([]string{"streams", "info"}, each.flags...)...)
		require.Equal(t, each.code, got.code, "%+v: %s", each, got.stderr)
		require.Contains(t, got.stderr, each.complaint)
		require.NotContains(t, got.stderr, "secret@")
		require.NotContains(t, got.stderr, "wrong@")
	}
	c.selects("good")
	elsewhere := invokeIn(t, []string{"HOME=/nowhere", "XDG_CONFIG_HOME=" + filepath.Join(c.home, ".config")}, "", "streams", "info")
	require.Zero(t, elsewhere.code, elsewhere.stderr)
}

func TestAContextThatCannotBeUsedSaysWhereItIsAndWhatIsWrongWithIt(t *testing.T) {
	url := jetStream(t, users)
	c := newContexts(t)
	let := map[string]any{"url": url, "user": "bus", "password": "pw"}
	with := func(key string, value any) map[string]any {
		m := map[string]any{key: value}
		maps.Copy(m, let)
		return m
	}
	broken := c.write("broken", `{"url":"nats://bus:secret@127.0.0.1:1",`)
	odd := c.write("odd", `{"url":4222}`)
	nsc := c.add("nsc", with("nsc", "nsc://op/acc/user"))
	op := c.add("op", map[string]any{"url": url, "creds": "op://vault/item"})
	token := c.add("token", with("user_jwt", "eyJ"))
	prefix := c.add("prefix", with("jetstream_api_prefix", "$JS.hub.API"))
	c.add("api", with("jetstream_api_prefix", "$JS.API"))
	c.add("domain", with("jetstream_domain", "hub"))
	c.add("nocreds", map[string]any{"url": url, "creds": "/no/such.creds"})
	c.add("noseed", map[string]any{"url": url, "nkey": "/no/such.nk"})
	c.add("noca", map[string]any{"url": url, "ca": "/no/such.pem"})

	for _, each := range []struct{ name, complaint string }{
		{"none", `unknown context "none": in ` + c.dir + ` there are api, broken, domain, noca, nocreds, noseed, nsc, odd, op, prefix, token`},
		{"broken", `context "broken" (` + broken + `): not what the nats command line writes: unexpected end of JSON input: correct it, with nats context edit`},
		{"odd", `context "odd" (` + odd + `): not what the nats command line writes: `},
		{"../context/api", `context "../context/api" is neither a name nor a file`},
		{"sub/api", `context "sub/api" is neither a name nor a file`},
		{"/no/such.json", `context "/no/such.json": open /no/such.json: no such file`},
		{"nsc", `context "nsc" (` + nsc + `): the credentials are not in a file: write them into one, and its path as creds`},
		{"op", `context "op" (` + op + `): the credentials are not in a file`},
		{"token", `context "token" (` + token + `): user_jwt is not supported`},
		{"prefix", `context "prefix" (` + prefix + `): jetstream_api_prefix is not supported`},
		{"domain", `jetstream_domain is "hub", that of the server at ` + url + ` is "": name a server of the domain`},
		{"nocreds", "/no/such.creds"},
		{"noseed", "/no/such.nk"},
		{"noca", "/no/such.pem"},
		{"api", ""},
	} {
		got := invokeIn(t, []string{"HOME=" + c.home}, "", "streams", "info", "--context", each.name)
		require.Contains(t, got.stderr, each.complaint)
		require.Equal(t, each.complaint == "", got.code == exitDone, got.stderr)
		require.NotContains(t, got.stderr, "secret@")

		c.selects(each.name)
		got = invokeIn(t, []string{"HOME=" + c.home}, "", "streams", "info")
		require.Contains(t, got.stderr, each.complaint)
		require.Equal(t, each.complaint == "", got.code == exitDone, got.stderr)
	}
	got := invokeIn(t, nil, "", "streams", "info", "--context", "api")
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.stderr, `context "api": neither $XDG_CONFIG_HOME nor $HOME says where contexts are kept: give the path of its file`)
	empty := t.TempDir()
	got = invokeIn(t, []string{"XDG_CONFIG_HOME=" + empty}, "", "streams", "info", "--context", "api")
	require.Contains(t, got.stderr, `unknown context "api": there is none in `+filepath.Join(empty, "nats", "context")+`: make it with nats context add`)
	c.selects("gone")
	got = invokeIn(t, []string{"HOME=" + c.home}, "", "streams", "info")
	require.Contains(t, got.stderr, `(the context is the one selected by nats context select; --context names another, --no-context none)`)
}

func TestEveryWayInThatAContextKnowsIsHonoured(t *testing.T) {
	c := newContexts(t)
	user, err := nkeys.CreateUser()
	require.NoError(t, err)
	seed, err := user.Seed()
	require.NoError(t, err)
	public, err := user.PublicKey()
	require.NoError(t, err)
	nk := filepath.Join(c.home, "user.nk")
	require.NoError(t, os.WriteFile(nk, seed, 0o600))
	ca, certificate := selfSigned(t, c.home)
	creds, operated := operator(t, c.home)

	byUser := jetStream(t, users)
	byCreds := jetStream(t, operated)
	c.add("user", map[string]any{"url": byUser, "user": "bus", "password": "pw"})
	c.add("token", map[string]any{"url": jetStream(t, func(o *server.Options) { o.Authorization = "open sesame" }), "token": "open sesame"})
	c.add("nkey", map[string]any{"url": jetStream(t, func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: public}} }), "nkey": nk})
	c.add("ca", map[string]any{"ca": ca, "url": jetStream(t, func(o *server.Options) {
		o.TLS, o.TLSConfig = true, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	})})
	c.add("creds", map[string]any{"url": byCreds, "creds": creds})
	c.add("inbox", map[string]any{"inbox_prefix": "_INBOX_ops", "user": "ops", "password": "pw", "url": jetStream(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "ops", Password: "pw", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{"$JS.API.>"}},
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX_ops.>"}},
		}}}
	})})
	for _, name := range []string{"user", "token", "nkey", "ca", "creds", "inbox"} {
		got := invokeIn(t, []string{"HOME=" + c.home}, "", "streams", "info", "--context", name)
		require.Zero(t, got.code, "%s: %s", name, got.stderr)
	}
	// Credentials on the command line are the only ones.
	refused := invokeIn(t, []string{"HOME=" + c.home}, "", "streams", "info", "--context", "user", "--creds", creds)
	require.Equal(t, exitFailed, refused.code)
	require.Contains(t, refused.stderr, "refused the credentials")
	for _, environ := range [][]string{{"NATS_CREDS=" + creds}, nil} {
		args := []string{"streams", "info", "--context", "user", "--server", byCreds}
		if environ == nil {
			args = append(args, "--creds", creds)
		}
		got := invokeIn(t, append([]string{"HOME=" + c.home}, environ...), "", args...)
		require.Zero(t, got.code, got.stderr)
	}
}

func TestADaemonHasItsServerFromTheConfiguredContextNotTheSelectedOne(t *testing.T) {
	url := jetStream(t, users)
	c := newContexts(t)
	c.add("good", map[string]any{"url": url, "user": "bus", "password": "pw"})
	c.add("stale", map[string]any{"url": dead})
	c.selects("stale")
	environ := []string{"HOME=" + c.home}
	d := startIn(t, append(environ, "CIMBUS_NATS_CONTEXT=good"), "serve", "--http-addr", "")
	d.saw(&d.stdout, "\n")
	require.Equal(t, url, lines[announcement](t, d.stdout.String())[0].NATS)
	alone := startIn(t, environ, "serve", "--store", t.TempDir(), "--nats-addr", "127.0.0.1:0", "--websocket-addr", "", "--http-addr", "")
	alone.saw(&alone.stdout, "\n")
}

// selfSigned makes a certificate for 127.0.0.1 that is its own authority, and the file of it.
func selfSigned(t *testing.T, dir string) (file string, _ tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	require.NoError(t, err)
	file = filepath.Join(dir, "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return file, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// operator makes an operator with an account that has JetStream, the credentials file of a user in it, and what a server needs to know.
func operator(t *testing.T, dir string) (creds string, configure func(*server.Options)) {
	t.Helper()
	pair := func(create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		kp, err := create()
		require.NoError(t, err)
		public, err := kp.PublicKey()
		require.NoError(t, err)
		return kp, public
	}
	ok, operatorKey := pair(nkeys.CreateOperator)
	ak, accountKey := pair(nkeys.CreateAccount)
	uk, userKey := pair(nkeys.CreateUser)
	_, systemKey := pair(nkeys.CreateAccount)
	oc := jwt.NewOperatorClaims(operatorKey)
	oc.SystemAccount = systemKey
	resolver := &server.MemAccResolver{}
	for _, key := range []string{accountKey, systemKey} {
		ac := jwt.NewAccountClaims(key)
		if key == accountKey {
			ac.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
		}
		text, err := ac.Encode(ok)
		require.NoError(t, err)
		require.NoError(t, resolver.Store(key, text))
	}
	user, err := jwt.NewUserClaims(userKey).Encode(ak)
	require.NoError(t, err)
	seed, err := uk.Seed()
	require.NoError(t, err)
	text, err := jwt.FormatUserConfig(user, seed)
	require.NoError(t, err)
	creds = filepath.Join(dir, "user.creds")
	require.NoError(t, os.WriteFile(creds, text, 0o600))
	return creds, func(o *server.Options) {
		o.TrustedOperators, o.AccountResolver, o.SystemAccount = []*jwt.OperatorClaims{oc}, resolver, systemKey
	}
}
