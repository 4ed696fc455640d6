/** A router in front mode before a server of its own, for tests of coalescing. */
import pg from 'pg';
import { onTestFinished } from 'vitest';
import type { Router } from '../../src/cli/router.ts';
import { startFront } from '../../src/cli/run-front.ts';
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
  options: { connections?: number; settings?: Record<string, string>; schema?: string } = {},
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
        coalesce: true,
        workers: undefined,
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
