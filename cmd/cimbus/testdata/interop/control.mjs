// The requests of an agent: join, leave, publish, history, and what is answered to those that cannot be granted.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { jetstream } from "@nats-io/jetstream";
import { ask, inbox, token } from "./agent.mjs";
import { event, subject } from "./events.mjs";

export function control(world) {
  describe("the control service", () => {
    it("publishes for a member, who gets its own event back", async () => {
      const tenant = world.tenant();
      const agent = await world.member(tenant, "ada", "c1");
      const e = event("AGENT_MESSAGE", "c1");
      const receipt = await ask(agent.nc, agent.name, "publish", { event: e });
      assert.equal(receipt.stream, "CIM_EVENTS");
      assert.equal(receipt.duplicate, false);
      assert.ok(receipt.seq > 0);
      const [echo] = await agent.take(1);
      assert.deepEqual(echo.json().cimEvent, e);
      assert.equal(Number(echo.headers.get("Cim-Sequence")), receipt.seq);
      const again = await ask(agent.nc, agent.name, "publish", { event: e });
      assert.equal(again.duplicate, true);
    });

    it("joins twice without harm", async () => {
      const tenant = world.tenant();
      const agent = await world.member(tenant, "ada", "c1");
      await ask(agent.nc, agent.name, "join", { conversation: "c1", role: "ASSISTANT" });
      const e = event("AGENT_MESSAGE", "c1");
      await ask(agent.nc, agent.name, "publish", { event: e });
      const got = await agent.take(2);
      assert.deepEqual(got.map((d) => d.json().cimEvent.name), ["AGENT_SUBSCRIBED", "AGENT_MESSAGE"]);
    });

    it("reads a conversation's history to its members, page by page", async () => {
      const { nc, tenant } = await world.service();
      const sent = [];
      for (let i = 0; i < 12; i++) {
        const e = event("CUSTOMER_MESSAGE", "c1");
        sent.push(e);
        await jetstream(nc).publish(subject(tenant, e), JSON.stringify(e));
      }
      const agent = await world.member(tenant, "ada", "c1");
      const got = [];
      let after = 0;
      for (let more = true; more; ) {
        const page = await ask(agent.nc, agent.name, "history", { conversation: "c1", after, max: 5 });
        got.push(...page.messages);
        ({ last: after, more } = page);
      }
      assert.deepEqual(got.slice(0, 12).map((m) => m.json()), sent);
      assert.equal(got[12].json().name, "AGENT_SUBSCRIBED");
      assert.equal(got[0].headers.get("Cim-Outcome"), "delivered");
    });

    it("refuses with a code and a remedy", async () => {
      const tenant = world.tenant();
      const agent = await world.member(tenant, "ada", "c1");
      const refused = [
        ["resume", {}, "bad-request", /after is missing/],
        ["resume", { after: "yesterday" }, "bad-request", /position "yesterday"/],
        ["resume", { after: "0", max: 257 }, "bad-request", /max 257: give 1 to 256/],
        ["check", { after: [] }, "bad-request", /after/],
        ["join", {}, "bad-request", /conversation is missing/],
        ["join", { conversation: "x".repeat(200) }, "bad-request", /conversation/],
        ["leave", { conversation: "c9" }, "not-a-member", /not a member/],
        ["history", { conversation: "c9" }, "not-a-member", /not a member/],
        ["publish", {}, "bad-request", /event is missing/],
        ["publish", { event: [] }, "bad-request", /./],
        ["publish", { event: event("AGENT_MESSAGE", "c9") }, "not-a-member", /not a member/],
        ["publish", { event: event("AGENT_MESSAGE", undefined) }, "no-conversation", /conversation/],
        ["publish", { event: event("AGENT_SUBSCRIBED", "c1") }, "forbidden", /use join or leave/],
        ["publish", { event: { ...event("AGENT_MESSAGE", "c1"), id: undefined } }, "bad-request", /id/],
      ];
      for (const [verb, body, code, message] of refused) {
        await assert.rejects(ask(agent.nc, agent.name, verb, body), { code, message }, `${verb} ${JSON.stringify(body)}`);
      }
    });

    it("answers to nobody but the caller", async () => {
      const tenant = world.tenant();
      const agent = await world.member(tenant, "ada", "c1");
      const spy = await world.connect();
      const stray = [];
      for (const subject of [`${inbox(tenant, "ben")}.x`, `cim.${tenant}.web.CUSTOMER_MESSAGE`, "$JS.API.STREAM.NAMES"]) {
        spy.subscribe(subject, { callback: (_err, m) => m.data.length > 2 && stray.push(m.subject) });
        await spy.flush();
        agent.nc.publish(`cim-ctl.${tenant}.ada.check`, "{}", { reply: subject });
      }
      await ask(agent.nc, agent.name, "check"); // answered behind them
      await spy.flush();
      assert.deepEqual(stray, []);
    });

    it("knows agents and tenants of any name", async () => {
      const tenant = `${world.tenant()}.eu west`;
      const agent = await world.member(tenant, "jörg.*>", "c/1 _");
      const e = event("CUSTOMER_MESSAGE", "c/1 _");
      const { nc } = await world.service();
      await jetstream(nc).publish(subject(token(tenant), e), JSON.stringify(e));
      const [d] = await agent.take(1);
      assert.equal(d.subject, `cim-agent.${token(tenant)}.j=C3=B6rg=2E=2A=3E.onCimEvent.c=2F1=20_`);
      assert.deepEqual(d.json().cimEvent, e);
    });
  });
}
