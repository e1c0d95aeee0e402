// Command cimbus is the event bus as one binary: the daemon, and the tools around it. It is a thin shell over the packages; every
// command is in a file of its own, named after its noun.
//
// Answers go to stdout: one JSON object a line where the command line promises it or --json asks for it, tables for people
// otherwise. Everything else goes to stderr. The exit code is 0 when the work is done, 1 when it failed and 2 when the command
// line cannot be understood.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	os.Exit(run(signalled(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}

// sameSignal is how long after the first a signal may be the same one: timeout(1) sends it to the command, then to the command's group.
const sameSignal = 500 * time.Millisecond

// signalled is a context that ends at the first SIGINT or SIGTERM. The second one does not wait for what that set in motion.
func signalled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		first, at := <-signals, time.Now()
		cancel()
		for again := range signals {
			if again != first || time.Since(at) > sameSignal {
				os.Exit(exitFailed)
			}
		}
	}()
	return ctx
}

// outliveReader has writing to a pipe that nobody reads any more fail, which would kill the process otherwise, until what it returns is
// called.
func outliveReader() (end func()) {
	signal.Ignore(syscall.SIGPIPE)
	return func() { signal.Reset(syscall.SIGPIPE) }
}
