package handlers_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// workerURL names, in a child process of these tests, the server it works for.
const workerURL = "CIMBUS_TEST_WORKER_URL"

// TestMain is also the worker process that the tests kill and freeze: the test binary started again.
func TestMain(m *testing.M) {
	if url := os.Getenv(workerURL); url != "" {
		if err := work(url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// work runs the onCimEvent handler until standard input ends.
func work(url string) error {
	ctx := context.Background()
	b, err := bus.Open(ctx, bus.Options{URL: url, LeaveStreams: true})
	if err != nil {
		return err
	}
	w, err := handlers.Start(ctx, b, oncimevent.New(oncimevent.Options{}))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := w.Close(ctx); err != nil {
		return err
	}
	return b.Close(ctx)
}
