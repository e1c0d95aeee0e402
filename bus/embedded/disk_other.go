//go:build !darwin && !freebsd && !linux && !windows

package embedded

import "errors"

// diskSpace is not known here: these systems each ask in a way of their own.
func diskSpace(string) (free, total uint64, err error) { return 0, 0, errors.ErrUnsupported }
