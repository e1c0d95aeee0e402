package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// In Balanced the server writes a consumer's state over the old one without
// syncing it. One that a power cut has torn keeps the consumer from being
// recovered and from being created again; one that is not there is taken for
// the state of a consumer that has not begun, which delivers too much and
// never too little.

// dropTornConsumerStates removes the states of consumers that cannot be read.
func (s *store) dropTornConsumerStates() error {
	states, err := filepath.Glob(filepath.Join(s.streams(), "*", "streams", "*", "obs", "*", "o.dat"))
	if err != nil {
		return fmt.Errorf("look for the states of consumers: %w", err)
	}
	for _, path := range states {
		state, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && len(state) > 0 && !readableConsumerState(state) {
			if err = os.Remove(path); err == nil {
				err = syncDir(filepath.Dir(path))
			}
		}
		if err != nil {
			return fmt.Errorf("state of a consumer: %w", err)
		}
	}
	return nil
}

// readableConsumerState tells whether the server will take the state: magic
// byte, version, four sequences, and the unacknowledged messages.
func readableConsumerState(state []byte) bool {
	const magic = 22
	if len(state) < 2 || state[0] != magic || state[1] != 1 && state[1] != 2 {
		return false
	}
	r := varints{rest: state[2:]}
	for range 4 {
		r.unsigned()
	}
	if r.torn {
		return false
	}
	pending := r.unsigned()
	if pending > 0 {
		r.signed()
	}
	for range pending {
		r.unsigned()
		if state[1] == 2 {
			r.unsigned()
		}
		r.signed()
		if r.torn {
			return false
		}
	}
	return !r.torn
}

// varints reads numbers until they end in the middle of one.
type varints struct {
	rest []byte
	torn bool
}

func (v *varints) unsigned() uint64 {
	value, n := binary.Uvarint(v.rest)
	v.skip(n)
	return value
}

func (v *varints) signed() {
	_, n := binary.Varint(v.rest)
	v.skip(n)
}

func (v *varints) skip(n int) {
	if n <= 0 {
		v.torn, v.rest = true, nil
		return
	}
	v.rest = v.rest[n:]
}
