/**
 * What is done to the bank while its clients work: at random, by seed, and the five scripts that bring out the five broken orders
 * of a commit. Each begins something, holds it for a while, and ends it; what is left is healed by the bank.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { ProtocolFaults } from '../../src/txn/commit-protocol.ts';
import type { TransactionsOptions } from '../../src/txn/transactions.ts';
import { seededRandom } from '../../src/wall/load/seeded-random.ts';
import type { Relay } from '../support/relay.ts';
import type { BankRouter, BankServer } from './bank-processes.ts';
import type { StepAction } from './bank-router.ts';

/** Routers and servers by index; nodes as the routers name them are numbers of their own. */
export interface Stage {
  readonly routers: readonly BankRouter[];
  readonly servers: readonly BankServer[];
  relay(router: number, server: number): Relay;
  /** Which server a router means by its node's id. */
  serverOf(nodeId: number): number;
  /** Bounded, on a connection of its own, past all relays. */
  ask(server: number, sql: string): Promise<Record<string, unknown>[]>;
  restartRouter(router: number): Promise<void>;
  /** For the report. */
  note(text: string): void;
  readonly hasViolation: () => boolean;
  /** No order is broken: there is nothing to be found, however long it is tried. */
  readonly isRight: boolean;
}

export type Script = (stage: Stage) => Promise<void>;

const STEP_TIMEOUT_MS = 1_500;
const PAUSE_MS_MAX = 400;
/** Effects of a commit, in their order; some twice as likely. */
const STEPS = [
  ...['commit', 'prepare', 'prepare', 'decide', 'decide', 'commitPrepared', 'commitPrepared'],
  ...['rollbackPrepared', 'answer', 'clean'],
];

/** Two at a time: to routers and their links, and to servers. The same seed draws the same, if not at the same moment. */
export function atRandom({ seed, forMs }: { seed: number; forMs: number }): Script {
  return async (stage) => {
    const end = performance.now() + forMs;
    const lane = async (random: () => number, disturb: (dice: Dice, stage: Stage) => Promise<void>) => {
      const dice = new Dice(random);
      while (performance.now() < end) {
        await delay(dice.between(0, PAUSE_MS_MAX));
        await disturb(dice, stage);
      }
    };
    await Promise.all([
      lane(seededRandom(seed * 3 + 1), disturbRouter),
      lane(seededRandom(seed * 3 + 2), disturbServer),
    ]);
  };
}

export function inTurn(scripts: readonly Script[]): Script {
  return async (stage) => {
    for (const script of scripts) await script(stage);
  };
}

class Dice {
  readonly #random: () => number;

  constructor(random: () => number) {
    this.#random = random;
  }

  between(from: number, to: number): number {
    return from + Math.floor(this.#random() * (to - from + 1));
  }

  pick<T>(list: readonly T[]): T {
    return list[this.between(0, list.length - 1)]!;
  }
}

type LinkFault = 'cut' | 'silent' | 'mute' | 'lost' | 'unheard';

async function disturbRouter(dice: Dice, stage: Stage): Promise<void> {
  const index = dice.between(0, stage.routers.length - 1);
  const router = stage.routers[index]!;
  const server = dice.between(0, stage.servers.length - 1);
  const holdMs = dice.between(50, 2_500);
  switch (dice.between(0, 9)) {
    case 0:
      stage.note(`router ${index} killed for ${holdMs} ms`);
      await router.kill();
      await delay(holdMs);
      return await stage.restartRouter(index);
    case 1:
      stage.note(`router ${index} frozen for ${holdMs} ms`);
      router.freeze();
      await delay(holdMs);
      return router.thaw();
    case 2:
      return await disturbLink(stage, { router: index, server, holdMs, how: 'cut' });
    case 3:
      return await disturbLink(stage, {
        router: index,
        server,
        holdMs,
        how: dice.pick(['silent', 'mute', 'lost']),
      });
    default: {
      const action = dice.pick<StepAction>(['kill', 'stop', 'tell', 'tell']);
      const step = { effect: dice.pick(STEPS), count: dice.between(1, 3), action };
      return await disturbStep(stage, { router: index, step, holdMs, dice });
    }
  }
}

/** `silent` and `mute`: what is held back goes on afterwards; `lost` and `unheard`: it does not. */
async function disturbLink(
  stage: Stage,
  options: { router: number; server: number; holdMs: number; how: LinkFault },
): Promise<void> {
  const { router, server, holdMs, how } = options;
  stage.note(`link of router ${router} to server ${server} ${how} for ${holdMs} ms`);
  const relay = stage.relay(router, server);
  if (how === 'cut') relay.cut();
  else if (how === 'mute' || how === 'unheard') relay.mute();
  else relay.silence();
  await delay(holdMs);
  if (how === 'lost' || how === 'unheard') relay.cut();
  relay.heal();
}

async function disturbStep(
  stage: Stage,
  options: {
    router: number;
    step: { effect: string; count: number; action: StepAction };
    holdMs: number;
    dice: Dice;
  },
): Promise<void> {
  const { router: index, step, holdMs, dice } = options;
  const router = stage.routers[index]!;
  const reached = await router.atStep(step, STEP_TIMEOUT_MS);
  if (!reached) return;
  const before = `router ${index} before ${step.effect} ${step.count}`;
  if (step.action === 'kill') {
    stage.note(`${before}: killed for ${holdMs} ms`);
    await router.kill();
    await delay(holdMs);
    return await stage.restartRouter(index);
  }
  if (step.action === 'stop') {
    stage.note(`${before}: stopped for ${holdMs} ms`);
    await delay(holdMs);
    return router.thaw();
  }
  // The node that the effect is for, or another one of those that take part in it.
  const any = dice.between(0, stage.servers.length - 1);
  const at = reached.nodeId === 0 || dice.between(0, 2) === 0 ? any : stage.serverOf(reached.nodeId);
  const what = dice.pick(['cut', 'silent', 'mute', 'unheard', 'unheard', 'lost', 'kill', 'freeze'] as const);
  stage.note(`${before}: server ${at} ${what}`);
  const server = stage.servers[at]!;
  let disturbance: Promise<void>;
  if (what === 'kill') {
    server.kill();
    disturbance = delay(holdMs).then(() => server.restart());
  } else if (what === 'freeze') {
    server.freeze();
    disturbance = delay(holdMs).then(() => server.thaw());
  } else disturbance = disturbLink(stage, { router: index, server: at, holdMs, how: what });
  router.goOn();
  await disturbance;
}

async function disturbServer(dice: Dice, stage: Stage): Promise<void> {
  const index = dice.between(0, stage.servers.length - 1);
  const server = stage.servers[index]!;
  const holdMs = dice.between(0, 1_500);
  switch (dice.between(0, 4)) {
    case 0:
      stage.note(`server ${index} killed for ${holdMs} ms`);
      server.kill();
      await delay(holdMs);
      return await server.restart();
    case 1:
      stage.note(`server ${index} frozen for ${holdMs} ms`);
      server.freeze();
      await delay(holdMs);
      return server.thaw();
    case 2: {
      stage.note(`server ${index}: three backends terminated`);
      const some = `SELECT pid FROM pg_stat_activity WHERE usename = 'app' ORDER BY random() LIMIT 3`;
      await stage.ask(index, `SELECT pg_terminate_backend(pid) FROM (${some}) AS s`).catch(() => {});
      return;
    }
    default:
      await delay(holdMs);
  }
}

/** A broken order, what brings it out within seconds, and the times that it takes. */
export interface BrokenOrder {
  readonly fault: keyof ProtocolFaults;
  readonly script: Script;
  readonly times?: TransactionsOptions['times'];
  /** The script really loses a part, so that its client has to be told. */
  readonly loses?: boolean;
}

const REACHED_TIMEOUT_MS = 20_000;
/** Not each step is one that brings it out. */
const TRIES_MAX = 60;
const TRIES_MS = 10_000;
const TRIES_OF_RIGHT_ORDER_MS = 2_000;

async function at(stage: Stage, effect: string, action: StepAction): Promise<number> {
  const reached = await stage.routers[0]!.atStep({ effect, count: 1, action }, REACHED_TIMEOUT_MS);
  if (!reached) throw new Error(`no commit has come to ${effect}`);
  stage.note(`router 0 before ${effect}: ${action}`);
  return reached.nodeId === 0 ? 0 : stage.serverOf(reached.nodeId);
}

export const BROKEN_ORDERS: readonly BrokenOrder[] = [
  {
    fault: 'decisionBeforePrepare',
    script: async (stage) => {
      await at(stage, 'prepare', 'kill');
      await stage.routers[0]!.kill();
      await stage.restartRouter(0);
    },
  },
  {
    // A router is frozen with all prepared; the other one ends its transaction, but can't end its backend, and sweeps.
    fault: 'cleanAbortRowsEarly',
    times: { decideMs: 20_000 },
    script: async (stage) => {
      for (const [index] of stage.servers.entries()) stage.relay(1, index).cutAt('pg_terminate_backend');
      const commitPoint = await at(stage, 'decide', 'stop');
      const aborts = `SELECT FROM postern_internal.decisions WHERE outcome = 'abort'`;
      const isThere = async () => (await stage.ask(commitPoint, aborts)).length > 0;
      await until(isThere, 10_000);
      await until(async () => !(await isThere()), 2_500);
      stage.routers[0]!.thaw();
    },
  },
  {
    // A branch that has failed, and its router doesn't know: only its tag says so.
    fault: 'ignoreTags',
    script: async (stage) => {
      const end = performance.now() + (stage.isRight ? TRIES_OF_RIGHT_ORDER_MS : TRIES_MS);
      for (let tries = 0; tries < TRIES_MAX && performance.now() < end && !stage.hasViolation(); tries++) {
        const server = await at(stage, 'commit', 'tell');
        await stage.relay(0, server).failOpenTransactions();
        stage.routers[0]!.goOn();
      }
    },
  },
  {
    // An operator rolls back what is decided, or a failover loses it.
    fault: 'skipMark',
    loses: true,
    script: async (stage) => {
      const server = await at(stage, 'commitPrepared', 'tell');
      const rows = await stage.ask(server, 'SELECT gid FROM pg_prepared_xacts');
      for (const { gid } of rows) await stage.ask(server, `ROLLBACK PREPARED '${gid}'`).catch(() => {});
      stage.routers[0]!.goOn();
    },
  },
  {
    fault: 'okBeforePhaseTwo',
    script: async (stage) => {
      for (let tries = 0; tries < 5 && !stage.hasViolation(); tries++) {
        await at(stage, 'commitPrepared', 'tell');
        await delay(100);
        stage.routers[0]!.goOn();
      }
    },
  },
];

/** Whether it has come true within the bound. */
export async function until(condition: () => Promise<boolean>, boundMs: number): Promise<boolean> {
  const end = performance.now() + boundMs;
  while (!(await condition())) {
    if (performance.now() > end) return false;
    await delay(50);
  }
  return true;
}
