// The servers under test, started from source, and ended with the tests.

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { after } from "node:test";

const root = fileURLToPath(new URL("../../../../", import.meta.url));

// started runs a command of this module that prints its address, and returns that address.
export async function started(command) {
  const bin = process.env[`${command.split("/").pop().toUpperCase()}_BIN`];
  const [program, ...args] = bin ? [bin] : ["go", "run", command];
  const child = spawn(program, [...args, "--addr", "127.0.0.1:0"], { cwd: root, stdio: ["ignore", "pipe", "inherit"], detached: true });
  after(() => process.kill(-child.pid, "SIGTERM")); // go run does not pass the signal on: the group gets it
  return await new Promise((resolve, reject) => {
    let printed = "";
    child.stdout.on("data", (data) => {
      printed += data;
      if (printed.includes("\n")) resolve(printed.split("\n")[0]);
    });
    child.on("exit", (code) => reject(new Error(`${command} ended with ${code}`)));
  });
}
