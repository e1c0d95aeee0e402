// Package engineio is a server of the Engine.IO protocol, version 4: an ordered, bidirectional channel of text and binary messages
// to a client that begins with HTTP long-polling and moves to WebSocket when it can.
//
// Facts of the protocol this package keeps (https://socket.io/docs/v4/engine-io-protocol/):
//
//   - A packet is a type digit (0 open, 1 close, 2 ping, 3 pong, 4 message, 5 upgrade, 6 noop) and its data. Over polling the packets
//     of one payload are separated by 0x1E and a binary message is "b" and base64; over WebSocket a frame is a packet, a binary frame a
//     binary message.
//   - The server pings; a session is over PingInterval+PingTimeout after its creation, or after its last pong, without another.
//   - One GET hangs at a time, and one POST. A second of either is a broken client: the session ends.
//   - An upgrade is a WebSocket with the session's id, "2probe" answered by "3probe", the hanging GET released by a noop, and "5".
//     Messages wait from the noop to the "5", so that none is lost, repeated or reordered.
//
// A session lives in one process. A request with its id that reaches another one gets 400 "Session ID unknown", and the client begins
// anew: behind several processes polling needs a balancer that keeps a client with its process, WebSocket alone does not.
//
// What it costs: an idle polling session has no goroutine of its own beyond the HTTP request that hangs, an idle WebSocket one has its
// reader. Writers exist while there is something to write, heartbeats are timers. A Message is encoded once, as a WebSocket frame
// that also contains the polling form, for all the sessions it is sent to. Queues are bounded: a client that reads too slowly loses its
// transport, which it may open again, and holds nobody up.
package engineio
