// The JavaScript in README.md, as it stands there but for the address.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { createInterface } from "node:readline";
import { jetstream } from "@nats-io/jetstream";
import { ask, inbox } from "./agent.mjs";
import { event, subject } from "./events.mjs";

const text = readFileSync(new URL("../../../../README.md", import.meta.url), "utf8");
const [, snippet] = text.match(/^```js\n(.*?)^```$/ms);

export function readme(world) {
  describe("the agent in README.md", () => {
    it("prints what is stored, and then what comes", async () => {
      const ada = { tenant: "acme", agent: "ada" };
      const nc = await world.connect({ inboxPrefix: inbox(ada.tenant, ada.agent) });
      await ask(nc, ada, "join", { conversation: "c1" });
      const publish = async (name) => {
        const e = event(name, "c1");
        await jetstream(nc).publish(subject(ada.tenant, e), JSON.stringify(e));
        return e.id;
      };
      const sent = [await publish("CUSTOMER_MESSAGE"), await publish("AGENT_MESSAGE")];
      await world.eventually(async () => assert.equal((await ask(nc, ada, "check", { after: "0" })).count, 3));

      // Where the packages it imports are found.
      const folder = new URL("node_modules/.readme/", import.meta.url);
      mkdirSync(folder, { recursive: true });
      const file = fileURLToPath(new URL("agent.mjs", folder));
      writeFileSync(file, snippet.replace("127.0.0.1:4222", nc.getServer()));
      const agent = spawn(process.execPath, [file], { stdio: ["ignore", "pipe", "inherit"] });
      try {
        const lines = createInterface({ input: agent.stdout })[Symbol.asyncIterator]();
        const next = async () => (await lines.next()).value;
        assert.match(await next(), /^cim-agent\.acme\.ada\.onCimEvent\.c1 /); // her joining
        for (const id of sent) assert.equal(await next(), `cim-agent.acme.ada.onCimEvent.c1 ${id}`);
        const typing = await publish("TYPING_INDICATOR");
        assert.equal(await next(), `cim-live.acme.ada.onCimEvent.c1 ${typing}`);
        const live = await publish("CUSTOMER_MESSAGE");
        assert.equal(await next(), `cim-agent.acme.ada.onCimEvent.c1 ${live}`);
      } finally {
        agent.kill();
        await once(agent, "exit");
      }
    });
  });
}
