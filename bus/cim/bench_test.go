package cim

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// event6KB is a BOT_SUGGESTION as services send it: compact, its session in data.header, so that all of it is looked at.
func event6KB(b *testing.B) []byte {
	b.Helper()
	page, err := os.ReadFile("testdata/page.json")
	require.NoError(b, err)
	var wrapper struct{ CimEvent json.RawMessage }
	require.NoError(b, json.Unmarshal(page, &wrapper))
	var compact bytes.Buffer
	require.NoError(b, json.Compact(&compact, wrapper.CimEvent))
	b.SetBytes(int64(compact.Len()))
	b.ReportAllocs()
	return compact.Bytes()
}

func BenchmarkDecode6KB(b *testing.B) {
	body := event6KB(b)
	for b.Loop() {
		if _, err := Decode(body, ""); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkJSONUnmarshalMap is the yardstick: what decoding everything costs.
func BenchmarkJSONUnmarshalMap(b *testing.B) {
	body := event6KB(b)
	for b.Loop() {
		var all map[string]any
		if err := json.Unmarshal(body, &all); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkJSONValid is the other yardstick: what the standard library takes to check the grammar alone.
func BenchmarkJSONValid(b *testing.B) {
	body := event6KB(b)
	for b.Loop() {
		if !json.Valid(body) {
			b.Fatal("not JSON")
		}
	}
}

func BenchmarkAppendDelivery6KB(b *testing.B) {
	e, err := Decode(event6KB(b), "")
	require.NoError(b, err)
	var dst []byte
	for b.Loop() {
		dst = AppendDelivery(dst[:0], &e, e.Conversation, true)
	}
}
