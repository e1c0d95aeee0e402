// The servers under test, built from source, and ended with the tests.

import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../../", import.meta.url));

// started runs a command of this module that prints its address, and returns that address.
export async function started(command) {
  const dir = mkdtempSync(join(tmpdir(), "socketio-"));
  const program = join(dir, "server");
  execFileSync("go", ["build", "-o", program, command], { cwd: root, stdio: "inherit" });
  const child = spawn(program, ["--addr", "127.0.0.1:0"], { stdio: ["ignore", "pipe", "inherit"] });
  after(() => {
    child.kill();
    rmSync(dir, { recursive: true });
  });
  return await new Promise((resolve, reject) => {
    let printed = "";
    child.stdout.on("data", (data) => {
      printed += data;
      if (printed.includes("\n")) resolve(printed.split("\n")[0]);
    });
    child.on("exit", (code) => reject(new Error(`${command} ended with ${code}`)));
  });
}
