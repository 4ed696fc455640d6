/**
 * Reads over nodes that see each distributed transaction wholly or not at all: a bank on three real servers, whose transfers are
 * driven by hand through every step of their commit, and what may go wrong with the gate that holds decisions back.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { BackendConnection } from '../../src/backend/connection.ts';
import { NO_CREDENTIAL } from '../../src/backend/credential.ts';
import { ask } from '../../src/backend/internal-query.ts';
import { openBackend } from '../../src/backend/login.ts';
import { BOUNDS } from '../../src/base/bounds.ts';
import { NO_TLS } from '../../src/pg/dsn-tls.ts';
import { ControlConnection } from '../../src/platform/control-connection.ts';
import { FlushQueue } from '../../src/platform/flush-queue.ts';
import { openConsistent } from '../../src/txn/consistent-snapshot.ts';
import { DecisionGate, type DecisionGateOptions } from '../../src/txn/decision-gate.ts';
import { formatGid } from '../../src/txn/gid.ts';
import { useShardedCluster } from '../support/sharded-cluster.ts';

const NODES = [1, 2, 3];
const ACCOUNTS = 20;
const SUM = NODES.length * ACCOUNTS * 100;
const POSSIBLE_MS = 30_000;

const cluster = useShardedCluster(3);
const flushQueue = new FlushQueue();
const gates: DecisionGate[] = [];
const clients: pg.Client[] = [];
const backends: BackendConnection[] = [];

beforeAll(async () => {
  for (const server of cluster.servers) {
    await server.query('CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL)');
    await server.query(`INSERT INTO accounts SELECT n, 100 FROM generate_series(1, ${ACCOUNTS}) AS n`);
  }
});
afterEach(async () => {
  await Promise.all(gates.splice(0).map((gate) => gate.close()));
  await Promise.all(clients.splice(0).map((client) => client.end().catch(() => {})));
  for (const backend of backends.splice(0)) backend.destroy();
});

function newGate(faults?: DecisionGateOptions['faults']): DecisionGate {
  const gate = new DecisionGate({
    clusterId: cluster.identity!.clusterId,
    nodeIds: NODES,
    open: (nodeId) => cluster.open(nodeId - 1),
    now: () => performance.now(),
    ...(faults ? { faults } : {}),
  });
  gates.push(gate);
  return gate;
}

async function newClients(): Promise<Map<number, pg.Client>> {
  const found = new Map<number, pg.Client>();
  for (const nodeId of NODES) {
    const client = new pg.Client({ connectionString: cluster.servers[nodeId - 1]!.dsn() });
    client.on('error', () => {});
    await client.connect();
    clients.push(client);
    found.set(nodeId, client);
  }
  return found;
}

async function newBackends(): Promise<Map<number, BackendConnection>> {
  const found = new Map<number, BackendConnection>();
  for (const nodeId of NODES) {
    const address = {
      nodeId,
      nodeName: `n${nodeId}`,
      host: '127.0.0.1',
      port: cluster.servers[nodeId - 1]!.port,
      tls: NO_TLS,
    };
    const backend = await openBackend({
      ...{ address, database: 'postgres', user: 'postgres', credential: NO_CREDENTIAL, flushQueue },
    });
    backends.push(backend);
    found.set(nodeId, backend);
  }
  return found;
}

/** A distributed transaction up to any of its steps. */
class Transfer {
  readonly id = randomUUID();
  readonly gid: string;
  readonly #clients: ReadonlyMap<number, pg.Client>;
  /** The commit point first. */
  readonly #nodes: readonly number[];

  constructor(from: ReadonlyMap<number, pg.Client>, nodes: readonly number[]) {
    this.#clients = from;
    this.#nodes = nodes;
    this.gid = formatGid(cluster.identity!.clusterId, {
      transactionId: this.id,
      commitPointNodeId: nodes[0]!,
      commitPointBackend: { processId: 1, startedAtUs: 1 },
    });
  }

  async prepare(account: (at: number) => number, amounts: readonly number[]): Promise<void> {
    for (const [at, nodeId] of this.#nodes.entries()) {
      const client = this.#clients.get(nodeId)!;
      await client.query('BEGIN');
      await client.query('UPDATE accounts SET balance = balance + $1 WHERE id = $2', [
        amounts[at],
        account(at),
      ]);
    }
    await Promise.all(
      this.#nodes.slice(1).map(async (nodeId) => {
        const client = this.#clients.get(nodeId)!;
        await client.query('SELECT postern_commit.mark($1, $2, $3)', [
          this.id,
          this.#nodes[0],
          this.#nodes.slice(1),
        ]);
        await client.query(`PREPARE TRANSACTION '${this.gid}'`);
      }),
    );
  }

  async decide(): Promise<void> {
    const client = this.#clients.get(this.#nodes[0]!)!;
    await client.query('SELECT postern_commit.decide($1, $2, $3)', [
      this.id,
      this.#nodes.slice(1),
      'postgres',
    ]);
    await client.query('COMMIT');
  }

  async finish(nodeId: number, verb: 'COMMIT' | 'ROLLBACK' = 'COMMIT'): Promise<void> {
    await this.#clients.get(nodeId)!.query(`${verb} PREPARED '${this.gid}'`);
  }

  async rollback(): Promise<void> {
    await this.#clients.get(this.#nodes[0]!)!.query('ROLLBACK');
    for (const nodeId of this.#nodes.slice(1)) await this.finish(nodeId, 'ROLLBACK');
  }
}

/** The same numbers in each run. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

async function readSum(
  connections: ReadonlyMap<number, BackendConnection>,
  open: () => Promise<void>,
): Promise<number> {
  const each = (text: string) =>
    Promise.all([...connections.values()].map((connection) => ask(connection, text)));
  await each('BEGIN ISOLATION LEVEL REPEATABLE READ');
  try {
    await open();
    return (await each('SELECT sum(balance) FROM accounts')).reduce((sum, [row]) => sum + Number(row![0]), 0);
  } finally {
    await each('ROLLBACK');
  }
}

describe('a bank with transfers over nodes', () => {
  it('has the right sum at every consistent read, and a wrong one where a step is left out', async () => {
    let isOver = false;
    let done = 0;
    const transferring = Array.from({ length: 6 }, async (_, worker) => {
      const random = numbers(worker + 1);
      const own = await newClients();
      while (!isOver) {
        const nodes = [...NODES];
        for (let i = nodes.length - 1; i > 0; i--) {
          const j = random(i + 1);
          [nodes[i], nodes[j]] = [nodes[j]!, nodes[i]!];
        }
        nodes.length = 2 + random(2);
        const first = random(50);
        const amounts = nodes.length === 2 ? [first, -first] : [first, 7, -first - 7];
        const transfer = new Transfer(own, nodes);
        // Each worker has accounts of its own: this is about what readers see.
        await transfer.prepare(() => 1 + worker * 3 + random(3), amounts);
        await transfer.decide();
        for (const nodeId of nodes.slice(1)) {
          // Between the decision and the end of phase two, as long as a slow node makes it.
          await delay(random(6));
          await transfer.finish(nodeId);
        }
        done++;
      }
    });
    const gate = newGate();
    const noLock = newGate({ skipLock: true });
    const noSettle = newGate({ skipSettle: true });
    const wrong = { consistent: 0, free: 0, noLock: 0, noSettle: 0 };
    const reads = { consistent: 0, free: 0, noLock: 0, noSettle: 0 };
    const held = (of: DecisionGate) => (connections: ReadonlyMap<number, BackendConnection>) => () =>
      of.held(async () => {
        await Promise.all([...connections.values()].map((connection) => ask(connection, 'SELECT 1')));
      });
    type Opening = (connections: ReadonlyMap<number, BackendConnection>) => () => Promise<void>;
    const openings: readonly [keyof typeof wrong, Opening][] = [
      ['consistent', (connections) => () => openConsistent(gate, { connections })],
      ['consistent', (connections) => () => openConsistent(gate, { connections, thenText: 'SELECT 2' })],
      [
        'free',
        (connections) => async () => {
          for (const connection of connections.values()) await ask(connection, 'SELECT 1');
        },
      ],
      ['noLock', held(noLock)],
      ['noSettle', held(noSettle)],
    ];
    const deadlineMs = performance.now() + POSSIBLE_MS;
    const isEnough = (): boolean =>
      performance.now() > deadlineMs ||
      (reads.consistent >= 200 && wrong.free > 0 && wrong.noLock > 0 && wrong.noSettle > 0);
    const reading = openings.map(async ([name, opening]) => {
      const connections = await newBackends();
      while (!isEnough()) {
        if ((await readSum(connections, opening(connections))) !== SUM) wrong[name]++;
        reads[name]++;
      }
    });
    await Promise.all(reading).finally(() => {
      isOver = true;
    });
    await Promise.all(transferring);
    expect(done).toBeGreaterThan(50);
    expect(wrong.consistent).toBe(0);
    expect(reads.consistent).toBeGreaterThanOrEqual(200);
    expect(wrong.free, 'free snapshots').toBeGreaterThan(0);
    expect(wrong.noLock, 'decisions not held back').toBeGreaterThan(0);
    expect(wrong.noSettle, 'decided ones not waited for').toBeGreaterThan(0);
  });
});

/** Until somebody holds the gate there. */
async function lockedOn(index: number): Promise<void> {
  await cluster.servers[index]!.query(
    `DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_locks WHERE granted AND mode = 'ShareLock'
       AND relation = 'postern_internal.decision_gate'::regclass) LOOP PERFORM pg_sleep(0.01); END LOOP; END $$`,
  );
}

describe('a hold', () => {
  const account = (): number => ACCOUNTS;

  it('waits for a decided transaction to be committed everywhere, and for no other', async () => {
    const gate = newGate();
    const undecided = new Transfer(await newClients(), [1, 2]);
    await undecided.prepare(account, [1, -1]);
    const decided = new Transfer(await newClients(), [2, 3, 1]);
    await decided.prepare((at) => at + 1, [1, -2, 1]);
    await decided.decide();
    await cluster.servers[0]!.query(
      `BEGIN; SELECT 1; PREPARE TRANSACTION 'postern:another-cluster:${decided.id}:2:1:1'`,
    );
    let opened = 0;
    const holding = gate.held(async () => {
      opened++;
    });
    await decided.finish(3);
    // Nobody else's commit waits for the one that is slow.
    for (let i = 0; i < 3; i++) {
      const other = new Transfer(await newClients(), [1, 2]);
      await other.prepare(() => 1, [0, 0]);
      await other.decide();
      await other.finish(2);
      expect(opened).toBe(0);
      await delay(BOUNDS.decisionGateSettleMs);
    }
    await decided.finish(1);
    await holding;
    expect(opened).toBe(1);
    await undecided.rollback();
    await cluster.servers[0]!.query(`ROLLBACK PREPARED 'postern:another-cluster:${decided.id}:2:1:1'`);
  });

  it('keeps a decision waiting, which goes on after it', async () => {
    const gate = newGate();
    const transfer = new Transfer(await newClients(), [3, 1]);
    await transfer.prepare(account, [0, 0]);
    let isDecided = false;
    let deciding: Promise<void> | undefined;
    await gate.held(async () => {
      deciding = transfer.decide().then(() => {
        isDecided = true;
      });
      await cluster.servers[2]!.query(
        `DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND mode = 'RowExclusiveLock') LOOP PERFORM pg_sleep(0.01); END LOOP; END $$`,
      );
      expect(isDecided).toBe(false);
    });
    await deciding;
    expect(isDecided).toBe(true);
    await transfer.finish(1);
  });

  it('is shared by all who wait, and its readers may fail one by one', async () => {
    const gate = newGate();
    const failure = new Error('of one reader');
    const results = await Promise.allSettled([
      gate.held(async () => 'first'),
      gate.held(async () => 'second'),
      gate.held(async () => await Promise.reject(failure)),
      gate.held(async () => 'fourth'),
    ]);
    expect(results.map((result) => (result.status === 'fulfilled' ? result.value : result.reason))).toEqual([
      ...['first', 'second', failure, 'fourth'],
    ]);
    expect([gate.holds, gate.readers]).toEqual([2, 4]);
  });

  it('that was lost before its end gives no result', async () => {
    const gate = newGate();
    const held = gate.held(async () => {
      await cluster.servers[1]!.query(
        `SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE relation = 'postern_internal.decision_gate'::regclass`,
      );
    });
    await expect(held).rejects.toMatchObject({ sqlState: '40001' });
    expect(await gate.held(async () => 'the next one')).toBe('the next one');
  });

  it('of work that never ends, ends, and decisions go on', async () => {
    const gate = newGate();
    await expect(gate.held(() => new Promise(() => {}))).rejects.toMatchObject({ sqlState: '40001' });
    const transfer = new Transfer(await newClients(), [1, 2]);
    await transfer.prepare(account, [0, 0]);
    await transfer.decide();
    await transfer.finish(2);
  });

  it('of a router that is frozen is ended by the servers', async () => {
    // Its connection says nothing more: the lock as it takes it, and silence.
    const frozen = await ControlConnection.open({ nodeName: 'n1', dsn: cluster.servers[0]!.dsn() });
    let lockText = '';
    const spied = new DecisionGate({
      clusterId: cluster.identity!.clusterId,
      nodeIds: [1],
      open: async () =>
        new Proxy(frozen, {
          get: (target, name) => {
            const value: unknown = Reflect.get(target, name, target);
            if (name !== 'query') return typeof value === 'function' ? value.bind(target) : value;
            return (text: string) => {
              lockText ||= text;
              return lockText === text ? target.query(text) : new Promise(() => {});
            };
          },
        }),
      now: () => 0,
    });
    void spied.held(async () => {}).catch(() => {});
    await lockedOn(0);
    const transfer = new Transfer(await newClients(), [1, 2]);
    await transfer.prepare(account, [0, 0]);
    await transfer.decide();
    await transfer.finish(2);
    expect(lockText).toContain('LOCK TABLE');
    expect(frozen.lost).toBe(true);
  });

  it(`fails in bounded time where a decided transaction stays prepared, and where a node is away`, async () => {
    const gate = newGate();
    const stuck = new Transfer(await newClients(), [1, 2]);
    await stuck.prepare(account, [0, 0]);
    await stuck.decide();
    const startMs = performance.now();
    await expect(gate.held(async () => {})).rejects.toMatchObject({ sqlState: '40001' });
    expect(performance.now() - startMs).toBeLessThan(BOUNDS.decisionGateTimeoutMs + 10_000);
    await stuck.finish(2);
    await cluster.servers[2]!.kill();
    await expect(gate.held(async () => {})).rejects.toMatchObject({ sqlState: '08001' });
    await cluster.servers[2]!.restart();
    expect(await gate.held(async () => 'back')).toBe('back');
  });

  it('finds out a snapshot that was taken before it', async () => {
    const connections = await newBackends();
    const text = 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1';
    await Promise.all([...connections.values()].map((connection) => ask(connection, text)));
    await cluster.servers[1]!.query('UPDATE accounts SET balance = balance WHERE id = 1');
    await expect(openConsistent(newGate(), { connections })).rejects.toThrow('a snapshot was taken before');
  });
});
