package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A redriven event carries more headers than the one it was. Of the largest events none had fitted any more.
func TestTheLargestEventThatCanBePublishedCanBeRedriven(t *testing.T) {
	d := serve(t)
	long := func(field string) string { return field + strings.Repeat("x", 512-len(field)) } // the longest that headers carry
	// Published under another name it becomes a dead letter, whose headers say what was found in the body.
	body := fmt.Sprintf(`{"id":%q,"name":%q,"channelSession":{"channel":{"channelType":{"name":%q}}},"conversationId":%q,"data":"`,
		long("id"), long("name"), long("channel"), long("conversation"))
	body += strings.Repeat("x", 1<<20-len(body)-2) + `"}`
	d.publishPlain(t, "cim.acme.web.AGENT_MESSAGE", nil, body)
	first := d.await(t, 1)[0]
	require.Equal(t, 1<<20, first.Size)
	require.False(t, first.LeftOut)

	got := invoke(t, "", d.on("dlq", "redrive", "--all", "--yes")...)
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, "1 dead letter: 1 redriven\n", got.stderr)
	require.Contains(t, got.stdout, "\nacme    conversation"+strings.Repeat("x", 35)+"…        1\n", "a name of 512 letters is cut in a table")
	again := d.await(t, 2)[1]
	require.Equal(t, first.Sequence, *again.RedriveOf)
	require.Equal(t, 1<<20, again.Size)

	// And once more, when it carries the headers of a redrive already.
	require.Zero(t, invoke(t, "", d.on("dlq", "redrive", fmt.Sprint(again.Sequence), "--yes")...).code)
	d.await(t, 3)
}
