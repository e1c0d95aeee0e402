package embedded

import (
	"fmt"
	"time"
)

// Durability says what an acknowledgement of the embedded server is worth.
type Durability string

const (
	// Strict syncs every message to disk before it is acknowledged: not even a
	// power cut takes back what was acknowledged.
	Strict Durability = "strict"
	// Balanced syncs once in BalancedSyncInterval: a power cut can cost what
	// was acknowledged within it, a killed process nothing.
	Balanced Durability = "balanced"
)

// BalancedSyncInterval is the most that Balanced can lose to a power cut.
const BalancedSyncInterval = time.Second

// ParseDurability reads the word an operator writes: "strict" or "balanced".
func ParseDurability(s string) (Durability, error) {
	switch d := Durability(s); d {
	case Strict, Balanced:
		return d, nil
	}
	return "", fmt.Errorf("durability %q is unknown: write %q or %q", s, Strict, Balanced)
}

func (d Durability) orDefault() (Durability, error) {
	if d == "" {
		return Strict, nil
	}
	return ParseDurability(string(d))
}
