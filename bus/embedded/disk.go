package embedded

import "fmt"

// Disk is the room on the file system of a folder, in bytes.
type Disk struct {
	Free  uint64 // what may still be written
	Total uint64
}

// ReadDisk asks for the room where a store folder is. Where the system does not
// tell, the error is an errors.ErrUnsupported.
func ReadDisk(dir string) (Disk, error) {
	free, total, err := diskSpace(dir)
	if err != nil {
		return Disk{}, fmt.Errorf("disk of the store: %w", err)
	}
	return Disk{Free: free, Total: total}, nil
}
