/**
 * Runs a workload's transactions against a server from the test's own thread, a number of them rather than for a time, with
 * the load generator's own client, so that what was run is known exactly.
 */
import { performance } from 'node:perf_hooks';
import type { ServerError } from '../../src/wall/load/answer-scanner.ts';
import { type ClientHost, LoadClient } from '../../src/wall/load/load-client.ts';
import { openConnection } from '../../src/wall/load/load-connection.ts';
import { seededRandom } from '../../src/wall/load/seeded-random.ts';
import { compileWorkload, type Protocol } from '../../src/wall/load/transaction-template.ts';
import { type Workload, withSchema } from '../../src/wall/workload/workload.ts';
import type { TestServer } from './servers.ts';

export interface LoadRun {
  /** By the transaction's name. */
  readonly succeeded: ReadonlyMap<string, number>;
  readonly errors: readonly ServerError[];
}

/** Makes the workload's tables in a schema of its own, which must not be there. */
export async function setUp(server: TestServer, workload: Workload, schema: string): Promise<void> {
  await server.query(`CREATE SCHEMA ${schema}`);
  for (const statement of workload.setup) await server.query(withSchema(statement, `${schema}.`));
}

/** Rejects if a client can't go on. */
export async function runTransactions(options: {
  server: TestServer;
  workload: Workload;
  protocol: Protocol;
  /** Empty, or ends in a dot. */
  schema: string;
  clients: number;
  /** Of all clients together. */
  transactions: number;
}): Promise<LoadRun> {
  const { server, workload, protocol, schema, clients } = options;
  const template = compileWorkload({ workload, protocol, schema });
  const target = {
    ...{ host: '127.0.0.1', port: server.port, user: 'postgres', password: 'postgres', database: 'postgres' },
    ...{ parameters: [], tls: undefined, connectTimeoutMs: 10_000 },
  };
  const connections = await Promise.all(
    Array.from({ length: clients }, () => openConnection(target, template.preparation)),
  );
  const succeeded = new Map<string, number>();
  const errors: ServerError[] = [];
  let begun = 0;
  let running = clients;
  try {
    await new Promise<void>((resolve, reject) => {
      const beginNext = (client: LoadClient, now: number): void => {
        if (begun++ < options.transactions) client.begin(now);
        else if (--running === 0) resolve();
      };
      const host: ClientHost = {
        random: seededRandom(1),
        now: () => performance.now(),
        succeeded: (_, transaction) => {
          const { name } = workload.transactions[transaction]!;
          succeeded.set(name, (succeeded.get(name) ?? 0) + 1);
        },
        failed: (error) => errors.push(error),
        finished: beginNext,
        lost: (message) => reject(new Error(message)),
      };
      for (const [clientId, connection] of connections.entries()) {
        beginNext(new LoadClient({ connection, template, clientId, host }), performance.now());
      }
    });
  } finally {
    await Promise.all(connections.map((connection) => connection.close()));
  }
  return { succeeded, errors };
}
