package bus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// lineBuffer is what is written at a time, in bytes; by then there may be one event more.
const lineBuffer = 256 << 10

// lineWriter writes events as NDJSON. They are encoded where they wait to be written, not copied there.
type lineWriter struct {
	out io.Writer
	buf []byte
	err error // after which nothing is written any more
}

// put returns how long the event's line is.
func (w *lineWriter) put(e StoredEvent) (int, error) {
	before := len(w.buf)
	w.buf = append(e.AppendJSON(w.buf), '\n')
	n := len(w.buf) - before
	if len(w.buf) < lineBuffer {
		return n, w.err
	}
	return n, w.flush()
}

func (w *lineWriter) flush() error {
	if w.err == nil && len(w.buf) > 0 {
		_, w.err = w.out.Write(w.buf)
		w.buf = w.buf[:0]
	}
	return w.err
}

// ReplayToWriter writes events as NDJSON, see StoredEvent.AppendJSON. Nobody knows what became of what was written: a replay that was
// broken off without an ending repeats what was written after its last record, at most of about a second; one that was stopped or
// failed repeats nothing that was written.
func ReplayToWriter(w io.Writer) ReplayTarget { return &writerTarget{lineWriter{out: w}} }

type writerTarget struct{ lines lineWriter }

func (t *writerTarget) Open(context.Context, OpenReplay) (Ahead, error) { return Ahead{}, nil }

func (t *writerTarget) Put(_ context.Context, e StoredEvent) (bool, error) {
	_, err := t.lines.put(e)
	return true, err
}

func (t *writerTarget) Flush(context.Context) (uint64, error) { return 0, t.lines.flush() }
func (t *writerTarget) Close() error                          { return nil }

// Errors of a replay to a file.
var (
	ErrFileExists  = errors.New("the file is there already")
	ErrFileForeign = errors.New("the file is not as the replay left it")
)

// ReplayToFile writes events as NDJSON to a new file. A replay that goes on appends to it after its last whole line: each event is in
// it once, wherever it was stopped or killed. The disk is not waited for: what a power cut costs is written again when the replay goes
// on, unless it was done already. It fails with ErrFileExists where a new replay would find something at the path, and with
// ErrFileForeign where somebody else wrote to it.
func ReplayToFile(path string) ReplayTarget { return &fileTarget{path: path} }

type fileTarget struct {
	path  string
	file  *os.File
	lines lineWriter
	size  uint64
}

func (t *fileTarget) Open(_ context.Context, r OpenReplay) (ahead Ahead, err error) {
	flags := os.O_RDWR
	if !r.Record.Opened {
		flags |= os.O_CREATE | os.O_EXCL
	}
	// Events are what customers said: for who asked for them alone.
	t.file, err = os.OpenFile(t.path, flags, 0o600)
	switch {
	case errors.Is(err, os.ErrExist):
		return ahead, fmt.Errorf("%s: %w, and left as it is: name another one", t.path, ErrFileExists)
	case errors.Is(err, os.ErrNotExist) && r.Record.Opened:
		return ahead, fmt.Errorf("%w: %w: put it back where it was", ErrFileForeign, err)
	case err != nil:
		return ahead, err
	}
	if r.Record.Opened {
		if ahead, err = t.readBack(r.Record); err != nil {
			return ahead, fmt.Errorf("%s: %w", t.path, err)
		}
	}
	t.lines = lineWriter{out: t.file}
	return ahead, nil
}

// readBack finds the last whole line, and takes off what is behind it.
func (t *fileTarget) readBack(r ReplayRecord) (ahead Ahead, err error) {
	info, err := t.file.Stat()
	if err != nil {
		return ahead, err
	}
	from := r.Mark
	ahead.Done = r.Done
	if uint64(info.Size()) < r.Mark {
		// What was written is lost with the power: all that is there counts, and nothing else.
		from, ahead = 0, Ahead{Recount: true, Done: r.First - min(r.First, 1)}
	}
	if from > 0 {
		last := make([]byte, 1)
		if _, err := t.file.ReadAt(last, int64(from)-1); err != nil {
			return ahead, err
		}
		if last[0] != '\n' {
			return ahead, fmt.Errorf("%w: no line ends at byte %d", ErrFileForeign, from)
		}
	}
	if _, err := t.file.Seek(int64(from), io.SeekStart); err != nil {
		return ahead, err
	}
	t.size = from
	for in := bufio.NewReaderSize(t.file, lineBuffer); ; {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break // what there is of a line is torn
		}
		if err != nil {
			return ahead, err
		}
		sequence := lineSequence(line)
		if sequence <= ahead.Done || sequence > r.Last && !r.Follow {
			return ahead, fmt.Errorf("%w: the line at byte %d is not one that comes after event %d", ErrFileForeign, t.size, ahead.Done)
		}
		t.size += uint64(len(line))
		ahead.Done = sequence
		ahead.Events++
	}
	if err := t.file.Truncate(int64(t.size)); err != nil {
		return ahead, err
	}
	_, err = t.file.Seek(int64(t.size), io.SeekStart)
	return ahead, err
}

// lineSequence reads the sequence that a line of AppendJSON begins with, 0 where it is none.
func lineSequence(line []byte) uint64 {
	text, ok := strings.CutPrefix(string(line[:min(len(line), 40)]), `{"sequence":`)
	number, _, found := strings.Cut(text, ",")
	n, err := strconv.ParseUint(number, 10, 64)
	if !ok || !found || err != nil {
		return 0
	}
	return n
}

func (t *fileTarget) Put(_ context.Context, e StoredEvent) (bool, error) {
	n, err := t.lines.put(e)
	if err != nil {
		return false, t.failed(err)
	}
	t.size += uint64(n)
	return true, nil
}

func (t *fileTarget) Flush(context.Context) (uint64, error) {
	if t.file == nil {
		return 0, nil
	}
	if err := t.lines.flush(); err != nil {
		return 0, t.failed(err)
	}
	return t.size, nil
}

func (t *fileTarget) failed(err error) error {
	if strings.Contains(err.Error(), t.path) {
		return err
	}
	return fmt.Errorf("%s: %w", t.path, err)
}

func (t *fileTarget) Close() error {
	if t.file == nil {
		return nil
	}
	return t.file.Close()
}
