package config

import (
	"math"
	"strconv"
	"strings"
)

// unit is a unit of bytes.
type unit struct {
	name  string
	bytes int64
}

// units lists them largest first, so that what formats first is the shortest.
func units() []unit {
	return []unit{
		{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9},
		{"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"KB", 1e3}, {"B", 1},
	}
}

// parseSize reads "10GiB", "512 MB" or a plain number of bytes.
func parseSize(text string) (n int64, ok bool) {
	digits := strings.TrimRight(text, "TGMKiB")
	factor := int64(1)
	if name := text[len(digits):]; name != "" {
		factor = 0
		for _, u := range units() {
			if u.name == name {
				factor = u.bytes
			}
		}
	}
	v, err := strconv.ParseUint(strings.TrimSuffix(digits, " "), 10, 63)
	if err != nil || factor == 0 || v > uint64(math.MaxInt64/factor) {
		return 0, false
	}
	return int64(v) * factor, true
}

// formatSize writes bytes in the largest binary unit that divides them.
func formatSize(n int64) string {
	for _, u := range units() {
		if binary := u.bytes&(u.bytes-1) == 0; binary && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}
