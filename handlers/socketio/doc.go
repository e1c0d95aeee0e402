// Package socketio is a server of the Socket.IO protocol, version 5, for every socket.io-client 4.x: namespaces, events,
// acknowledgements both ways, binary data, middleware that may refuse, and connection-state recovery that the application decides on.
// The transport below is package engineio.
//
// Facts of the protocol this package keeps (https://socket.io/docs/v4/socket-io-protocol/):
//
//   - A packet is <type>[<attachments>-][/namespace,][ack id][JSON]; its binary attachments follow as binary messages, and stand in the
//     JSON as {"_placeholder":true,"num":n}.
//   - A client connects to each namespace by CONNECT with an auth object, and is answered by CONNECT with a sid or CONNECT_ERROR with a
//     message and, from middleware, data. "Invalid namespace" goes without data.
//   - A client takes DISCONNECT from the server as final and does not come back; it does come back when its transport closes. So to shed
//     load, drain or restart close the transport: Socket.CloseTransport, Server.Close. Nothing here sends DISCONNECT but
//     Socket.Disconnect.
//   - With connection-state recovery (clients from 4.6) CONNECT carries a pid; the client remembers the last string that ended an event
//     without an ack as its offset, and presents both when it comes back. The same pid in the answer means recovered. See Recoverer.
//
// What does not parse ends the connection. JSON from a client is passed on compacted and otherwise untouched.
//
// Each socket's middleware, OnConnect, event handlers and OnDisconnect run one after the other, in the order of the client's packets, on
// a goroutine that exists while there is something to do; different sockets run at the same time. An Emit never waits: what is
// sent too fast for a client to read fills its queue and costs it its transport (engineio.ErrSlow). A Message is encoded once for all
// the sockets it goes to.
package socketio
