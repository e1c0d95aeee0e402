// The published clients, oldest to newest, over their default transports and over WebSocket alone.

import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, it } from "node:test";
import * as v40 from "client-4.0";
import * as v45 from "client-4.5";
import * as v46 from "client-4.6";
import * as latest from "client-latest";
import { started } from "./started.mjs";

const addr = await started("./handlers/socketio/testdata/interop/server");
const clients = { "4.0": v40, 4.5: v45, 4.6: v46, latest };
const recovering = ["4.6", "latest"];

for (const [version, { io }] of Object.entries(clients)) {
  for (const transports of [undefined, ["websocket"], ["polling"]]) {
    describe(`socket.io-client ${version} over ${transports ?? "default transports"}`, { concurrency: false }, () => {
      const open = (t, namespace = "/", options = {}) => {
        const socket = io(`http://${addr}${namespace}`, {
          path: "/prefix/socket.io/", forceNew: true, reconnectionDelay: 20, reconnectionDelayMax: 50, ...(transports && { transports }), ...options,
        });
        t.after(() => socket.disconnect());
        return socket;
      };
      const ask = (socket, ...args) => new Promise((resolve) => socket.emit(...args, (...answer) => resolve(answer)));

      it("connects, and moves to WebSocket if it may", async (t) => {
        const socket = open(t);
        await once(socket, "connect");
        assert.ok(socket.id);
        if (!transports && socket.io.engine.transport.name !== "websocket") await once(socket.io.engine, "upgrade");
        assert.deepEqual(await ask(socket, "transport"), [transports?.[0] ?? "websocket"]);
      });

      it("passes JSON, unicode and binary both ways, with and without acks, in order", async (t) => {
        const socket = open(t);
        const value = { text: "ü \u2028 <&> 😀", list: [1, 2.5, null, true], deep: { bytes: Buffer.from([0, 255, 30]) } };
        assert.deepEqual(await ask(socket, "echo", value, Buffer.from("xyz")), [value, Buffer.from("xyz")]);
        assert.deepEqual(await ask(socket, "echo"), []);
        const got = [];
        const done = new Promise((resolve) => socket.on("echo", (i) => got.push(i) === 300 && resolve()));
        for (let i = 0; i < 300; i++) socket.emit("echo", i, i % 7 === 0 ? Buffer.from([i & 255]) : "x");
        await done;
        assert.deepEqual(got, Array.from({ length: 300 }, (_, i) => i));
      });

      it("answers the server's question", async (t) => {
        const socket = open(t);
        socket.on("question", (q, bytes, ack) => ack({ q, bytes: Buffer.from(bytes) }));
        socket.emit("ask me");
        const [answer] = await new Promise((resolve) => socket.on("answered", (...args) => resolve(args)));
        assert.deepEqual(answer, { q: { of: 1 }, bytes: Buffer.from([1, 2, 3]) });
      });

      it("hears why it is refused, and that there is no such namespace", async (t) => {
        const refused = open(t, "/", { auth: { refuse: "login-failed" } });
        const [error] = await once(refused, "connect_error");
        assert.equal(error.message, "login-failed");
        assert.deepEqual(error.data, { content: { msg: "no", key: "k" } });
        const [unknown] = await once(open(t, "/nowhere"), "connect_error");
        assert.equal(unknown.message, "Invalid namespace");
      });

      it("comes back when its transport is closed, after what was sent before, but not when it is disconnected", async (t) => {
        const socket = open(t);
        await once(socket, "connect");
        const words = once(socket, "last words");
        const gone = once(socket, "disconnect");
        socket.emit("drop me");
        await words;
        assert.notEqual((await gone)[0], "io server disconnect");
        await once(socket, "connect");
        socket.emit("dismiss me");
        assert.equal((await once(socket, "disconnect"))[0], "io server disconnect");
        assert.equal(socket.active ?? false, false);
      });

      it("leaves a namespace and comes back on the same connection", async (t) => {
        const socket = open(t);
        await once(socket, "connect");
        const other = socket.io.socket("/log");
        t.after(() => other.disconnect());
        if (!other.connected) await once(other, "connect");
        socket.disconnect();
        socket.connect();
        await once(socket, "connect");
        assert.deepEqual(await ask(socket, "echo", 1), [1]);
      });

      it("gets a flood in order, across the upgrade", async (t) => {
        const socket = open(t);
        const got = [];
        const done = new Promise((resolve) => socket.on("flood", (i) => got.push(i) === 5000 && resolve()));
        socket.emit("flood me", 5000);
        await done;
        assert.deepEqual(got, Array.from({ length: 5000 }, (_, i) => i));
      });

      it(recovering.includes(version) ? "recovers exactly the gap" : "ignores recovery", async (t) => {
        const socket = open(t, "/log");
        const got = [];
        socket.on("entry", (i) => got.push(i));
        const until = async (n) => {
          while (got.at(-1) !== n) await once(socket, "entry");
        };
        const writer = open(t);
        const appended = async () => (await ask(writer, "append"))[0];
        await once(socket, "connect");
        const first = await appended();
        await until(first);
        got.length = 0;
        got.push(first);
        const gone = once(socket, "disconnect");
        const back = once(socket, "connect");
        socket.io.engine.close();
        await gone;
        await appended();
        await appended();
        await back;
        const last = await appended();
        await until(last);
        if (recovering.includes(version)) {
          assert.equal(socket.recovered, true);
          assert.deepEqual(got, Array.from({ length: last - first + 1 }, (_, i) => first + i));
        }
        // A session that its user has ended is not recovered, though the client presents it.
        socket.disconnect();
        socket.connect();
        await once(socket, "connect");
        assert.equal(socket.recovered ?? false, false);
      });
    });
  }
}
