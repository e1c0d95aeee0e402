//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package embedded

import (
	"errors"
	"os"
	"syscall"
)

// errLocked is the answer of lockPath when another process holds the lock, or
// this one through another file; errAddrInUse that of the system to listening
// on a taken address.
const (
	errLocked    = syscall.EWOULDBLOCK
	errAddrInUse = syscall.EADDRINUSE
)

// lockPath locks a file for this process until it is closed; the system lets
// go of it however the process ends.
func lockPath(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// syncDir makes the entries of a folder durable.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
