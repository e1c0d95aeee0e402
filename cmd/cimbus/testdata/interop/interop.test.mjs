// Services and agents against a daemon, with the NATS clients for JavaScript as they are published and nothing of ours:
// once over TCP, once over WebSocket.

import { after, before, describe } from "node:test";
import { agents } from "./agents.mjs";
import { control } from "./control.mjs";
import { Daemon } from "./daemon.mjs";
import { readme } from "./readme.mjs";
import { services } from "./service.mjs";
import { transports } from "./transports.mjs";
import { World } from "./world.mjs";

let daemon;
before(async () => (daemon = await Daemon.start()));
after(() => daemon.stop());

for (const transport of transports) {
  describe(transport.name, { timeout: 120_000 }, () => {
    const world = new World(transport, () => daemon.ready);
    after(() => world.close());
    services(world);
    agents(world);
    control(world);
    if (transport.name === "native") readme(world);
  });
}
