package main

import (
	"testing"

	"go.uber.org/goleak"
)

// A reader that never returns is left to itself: see interruptible.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/cimbus/cimbus/cmd/cimbus.endless.Read"))
}
