// Command report reads what `go test -json` and node's TAP reporter wrote, and says what it means.
//
//	report test.json                               the output of what failed, and a line of counts
//	report -summary -cover cover.out FILE...       coverage, and one line of counts over all files
//
// A test counts once, whichever files it is in: it passed if it passed somewhere and failed nowhere. The exit code is 1 if a
// test failed or was skipped, or if there was none.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

func main() {
	switch err := run(os.Args[1:], os.Stdout); {
	case err == nil:
	case errors.Is(err, errRed):
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("report", flag.ContinueOnError)
	cover := flags.String("cover", "", "coverage profile")
	summary := flags.Bool("summary", false, "leave out the output of what failed")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r := results{verdicts: map[test]verdict{}, output: map[string][]line{}}
	for _, name := range flags.Args() {
		if err := r.readFile(name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if *cover != "" {
		if err := printCoverage(out, *cover); err != nil {
			return fmt.Errorf("%s: %w", *cover, err)
		}
	}
	if !*summary {
		r.printFailures(out)
	}
	passed, failed, skipped := r.count()
	if skipped > 0 {
		fmt.Fprintf(out, "%d skipped: a test that does not run proves nothing\n", skipped)
	}
	if passed+failed == 0 {
		fmt.Fprintln(out, "no test ran")
	}
	fmt.Fprintf(out, "%d passed, %d failed\n", passed, failed)
	if passed == 0 || failed+skipped > 0 {
		return errRed
	}
	return nil
}

// errRed is the verdict when the counts have told why.
var errRed = errors.New("red")

// test is a test or subtest. A package that failed without one, because it did not build or was killed, is a test without name.
type test struct{ pkg, name string }

type verdict int

const (
	passed verdict = iota + 1
	skipped
	failed // outweighs the others
)

var verdicts = map[string]verdict{"pass": passed, "skip": skipped, "fail": failed}

// line is a piece of output, of a test or of the package around its tests.
type line struct{ test, text string }

type results struct {
	verdicts map[test]verdict
	output   map[string][]line // what failed packages printed
	node     [failed + 1]int   // of TAP files
}

func (r *results) readFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	output := map[string][]line{}
	failures := map[string]int{}
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "{") {
			r.tap(lines.Text())
			continue
		}
		var e struct{ Action, Package, ImportPath, Test, Output, FailedBuild string }
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return err
		}
		switch e.Action {
		case "output", "build-output":
			pkg := e.Package + e.ImportPath
			output[pkg] = append(output[pkg], line{e.Test, e.Output})
		case "pass", "skip", "fail":
			r.take(e.Package, e.Test, verdicts[e.Action], failures)
			if e.Action == "fail" && e.Test == "" {
				r.output[e.Package] = slices.Concat(r.output[e.Package], output[e.FailedBuild], output[e.Package])
			}
		}
	}
	return lines.Err()
}

// take notes a verdict. A package has one too, which says more than its tests' only if it failed and none of them did.
func (r *results) take(pkg, name string, v verdict, failures map[string]int) {
	if name == "" && (v != failed || failures[pkg] > 0) {
		return
	}
	if v == failed {
		failures[pkg]++
	}
	r.verdicts[test{pkg, name}] = max(r.verdicts[test{pkg, name}], v)
}

func (r *results) tap(text string) {
	for word, v := range map[string]verdict{"# pass ": passed, "# skipped ": skipped, "# todo ": skipped, "# fail ": failed, "# cancelled ": failed} {
		if n, err := strconv.Atoi(strings.TrimPrefix(text, word)); err == nil {
			r.node[v] += n
		}
	}
}

func (r *results) count() (p, f, s int) {
	n := r.node
	for _, v := range r.verdicts {
		n[v]++
	}
	return n[passed], n[failed], n[skipped]
}

// printFailures prints what failed packages printed, without the tests that passed.
func (r *results) printFailures(out io.Writer) {
	for _, pkg := range slices.Sorted(maps.Keys(r.output)) {
		fmt.Fprintln(out, "--- package", pkg)
		for _, l := range r.output[pkg] {
			if r.verdicts[test{pkg, l.test}] != passed {
				fmt.Fprint(out, l.text)
			}
		}
	}
	for _, t := range slices.SortedFunc(maps.Keys(r.verdicts), func(a, b test) int { return strings.Compare(a.pkg+a.name, b.pkg+b.name) }) {
		switch r.verdicts[t] {
		case failed:
			fmt.Fprintln(out, "failed: ", t.pkg, t.name)
		case skipped:
			fmt.Fprintln(out, "skipped:", t.pkg, t.name)
		}
	}
}

// printCoverage prints the share of statements that ran, by package and of all. A block is in the profile once for each test
// binary; it ran if it did in one of them.
func printCoverage(out io.Writer, profile string) error {
	data, err := os.ReadFile(profile)
	if err != nil {
		return err
	}
	type block struct {
		statements int
		ran        bool
	}
	blocks := map[string]block{}
	for text := range strings.Lines(string(data)) {
		fields := strings.Fields(text)
		if len(fields) != 3 {
			continue // the mode
		}
		statements, err := strconv.Atoi(fields[1])
		if err != nil {
			return err
		}
		blocks[fields[0]] = block{statements, blocks[fields[0]].ran || fields[2] != "0"}
	}
	type share struct{ ran, all int }
	shares := map[string]share{}
	for place, b := range blocks {
		file, _, _ := strings.Cut(place, ":")
		for _, name := range []string{path.Dir(file), "total"} {
			s := shares[name]
			s.all += b.statements
			if b.ran {
				s.ran += b.statements
			}
			shares[name] = s
		}
	}
	fmt.Fprintln(out, "coverage, by the tests of all packages:")
	for _, name := range slices.Sorted(maps.Keys(shares)) {
		if s := shares[name]; s.all > 0 {
			fmt.Fprintf(out, "  %5.1f%%  %s\n", 100*float64(s.ran)/float64(s.all), name)
		}
	}
	return nil
}
