package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// line writes v as one line of JSON, in one write so that lines of different writers do not mix.
func line(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// table is columns for people: a head and rows, aligned by what they hold. Columns of numbers stand at the right.
type table struct {
	head []string
	rows [][]string
}

func (t *table) row(cells ...string) {
	for i := range cells {
		cells[i] = printable(cells[i])
	}
	t.rows = append(t.rows, cells)
}

func (t *table) write(w io.Writer) error {
	width := make([]int, len(t.head))
	numeric := make([]bool, len(t.head))
	for i, h := range t.head {
		width[i] = utf8.RuneCountInString(h)
		numbers, others := false, false
		for _, r := range t.rows {
			width[i] = max(width[i], utf8.RuneCountInString(r[i]))
			number := isNumber(r[i])
			numbers, others = numbers || number, others || !number && r[i] != "-"
		}
		numeric[i] = numbers && !others
	}
	var b strings.Builder
	for _, r := range append([][]string{t.head}, t.rows...) {
		var cells strings.Builder
		for i, cell := range r {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if numeric[i] {
				cell = pad + cell
			} else {
				cell += pad
			}
			if i > 0 {
				cells.WriteString("  ")
			}
			cells.WriteString(cell)
		}
		b.WriteString(strings.TrimRight(cells.String(), " ") + "\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// isNumber tells whether a cell is a number, which may have a unit.
func isNumber(cell string) bool {
	digits, _, _ := strings.Cut(cell, " ")
	_, err := strconv.ParseFloat(digits, 64)
	return err == nil
}

// printable is s as it may stand in a terminal: names come from events, and an event may hold anything.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.QuoteToGraphic(s)
	}
	return s
}

// shellWord is s as it is written in a command that is to be repeated.
func shellWord(s string) string {
	special := func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_.:/@+=", r)
	}
	if s != "" && !strings.ContainsFunc(s, special) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// orDash is s, or a dash where there is none.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// widest is how many letters of a name a table shows: names may have hundreds, and a line has to be read.
const widest = 48

// cut is a name as a table shows it.
func cut(name string) string {
	letters := []rune(name)
	if len(letters) <= widest {
		return name
	}
	return string(letters[:widest-1]) + "…"
}

// size is a number of bytes for people.
func size[N int | int64 | uint64](n N) string {
	f := float64(n)
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if f < 1024 {
			if unit == "B" || f >= 100 {
				return strconv.FormatFloat(f, 'f', 0, 64) + " " + unit
			}
			return strconv.FormatFloat(f, 'f', 1, 64) + " " + unit
		}
		f /= 1024
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + " TiB"
}

// age is a time span for people, in its two largest units.
func age(d time.Duration) string {
	two := func(large int, unit string, small int, smaller string) string {
		if small == 0 {
			return fmt.Sprintf("%d %s", large, unit)
		}
		return fmt.Sprintf("%d %s %d %s", large, unit, small, smaller)
	}
	switch {
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < time.Hour:
		return two(int(d.Minutes()), "min", int(d.Seconds())%60, "s")
	case d < 24*time.Hour:
		return two(int(d.Hours()), "h", int(d.Minutes())%60, "min")
	}
	return two(int(d.Hours())/24, "d", int(d.Hours())%24, "h")
}

// clock is a time of day for people, in their zone.
func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05.000")
}

// plural is a number of things for people.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
