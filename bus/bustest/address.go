package bustest

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// address is a loopback address that is free now and likely to stay so while
// a server that has it is down: its port lies below those that systems give to
// outgoing connections and to port 0.
func address(t testing.TB) string {
	t.Helper()
	const from, to, attempts = 10_000, 32_000, 100
	var err error
	for range attempts {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(from+rand.IntN(to-from)))
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil {
			require.NoError(t, l.Close())
			return addr
		}
	}
	require.NoError(t, err, "no free port")
	return ""
}
