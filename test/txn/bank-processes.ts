/**
 * The bank's processes as its disturbances see them: routers and servers that can be killed and frozen, and what is frozen
 * wakes by itself if the test forgets it, or dies.
 */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { TestServer } from '../support/servers.ts';
import type { BankRouterOptions, FromRouter, StepAction, ToRouter } from './bank-router.ts';

const ENTRY = fileURLToPath(new URL('./bank-router.ts', import.meta.url));
const START_TIMEOUT_MS = 30_000;
/** Longer than any disturbance. */
const WAKE_AFTER_S = 30;
const LOG_LINES_KEPT = 200;

export type Reached = Extract<FromRouter, { kind: 'reached' }>;

/** Stopped processes outlive a parent that is killed: this one wakes them then. */
function wakeLater(pids: readonly number[]): ChildProcess {
  const waker = spawn('sh', ['-c', `sleep ${WAKE_AFTER_S}; kill -CONT ${pids.join(' ')} 2>/dev/null`], {
    stdio: 'ignore',
    detached: true,
  });
  waker.unref();
  return waker;
}

function endWaker(waker: ChildProcess | undefined): void {
  if (waker?.pid === undefined || waker.exitCode !== null) return;
  signal(-waker.pid, 'SIGKILL');
}

/** Of a process that may have ended. */
function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

export class BankRouter {
  readonly index: number;
  port = 0;
  /** Ended by itself, which no router may. */
  crashed: string | undefined;
  readonly log: string[] = [];
  #child: ChildProcess | undefined;
  #isAlive = false;
  #waker: ChildProcess | undefined;
  #onReached: ((reached: Reached) => void) | undefined;

  constructor(index: number) {
    this.index = index;
  }

  get isAlive(): boolean {
    return this.#isAlive;
  }

  async start(options: BankRouterOptions): Promise<void> {
    const child = fork(ENTRY, { execArgv: ['--import', 'tsx'], stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
    this.#child = child;
    child.stderr?.on('data', (chunk: Buffer) => {
      this.log.push(...chunk.toString().trimEnd().split('\n'));
      this.log.splice(0, this.log.length - LOG_LINES_KEPT);
    });
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('a router has not started in time')), START_TIMEOUT_MS);
      child.once('exit', (status, name) => {
        clearTimeout(timer);
        reject(new Error('a router has ended while it started'));
        if (this.#child !== child) return;
        if (this.#isAlive && name !== 'SIGKILL')
          this.crashed = `router ${this.index} has ended by itself (${status ?? name}): ${this.log.slice(-20).join('\n')}`;
        this.#isAlive = false;
      });
      child.on('message', (message: FromRouter) => {
        if (message.kind === 'reached') {
          this.#onReached?.(message);
          return;
        }
        clearTimeout(timer);
        if (message.kind === 'failed') {
          reject(new Error(`a router can't start: ${message.text}`));
          return;
        }
        this.port = message.port;
        this.#isAlive = true;
        resolve();
      });
      this.#send({ kind: 'start', options });
    }).catch((error: Error) => {
      child.kill('SIGKILL');
      throw error;
    });
  }

  /** Resolves when it is there; undefined: not in time, or the router has ended. */
  async atStep(
    step: { readonly effect: string; readonly count: number; readonly action: StepAction },
    timeoutMs: number,
  ): Promise<Reached | undefined> {
    if (!this.#isAlive) return undefined;
    const child = this.#child!;
    let timer: NodeJS.Timeout | undefined;
    let onExit: () => void = () => {};
    const reached = await new Promise<Reached | undefined>((resolve) => {
      this.#onReached = resolve;
      onExit = () => resolve(undefined);
      timer = setTimeout(onExit, timeoutMs);
      child.once('exit', onExit);
      this.#send({ kind: 'arm', ...step });
    });
    clearTimeout(timer);
    child.off('exit', onExit);
    this.#onReached = undefined;
    if (!reached) this.#send({ kind: 'disarm' });
    else if (step.action === 'stop') this.#waker = wakeLater([child.pid!]);
    return reached;
  }

  goOn(): void {
    this.#send({ kind: 'go' });
  }

  freeze(): void {
    const pid = this.#child?.pid;
    if (!this.#isAlive || pid === undefined) return;
    this.#waker = wakeLater([pid]);
    signal(pid, 'SIGSTOP');
  }

  thaw(): void {
    endWaker(this.#waker);
    this.#waker = undefined;
    if (this.#isAlive) signal(this.#child!.pid!, 'SIGCONT');
  }

  /** Resolves when it has ended. */
  async kill(): Promise<void> {
    const child = this.#child;
    this.#isAlive = false;
    endWaker(this.#waker);
    this.#waker = undefined;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  }

  #send(message: ToRouter): void {
    const child = this.#child;
    if (child?.connected) child.send(message, () => {});
  }
}

export class BankServer {
  readonly server: TestServer;
  #isAlive = true;
  #waker: ChildProcess | undefined;
  #frozen: readonly number[] = [];
  #restarting: Promise<void> | undefined;

  constructor(server: TestServer) {
    this.server = server;
  }

  /** The postmaster and all of its processes: nothing in memory outlives it. */
  kill(): void {
    if (!this.#isAlive) return;
    this.#isAlive = false;
    endWaker(this.#waker);
    const { pid } = this.server;
    const children = childrenOf(pid);
    this.server.kill();
    for (const child of children) signal(child, 'SIGKILL');
  }

  /** The postmaster first: it starts no process then that would be missed. */
  freeze(): void {
    if (!this.#isAlive) return;
    const { pid } = this.server;
    signal(pid, 'SIGSTOP');
    const children = childrenOf(pid);
    this.#frozen = [pid, ...children];
    this.#waker = wakeLater(this.#frozen);
    for (const child of children) signal(child, 'SIGSTOP');
  }

  thaw(): void {
    endWaker(this.#waker);
    this.#waker = undefined;
    if (this.#isAlive) for (const pid of this.#frozen) signal(pid, 'SIGCONT');
    this.#frozen = [];
  }

  /** Does nothing if it runs. */
  async restart(): Promise<void> {
    if (this.#isAlive) return;
    this.#restarting ??= this.server.restart().finally(() => {
      this.#restarting = undefined;
    });
    await this.#restarting;
    this.#isAlive = true;
  }
}

function childrenOf(pid: number): number[] {
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1');
    return children.split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}
