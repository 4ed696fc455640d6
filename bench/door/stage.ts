/** What the cells of this folder stand on: a router in processes of its own over durable servers, and one sharded table. */
import pg from 'pg';
import { RouterProcess } from '../../test/support/router-process.ts';
import { startTestServer, type TestServer } from '../../test/support/servers.ts';

const DATABASE = 'app';

export interface DoorStage {
  readonly servers: readonly TestServer[];
  readonly router: RouterProcess;
  readonly dsn: string;
  stop(): Promise<void>;
}

/** `nodes` servers, each with the trusted role app; `router`: what postern.yaml has besides. */
export async function startDoorStage(
  nodes: number,
  router: Record<string, unknown> = {},
): Promise<DoorStage> {
  const settings = { max_connections: '200' };
  const servers = await Promise.all(
    Array.from({ length: nodes }, () => startTestServer({ durable: true, settings })),
  );
  const stopServers = () => Promise.all(servers.map((server) => server.stop()));
  try {
    for (const server of servers) {
      await server.query('CREATE ROLE app LOGIN');
      await server.query(`CREATE DATABASE ${DATABASE} OWNER app`);
    }
    const process = await RouterProcess.start(
      servers.map((server, i) => ({ name: `n${i + 1}`, dsn: server.dsn({ database: DATABASE }) })),
      router,
    );
    return {
      servers,
      router: process,
      dsn: `postgres://app@127.0.0.1:${process.port}/${DATABASE}`,
      stop: async () => {
        await process.stop();
        await stopServers();
      },
    };
  } catch (error) {
    await stopServers();
    throw error;
  }
}

/** The sharded table `events`, with the keys from 1 to `keys`. */
export async function makeEvents(dsn: string, keys: number): Promise<void> {
  const client = new pg.Client(dsn);
  await client.connect();
  await client.query(
    `CREATE TABLE events (id bigint PRIMARY KEY, note text) WITH (postern.door = 'sharded', postern.key = 'id')`,
  );
  await client.query(`INSERT INTO events SELECT id, 'x' FROM generate_series(1, ${keys}) AS id`);
  await client.end();
}
