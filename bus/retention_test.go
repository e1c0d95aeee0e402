package bus

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRetentionHoldsTheStreamsRarelyAndKeepsNothingMuchLongerThanItsAge(t *testing.T) {
	for age, want := range map[time.Duration]time.Duration{
		time.Second: time.Second, time.Minute: 6 * time.Second, time.Hour: 6 * time.Minute, 48 * time.Hour: time.Hour, 720 * time.Hour: time.Hour,
	} {
		require.Equal(t, want, retentionEvery(map[string]time.Duration{"acme": age, "slower": 720 * time.Hour}), "%v", age)
	}
}
