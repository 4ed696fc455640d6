/**
 * 64 clients that update by key, of which one wants a row that an open transaction holds. What counts is what the other
 * 63 get. Without the lock the one client is connected and idle: if it went on, it would take of the others' CPU, and the
 * lock would seem to cost less than it does.
 */
import pg from 'pg';
import type { Endpoint, Figures, Generators } from './point.ts';
import { LOCKED_ROW, UPDATES_OF_OTHER_ROWS } from './workloads.ts';

const OTHERS = 63;
const WANTED = `UPDATE counters SET n = n + 1 WHERE id = ${LOCKED_ROW}`;

export async function measureLockedRow(options: {
  generators: Generators;
  endpoint: Endpoint;
  /** Past the router: the lock is held by somebody whom it doesn't know. */
  serverDsn: string;
  locked: boolean;
  warmupMs: number;
  windowMs: number;
}): Promise<Figures> {
  const { generators, endpoint, locked, warmupMs, windowMs } = options;
  const holder = new pg.Client({ connectionString: options.serverDsn });
  const wanting = new pg.Client({
    host: '127.0.0.1',
    port: endpoint.port,
    user: endpoint.user,
    database: endpoint.database,
  });
  const clients = [holder, wanting];
  try {
    await Promise.all(clients.map((client) => client.connect()));
    let held: Promise<unknown> = Promise.resolve();
    let wanted: Promise<unknown> = Promise.resolve();
    const lock = (): void => {
      held = holder.query('BEGIN').then(() => holder.query(WANTED));
      wanted = held.then(() => wanting.query({ name: 'wanted', text: WANTED }));
      // Whoever awaits them below still hears of a failure.
      held.catch(() => {});
      wanted.catch(() => {});
    };
    try {
      return await generators.measure(
        endpoint,
        { workload: UPDATES_OF_OTHER_ROWS, protocol: 'prepared', clients: OTHERS, warmupMs, windowMs },
        locked ? lock : undefined,
      );
    } finally {
      await held;
      if (locked) await holder.query('ROLLBACK');
      await wanted;
    }
  } finally {
    await Promise.all(clients.map((client) => client.end()));
  }
}
