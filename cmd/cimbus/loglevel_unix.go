//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package main

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// watchSignals makes the log one level more verbose at SIGUSR1 and sets it back at SIGUSR2, until the function it returns is called.
func (l *logLevel) watchSignals() (stop func()) {
	signals, stopped := make(chan os.Signal, 4), make(chan struct{})
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case s := <-signals:
				if s == syscall.SIGUSR1 {
					l.more("SIGUSR1")
				} else {
					l.reset("SIGUSR2")
				}
			case <-stopped:
				return
			}
		}
	})
	return func() {
		signal.Stop(signals)
		close(stopped)
		watching.Wait()
	}
}
