/** COPY … FROM STDIN while a node takes nothing: the client is not read, and the router holds little. */
import { once } from 'node:events';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { RawClient } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { RouterProcess } from '../support/router-process.ts';

const MIB = 1024 * 1024;
const DATA_BYTES = 200 * MIB;
const ROWS_PER_BLOCK = 128;
/** Rows that wait (24 MiB), what sockets hold, and what a process of V8 takes to work at all. */
const GROWTH_BYTES_MAX = 120 * MIB;

let cluster: TestCluster;
let router: RouterProcess;

beforeAll(async () => {
  const settings = { max_prepared_transactions: '50', max_wal_size: '2GB' };
  cluster = await startTestCluster({ nodes: 2, settings });
  router = await RouterProcess.start(cluster.routerOptions.nodes);
});
afterAll(async () => {
  await router?.stop();
  await cluster?.stop();
});

test('a node that is paused holds back the client, and goes on where it was', async () => {
  const client = await RawClient.connect({ port: router.port });
  await client.query(
    "CREATE TABLE t (k int8, v text) WITH (postern.door = 'sharded', postern.key = 'k', postern.buckets = 8)",
  );
  client.send(['query', 'COPY t FROM STDIN']);
  await client.readUntil(/^CopyIn/);
  const filler = 'x'.repeat(1000);
  let rows = 0;
  let sentBytes = 0;
  const sendBlock = async (): Promise<void> => {
    const block = `${Array.from({ length: ROWS_PER_BLOCK }, () => `${rows++}\t${filler}`).join('\n')}\n`;
    client.send(['copyData', block]);
    sentBytes += block.length;
    if (client.socket.writableNeedDrain) await once(client.socket, 'drain');
  };
  while (sentBytes < 20 * MIB) await sendBlock();
  const startBytes = await router.residentBytes();
  const paused = await backendsOf(1);
  expect(paused.length).toBeGreaterThan(0);
  for (const pid of paused) process.kill(pid, 'SIGSTOP');
  try {
    const sending = (async () => {
      while (sentBytes < DATA_BYTES) await sendBlock();
    })();
    // It can't send any more.
    let before = -1;
    const stalled = async () => {
      const isStalled = sentBytes === before;
      before = sentBytes;
      return isStalled;
    };
    await expect.poll(stalled, { interval: 500, timeout: 20_000 }).toBe(true);
    expect(sentBytes).toBeLessThan(DATA_BYTES / 2);
    expect((await router.residentBytes()) - startBytes).toBeLessThan(GROWTH_BYTES_MAX);
    for (const pid of paused) process.kill(pid, 'SIGCONT');
    await sending;
  } finally {
    for (const pid of paused) process.kill(pid, 'SIGCONT');
  }
  expect((await router.residentBytes()) - startBytes).toBeLessThan(GROWTH_BYTES_MAX);
  expect((await client.exchange([['copyDone']])).slice(0, 1)).toEqual([`Complete COPY ${rows}`]);
  expect(await client.query('SELECT count(*), count(DISTINCT k) FROM t')).toContain(`Row ${rows}|${rows}`);
  client.end();
});

/** Server processes of the node that have a transaction open. */
async function backendsOf(index: number): Promise<number[]> {
  const found = await cluster.servers[index]!.query(
    "SELECT pid FROM pg_stat_activity WHERE usename = 'app' AND xact_start IS NOT NULL",
  );
  return found.map(({ pid }) => Number(pid));
}
