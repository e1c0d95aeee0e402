package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/config"
)

// check is what holds for every configuration: it loads, or says why not.
func check(t *testing.T, from config.Sources) {
	c, err := config.Load(from)
	require.NotNil(t, c)
	require.Len(t, c.Show(), len(config.Keys()))
	if err == nil {
		return
	}
	var problems config.Problems
	require.ErrorAs(t, err, &problems)
	require.NotEmpty(t, problems)
	for _, p := range problems {
		require.NotEmpty(t, p.Problem)
		require.NotEmpty(t, p.Remedy)
		require.NotEmpty(t, p.Source.Layer)
		require.NotContains(t, p.Error(), "\x1b")
	}
}

func FuzzFile(f *testing.F) {
	var reference strings.Builder
	require.NoError(f, config.Reference(&reference))
	for _, seed := range []string{
		reference.String(), "", "~", "---\n---\n", "a: &a [*a]", "&a a: *a", "nats: {addr: ''}", "nats: {<<: {addr: x}}", "? {a: b}\n: c",
		"store: !!binary aGk=", "log: {level: [", "websocket: {origins: [a, , b]}", "\t", "%YAML 1.1\n---\nstore: x", "store: |\n  x\n y",
	} {
		f.Add([]byte(seed))
	}
	name := filepath.Join(f.TempDir(), "cimbus.yaml")
	f.Fuzz(func(t *testing.T, body []byte) {
		require.NoError(t, os.WriteFile(name, body, 0o600))
		check(t, config.Sources{File: name})
	})
}

func FuzzValue(f *testing.F) {
	for _, seed := range []string{"", "127.0.0.1:0", "[::1%lo]:1", "nats://u:p@h", "https://a,b", "10GiB", "9223372036854775807TiB", "1h", "-1", "true", "info"} {
		f.Add("CIMBUS_STORE", seed)
		f.Add("CIMBUS_X", seed)
	}
	keys := config.Keys()
	f.Fuzz(func(t *testing.T, name, text string) {
		environ := []string{name + "=" + text}
		flags := map[string]string{name: text}
		for _, k := range keys {
			environ = append(environ, k.Env+"="+text)
			if k.Flag != "" {
				flags[k.Flag] = text
			}
		}
		check(t, config.Sources{Environ: environ, Flags: flags})
	})
}
