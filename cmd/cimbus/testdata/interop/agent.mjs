// An agent of cimbus, whole, with nothing but a NATS connection: one live subscription, and the log of deliveries for
// what the connection lost. It needs no JetStream and no permissions but an agent's own.
//
//   const nc = await connect({ servers, inboxPrefix: inbox("acme", "alice"), maxReconnectAttempts: -1 });
//   const agent = await Agent.open(nc, { tenant: "acme", agent: "alice", after: await load() });
//   for await (const delivery of agent) {
//     show(delivery.event, delivery.json());
//     await save(agent.position);
//   }

// token writes a name as one token of a subject: what is not a letter, a digit, _ or - becomes =XX.
export function token(name) {
  if (name === "_") return "=5F";
  return Array.from(new TextEncoder().encode(name), (byte) => {
    const char = String.fromCharCode(byte);
    return /[A-Za-z0-9_-]/.test(char) ? char : "=" + byte.toString(16).toUpperCase().padStart(2, "0");
  }).join("");
}

// inbox is where an agent gets its answers, and the only place the bus sends them to.
export const inbox = (tenant, agent) => `cim-inbox.${token(tenant)}.${token(agent)}`;

// ControlError is a request that the bus refused, or the position that has expired.
export class ControlError extends Error {
  constructor({ error, ...expired }) {
    super(error?.message ?? `position has expired (${expired.reason}): what is left follows ${expired.from}`);
    this.code = error?.code ?? "expired";
    Object.assign(this, expired); // from, to, reason
  }
}

// ask sends a request to the bus and returns its answer: any number of messages, and the last one as an object. A signal
// gives it up.
export async function ask(nc, { tenant, agent }, verb, body = {}, signal) {
  const subject = `cim-ctl.${token(tenant)}.${token(agent)}.${verb}`;
  const answers = await nc.requestMany(subject, JSON.stringify(body), { strategy: "timer", maxWait: 10_000 });
  signal?.addEventListener("abort", () => answers.stop());
  const messages = [];
  for await (const m of answers) {
    if (m.headers?.last("Cim-Status") !== "end") {
      messages.push(m);
      continue;
    }
    const end = m.json();
    if (end.error || end.expired) throw new ControlError(end);
    if (verb === "resume" && end.count !== messages.length) break;
    return { messages, ...end };
  }
  throw new Error(`${verb}: the answer did not come whole: ask again`);
}

// Delivery is one message for the agent.
class Delivery {
  constructor(m) {
    // The server's own headers are the last of their name; a publisher may have sent others.
    const header = (name) => m.headers?.last(name) ?? "";
    this.sequence = Number(header("Nats-Sequence")); // in the log; 0 = not there
    this.previous = Number(header("Nats-Last-Sequence")); // the one before on the same subject
    this.stored = header("Nats-Time-Stamp");
    this.transient = header("Cim-Transient") === "true";
    this.subject = header("Nats-Subject") || m.subject;
    [, , , this.event, this.conversation] = this.subject.split(".");
    this.headers = m.headers;
    this.data = m.data;
  }

  text() {
    return new TextDecoder().decode(this.data);
  }

  json() {
    return JSON.parse(this.text());
  }
}

// A position is <identity of the log>-<sequence>-<stored at, nanoseconds in base 36>; a plain sequence serves too.
const sequenceOf = (position) => Number(position.split("-").at(-2) ?? position);
const identityOf = (position) => position.split("-").at(-3);

function positionOf(identity, { sequence, stored }) {
  const [seconds, fraction = ""] = stored.replace("Z", "").split(".");
  const nanoseconds = BigInt(Date.parse(seconds + "Z")) * 1_000_000n + BigInt(fraction.padEnd(9, "0"));
  return `${identity}-${sequence}-${nanoseconds.toString(36)}`;
}

const longest = 4096; // of the queue; what is beyond is read from the log

// Agent yields every delivery after a position, each once and those of a conversation in order, through any number of
// reconnects.
export class Agent {
  position; // where to go on after a restart, once what was yielded is dealt with
  #nc;
  #name;
  #live;
  #timer;
  #queue = []; // live messages that wait
  #wake = () => {};
  #link = new AbortController(); // aborted when the connection was another one
  #identity; // of the log
  #verified; // the log confirmed that everything up to this position was yielded
  #handed = new Set(); // sequences yielded after it
  #sure; // nothing before the queue is missing, as far as can be seen
  #failure;

  // open subscribes, and begins after a position: "0" is everything stored, none is from now on.
  static async open(nc, { tenant, agent, after }) {
    const a = new Agent();
    a.#nc = nc;
    a.#name = { tenant, agent };
    a.#live = nc.subscribe(`cim-live.${token(tenant)}.${token(agent)}.>`, { callback: (err, m) => a.#push(err, m) });
    a.#watch();
    await nc.flush(); // from here on nothing is missed unseen
    a.#verified = after ?? (await a.#insist("check")).upto;
    a.position = a.#verified;
    a.#timer = setInterval(() => a.#doubt(), 60_000); // a lost tail shows by nothing else
    return a;
  }

  close() {
    this.#live.unsubscribe();
    this.#fail(new Error("agent is closed"));
  }

  async *[Symbol.asyncIterator]() {
    this.#sure = false; // the log is asked first, also after a loop that was left
    while (!this.#failure) {
      if (!this.#sure) {
        yield* this.#catchUp();
      } else if (this.#queue.length === 0) {
        await new Promise((wake) => (this.#wake = wake));
      } else {
        yield* this.#take(new Delivery(this.#queue[0]));
      }
    }
    throw this.#failure;
  }

  // take yields the first of the queue, unless something before it is missing: then it stays there until the log was read.
  *#take(d) {
    const seen = (sequence) => sequence <= sequenceOf(this.#verified) || this.#handed.has(sequence);
    if (!d.transient && !seen(d.sequence) && !seen(d.previous)) return this.#doubt();
    this.#queue.shift();
    if (d.transient) yield d;
    else if (!seen(d.sequence)) yield this.#hand(d);
  }

  // catchUp yields what the log has after the verified position and was not yielded.
  async *#catchUp() {
    this.#sure = true; // until there is a new doubt
    let { upto, count, more } = await this.#insist("check", { after: this.#verified });
    this.#identity = identityOf(upto);
    const handed = [...this.#handed].filter((sequence) => sequence <= sequenceOf(upto)).length;
    if (handed === count) this.#verify(upto);
    else more = true;
    while (more) {
      const page = await this.#insist("resume", { after: this.#verified });
      for (const m of page.messages) {
        const d = new Delivery(m);
        if (!this.#handed.has(d.sequence)) yield this.#hand(d);
      }
      this.#verify(page.last);
      more = page.more;
    }
  }

  // hand counts a delivery as yielded.
  #hand(d) {
    this.#handed.add(d.sequence);
    if (d.sequence > sequenceOf(this.position)) this.position = positionOf(this.#identity, d);
    return d;
  }

  #verify(position) {
    this.#verified = position;
    const sequence = sequenceOf(position);
    if (sequence >= sequenceOf(this.position)) this.position = position;
    for (const s of this.#handed) if (s <= sequence) this.#handed.delete(s);
  }

  // insist asks until there is an answer. What is wrong with the question, and an expired position, is thrown.
  async #insist(verb, body) {
    for (let wait = 100; ; wait = Math.min(2 * wait, 5000)) {
      try {
        return await ask(this.#nc, this.#name, verb, body, this.#link.signal);
      } catch (err) {
        if (this.#failure) throw this.#failure;
        if (err instanceof ControlError && err.code !== "unavailable") throw err;
      }
      await new Promise((done) => setTimeout(done, wait * (0.5 + Math.random() / 2)));
    }
  }

  #push(err, m) {
    if (err) return this.#fail(err); // the subscription was refused
    this.#queue.push(m);
    if (this.#queue.length > longest) {
      this.#queue = [];
      this.#doubt();
    }
    this.#wake();
  }

  async #watch() {
    this.#nc.closed().then((err) => this.#fail(err ?? new Error("connection is closed")));
    for await (const s of this.#nc.status()) {
      if (s.type === "reconnect") {
        this.#link.abort(); // what was asked before is not answered
        this.#link = new AbortController();
      }
      if (s.type === "reconnect" || s.type === "slowConsumer") this.#doubt();
    }
  }

  #doubt() {
    this.#sure = false;
    this.#wake();
  }

  #fail(err) {
    this.#failure ??= err;
    clearInterval(this.#timer);
    this.#wake();
  }
}
