// What an agent may rely on: every delivery once, in order, whatever happens to its connection.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { jetstream } from "@nats-io/jetstream";
import { Agent, ask } from "./agent.mjs";
import { event, subject } from "./events.mjs";

export function agents(world) {
  // publish publishes n events of a conversation, one after the other, and returns their ids.
  async function publish({ nc, tenant }, conversation, n, name = "CUSTOMER_MESSAGE") {
    const js = jetstream(nc);
    const ids = [];
    for (let i = 0; i < n; i++) {
      const e = event(name, conversation);
      ids.push(e.id);
      await js.publish(subject(tenant, e), JSON.stringify(e));
    }
    return ids;
  }

  const ids = (deliveries) => deliveries.map((d) => d.json().id);

  describe("an agent", () => {
    it("receives its conversation's events in order, its own joining first", async () => {
      const service = await world.service();
      const agent = await world.agent(service.tenant, "ada");
      await ask(agent.nc, agent.name, "join", { conversation: "c1" });
      const [joined] = await agent.take(1);
      assert.equal(joined.json().cimEvent.name, "AGENT_SUBSCRIBED");
      assert.equal(joined.subject, `cim-agent.${service.tenant}.ada.onCimEvent.c1`);
      const sent = await publish(service, "c1", 20);
      await publish(service, "c2", 3); // of others
      sent.push(...(await publish(service, "c1", 1)));
      assert.deepEqual(ids(await agent.take(21)), sent);
    });

    it("resumes exactly the hundred events it missed", async () => {
      const service = await world.service();
      let agent = await world.member(service.tenant, "ada", "c1");
      const before = await publish(service, "c1", 3);
      assert.deepEqual(ids(await agent.take(3)), before);
      const after = agent.position;
      await agent.nc.close();

      const missed = await publish(service, "c1", 100);
      agent = await world.agent(service.tenant, "ada", after);
      const { messages, last } = await askUntil(agent, after, 100);
      assert.deepEqual(messages.map((m) => m.json().id), missed);
      assert.equal((await ask(agent.nc, agent.name, "check", { after: last })).count, 0);

      // The same as one stream, and what comes live behind it.
      const live = await publish(service, "c1", 5);
      assert.deepEqual(ids(await agent.take(105)), [...missed, ...live]);
    });

    it("misses and repeats nothing while its connection breaks again and again", async () => {
      const service = await world.service();
      const agent = await world.member(service.tenant, "ada", "c1");
      await ask(agent.nc, agent.name, "join", { conversation: "c2" });
      await agent.take(1);
      const sent = { c1: [], c2: [] };
      const received = agent.take(300);
      for (let i = 0; i < 15; i++) {
        sent.c1.push(...(await publish(service, "c1", 10)));
        sent.c2.push(...(await publish(service, "c2", 10)));
        await agent.nc.reconnect();
      }
      const got = await received;
      for (const c of ["c1", "c2"]) assert.deepEqual(ids(got.filter((d) => d.conversation === c)), sent[c]);
      assert.equal(await agent.quiet(), true);
    });

    it("finds what was lost on the way by what comes behind it", async () => {
      const service = await world.service();
      let n = 0;
      const agent = await world.agent(service.tenant, "ada", undefined, (live) => (err, m) => {
        if (err || n++ % 3 !== 1) live(err, m);
      });
      const received = agent.take(31);
      await ask(agent.nc, agent.name, "join", { conversation: "c1" });
      const sent = await publish(service, "c1", 30);
      const [, ...got] = await received;
      assert.deepEqual(ids(got), sent);
      assert.equal(n, 31);
    });

    it("goes on from a stored position as if it had never been away, wherever that was stored", async () => {
      const service = await world.service();
      let agent = await world.member(service.tenant, "ada", "c1");
      const sent = await publish(service, "c1", 30);
      const got = [];
      for (const n of [1, 2, 7, 20]) {
        got.push(...ids(await agent.take(n)));
        const after = agent.position;
        await agent.nc.close();
        agent = await world.agent(service.tenant, "ada", after);
      }
      assert.deepEqual(got, sent);
    });

    it("reads the log page by page, each as short as it likes", async () => {
      const service = await world.service();
      const agent = await world.member(service.tenant, "ada", "c1");
      const sent = await publish(service, "c1", 25);
      await agent.take(25);
      const got = [];
      let after = "0";
      for (let more = true; more; ) {
        const page = await ask(agent.nc, agent.name, "resume", { after, max: 7 });
        assert.ok(page.messages.length <= 7);
        got.push(...page.messages.map((m) => m.json().id));
        ({ last: after, more } = page);
      }
      assert.deepEqual(got.slice(1), sent); // the first is its joining
    });

    it("sees who is typing while they type, and never again", async () => {
      const service = await world.service();
      const agent = await world.member(service.tenant, "ada", "c1");
      const [typing] = await publish(service, "c1", 1, "TYPING_INDICATOR");
      const [message] = await publish(service, "c1", 1);
      const got = await agent.take(2);
      assert.deepEqual(ids(got).sort(), [typing, message].sort());
      assert.deepEqual(ids(got.filter((d) => d.transient)), [typing]);
      const { messages } = await ask(agent.nc, agent.name, "resume", { after: "0" });
      assert.deepEqual(messages.slice(1).map((m) => m.json().id), [message]);
    });

    it("is told that it left, and then nothing more", async () => {
      const service = await world.service();
      const agent = await world.member(service.tenant, "ada", "c1");
      const colleague = await world.member(service.tenant, "ben", "c1");
      await agent.take(1); // ben's joining
      await ask(agent.nc, agent.name, "leave", { conversation: "c1" });
      const [notice] = await agent.take(1);
      assert.equal(notice.event, "topicUnsubscription");
      assert.equal(notice.json().conversationId, "c1");
      const sent = await publish(service, "c1", 3);
      const [left, ...rest] = await colleague.take(4);
      assert.equal(left.json().cimEvent.name, "AGENT_UNSUBSCRIBED");
      assert.deepEqual(ids(rest), sent);
      assert.equal(await agent.quiet(), true);
    });

    it("learns that its position is of another stream, and from where it can go on", async () => {
      const service = await world.service();
      const agent = await world.member(service.tenant, "ada", "c1");
      const sent = await publish(service, "c1", 3);
      await agent.take(3);
      const foreign = "nosuchstream-1-dn203dy7med4";
      const expired = await ask(agent.nc, agent.name, "resume", { after: foreign }).catch((err) => err);
      assert.equal(expired.code, "expired");
      assert.equal(expired.reason, "recreated");
      const { messages } = await ask(agent.nc, agent.name, "resume", { after: expired.from });
      assert.deepEqual(messages.slice(1).map((m) => m.json().id), sent);
      const lost = await world.connect({ inboxPrefix: agent.inbox });
      await assert.rejects(async () => {
        for await (const d of await Agent.open(lost, { ...agent.name, after: foreign })) assert.fail(`got ${d.subject}`);
      }, { code: "expired" });
    });
  });

  // askUntil resumes until n messages are there: the road behind the last acknowledgement takes a moment.
  const askUntil = (agent, after, n) => world.eventually(async () => {
    const page = await ask(agent.nc, agent.name, "resume", { after });
    assert.equal(page.messages.length, n);
    return page;
  });
}
