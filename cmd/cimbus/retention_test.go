package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus/bustest"
)

func TestADaemonKeepsATenantsMessagesAsLongAsConfigured(t *testing.T) {
	file := write(t, "cimbus.yaml", "retention: ['acme=1s']\n")
	d := serve(t, "--config", file)
	d.do(t, "", "conversation", "join", "--tenant", "acme", "--conversation", "c1", "--agent", "ann")
	d.do(t, message("1"), "publish", "--tenant", "other")
	bustest.Eventually(t, patience, func() error {
		if n := lines[streamLine](t, d.do(t, "", "streams", "info", "--json"))[0].Messages; n != 1 {
			return fmt.Errorf("%d events are there", n)
		}
		return nil
	})
	require.Contains(t, d.do(t, "", "conversation", "members", "--tenant", "acme", "--conversation", "c1"), "ann")
	got := invoke(t, "", "serve", "--config", write(t, "long.yaml", "retention: ['acme=200h']\n"))
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.stderr, "retention")
}
