// Package handlers runs handlers: functions that turn one event into deliveries. The runtime gives them everything else: the
// order of a conversation, retries, dead letters, and deliveries that are stored exactly once whatever is killed meanwhile.
//
// The road of an event through a worker:
//
//	worker.go        a worker lives through one epoch after the other
//	epoch.go         reads its durable from a reset on, as long as nothing is missing; pull.go asks for the events
//	lane.go          one queue per conversation, one event of it at a time
//	conversation.go  the commit protocol: fold, members, deliveries, index, acknowledge
//	fence.go         a derived message is stored once, or another worker is ahead
//	attempt.go       calls the handler; deadletter.go where it gives up
//	load.go          a conversation's state from checkpoint and index; checkpoint.go writes it
//	recover.go       after a power cut, makes the streams agree again
//	rehearsal.go     shows what a handler would make of stored events, and writes nothing; difference.go compares it with the real
//	creation.go      notices that a stream was deleted and made again; rebuild.go writes it from the events
//
// What is committed is what the index says: every event of a conversation has one entry there, written after its deliveries.
// A worker that takes over reads it and goes on behind it; what another worker did half, it does to the end, and the fences let
// nothing through twice.
package handlers
