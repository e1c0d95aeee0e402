package config

import "strings"

// nearest is the known name that takes the fewest edits to make of name, the
// first of equals, or "" where that is half of the name or more: no mistake in
// writing. What both have in the same section is compared within it. A section or
// a first word left out or in excess counts as one edit, and case and the choice
// between "-" and "_" as none.
func nearest(name string, known []string) string {
	plain := strings.NewReplacer("-", "_")
	name = strings.ToLower(plain.Replace(name[:min(len(name), 256)])) // whoever writes more is not near to anything
	best, least := "", 0
	for _, candidate := range known {
		from, to := apart(name, strings.ToLower(plain.Replace(candidate)))
		if from == "" || to == "" {
			continue // a section is not what was meant by something in it
		}
		d := edits(from, to)
		if strings.HasSuffix(to, "."+from) || strings.HasSuffix(from, "_"+to) || strings.HasSuffix(to, "_"+from) {
			d = 1
		}
		if 2*d < max(len(from), len(to)) && (best == "" || d < least) {
			best, least = candidate, d
		}
	}
	return best
}

// apart takes off the sections that a and b begin with alike.
func apart(a, b string) (string, string) {
	for {
		section, below, ok := strings.Cut(a, ".")
		other, belowOther, okOther := strings.Cut(b, ".")
		if section != other || !ok && !okOther {
			return a, b
		}
		a, b = below, belowOther
	}
}

// edits is the Levenshtein distance of a and b in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
