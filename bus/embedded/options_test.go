package embedded_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus/embedded"
)

func TestValidateReportsEveryProblemByField(t *testing.T) {
	err := embedded.Options{
		NATSAddr: "4222", WebSocketAddr: "localhost:65536",
		WebSocketOrigins: []string{"https://desk.example.com", "desk.example.com"},
		Durability:       "careful", MaxStore: -1, MaxMemory: -1, MaxPayload: -1, ReadyTimeout: -1,
		Cluster: &embedded.Cluster{Name: "c", Routes: []string{"elsewhere"}},
	}.Validate()
	for _, want := range []string{
		"StoreDir is empty: name the folder",
		`Durability: durability "careful" is unknown: write "strict" or "balanced"`,
		"MaxStore is negative", "MaxMemory is negative", "MaxPayload is negative", "ReadyTimeout is negative",
		`NATSAddr: "4222" is no address: write "host:port"`,
		`WebSocketAddr: "localhost:65536" is no address`,
		`WebSocketOrigins: "desk.example.com" is no origin`,
		"Cluster needs a Name and an Addr",
		`Cluster.Routes: "elsewhere" is no address`,
	} {
		require.ErrorContains(t, err, want)
	}
}

func TestValidateRefusesWhatCannotGoTogether(t *testing.T) {
	for want, o := range map[string]embedded.Options{
		`NATSAddr and WebSocketAddr are both "127.0.0.1:4222": give each its own port`: {
			NATSAddr: "127.0.0.1:4222", WebSocketAddr: "127.0.0.1:4222",
		},
		"NATSAddr is empty: a node of a cluster has to listen": {
			Cluster: &embedded.Cluster{Name: "c", Addr: "127.0.0.1:6222"},
		},
	} {
		o.StoreDir = "store"
		require.EqualError(t, o.Validate(), want)
	}
}

func TestValidateAcceptsFreePortsAndEveryInterface(t *testing.T) {
	require.NoError(t, embedded.Options{StoreDir: "store", NATSAddr: ":0", WebSocketAddr: ":0"}.Validate())
	require.NoError(t, embedded.Options{StoreDir: "store", NATSAddr: "[::1]:4222", WebSocketAddr: ":4223"}.Validate())
}

func TestDurabilityIsReadAsWritten(t *testing.T) {
	for _, d := range []embedded.Durability{embedded.Strict, embedded.Balanced} {
		got, err := embedded.ParseDurability(string(d))
		require.NoError(t, err)
		require.Equal(t, d, got)
	}
	for _, s := range []string{"", "Strict", "fsync"} {
		_, err := embedded.ParseDurability(s)
		require.Error(t, err, s)
	}
}
