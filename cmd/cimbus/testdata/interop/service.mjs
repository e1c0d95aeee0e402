// What a service may rely on: the acknowledgement, the duplicate flag, its headers and its bytes.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { headers } from "@nats-io/nats-core";
import { event, subject } from "./events.mjs";

export function services(world) {
  describe("a service", () => {
    it("has its event stored once it is acknowledged", async () => {
      const { nc, tenant } = await world.service();
      const e = event("CUSTOMER_MESSAGE", "c1");
      const ack = await jetstream(nc).publish(subject(tenant, e), JSON.stringify(e));
      assert.equal(ack.stream, "CIM_EVENTS");
      assert.equal(ack.duplicate, false);
      const jsm = await jetstreamManager(nc);
      const stored = await jsm.streams.getMessage("CIM_EVENTS", { seq: ack.seq });
      assert.equal(stored.subject, subject(tenant, e));
      assert.deepEqual(stored.json(), e);
    });

    it("hears that a message id was there before, and its event is delivered once", async () => {
      const { nc, tenant } = await world.service();
      const agent = await world.member(tenant, "ada", "c1");
      const js = jetstream(nc);
      const e = event("CUSTOMER_MESSAGE", "c1");
      const first = await js.publish(subject(tenant, e), JSON.stringify(e), { msgID: e.id });
      const again = await js.publish(subject(tenant, e), JSON.stringify(e), { msgID: e.id });
      assert.equal(first.duplicate, false);
      assert.equal(again.duplicate, true);
      assert.equal(again.seq, first.seq);
      const end = event("CUSTOMER_LEFT", "c1");
      await js.publish(subject(tenant, end), JSON.stringify(end));
      assert.deepEqual((await agent.take(2)).map((d) => d.json().id), [e.id, end.id]);
    });

    it("has its bytes and its trace reach the agent as they were", async () => {
      const { nc, tenant } = await world.service();
      const agent = await world.member(tenant, "ada", "c1");
      const body = `{ "name":"BOT_SUGGESTION", "id":"bytes-${tenant}", "conversationId":"c1",\n "data": {"big":9007199254740993, "e":1.50, "z":1, "a":"ü\\u00fc \\/"} }`;
      const h = headers();
      h.set("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
      h.set("Cim-Sequence", "1"); // not a service's to set
      await jetstream(nc).publish(`cim.${tenant}.web.BOT_SUGGESTION`, body, { headers: h });
      const [d] = await agent.take(1);
      assert.ok(d.text().startsWith(`{"cimEvent":${body},"conversationId":"c1"`), d.text());
      assert.equal(d.headers.get("traceparent"), h.get("traceparent"));
      assert.equal(d.headers.get("Cim-Event-Name"), "BOT_SUGGESTION");
      assert.notEqual(d.headers.get("Cim-Sequence"), "1");
    });

    it("needs no more than a request", async () => {
      const { nc, tenant } = await world.service();
      const e = event("CUSTOMER_MESSAGE", "c1");
      const ack = (await nc.request(subject(tenant, e), JSON.stringify(e))).json();
      assert.equal(ack.stream, "CIM_EVENTS");
      assert.ok(ack.seq > 0);
    });

    it("is told when nothing stores what it publishes", async () => {
      const { nc, tenant } = await world.service();
      await assert.rejects(jetstream(nc).publish(`cim.${tenant}.web`, "{}"), { name: "JetStreamNotEnabled" });
    });

    it("stops nobody with an event that cannot be read, which is kept with the reason", async () => {
      const { nc, tenant } = await world.service();
      const agent = await world.member(tenant, "ada", "c1");
      const js = jetstream(nc);
      const bad = await js.publish(`cim.${tenant}.web.CUSTOMER_MESSAGE`, '{"name":"CUSTOMER_MESSAGE","conversationId":"c1",');
      const e = event("CUSTOMER_MESSAGE", "c1");
      await js.publish(subject(tenant, e), JSON.stringify(e));
      assert.deepEqual((await agent.take(1)).map((d) => d.json().id), [e.id]);
      const jsm = await jetstreamManager(nc);
      const letter = await jsm.streams.getMessage("CIM_DEAD_LETTERS", { last_by_subj: `cim-dead.*.${tenant}.>` });
      assert.equal(letter.subject, `cim-dead.onCimEvent.${tenant}.web.CUSTOMER_MESSAGE.${bad.seq}`);
      assert.equal(letter.header.get("Cim-Reason"), "not-json");
    });

    it("may read the deliveries of everybody with a consumer", async () => {
      const { nc, tenant } = await world.service();
      const agent = await world.member(tenant, "ada", "c1");
      const js = jetstream(nc);
      const sent = [];
      for (let i = 0; i < 5; i++) {
        const e = event("CUSTOMER_MESSAGE", "c1");
        sent.push(e.id);
        await js.publish(subject(tenant, e), JSON.stringify(e));
      }
      await agent.take(5);
      const consumer = await js.consumers.get("CIM_DELIVERIES", { filter_subjects: `cim-agent.${tenant}.>` });
      const read = [];
      for await (const m of await consumer.fetch({ max_messages: 6, expires: 5000 })) read.push(m.json());
      assert.equal(read[0].cimEvent.name, "AGENT_SUBSCRIBED");
      assert.deepEqual(read.slice(1).map((d) => d.id), sent);
    });
  });
}
