package engineio

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever parses as a payload is the same packets again when it is echoed; what does not parse is not taken in part.
func FuzzPayload(f *testing.F) {
	for _, seed := range []string{
		"4hello", "4test1\x1e4test2\x1e3", "4hello\x1ebAQIDBA==", "b", "", "abc", "\x1e", "4\x1e", "b!", "bAQ==\x1e6", "1", "4\xff", "2probe", "5", "b001=",
	} {
		f.Add([]byte(seed))
	}
	read := func(body []byte) ([]*Message, error) {
		var messages []*Message
		err := parsePayload(body, func(p packet) error {
			if p.binary {
				messages = append(messages, Binary(p.data))
			} else {
				messages = append(messages, newMessage(finalText, p.kind, p.data))
			}
			return nil
		})
		return messages, err
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		messages, err := read(body)
		require.Equal(t, before, body)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			require.Empty(t, messages)
			return
		}
		again, err := read(appendPayload(nil, messages))
		require.NoError(t, err)
		require.Equal(t, messages, again)
	})
}
