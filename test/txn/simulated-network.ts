/** Connections between simulated routers and nodes: slow, in order, and lost when a router, a node or the way between them is. */
import type { Backend, Clock, SimulatedNode } from './simulated-node.ts';

/** A router process: what it would do while it is frozen, it does when it wakes; what a crashed one would, never. */
export class Process {
  readonly routerId: number;
  frozen = false;
  alive = true;
  #backlog: (() => void)[] = [];
  readonly connections = new Set<Connection>();

  constructor(routerId: number) {
    this.routerId = routerId;
  }

  run(work: () => void): void {
    if (!this.alive) return;
    if (this.frozen) this.#backlog.push(work);
    else work();
  }

  wake(): void {
    this.frozen = false;
    const backlog = this.#backlog;
    this.#backlog = [];
    for (const [at, work] of backlog.entries()) {
      // What it does may freeze or end it again.
      if (this.frozen) {
        this.#backlog.push(...backlog.slice(at));
        return;
      }
      this.run(work);
    }
  }

  crash(): void {
    this.alive = false;
    this.#backlog = [];
    for (const connection of [...this.connections]) connection.cut();
  }
}

export class Connection {
  readonly node: SimulatedNode;
  readonly backend: Backend;
  readonly #process: Process;
  readonly #clock: Clock;
  /** What to do when the answer can't come any more. */
  #waiting: (() => void) | undefined;
  lost = false;
  /** The way to the server was cut before what was sent last arrived. */
  #deaf = false;
  #arrivesAtMs = 0;

  constructor(process: Process, node: SimulatedNode, clock: Clock) {
    this.#process = process;
    this.node = node;
    this.#clock = clock;
    this.backend = node.connect();
    process.connections.add(this);
  }

  /** One request at a time. `work` runs on the server; `then` in the router, with the answer, or `lost`. */
  ask<T>(work: (reply: (answer: T) => void) => void, then: (answer: T | 'lost') => void): void {
    const clock = this.#clock;
    if (this.lost) {
      clock.after(1, () => this.#process.run(() => then('lost')));
      return;
    }
    let isOver = false;
    const end = (answer: T | 'lost') => {
      if (isOver) return;
      isOver = true;
      this.#waiting = undefined;
      this.#process.run(() => then(answer));
    };
    this.#waiting = () => end('lost');
    this.#arrivesAtMs = Math.max(this.#arrivesAtMs, clock.now() + delay(clock));
    clock.after(this.#arrivesAtMs - clock.now(), () => {
      if (this.#deaf) return;
      if (!this.backend.alive) {
        clock.after(delay(clock), () => this.cut());
        return;
      }
      this.node.run(this.backend, (done) =>
        work((answer) => {
          clock.after(delay(clock), () => {
            if (!this.lost) end(answer);
          });
          done();
        }),
      );
    });
  }

  /** Lost for both, but the server may notice late, and may still read what was under way. */
  cut(): void {
    if (this.lost) return;
    this.lost = true;
    this.#process.connections.delete(this);
    const { random, after } = this.#clock;
    this.#deaf = random() < 0.5;
    const noticedMs = random() < 0.3 ? random() * 900 : random() * 20;
    after(noticedMs, () => {
      this.#deaf = true;
      this.node.close(this.backend);
    });
    const waiting = this.#waiting;
    if (waiting) after(random() * 5, waiting);
  }

  /** Given back, idle. */
  close(): void {
    this.cut();
  }
}

/** Mostly short, sometimes long. */
export function delay({ random }: Clock): number {
  return random() < 0.05 ? random() * 120 : 0.2 + random() * 4;
}
