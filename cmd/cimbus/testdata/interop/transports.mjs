// The two ways in: NATS over TCP, and NATS over WebSocket as a browser speaks it.

import { wsconnect } from "@nats-io/nats-core";
import { connect } from "@nats-io/transport-node";
import { WebSocket } from "ws";

globalThis.WebSocket ??= WebSocket; // Node has its own from version 22 on

export const transports = [
  { name: "native", connect: (ready, options) => connect({ servers: ready.nats, ...options }) },
  { name: "websocket", connect: (ready, options) => wsconnect({ servers: ready.websocket, ...options }) },
];
