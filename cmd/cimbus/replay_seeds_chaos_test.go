//go:build unix && chaos

package main

// killSeeds is how many ways of being hit a replay sees on each kind of server.
const killSeeds = 15
