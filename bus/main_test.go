package bus_test

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain makes sure that whatever the bus started is over when it is closed.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
