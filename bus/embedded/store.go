package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nats-io/nats-server/v2/server"
)

// Files of our own in the store's folder, beside the server's.
const (
	lockFile   = "cimbus.lock"
	markerFile = "cimbus.clean"
)

// store is the folder of the streams while it is ours: locked against a second
// server, and known to have been closed properly or not.
type store struct {
	dir     string
	unclean bool
	lock    *os.File
}

// openStore makes the folder where it is missing, locks it, and takes the mark
// of a clean stop away, durably, before anything is written to the streams.
func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("store folder: %w: name a folder that can be made and written", err)
	}
	lock, err := lockPath(filepath.Join(dir, lockFile))
	switch {
	case errors.Is(err, errLocked):
		return nil, fmt.Errorf("%w: %s: stop the other process or name another folder", ErrStoreInUse, dir)
	case err != nil:
		return nil, fmt.Errorf("store folder: %w: name a folder that can be written", err)
	}
	s := &store{dir: dir, lock: lock}
	if err := s.takeMark(); err != nil {
		return nil, errors.Join(fmt.Errorf("store folder: %w", err), lock.Close())
	}
	return s, nil
}

// takeMark finds out how the last run ended and removes its mark.
func (s *store) takeMark() error {
	err := os.Remove(filepath.Join(s.dir, markerFile))
	switch {
	case err == nil:
		return syncDir(s.dir)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	// No mark: the store is brand-new, or its last run did not come to its end.
	_, err = os.Stat(s.streams())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	s.unclean = true
	return err
}

// close releases the folder, marked as clean where that is true.
func (s *store) close(clean bool) error {
	var err error
	if clean {
		err = s.mark()
	}
	return errors.Join(err, s.lock.Close())
}

// mark says durably that everything stored is on disk. The server's own
// shutdown writes its files without syncing them, so that is made good first:
// otherwise a power cut soon after could leave the mark and take messages.
func (s *store) mark() error {
	if err := syncTree(s.streams()); err != nil {
		return fmt.Errorf("sync the store: %w", err)
	}
	path := filepath.Join(s.dir, markerFile)
	if err := os.WriteFile(path, nil, 0o640); err != nil {
		return fmt.Errorf("mark the store as clean: %w", err)
	}
	if err := syncFile(path); err != nil {
		return fmt.Errorf("mark the store as clean: %w", err)
	}
	return syncDir(s.dir)
}

// Sync brings everything in the store to the disk. In Balanced the server syncs
// messages in its rhythm and the settings of streams and consumers never: a
// power cut, however much later, could leave a stream that cannot be recovered.
// Who has made streams or consumers calls it once.
func (s *Server) Sync() error {
	if err := syncTree(s.store.streams()); err != nil {
		return fmt.Errorf("sync the store: %w", err)
	}
	return nil
}

// streams is the folder the server makes within the one it is given.
func (s *store) streams() string { return filepath.Join(s.dir, server.JetStreamStoreDir) }

func syncTree(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.IsDir():
			err = syncDir(path)
		default:
			err = syncFile(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the server has removed it meanwhile
		}
		return err
	})
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
