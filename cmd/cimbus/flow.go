package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// flow is output that appears as it is found, of any length: it is gathered for a moment only. Its methods may be called from one
// goroutine, and close has to be.
type flow struct {
	mu  sync.Mutex
	out *bufio.Writer
	err error // the first one of writing

	columns []column
	headed  bool
	line    []byte

	ended chan struct{}
	work  sync.WaitGroup
}

// column is one of a table whose rows are not known beforehand: what is wider pushes the rest of its line to the right.
type column struct {
	name  string
	width int // negative: stands at the right
}

// flowPause is for how long output may be gathered.
const flowPause = 50 * time.Millisecond

// flowTo is for lines of any kind, or with columns for rows below their head.
func flowTo(w io.Writer, columns ...column) *flow {
	f := &flow{out: bufio.NewWriterSize(w, 64<<10), columns: columns, ended: make(chan struct{})}
	f.work.Go(func() {
		t := time.NewTicker(flowPause)
		defer t.Stop()
		for {
			select {
			case <-f.ended:
				return
			case <-t.C:
				f.mu.Lock()
				f.fail(f.out.Flush())
				f.mu.Unlock()
			}
		}
	})
	return f
}

func (f *flow) fail(err error) {
	if err != nil && f.err == nil {
		f.err = fmt.Errorf("write output: %w", err)
	}
}

// json writes a line that appends itself.
func (f *flow) json(line func(dst []byte) []byte) error {
	f.line = append(line(f.line[:0]), '\n')
	return f.write(f.line)
}

func (f *flow) write(text []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		_, err := f.out.Write(text)
		f.fail(err)
	}
	return f.err
}

// row writes a row of the table, below its head if it is the first.
func (f *flow) row(cells ...string) error {
	if !f.headed {
		f.headed = true
		names := make([]string, len(f.columns))
		for i, c := range f.columns {
			names[i] = c.name
		}
		if err := f.row(names...); err != nil {
			return err
		}
	}
	var b strings.Builder
	for i, cell := range cells {
		cell = printable(cell)
		width := f.columns[i].width
		pad := strings.Repeat(" ", max(max(width, -width)-utf8.RuneCountInString(cell), 0))
		if i > 0 {
			b.WriteString("  ")
		}
		if width < 0 {
			b.WriteString(pad + cell)
		} else {
			b.WriteString(cell + pad)
		}
	}
	return f.write([]byte(strings.TrimRight(b.String(), " ") + "\n"))
}

// close writes what is left and tells whether all could be written.
func (f *flow) close() error {
	close(f.ended)
	f.work.Wait()
	f.fail(f.out.Flush())
	return f.err
}
