package bus

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// What the metadata of a restored stream says.
const (
	metadataRestoring = "cimbus-restoring"     // while it is restored, or when that was broken off: when the snapshot was taken
	metadataRestored  = "cimbus-restored"      // when the snapshot was taken that it was restored from
	metadataAt        = "cimbus-restored-at"   // when it was restored
	metadataLineage   = "cimbus-restored-from" // the streams it is a copy of, see lineage
)

// ancestor is a stream that another one is a copy of.
type ancestor struct {
	Identity string `json:"identity"`
	Last     uint64 `json:"last"` // up to this sequence they are the same
}

// lineage are the streams one is a copy of, the nearest first. A position in one of them is good in the copy, too, as far as that goes.
type lineage []ancestor

// lineageOf reads the lineage from a stream's metadata.
func lineageOf(metadata map[string]string) lineage {
	var l lineage
	for each := range strings.FieldsSeq(metadata[metadataLineage]) {
		identity, last, _ := strings.Cut(each, ":")
		if n, err := strconv.ParseUint(last, 10, 64); err == nil {
			l = append(l, ancestor{identity, n})
		}
	}
	return l
}

// maxAncestors bounds the lineage: who restores more often than that has older positions expire.
const maxAncestors = 16

// after is the lineage of a copy, up to last, of the stream of this identity, which has lineage l itself.
func (l lineage) after(identity string, last uint64) lineage {
	copied := append(lineage{{identity, last}}, l...)
	for i := range copied {
		copied[i].Last = min(copied[i].Last, last)
	}
	return slices.Clip(copied[:min(len(copied), maxAncestors)])
}

// String is the lineage as metadata has it.
func (l lineage) String() string {
	parts := make([]string, len(l))
	for i, a := range l {
		parts[i] = a.Identity + ":" + strconv.FormatUint(a.Last, 10)
	}
	return strings.Join(parts, " ")
}

// last is up to where the ancestor of that identity was copied.
func (l lineage) last(identity string) (uint64, bool) {
	for _, a := range l {
		if a.Identity == identity {
			return a.Last, true
		}
	}
	return 0, false
}

// restoredFrom is when the snapshot was taken that a stream was restored from, and when that was done; zero if it was not.
func restoredFrom(metadata map[string]string) (taken, at time.Time) {
	return timeOf(metadata[metadataRestored]), timeOf(metadata[metadataAt])
}
