package cim

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTimestampsAreReadInBothForms(t *testing.T) {
	at := time.Date(2024, 1, 26, 12, 59, 36, 836e6, time.UTC)
	for raw, want := range map[string]time.Time{
		`1706273976836`:                   at,
		`1706273976836.9`:                 at,
		`1.706273976836e12`:               at,
		`1706273976836000E-3`:             at,
		`0`:                               time.Unix(0, 0).UTC(),
		`-1`:                              time.UnixMilli(-1).UTC(),
		`253402300799999`:                 time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC),
		`"2024-01-26T12:59:36.836+00:00"`: at,
		`"2024-01-26T12:59:36.836Z"`:      at,
		`"2024-01-26T12:59:36.836+0000"`:  at,
		`"2024-01-26T17:29:36.836+0430"`:  at,
		`"2024-01-26T10:59:36.836-02:00"`: at,
		`"2024-01-26T12:59:36\u002e836Z"`: at,
		`"2024-01-26T12:59:36Z"`:          at.Truncate(time.Second),
		`"9999-12-31T23:59:59.999+00:00"`: time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC),
		`253402300800000`:                 {},
		`-62167219200001`:                 {},
		`1e15`:                            {},
		`1e999`:                           {},
		`99999999999999999999999999`:      {},
		`"9999-12-31T23:59:59.999-01:00"`: {},
		`"0000-01-01T00:00:00+01:00"`:     {},
		`"2024-13-26T12:59:36Z"`:          {},
		`"2024-01-26T12:59:36"`:           {},
		`"2024-01-26"`:                    {},
		`"1706273976836"`:                 {},
		`"yesterday"`:                     {},
		`""`:                              {},
		`null`:                            {},
		`true`:                            {},
		`{"$date":1706273976836}`:         {},
		`[2024,1,26]`:                     {},
	} {
		t.Run(raw, func(t *testing.T) {
			require.Equal(t, want, decode(t, `{"id":"1","name":"X","timestamp":`+raw+`}`).Time)
		})
	}
	require.True(t, decode(t, `{"id":"1","name":"X"}`).Time.IsZero())
}
