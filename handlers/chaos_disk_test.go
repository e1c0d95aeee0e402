//go:build chaos && linux

package handlers_test

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// disk is a folder as a trace of system calls says it is, and as a power cut would leave it. What is not synced is lost:
//
//   - data of a file is durable once an fsync of it that began after the write has ended, or a write to it under O_SYNC
//   - names (creations, renames, removals, folders) are journaled, in order: an fsync or O_SYNC write of anything makes those before
//     it durable, as ext4 and XFS do. With strict names, only an fsync of the folder does, or for a creation that of the file
type disk struct {
	root        string
	strictNames bool

	clock   uint64 // counts operations
	names   map[string]*inode
	durable map[string]*inode
	journal []nameOp
	open    map[string]*opened // by file descriptor
	begun   map[string]call    // calls under way, by thread
}

// inode is a file, or a folder.
type inode struct {
	folder  bool
	size    int64
	synced  []byte
	pending []writeOp
}

// writeOp is data at a place, or with nil data a new length.
type writeOp struct {
	number uint64
	at     int64
	data   []byte
}

// nameOp gives a path to an inode, or takes it away.
type nameOp struct {
	number uint64
	path   string
	inode  *inode // nil = removed
	fresh  bool   // the inode's first name
}

type opened struct {
	path         string
	inode        *inode
	offset       int64
	sync, append bool
}

// call is one line of the trace.
type call struct {
	at     time.Time
	name   string
	args   []string
	result int64
	number uint64 // of the operation before it began
}

func newDisk(root string, strictNames bool) *disk {
	return &disk{
		root: root, strictNames: strictNames, names: map[string]*inode{}, durable: map[string]*inode{},
		open: map[string]*opened{}, begun: map[string]call{},
	}
}

// replay reads a trace and calls cut before the first line later than each of the moments, which are in order.
func (d *disk) replay(trace string, moments []time.Time, cut func(time.Time) error) error {
	f, err := os.Open(trace)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewReaderSize(f, 1<<20)
	for len(moments) > 0 {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the trace ends before the last moment")
		}
		if err != nil {
			return err
		}
		c, thread, rest, ok := parseLine(line)
		if !ok {
			continue
		}
		for len(moments) > 0 && c.at.After(moments[0]) {
			if err := cut(moments[0]); err != nil {
				return err
			}
			moments = moments[1:]
		}
		if err := d.line(c, thread, rest); err != nil {
			return fmt.Errorf("%w: %.200s", err, line)
		}
	}
	return nil
}

// line takes in a line; calls that were interrupted by others' come in two.
func (d *disk) line(c call, thread, rest string) error {
	if start, ok := strings.CutSuffix(rest, " <unfinished ...>"); ok {
		c.name, c.number = start, d.clock
		d.begun[thread] = c
		return nil
	}
	c.number = d.clock
	if strings.HasPrefix(rest, "<... ") {
		_, end, _ := strings.Cut(rest, " resumed>")
		before := d.begun[thread]
		c.number = before.number
		rest = before.name + end
	}
	at := strings.LastIndex(rest, " = ")
	name, args, ok := strings.Cut(rest, "(")
	if at < 0 || !ok {
		return nil // a signal, the end of a thread
	}
	result, _, _ := strings.Cut(rest[at+3:], " ")
	n, err := strconv.ParseInt(result, 0, 64)
	if err != nil || n < 0 {
		return nil // it failed, or the process ended in it
	}
	c.name, c.result = name, n
	args = strings.TrimSpace(args[:at-len(name)-1])
	c.args = strings.Split(strings.TrimSuffix(args, ")"), ", ")
	d.clock++
	return d.apply(c)
}

func parseLine(line string) (c call, thread, rest string, ok bool) {
	thread, rest, ok = strings.Cut(strings.TrimSpace(line), " ")
	stamp, rest, ok2 := strings.Cut(strings.TrimSpace(rest), " ")
	seconds, micros, ok3 := strings.Cut(stamp, ".")
	s, err1 := strconv.ParseInt(seconds, 10, 64)
	us, err2 := strconv.ParseInt(micros, 10, 64)
	c.at = time.Unix(s, us*1000)
	return c, thread, rest, ok && ok2 && ok3 && err1 == nil && err2 == nil
}

func (d *disk) apply(c call) error {
	switch c.name {
	case "openat":
		return d.openat(c)
	case "close":
		delete(d.open, c.args[0])
	case "mkdirat":
		d.name(d.path(c.args[0], c.args[1]), &inode{folder: true}, true)
	case "unlinkat":
		d.name(d.path(c.args[0], c.args[1]), nil, false)
	case "renameat", "renameat2":
		d.rename(d.path(c.args[0], c.args[1]), d.path(c.args[2], c.args[3]))
	case "lseek":
		if o := d.open[c.args[0]]; o != nil {
			o.offset = c.result
		}
	case "ftruncate":
		if o := d.open[c.args[0]]; o != nil {
			length, err := strconv.ParseInt(c.args[1], 10, 64)
			o.inode.truncate(d.clock, length)
			return err
		}
	case "write", "pwrite64":
		return d.write(c)
	case "fsync", "fdatasync":
		if o := d.open[c.args[0]]; o != nil {
			d.sync(o, c.number)
		}
	default:
		for _, a := range c.args {
			if o := d.open[a]; o != nil || strings.HasPrefix(unhex(a), d.root) {
				return fmt.Errorf("nothing is known of %s", c.name)
			}
		}
	}
	return nil
}

func (d *disk) path(dir, name string) string {
	p := unhex(name)
	if !filepath.IsAbs(p) && d.open[dir] != nil {
		p = filepath.Join(d.open[dir].path, p)
	}
	return filepath.Clean(p)
}

func (d *disk) inside(path string) bool {
	return path == d.root || strings.HasPrefix(path, d.root+"/")
}

func (d *disk) openat(c call) error {
	fd, path, flags := strconv.FormatInt(c.result, 10), d.path(c.args[0], c.args[1]), c.args[2]
	delete(d.open, fd)
	if !d.inside(path) {
		return nil
	}
	node := d.names[path]
	if node == nil {
		if !strings.Contains(flags, "O_CREAT") {
			return fmt.Errorf("%s was opened and never made", path)
		}
		node = &inode{}
		d.name(path, node, true)
	} else if strings.Contains(flags, "O_TRUNC") {
		node.truncate(d.clock, 0)
	}
	d.open[fd] = &opened{
		path: path, inode: node,
		sync: strings.Contains(flags, "O_SYNC") || strings.Contains(flags, "O_DSYNC"), append: strings.Contains(flags, "O_APPEND"),
	}
	return nil
}

func (d *disk) name(path string, node *inode, fresh bool) {
	if !d.inside(path) {
		return
	}
	if node == nil {
		delete(d.names, path)
	} else {
		d.names[path] = node
	}
	d.journal = append(d.journal, nameOp{d.clock, path, node, fresh})
}

// rename moves a path and all below it.
func (d *disk) rename(from, to string) {
	for path, node := range d.names {
		if rest, below := strings.CutPrefix(path, from+"/"); below {
			d.name(filepath.Join(to, rest), node, false)
			d.name(path, nil, false)
		}
	}
	if node := d.names[from]; node != nil {
		d.name(to, node, false)
		d.name(from, nil, false)
	}
}

func (d *disk) write(c call) error {
	o := d.open[c.args[0]]
	if o == nil {
		return nil // a socket
	}
	data := []byte(unhex(c.args[1]))
	if int64(len(data)) < c.result {
		return fmt.Errorf("the trace has %d of %d bytes", len(data), c.result)
	}
	data = data[:c.result]
	at := o.offset
	switch {
	case c.name == "pwrite64":
		var err error
		if at, err = strconv.ParseInt(c.args[3], 10, 64); err != nil {
			return err
		}
	case o.append:
		at = o.inode.size
	}
	if c.name == "write" {
		o.offset = at + c.result
	}
	o.inode.pending = append(o.inode.pending, writeOp{d.clock, at, data})
	o.inode.size = max(o.inode.size, at+c.result)
	if o.sync {
		d.sync(o, d.clock)
	}
	return nil
}

// sync makes durable what was done to a file up to an operation.
func (d *disk) sync(o *opened, upto uint64) {
	n := 0
	for n < len(o.inode.pending) && o.inode.pending[n].number <= upto {
		o.inode.synced = o.inode.pending[n].to(o.inode.synced)
		n++
	}
	o.inode.pending = o.inode.pending[n:]
	var rest []nameOp
	for _, op := range d.journal {
		due := op.number <= upto
		if d.strictNames {
			due = due && (filepath.Dir(op.path) == o.path || op.fresh && op.inode == o.inode)
		}
		if due {
			op.to(d.durable)
		} else {
			rest = append(rest, op)
		}
	}
	d.journal = rest
}

func (n *inode) truncate(number uint64, length int64) {
	n.pending = append(n.pending, writeOp{number: number, at: length})
	n.size = length
}

func (w writeOp) to(data []byte) []byte {
	end := w.at + int64(len(w.data))
	if w.data == nil && int64(len(data)) > end {
		return data[:end:end]
	}
	for int64(len(data)) < end {
		data = append(data, make([]byte, end-int64(len(data)))...)
	}
	copy(data[w.at:], w.data)
	return data
}

func (op nameOp) to(names map[string]*inode) {
	if op.inode == nil {
		delete(names, op.path)
	} else {
		names[op.path] = op.inode
	}
}

// save writes what a power cut leaves into a folder. With rng, part of what was not synced has reached the disk all the same: of
// the names up to some moment, of each file's data up to some other, the last write torn.
func (d *disk) save(dir string, rng *rand.Rand) error {
	names := maps.Clone(d.durable)
	if rng != nil && len(d.journal) > 0 {
		for _, op := range d.journal[:rng.IntN(len(d.journal)+1)] {
			op.to(names)
		}
	}
	for path, node := range names {
		at := filepath.Join(dir, strings.TrimPrefix(path, d.root))
		if node.folder {
			if err := os.MkdirAll(at, 0o750); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(at), 0o750); err != nil {
			return err
		}
		if err := os.WriteFile(at, node.left(rng), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (n *inode) left(rng *rand.Rand) []byte {
	if rng == nil || len(n.pending) == 0 {
		return n.synced
	}
	data := append([]byte(nil), n.synced...)
	reached := rng.IntN(len(n.pending) + 1)
	for _, w := range n.pending[:reached] {
		data = w.to(data)
	}
	if reached < len(n.pending) {
		if w := n.pending[reached]; len(w.data) > 0 {
			w.data = w.data[:rng.IntN(len(w.data))+1]
			data = w.to(data)
		}
	}
	return data
}

// unhex reads a string as strace -xx writes it; what is none gives "".
func unhex(s string) string {
	s = strings.ReplaceAll(strings.Trim(s, `"`), `\x`, "")
	b, err := hex.DecodeString(s)
	if err != nil {
		return ""
	}
	return string(b)
}

func TestPowerCutLeavesOnlyWhatWasSynced(t *testing.T) {
	quote := func(s string) string {
		return `"\x` + strings.Join(strings.Split(fmt.Sprintf("% x", s), " "), `\x`) + `"`
	}
	trace := filepath.Join(t.TempDir(), "trace")
	require.NoError(t, os.WriteFile(trace, []byte(strings.Join([]string{
		`7 1.000001 mkdirat(AT_FDCWD, ` + quote("/s") + `, 0750) = 0`,
		`7 1.000002 openat(AT_FDCWD, ` + quote("/s/a") + `, O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 9`,
		`7 1.000003 write(9, ` + quote("synced, ") + `, 8) = 8`,
		`7 1.000004 fsync(9 <unfinished ...>`,
		`8 1.000005 write(9, ` + quote("lost") + `, 4) = 4`,
		`7 1.000006 <... fsync resumed>) = 0`,
		`7 1.000007 openat(AT_FDCWD, ` + quote("/s/b") + `, O_RDWR|O_CREAT|O_SYNC, 0600) = 10`,
		`7 1.000008 write(10, ` + quote("whole") + `, 5) = 5`,
		`7 1.000009 renameat(AT_FDCWD, ` + quote("/s/b") + `, AT_FDCWD, ` + quote("/s/c") + `) = 0`,
		`7 1.000010 +++ exited with 0 +++`, ``,
	}, "\n")), 0o600))
	left := map[string]string{}
	d := newDisk("/s", false)
	require.NoError(t, d.replay(trace, []time.Time{time.Unix(1, 9500)}, func(time.Time) error {
		dir := t.TempDir()
		require.NoError(t, d.save(dir, nil))
		files, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, f := range files {
			body, err := os.ReadFile(filepath.Join(dir, f.Name()))
			require.NoError(t, err)
			left[f.Name()] = string(body)
		}
		return nil
	}))
	require.Equal(t, map[string]string{"a": "synced, ", "b": "whole"}, left)
}
