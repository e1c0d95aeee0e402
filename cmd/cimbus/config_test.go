package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/config"
)

func TestConfigInitWritesAFileThatIsValidAndNeverOverwritesOne(t *testing.T) {
	out := filepath.Join(t.TempDir(), "cimbus.yaml")
	require.Equal(t, result{}, invoke(t, "", "config", "init", "--out", out))
	require.Equal(t, result{stdout: "the configuration is valid\n"}, invoke(t, "", "config", "validate", "--config", out))
	written, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, string(written), invoke(t, "", "config", "init").stdout)

	got := invoke(t, "", "config", "init", "--out", out)
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.stderr, out+" is there already, and is left as it is")
}

func TestConfigShowSaysWhereEachValueComesFrom(t *testing.T) {
	file := write(t, "cimbus.yaml", "store: /srv/cimbus\n")
	environ := []string{"CIMBUS_NATS_URL=nats://ann:secret@bus.example:4222"}
	got := invokeIn(t, environ, "", "config", "show", "--config", file)
	require.Zero(t, got.code, got.stderr)
	require.Regexp(t, `(?m)^SETTING +VALUE +SOURCE$`, got.stdout)
	require.Regexp(t, `(?m)^store +/srv/cimbus +file .*cimbus\.yaml:1$`, got.stdout)
	require.Regexp(t, `(?m)^nats\.url +nats://\*\*\*@bus\.example:4222 +environment CIMBUS_NATS_URL$`, got.stdout)
	require.Regexp(t, `(?m)^nats\.creds +"" +default$`, got.stdout)
	require.NotContains(t, got.stdout, "secret")

	got = invokeIn(t, environ, "", "config", "show", "--config", file, "--json")
	require.Equal(t, len(config.Keys()), strings.Count(got.stdout, "\n"))
	require.Contains(t, got.stdout, `{"key":"store","value":"/srv/cimbus","source":"file `+file+`:1"}`+"\n")
}

func TestConfigValidateListsEveryProblemWithKeyAndRemedy(t *testing.T) {
	file := write(t, "cimbus.yaml", "nats: {addrs: x}\nretry: {attempts: none}\n")
	got := invoke(t, "", "config", "validate", "--config", file)
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.stderr, "nats.addrs (file "+file+":1) is not a setting; did you mean nats.addr?")
	require.Contains(t, got.stderr, `retry.attempts "none" (file `+file+`:2) is not a whole number; write`)

	got = invoke(t, "", "config", "validate", "--config", file, "--json")
	require.Equal(t, exitFailed, got.code)
	require.Empty(t, got.stderr)
	require.Contains(t, got.stdout, `{"key":"nats.addrs","value":"","source":"file `+file+`:1","problem":"is not a setting","remedy":"did you mean nats.addr? otherwise remove it"}`+"\n")
	require.Equal(t, 2, strings.Count(got.stdout, "\n"))

	// What can be read of it is shown all the same.
	got = invoke(t, "", "config", "show", "--config", file)
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.stdout, "durability ")
	require.Contains(t, got.stderr, "nats.addrs")
}
