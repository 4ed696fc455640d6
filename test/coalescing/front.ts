/** A router in front mode before a server of its own, for tests of merged and of pipelined writes. */
import pg from 'pg';
import { onTestFinished } from 'vitest';
import type { TableSwitch } from '../../src/cli/coalesce-tables.ts';
import type { Router } from '../../src/cli/router.ts';
import { startFront } from '../../src/cli/run-front.ts';
import { sendCancel } from '../support/raw-client.ts';
import { startTestServer, type TestServer } from '../support/servers.ts';

export interface TestFront {
  readonly server: TestServer;
  readonly router: Router;
  /** Through the router, as `app`. Closed with the test. */
  connect(settings?: pg.ClientConfig): Promise<pg.Client>;
  /** Past the router, as `app`. Closed with the test. */
  connectDirectly(): Promise<pg.Client>;
  stop(): Promise<void>;
}

export async function startTestFront(
  options: {
    connections?: number;
    settings?: Record<string, string>;
    schema?: string;
    tables?: readonly TableSwitch[];
    coalesce?: boolean;
  } = {},
): Promise<TestFront> {
  const server = await startTestServer({ ...(options.settings && { settings: options.settings }) });
  try {
    await server.query('CREATE ROLE app LOGIN');
    await server.query('CREATE DATABASE app OWNER app');
    const dsn = server.dsn({ user: 'app', database: 'app' });
    if (options.schema !== undefined) {
      const admin = new pg.Client(server.dsn({ database: 'app' }));
      await admin.connect();
      await admin.query(`GRANT ALL ON SCHEMA public TO app; ${options.schema}`);
      await admin.end();
    }
    const router = await startFront(
      dsn,
      {
        host: '127.0.0.1',
        port: 0,
        connections: options.connections,
        coalesce: options.coalesce ?? true,
        workers: undefined,
        coalesceTable: options.tables,
      },
      { info() {}, warn() {}, error: (line) => console.error(line) },
    );
    const connectTo = async (config: pg.ClientConfig): Promise<pg.Client> => {
      const client = new pg.Client(config);
      client.on('error', () => {});
      onTestFinished(() => client.end().catch(() => {}));
      await client.connect();
      return client;
    };
    return {
      server,
      router,
      connect: (settings = {}) =>
        connectTo({
          host: '127.0.0.1',
          port: router.port,
          user: 'app',
          database: 'app',
          ...settings,
        }),
      connectDirectly: () => connectTo({ connectionString: dsn }),
      stop: async () => {
        await router.close();
        await server.stop();
      },
    };
  } catch (error) {
    await server.stop();
    throw error;
  }
}

/** What a statement came to: rows; or `!SQLSTATE`, with the name of the constraint if there is one. */
export type Outcome = unknown[][] | string;

/** Runs a prepared statement. */
export function execute(client: pg.Client, text: string, values: readonly unknown[] = []): Promise<Outcome> {
  return outcomeOf(
    client.query({ name: nameOf(text), text, values: [...values], rowMode: 'array' as const }),
  );
}

export async function outcomeOf(answer: Promise<{ rows: unknown[][] }>): Promise<Outcome> {
  try {
    return (await answer).rows;
  } catch (error) {
    const { code, message, constraint } = error as { code?: string; message: string; constraint?: string };
    return `!${code ?? message}${constraint === undefined ? '' : ` ${constraint}`}`;
  }
}

const names = new Map<string, string>();

function nameOf(text: string): string {
  const known = names.get(text) ?? `statement_${names.size}`;
  names.set(text, known);
  return known;
}

export function rowOf(outcome: Outcome): unknown[] {
  if (typeof outcome === 'string') throw new Error(`answered ${outcome}`);
  return outcome[0]!;
}

/** Through the router, with a transaction open. */
export async function openTransaction(front: TestFront, ...statements: string[]): Promise<pg.Client> {
  const client = await front.connect();
  await client.query('BEGIN');
  for (const text of statements) await client.query(text);
  return client;
}

/**
 * Cancels until all have ended: a statement may just be on its way to a backend of its own, where a cancel finds nothing to
 * cancel.
 */
export async function canceledAll(
  front: TestFront,
  clients: readonly pg.Client[],
  ends: readonly Promise<Outcome>[],
): Promise<Outcome[]> {
  let ended = false;
  const all = Promise.all(ends).finally(() => {
    ended = true;
  });
  while (!ended) await cancelAll(front, clients);
  return all;
}

export async function cancelAll(front: TestFront, clients: readonly pg.Client[]): Promise<void> {
  for (const client of clients) {
    const { processID, secretKey } = client as unknown as { processID: number; secretKey: number };
    const key = Buffer.alloc(4);
    key.writeInt32BE(secretKey);
    await sendCancel(front.router.port, processID, key);
  }
}

/** Asks until it is so, as the server sees it. */
export async function until(server: TestServer, condition: string): Promise<void> {
  const deadline = performance.now() + 15_000;
  for (;;) {
    const [row] = await server.query(`SELECT (${condition}) AS met`);
    if (row?.met) return;
    if (performance.now() > deadline) throw new Error(`never met: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
