package config

import (
	"math"
	"strings"
)

// nearest is the known name that takes the fewest edits to make of name, the
// first of equals. A section left out counts as one edit, and case and the choice
// between "-" and "_" as none.
func nearest(name string, known []string) string {
	plain := strings.NewReplacer("-", "_")
	name = strings.ToLower(plain.Replace(name))
	best, least := "", math.MaxInt
	for _, candidate := range known {
		to := strings.ToLower(plain.Replace(candidate))
		d := edits(name, to)
		if strings.HasSuffix(to, "."+name) {
			d = 1
		}
		if d < least {
			best, least = candidate, d
		}
	}
	return best
}

// edits is the Levenshtein distance of a and b in bytes.
func edits(a, b string) int {
	a = a[:min(len(a), 256)] // whoever writes more is not near to anything
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
