// The daemon under test: the binary built from this tree, with a store of its own and free ports.

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const main = fileURLToPath(new URL("../..", import.meta.url));

export class Daemon {
  #process;
  #folder;
  #stderr = "";

  static async start() {
    const daemon = new Daemon();
    await daemon.#start();
    return daemon;
  }

  async #start() {
    this.#folder = mkdtempSync(join(tmpdir(), "cimbus-interop-"));
    const binary = join(this.#folder, "cimbus");
    execFileSync("go", ["build", "-o", binary, "."], { cwd: main, stdio: "inherit" });
    this.#process = spawn(binary, [
      "serve", "--store", join(this.#folder, "store"), "--durability", "balanced",
      "--nats-addr", "127.0.0.1:0", "--websocket-addr", "127.0.0.1:0", "--http-addr", "",
    ], { stdio: ["ignore", "pipe", "pipe"] });
    this.#process.stderr.on("data", (chunk) => (this.#stderr += chunk));
    const lines = createInterface({ input: this.#process.stdout });
    const [line] = await Promise.race([
      once(lines, "line"),
      once(this.#process, "exit").then(([code]) => {
        throw new Error(`cimbus serve ended with ${code} before it was ready:\n${this.#stderr}`);
      }),
    ]);
    this.ready = JSON.parse(line); // {"ready":true,"nats":"nats://…","websocket":"ws://…",…}
  }

  // stop ends the daemon as a service manager would; it must end well and in time.
  async stop() {
    const exit = once(this.#process, "exit");
    this.#process.kill("SIGTERM");
    const [code, signal] = await exit;
    rmSync(this.#folder, { recursive: true, force: true });
    if (code !== 0) throw new Error(`cimbus serve ended with ${code ?? signal}:\n${this.#stderr}`);
  }
}
