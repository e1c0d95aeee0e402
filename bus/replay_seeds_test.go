//go:build !chaos

package bus_test

// replaySeeds is how many ways of being broken off each target sees.
const replaySeeds = 2
