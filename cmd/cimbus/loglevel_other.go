//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package main

// watchSignals does nothing: this system has no signals that a program may give a meaning.
func (l *logLevel) watchSignals() (stop func()) { return func() {} }
