// Engine.IO 4 and Socket.IO 5 as they are on the wire, against the echo: what the protocols' published suites check, listening as they
// do, for one frame at a time. WIRE_ROUNDS repeats it all.

import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import WebSocket from "ws";
import { started } from "./started.mjs";

const addr = await started("./handlers/socketio/echo");
const interval = 300;
const timeout = 200;

const url = (path, query) => `http://${addr}${path}?${new URLSearchParams(query)}`;
const polling = (path, more = {}) => url(path, { EIO: "4", transport: "polling", ...more });
const connected = (path, more = {}) => {
  const socket = new WebSocket(url(path, { EIO: "4", transport: "websocket", ...more }).replace("http", "ws"));
  socket.binaryType = "arraybuffer";
  socket.on("error", () => {});
  return socket;
};
// message is the next frame; like the published suite it hears nothing in between.
const message = (socket) =>
  new Promise((resolve) => socket.addEventListener("message", (event) => resolve(event.data), { once: true }));
// messages are the next n that are not pings.
const messages = (socket, n) =>
  new Promise((resolve) => {
    const got = [];
    const take = ({ data }) => {
      if (data !== "2") got.push(data);
      if (got.length !== n) return;
      socket.removeEventListener("message", take);
      resolve(got);
    };
    socket.addEventListener("message", take);
  });
const closed = (socket) => new Promise((resolve) => socket.addEventListener("close", resolve, { once: true }));
const session = async (path) => JSON.parse((await (await fetch(polling(path))).text()).slice(1)).sid;
const post = (path, sid, body) => fetch(polling(path, { sid }), { method: "POST", body });

function checkOpen(text, upgrades) {
  assert.equal(text[0], "0");
  const open = JSON.parse(text.slice(1));
  assert.deepEqual(Object.keys(open).sort(), ["maxPayload", "pingInterval", "pingTimeout", "sid", "upgrades"]);
  assert.equal(typeof open.sid, "string");
  assert.deepEqual(open.upgrades, upgrades);
  assert.deepEqual([open.pingInterval, open.pingTimeout, open.maxPayload], [interval, timeout, 1_000_000]);
}

// engine is what holds of both paths: each is Engine.IO below.
function engine(path) {
  describe(`Engine.IO on ${path}`, { concurrency: false }, () => {
    it("opens a session over polling, and tells what a client must know", async () => {
      const response = await fetch(polling(path));
      assert.equal(response.status, 200);
      checkOpen(await response.text(), ["websocket"]);
    });

    it("opens a session over WebSocket", async () => {
      const socket = connected(path);
      checkOpen(await message(socket), []);
      socket.close();
    });

    it("refuses what is no handshake", async () => {
      for (const query of [{ transport: "polling" }, { EIO: "abc", transport: "polling" }, { EIO: "4" }, { EIO: "4", transport: "abc" }]) {
        assert.equal((await fetch(url(path, query))).status, 400);
        const socket = new WebSocket(url(path, { ...query, transport: query.transport === "polling" ? "websocket" : (query.transport ?? "") }).replace("http", "ws"));
        socket.on("error", () => {});
        await closed(socket);
      }
      for (const method of ["POST", "PUT", "DELETE"]) assert.equal((await fetch(polling(path), { method })).status, 400);
      assert.equal((await fetch(polling(path, { sid: "unknown" }))).status, 400);
    });

    it("pings over polling, as long as it is answered", async () => {
      const sid = await session(path);
      for (let i = 0; i < 3; i++) {
        assert.equal(await (await fetch(polling(path, { sid }))).text(), "2");
        assert.equal((await post(path, sid, "3")).status, 200);
      }
    });

    it("ends a polling session that answers no ping, to the millisecond", async () => {
      const sid = await session(path);
      await sleep(interval + timeout);
      assert.equal((await fetch(polling(path, { sid }))).status, 400);
    });

    it("pings over WebSocket, and ends the session that does not answer", async () => {
      const socket = connected(path);
      await message(socket);
      for (let i = 0; i < 3; i++) {
        assert.equal(await message(socket), "2");
        socket.send("3");
      }
      await closed(socket);
    });

    it("ends a session by a close packet in the same instant as a poll", async () => {
      const sid = await session(path);
      const [poll, push] = await Promise.all([fetch(polling(path, { sid })), post(path, sid, "1")]);
      assert.deepEqual([poll.status, await poll.text(), push.status], [200, "6", 200]);
      assert.equal((await fetch(polling(path, { sid }))).status, 400);
    });

    it("ends a session by a close packet over WebSocket", async () => {
      const socket = connected(path);
      await message(socket);
      socket.send("1");
      await closed(socket);
    });

    it("ends a session upon two polls at once", async () => {
      const sid = await session(path);
      const [first, second] = await Promise.all([fetch(polling(path, { sid })), sleep(5).then(() => fetch(polling(path, { sid, t: "2" })))]);
      assert.deepEqual([first.status, await first.text(), second.status], [200, "1", 400]);
      assert.equal((await fetch(polling(path, { sid }))).status, 400);
    });

    it("ends a session whose poll was cancelled", async () => {
      const sid = await session(path);
      const abort = new AbortController();
      fetch(polling(path, { sid }), { signal: abort.signal }).catch(() => {});
      await sleep(5);
      abort.abort();
      assert.equal((await fetch(polling(path, { sid }))).status, 400);
    });

    it("ends a session upon what is no packet", async () => {
      const sid = await session(path);
      assert.equal((await post(path, sid, "abc")).status, 400);
      assert.equal((await fetch(polling(path, { sid }))).status, 400);
      const socket = connected(path);
      await message(socket);
      socket.send("abc");
      await closed(socket);
    });

    it("ends a session upon a body that is too large", async () => {
      const sid = await session(path);
      assert.equal((await post(path, sid, "4" + "x".repeat(1_000_000))).status, 413);
      assert.equal((await fetch(polling(path, { sid }))).status, 400);
    });

    it("refuses polls after an upgrade, probed and decided in one breath", async () => {
      const sid = await session(path);
      const socket = connected(path, { sid });
      await once(socket, "open");
      socket.send("2probe");
      socket.send("5");
      assert.equal((await fetch(polling(path, { sid }))).status, 400);
    });

    it("closes a second WebSocket of a session", async () => {
      const sid = await session(path);
      const socket = connected(path, { sid });
      await once(socket, "open");
      socket.send("2probe");
      socket.send("5");
      const second = connected(path, { sid });
      await once(second, "open");
      await closed(second);
      assert.equal(socket.readyState, WebSocket.OPEN);
    });

    it("answers a preflight of any origin, with credentials", async () => {
      const origin = "https://desk.example.com";
      const response = await fetch(polling(path), { method: "OPTIONS", headers: { origin, "access-control-request-method": "POST" } });
      assert.equal(response.status, 204);
      assert.equal(response.headers.get("access-control-allow-origin"), origin);
      assert.equal(response.headers.get("access-control-allow-credentials"), "true");
    });
  });
}

for (let round = 0; round < Number(process.env.WIRE_ROUNDS ?? 1); round++) {
  engine("/engine.io/");
  engine("/socket.io/");

  describe("the Engine.IO echo", { concurrency: false }, () => {
    for (const payload of ["4hello", "4test1\x1e4test2\x1e4test3", "4hello\x1ebAQIDBA=="]) {
      it(`gives back ${JSON.stringify(payload)}`, async () => {
        const sid = await session("/engine.io/");
        const push = await post("/engine.io/", sid, payload);
        assert.deepEqual([push.status, await push.text()], [200, "ok"]);
        const poll = await fetch(polling("/engine.io/", { sid }));
        assert.deepEqual([poll.status, await poll.text()], [200, payload]);
      });
    }

    it("gives back text and bytes over WebSocket", async () => {
      const socket = connected("/engine.io/");
      await message(socket);
      socket.send("4hello");
      assert.equal(await message(socket), "4hello");
      socket.send(Uint8Array.from([1, 2, 3, 4]));
      assert.deepEqual(await message(socket), Uint8Array.from([1, 2, 3, 4]).buffer);
      socket.close();
    });

    it("upgrades: the poll is released by a noop, then all goes over the WebSocket", async () => {
      const sid = await session("/engine.io/");
      const socket = connected("/engine.io/", { sid });
      await once(socket, "open");
      socket.send("2probe");
      assert.equal(await message(socket), "3probe");
      const poll = await fetch(polling("/engine.io/", { sid }));
      assert.deepEqual([poll.status, await poll.text()], [200, "6"]);
      socket.send("5");
      socket.send("4hello");
      assert.equal(await message(socket), "4hello");
      socket.close();
    });

    it("goes on after refusing a poll and a second WebSocket of an upgraded session", async () => {
      const sid = await session("/engine.io/");
      const socket = connected("/engine.io/", { sid });
      await once(socket, "open");
      socket.send("2probe");
      assert.equal(await message(socket), "3probe");
      socket.send("5");
      assert.equal((await fetch(polling("/engine.io/", { sid }))).status, 400);
      await closed(connected("/engine.io/", { sid }));
      socket.send("4hello");
      assert.equal(await message(socket), "4hello");
      socket.close();
    });
  });

  describe("Socket.IO", { concurrency: false }, () => {
    // opened is a connection past its Engine.IO handshake; joined one past the CONNECT to the main namespace.
    const opened = async () => {
      const socket = connected("/socket.io/");
      await message(socket);
      return socket;
    };
    const joined = async () => {
      const socket = await opened();
      socket.send("40");
      await message(socket);
      await message(socket);
      return socket;
    };

    for (const [namespace, comma] of [["", ""], ["/custom", ","], ["/custom,", ""]]) {
      for (const auth of namespace === "/custom" ? [""] : ["", '{"token":"123"}']) {
        it(`connects by 40${namespace}${auth}`, async () => {
          const socket = await opened();
          socket.send(`40${namespace}${auth}`);
          const answer = await message(socket);
          const head = `40${namespace}${comma}`;
          assert.equal(answer.slice(0, head.length), head);
          const body = JSON.parse(answer.slice(head.length));
          assert.deepEqual(Object.keys(body), ["sid"]);
          assert.equal(typeof body.sid, "string");
          assert.equal(await message(socket), `42${namespace}${comma}["auth",${auth || "{}"}]`);
          socket.close();
        });
      }
    }

    it("says that there is no such namespace, and nothing else", async () => {
      const socket = await opened();
      socket.send("40/random");
      assert.equal(await message(socket), '44/random,{"message":"Invalid namespace"}');
      socket.close();
    });

    for (const packet of ["4abc", "42{}", "42[]", '42abc["message-with-ack",1,"2",{"3":[false]}]', '45["message"]', "40[]", "49"]) {
      it(`closes upon ${packet}`, async () => {
        const first = await opened();
        first.send(packet);
        await closed(first);
        const later = await joined();
        later.send(packet);
        await closed(later);
      });
    }

    it("closes a connection that connects to nothing", async () => closed(await opened()));

    it("keeps the connection when the main namespace is left", async () => {
      const socket = await joined();
      socket.send("41");
      assert.equal(await message(socket), "2");
      socket.close();
    });

    it("keeps the main namespace when another one is left", async () => {
      const socket = await joined();
      await message(socket); // ping
      socket.send("40/custom");
      await message(socket);
      await message(socket);
      socket.send("41/custom");
      socket.send('42["message","message to main namespace"]');
      assert.equal(await message(socket), '42["message-back","message to main namespace"]');
      socket.close();
    });

    const placeholders = '{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}';
    const bytes = [Uint8Array.from([1, 2, 3]), Uint8Array.from([4, 5, 6])];
    for (const [sent, back] of [
      ['42["message",1,"2",{"3":[true]}]', '42["message-back",1,"2",{"3":[true]}]'],
      ['42456["message-with-ack",1,"2",{"3":[false]}]', '43456[1,"2",{"3":[false]}]'],
      [`452-["message",${placeholders}]`, `452-["message-back",${placeholders}]`],
      [`452-789["message-with-ack",${placeholders}]`, `462-789[${placeholders}]`],
      [`452-["message",{"deep":[${placeholders}]}]`, `452-["message-back",{"deep":[${placeholders}]}]`],
    ]) {
      it(`gives back ${sent}`, async () => {
        const socket = await joined();
        const binary = sent.startsWith("45");
        socket.send(sent);
        if (binary) bytes.forEach((b) => socket.send(b));
        const got = await messages(socket, binary ? 3 : 1);
        assert.deepEqual(got, [back, ...(binary ? bytes.map((b) => b.buffer) : [])]);
        socket.close();
      });
    }
  });
}
