// What the tests of one transport share: connections, and agents that collect what they receive.

import { setTimeout as pause } from "node:timers/promises";
import { Agent, ask, inbox } from "./agent.mjs";

const patience = 10_000; // for what comes within milliseconds, on a machine that does much else

let tenants = 0;

export class World {
  #transport;
  #ready;
  #connections = [];

  constructor(transport, ready) {
    this.#transport = transport;
    this.#ready = ready;
  }

  async connect(options = {}) {
    const nc = await this.#transport.connect(this.#ready(), { maxReconnectAttempts: -1, reconnectTimeWait: 50, ...options });
    this.#connections.push(nc);
    return nc;
  }

  async close() {
    await Promise.all(this.#connections.map((nc) => nc.close()));
  }

  // tenant is a name no other test has.
  tenant() {
    return `t${++tenants}`;
  }

  async service() {
    return { nc: await this.connect(), tenant: this.tenant() };
  }

  // agent opens an agent on a connection of its own, from now on or after a position. What stands between the live
  // messages and the agent may be given too.
  async agent(tenant, agent, after, between = (live) => live) {
    const name = { tenant, agent };
    const nc = await this.connect({ inboxPrefix: inbox(tenant, agent) });
    const subscribe = nc.subscribe.bind(nc);
    nc.subscribe = (to, options) => subscribe(to, { ...options, callback: between(options.callback) });
    return new Collector(nc, name, await Agent.open(nc, { ...name, after }));
  }

  // member opens an agent and makes it a member of a conversation.
  async member(tenant, name, conversation) {
    const agent = await this.agent(tenant, name);
    await ask(agent.nc, agent.name, "join", { conversation });
    await agent.take(1);
    return agent;
  }

  // eventually tries until attempt does not throw.
  async eventually(attempt) {
    for (const end = Date.now() + patience; ; await pause(20)) {
      try {
        return await attempt();
      } catch (err) {
        if (Date.now() > end) throw err;
      }
    }
  }
}

// Collector takes deliveries off an agent, so many at a time.
class Collector {
  constructor(nc, name, agent) {
    Object.assign(this, { nc, name, agent, inbox: inbox(name.tenant, name.agent), deliveries: agent[Symbol.asyncIterator]() });
  }

  get position() {
    return this.agent.position;
  }

  // take returns the next n deliveries.
  async take(n) {
    const got = [];
    const late = pause(patience, "late", { ref: false });
    while (got.length < n) {
      const next = await Promise.race([this.deliveries.next(), late]);
      if (next === "late") throw new Error(`${this.name.agent} got ${got.length} of ${n} deliveries`);
      got.push(next.value);
    }
    return got;
  }

  // quiet reports whether the log holds nothing that was not taken.
  async quiet() {
    const { count } = await ask(this.nc, this.name, "check", { after: this.position });
    return count === 0;
  }
}
