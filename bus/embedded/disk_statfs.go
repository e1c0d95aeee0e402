//go:build darwin || freebsd || linux

package embedded

import (
	"os"
	"syscall"
)

// diskSpace is the room of the file system that holds path, in bytes: what this
// process may still write, and all of it.
func diskSpace(path string) (free, total uint64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return 0, 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	// The types differ from system to system.
	block := uint64(s.Bsize)
	return uint64(max(s.Bavail, 0)) * block, uint64(s.Blocks) * block, nil
}
