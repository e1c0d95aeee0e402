package embedded

import (
	"os"
	"syscall"
)

// errLocked is ERROR_SHARING_VIOLATION, the answer of lockPath when the file
// is open elsewhere; errAddrInUse is WSAEADDRINUSE.
const (
	errLocked    = syscall.Errno(32)
	errAddrInUse = syscall.Errno(10048)
)

// lockPath opens a file that cannot be opened again until it is closed; the
// system closes it however the process ends.
func lockPath(path string) (*os.File, error) {
	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	const notShared = 0
	h, err := syscall.CreateFile(name, syscall.GENERIC_READ|syscall.GENERIC_WRITE, notShared, nil,
		syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(h), path), nil
}

// syncDir has nothing to do: the file system journals its folders.
func syncDir(string) error { return nil }
