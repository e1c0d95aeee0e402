package bus

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

const (
	snapshotKind     = "cimbus-snapshot"
	snapshotFormat   = 1
	snapshotManifest = "manifest.json"
)

// What a folder is refused for that is not a snapshot to be restored.
var (
	ErrNoSnapshot      = errors.New("not a snapshot: there is no " + snapshotManifest + "; one that was broken off has none")
	ErrForeignSnapshot = errors.New("not a snapshot of a cimbus bus")
	ErrNewerSnapshot   = errors.New("snapshot is of a newer cimbus: restore it with that")
	ErrDamagedSnapshot = errors.New("snapshot is damaged")
)

// Snapshot is the copy of all streams in a folder, as its manifest describes it.
type Snapshot struct {
	Kind    string    `json:"kind"`
	Format  int       `json:"format"`
	Version string    `json:"version"` // of the cimbus that took it
	Taken   time.Time `json:"taken"`   // when it was begun
	// Handlers are the consumers of the handlers, and up to where each had come then.
	Handlers map[string]uint64 `json:"handlers"`
	Streams  []SnapshotStream  `json:"streams"` // in the order in which they were copied

	dir string
}

// SnapshotStream is the copy of one stream.
type SnapshotStream struct {
	Stream   string    `json:"stream"`
	Created  time.Time `json:"created"`
	Messages uint64    `json:"messages"`
	First    uint64    `json:"first"`
	Last     uint64    `json:"last"`
	SnapshotFile
	Late    *SnapshotFile `json:"late,omitempty"` // of a stream that keeps one message of each subject: what came while it was copied
	Lineage lineage       `json:"lineage"`
	// Metadata are the marks of the stream that go on to be true of the copy.
	Metadata map[string]string `json:"metadata,omitempty"`
	State    json.RawMessage   `json:"state"` // as the server told it
}

// SnapshotFile is a file of a snapshot.
type SnapshotFile struct {
	File   string `json:"file"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Dir is the folder.
func (s *Snapshot) Dir() string { return s.dir }

// Bytes is the size of all files.
func (s *Snapshot) Bytes() int64 {
	n := int64(0)
	for _, f := range s.files() {
		n += f.Bytes
	}
	return n
}

func (s *Snapshot) files() []SnapshotFile {
	var all []SnapshotFile
	for _, stream := range s.Streams {
		all = append(all, stream.SnapshotFile)
		if stream.Late != nil {
			all = append(all, *stream.Late)
		}
	}
	return all
}

// OpenSnapshot reads the manifest of a snapshot. It returns ErrNoSnapshot, ErrForeignSnapshot, ErrNewerSnapshot or ErrDamagedSnapshot for
// what cannot be restored; whether the files are whole Verify tells.
func OpenSnapshot(dir string) (*Snapshot, error) {
	b, err := os.ReadFile(filepath.Join(dir, snapshotManifest))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoSnapshot)
	}
	if err != nil {
		return nil, err
	}
	s := &Snapshot{}
	// Of a newer one only these two can be relied on.
	if err := json.Unmarshal(b, &struct {
		Kind   *string `json:"kind"`
		Format *int    `json:"format"`
	}{&s.Kind, &s.Format}); err != nil {
		return nil, fmt.Errorf("%s: %w: %s: %w", dir, ErrDamagedSnapshot, snapshotManifest, err)
	}
	switch {
	case s.Kind != snapshotKind:
		return nil, fmt.Errorf("%s: %w", dir, ErrForeignSnapshot)
	case s.Format > snapshotFormat:
		return nil, fmt.Errorf("%s: %w (its format is %d, this one knows %d)", dir, ErrNewerSnapshot, s.Format, snapshotFormat)
	}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("%s: %w: %s: %w", dir, ErrDamagedSnapshot, snapshotManifest, err)
	}
	s.dir = dir
	there := map[string]bool{}
	for _, stream := range s.Streams {
		there[stream.Stream] = true
	}
	for _, name := range tracedStreams() {
		if !there[name] {
			return nil, fmt.Errorf("%s: %w: it is without stream %s", dir, ErrDamagedSnapshot, name)
		}
	}
	for _, f := range s.files() {
		if f.File == "" || f.File != filepath.Base(f.File) {
			return nil, fmt.Errorf("%s: %w: %s names a file %q", dir, ErrDamagedSnapshot, snapshotManifest, f.File)
		}
	}
	return s, nil
}

// Verify reads every file and compares it with the manifest; an ErrDamagedSnapshot names the first that differs.
func (s *Snapshot) Verify(ctx context.Context) error {
	for _, f := range s.files() {
		if err := s.verify(ctx, f); err != nil {
			return fmt.Errorf("%s: %w: %w", s.dir, ErrDamagedSnapshot, err)
		}
	}
	return nil
}

func (s *Snapshot) verify(ctx context.Context, f SnapshotFile) (err error) {
	file, err := os.Open(filepath.Join(s.dir, f.File))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	sum := sha256.New()
	n := int64(0)
	for chunk := make([]byte, 1<<20); ctx.Err() == nil; {
		read, err := file.Read(chunk)
		_, _ = sum.Write(chunk[:read]) // a hash never fails to be written to
		n += int64(read)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case n != f.Bytes:
		return fmt.Errorf("%s has %d bytes, not %d", f.File, n, f.Bytes)
	case hex.EncodeToString(sum.Sum(nil)) != f.SHA256:
		return fmt.Errorf("%s is not what was written: its SHA-256 differs", f.File)
	}
	return nil
}

// writeManifest makes a whole snapshot of the files.
func (s *Snapshot) writeManifest() error {
	_, err := writeFile(s.dir, snapshotManifest, func(w *bufio.Writer) error {
		out := json.NewEncoder(w)
		out.SetIndent("", "  ")
		return out.Encode(s)
	})
	if err != nil {
		return err
	}
	return syncDir(s.dir)
}

// writeFile writes a file and has it on disk.
func writeFile(dir, name string, write func(*bufio.Writer) error) (f SnapshotFile, err error) {
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	sum := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(file, sum), 1<<20)
	if err := write(w); err != nil {
		return f, err
	}
	if err := w.Flush(); err != nil {
		return f, err
	}
	if err := file.Sync(); err != nil {
		return f, err
	}
	stat, err := file.Stat()
	if err != nil {
		return f, err
	}
	return SnapshotFile{File: name, Bytes: stat.Size(), SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

func syncDir(dir string) (err error) {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return d.Sync()
}
