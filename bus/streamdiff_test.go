package bus

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// declared is CIM_DELIVERIES as the server gives it back.
func declared() jetstream.StreamConfig {
	return StreamOptions{}.declare(place{maxBytes: 1 << 30, maxPayload: 4 << 20, replicas: 3})[1]
}

func compareStreams(t *testing.T, have, want jetstream.StreamConfig, state jetstream.StreamState) *comparison {
	t.Helper()
	c := &comparison{
		have: have, want: want, state: state, now: time.Unix(1_800_000_000, 0),
		fullest: func(context.Context) (uint64, error) { return 500, nil },
	}
	require.NoError(t, c.run(t.Context()))
	return c
}

func TestEveryDifferenceIsHarmlessDestructiveOrImpossible(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	full := jetstream.StreamState{Msgs: 1000, Bytes: 1 << 29, FirstTime: now.Add(-100 * time.Hour)}
	const (
		harmless    = "harmless"
		destructive = "destructive"
		impossible  = "impossible"
		tolerated   = ""
	)
	tests := map[string]struct {
		have  func(*jetstream.StreamConfig)
		state jetstream.StreamState
		is    string
		field string
	}{
		"nothing": {have: func(*jetstream.StreamConfig) {}, is: tolerated},
		"metadata and placement": {have: func(c *jetstream.StreamConfig) {
			c.Metadata = map[string]string{"_nats.level": "5"}
			c.Placement = &jetstream.Placement{Tags: []string{"ssd"}}
		}, is: tolerated},
		"more consumers allowed":      {have: func(c *jetstream.StreamConfig) { c.MaxConsumers = 100_000 }, is: tolerated},
		"purge denied":                {have: func(c *jetstream.StreamConfig) { c.DenyPurge = true }, is: tolerated},
		"storage":                     {have: func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }, is: impossible, field: "storage"},
		"acknowledged before written": {have: func(c *jetstream.StreamConfig) { c.PersistMode = jetstream.AsyncPersistMode }, is: impossible, field: "persist mode"},
		"sealed":                      {have: func(c *jetstream.StreamConfig) { c.Sealed = true }, is: impossible, field: "sealed"},
		"counter":                     {have: func(c *jetstream.StreamConfig) { c.AllowMsgCounter = true }, is: impossible, field: "message counter"},
		"work queue":                  {have: func(c *jetstream.StreamConfig) { c.Retention = jetstream.WorkQueuePolicy }, is: impossible, field: "retention"},
		"interest":                    {have: func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy }, is: destructive, field: "retention"},
		"mirror":                      {have: func(c *jetstream.StreamConfig) { c.Mirror = &jetstream.StreamSource{Name: "X"} }, is: destructive, field: "mirror"},
		"sources":                     {have: func(c *jetstream.StreamConfig) { c.Sources = []*jetstream.StreamSource{{Name: "X"}} }, is: destructive, field: "sources"},
		"transform": {have: func(c *jetstream.StreamConfig) {
			c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: ">", Destination: "x.>"}
		}, is: destructive, field: "subject transform"},
		"narrower subjects":                  {have: func(c *jetstream.StreamConfig) { c.Subjects = []string{"cim-agent.acme.*.>"} }, is: harmless, field: "subjects"},
		"other subjects besides":             {have: func(c *jetstream.StreamConfig) { c.Subjects = []string{"cim-agent.>", "more.>"} }, is: destructive, field: "subjects"},
		"more replicas":                      {have: func(c *jetstream.StreamConfig) { c.Replicas = 5 }, is: destructive, field: "replicas"},
		"fewer replicas":                     {have: func(c *jetstream.StreamConfig) { c.Replicas = 1 }, is: harmless, field: "replicas"},
		"older messages":                     {have: func(c *jetstream.StreamConfig) { c.MaxAge = 0 }, state: full, is: destructive, field: "max age"},
		"longer age, nothing that old":       {have: func(c *jetstream.StreamConfig) { c.MaxAge = 1000 * time.Hour }, state: jetstream.StreamState{Msgs: 1, FirstTime: now}, is: harmless, field: "max age"},
		"longer age, nothing stored":         {have: func(c *jetstream.StreamConfig) { c.MaxAge = 1000 * time.Hour }, is: harmless, field: "max age"},
		"more bytes than allowed":            {have: func(c *jetstream.StreamConfig) { c.MaxBytes = -1 }, state: full, is: destructive, field: "max bytes"},
		"higher limit of bytes, not reached": {have: func(c *jetstream.StreamConfig) { c.MaxBytes = 1 << 40 }, is: harmless, field: "max bytes"},
		"lower limit of bytes":               {have: func(c *jetstream.StreamConfig) { c.MaxBytes = 1 }, state: jetstream.StreamState{Msgs: 1, Bytes: 1}, is: harmless, field: "max bytes"},
		"limit of messages":                  {have: func(c *jetstream.StreamConfig) { c.MaxMsgs = 10 }, state: full, is: harmless, field: "max messages"},
		"no limit per subject":               {have: func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = -1 }, state: full, is: harmless, field: "max messages per subject"},
		"refuses when full":                  {have: func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardNew }, is: destructive, field: "discard"},
		"compression":                        {have: func(c *jetstream.StreamConfig) { c.Compression = jetstream.S2Compression }, is: harmless, field: "compression"},
		"window":                             {have: func(c *jetstream.StreamConfig) { c.Duplicates = time.Hour }, is: harmless, field: "duplicate window"},
		"rollup":                             {have: func(c *jetstream.StreamConfig) { c.AllowRollup = true }, is: harmless, field: "rollup"},
		"no acknowledgements":                {have: func(c *jetstream.StreamConfig) { c.NoAck = true }, is: harmless, field: "no acknowledgement"},
		"fewer consumers allowed":            {have: func(c *jetstream.StreamConfig) { c.MaxConsumers = -1 }, is: harmless, field: "max consumers"},
		"live copies without body": {have: func(c *jetstream.StreamConfig) {
			c.RePublish = &jetstream.RePublish{Source: "cim-agent.>", Destination: "cim-live.>", HeadersOnly: true}
		}, is: harmless, field: "republish"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			want, have := declared(), declared()
			test.have(&have)
			c := compareStreams(t, have, want, test.state)
			if test.is == tolerated {
				require.Empty(t, c.diffs)
				require.Equal(t, have, c.to, "left as it is")
				return
			}
			require.Len(t, c.diffs, 1)
			d := c.diffs[0]
			require.Equal(t, test.field, d.Field)
			require.Equal(t, test.is == destructive, d.Destructive, d.Why)
			require.Equal(t, test.is == impossible, d.Impossible, d.Why)
			if test.is == harmless {
				require.Empty(t, d.Why)
			} else {
				require.NotEmpty(t, d.Why)
			}
			require.NotEqual(t, d.Want, d.Have)
			if test.is != impossible {
				require.Empty(t, compareStreams(t, c.to, want, test.state).diffs, "the difference is made away")
			}
		})
	}
}

func TestALimitPerSubjectThatDeletesIsDestructive(t *testing.T) {
	want, have := declared(), declared()
	want.MaxMsgsPerSubject = 499
	d := compareStreams(t, have, want, jetstream.StreamState{Msgs: 1000}).diffs
	require.Len(t, d, 1)
	require.True(t, d[0].Destructive)
	want.MaxMsgsPerSubject = 500
	require.False(t, compareStreams(t, have, want, jetstream.StreamState{Msgs: 1000}).diffs[0].Destructive)
}

func TestAFullStreamThatRefusesIsToldWhatALowerLimitMeans(t *testing.T) {
	events := StreamOptions{}.declare(place{maxBytes: 1 << 30, maxPayload: 4 << 20, replicas: 1})[0]
	have := events
	have.MaxBytes = -1
	d := compareStreams(t, have, events, jetstream.StreamState{Msgs: 1, Bytes: 1 << 30}).diffs
	require.Len(t, d, 1)
	require.True(t, d[0].Destructive)
	require.Contains(t, d[0].Why, "refuse every message")
}

func TestReplicasNobodyAskedForAreKept(t *testing.T) {
	want, have := declared(), declared()
	have.Replicas = 5
	c := &comparison{have: have, want: want, atLeast: true}
	require.NoError(t, c.run(t.Context()))
	require.Empty(t, c.diffs)
}

func TestCoversHoldsSubjectsAgainstFilters(t *testing.T) {
	for _, test := range []struct {
		outer, inner string
		covers       bool
	}{
		{"cim.*.*.*", "cim.*.*.*", true}, {"cim.*.*.*", "cim.acme.*.X", true}, {"cim.>", "cim.*.*.*", true}, {">", "cim.>", true},
		{"cim.*.*.*", "cim.>", false}, {"cim.*.*.*", "cim.acme.>", false}, {"cim.*.*", "cim.*.*.*", false}, {"cim.acme.*.*", "cim.*.*.*", false},
		{"cim.>", "cim", false}, {"cim-agent.>", "cim.>", false},
	} {
		require.Equal(t, test.covers, covers(test.outer, test.inner), "%s covers %s", test.outer, test.inner)
	}
}

func TestAnAccountsLimitsBoundTheStreams(t *testing.T) {
	o := StreamOptions{}
	for _, s := range o.declare(place{maxBytes: -1, streamBytes: 5000, maxConsumers: 10, maxPayload: 4 << 20, replicas: 1}) {
		require.EqualValues(t, 5000, s.MaxBytes)
		require.Equal(t, 10, s.MaxConsumers)
	}
	require.EqualValues(t, 5000, o.declare(place{maxBytes: 1 << 40, streamBytes: 5000, maxPayload: 4 << 20})[0].MaxBytes)
}
