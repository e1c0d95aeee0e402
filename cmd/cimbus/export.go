package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/bus"
)

// exportBuffer is how much of an export is written at once.
const exportBuffer = 256 << 10

// partSuffix is what the file of an export is called beside its name until it is whole.
const partSuffix = ".part"

// exportCommand writes stored events to a file.
type exportCommand struct {
	app *app
	selection
	file string
}

func newExportCommand(a *app) *cobra.Command {
	c := &exportCommand{app: a, file: "-"}
	cmd := &cobra.Command{
		Use: "export [FILE|-]", Short: "Write stored events to a file, as NDJSON with headers", Args: cobra.MaximumNArgs(1),
		Long: `Write stored events to a file, or to stdout: those that the flags select and that are there when it begins, a line each,

  {"sequence","time","subject","tenant","channel","event","id","conversation","size","headers":{"<name>":["…"]},"payload"}

from which cimbus import stores them again as they were: subject, headers and the bytes of the body. A body that is not JSON in one
line is in payload_base64, headers that are not UTF-8 are in headers_base64. What an earlier import put on an event is left out.

A file gets its name when it is whole; until then it is FILE` + partSuffix + `. An existing file is not overwritten. The summary on stderr has the
number of events, the bytes and their SHA-256; with --json and a file it is on stdout.

` + pointHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				c.file = args[0]
			}
			s, err := c.selects(time.Now())
			if err != nil {
				return err
			}
			return a.withBus(cmd.Context(), func(b *bus.Bus) error { return a.withoutBus(c.run(cmd.Context(), b, s)) })
		},
	}
	c.register(cmd.Flags())
	return cmd
}

// exported is what an export came to, as --json prints it.
type exported struct {
	Export string `json:"export"` // the file, - = stdout
	Events int    `json:"events"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	From   uint64 `json:"from"` // the first and last sequence written, 0 = none
	Upto   uint64 `json:"upto"`
}

func (c *exportCommand) run(ctx context.Context, b *bus.Bus, s bus.EventSelection) error {
	span, err := b.Span(ctx, bus.StreamEvents, s.From, s.Until)
	if err != nil {
		return err
	}
	out, err := c.create()
	if err != nil {
		return err
	}
	w := &exportWriter{to: out, sum: sha256.New()}
	failed := w.write(ctx, b.EventsIn(ctx, s, span))
	if failed == nil {
		failed = out.finish()
	}
	if failed != nil {
		return w.brokenOff(failed, out.abandon(w.Bytes))
	}
	w.Export, w.SHA256 = c.file, hex.EncodeToString(w.sum.Sum(nil))
	if c.app.json && c.file != "-" {
		return line(c.app.stdout, w.exported)
	}
	c.app.tell("exported %s, %s, sha256 %s", plural(w.Events, "event"), size(w.Bytes), w.SHA256)
	return nil
}

// exportWriter writes events and counts what it wrote.
type exportWriter struct {
	exported
	to  io.Writer
	sum hash.Hash
}

func (w *exportWriter) write(ctx context.Context, events iter.Seq2[bus.StoredEvent, error]) error {
	text := make([]byte, 0, 2*exportBuffer)
	flush := func() error {
		_, err := w.Write(text)
		text = text[:0]
		return err
	}
	for e, err := range events {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return errors.Join(err, flush())
		}
		text = append(e.Exported().AppendJSON(text), '\n')
		if len(text) >= exportBuffer {
			if err := flush(); err != nil {
				return err
			}
		}
		w.Events++
		w.Upto = e.Sequence
		if w.From == 0 {
			w.From = e.Sequence
		}
	}
	return flush()
}

// Write passes on what is written, and counts it.
func (w *exportWriter) Write(p []byte) (int, error) {
	n, err := w.to.Write(p)
	w.Bytes += int64(n)
	_, _ = w.sum.Write(p[:n]) // a hash never fails to be written to
	if err != nil {
		return n, fmt.Errorf("write output: %w", err)
	}
	return n, nil
}

// brokenOff tells how far an export came, and what is left of it.
func (w *exportWriter) brokenOff(cause error, kept string) error {
	if errors.Is(cause, context.Canceled) {
		cause = errors.New("interrupted")
	}
	upto := ""
	if w.Upto != 0 {
		upto = fmt.Sprintf(", up to sequence %d", w.Upto)
	}
	if kept != "" {
		kept = fmt.Sprintf("; %s has what was written, its last line may be half", kept)
	}
	return fmt.Errorf("%w: not whole, after %s and %s%s%s", cause, plural(w.Events, "event"), size(w.Bytes), upto, kept)
}

// exportFile is where an export goes: stdout, or a file that gets its name when it is whole.
type exportFile struct {
	io.Writer
	file *os.File // nil = stdout
	name string   // that it gets in the end; "" = it has it
}

func (c *exportCommand) create() (*exportFile, error) {
	if c.file == "-" {
		return &exportFile{Writer: c.app.stdout}, nil
	}
	info, err := os.Stat(c.file)
	switch {
	case err == nil && info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is there already: remove it, or choose another name", c.file)
	case err == nil && info.IsDir():
		return nil, fmt.Errorf("%s is a folder: give the path of a file in it", c.file)
	case err == nil:
		f, err := os.OpenFile(c.file, os.O_WRONLY, 0)
		return &exportFile{Writer: f, file: f}, err
	}
	f, err := os.OpenFile(c.file+partSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w: give the path of a file that can be written", err)
	}
	return &exportFile{Writer: f, file: f, name: c.file}, nil
}

// finish gives a whole file its name, once the disk has it.
func (f *exportFile) finish() error {
	if f.file == nil {
		return nil
	}
	var err error
	if f.name != "" {
		err = f.file.Sync()
	}
	if err = errors.Join(err, f.file.Close()); err != nil || f.name == "" {
		return err
	}
	return os.Rename(f.file.Name(), f.name)
}

// abandon closes what is not whole, and names what is left of it.
func (f *exportFile) abandon(written int64) (kept string) {
	if f.file == nil {
		return ""
	}
	_ = f.file.Close() // the export has failed already, perhaps at closing it
	if f.name == "" {
		return ""
	}
	if written == 0 {
		_ = os.Remove(f.file.Name()) // an empty file is of use to nobody
		return ""
	}
	return f.file.Name()
}
