/**
 * The same messages to a server directly and through the router, and the answers side by side: what the scripts written
 * by hand (differential.test.ts) and the generated ones (differential-generated.test.ts) have in common.
 */
import { afterAll, beforeAll, expect } from 'vitest';
import { type Message, RawClient } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';

let cluster: TestCluster;
let direct: RawClient;
let routed: RawClient;

const TABLE = '(id int8 PRIMARY KEY, v text NOT NULL, n int CHECK (n < 1000))';

/** Every script finds the same rows. */
async function reset(client: RawClient): Promise<void> {
  await client.query('DELETE FROM h');
  await client.query("INSERT INTO h SELECT i, 'row ' || i, i FROM generate_series(1, 5) i");
  await client.query('DELETE FROM k WHERE id = 1');
  await client.query("INSERT INTO k VALUES (1, 'row 1', 1)");
  await client.query('DEALLOCATE ALL');
  await client.query('RESET TimeZone');
}

/** The table behind: what the script has left. */
const AFTERWARDS: Message[] = [
  ['query', 'SELECT * FROM h ORDER BY id'],
  ['query', 'SELECT * FROM k WHERE id = 1'],
];

async function play(client: RawClient, script: readonly Message[]): Promise<string[]> {
  await reset(client);
  const lines = await client.play(script);
  for (const message of AFTERWARDS) lines.push(...(await client.exchange([message])));
  // A warning about the first statement of a pipeline is not given if the router had to ask something before it.
  return lines.filter((line) => !line.includes('SET LOCAL can only be used in transaction blocks'));
}

const MISTAKES_TOLD_OTHERWISE = [
  // A named statement that exists, and a text with an error in it.
  [/^Error ERROR C=42P05/, /^Error ERROR C=42(601|703)/],
  // A named portal that exists, and values that are too few, or a transaction that has failed.
  [/^Error ERROR C=42P03/, /^Error ERROR C=(08P01|25P02)/],
  // A text with an error in it, in a transaction that failed before any node knew of it.
  [/^Error ERROR C=25P02/, /^Error ERROR C=42601/],
  // A portal that is gone, and a transaction that has failed.
  [/^Error ERROR C=(34000|55000)/, /^Error ERROR C=(25P02|34000)/],
] as const;

/** Fails unless both answer alike. Needs startPair(). */
export async function compare(script: readonly Message[]): Promise<void> {
  try {
    const expected = await play(direct, script);
    const lines = await play(routed, script);
    // Of two mistakes in one message, the server may tell the other one first.
    const twice = lines.map((line, i) =>
      MISTAKES_TOLD_OTHERWISE.some(([ours, its]) => ours.test(line) && its.test(expected[i] ?? ''))
        ? expected[i]
        : line,
    );
    expect(twice).toEqual(expected);
  } catch (error) {
    // What is left of a session that has answered wrongly is no basis for the next script.
    direct.end();
    routed.end();
    direct = await RawClient.connect({ port: cluster.servers[0]!.port, database: 'plain' });
    routed = await RawClient.connect({ port: cluster.port });
    throw error;
  }
}

export const SYNC: Message = ['sync'];
export const q = (text: string): Message => ['query', text];

/** Before all tests of the block, a server and a router over it with the same tables. */
export function startPair(coalesce: boolean): void {
  beforeAll(async () => {
    cluster = await startTestCluster({ coalesce });
    const [home] = cluster.servers;
    await home!.query('CREATE DATABASE plain OWNER app');
    direct = await RawClient.connect({ port: home!.port, database: 'plain' });
    routed = await RawClient.connect({ port: cluster.port });
    for (const client of [direct, routed]) await client.query(`CREATE TABLE h ${TABLE}`);
    await direct.query(`CREATE TABLE k ${TABLE}`);
    await routed.query(`CREATE TABLE k ${TABLE} WITH (postern.door = 'sharded', postern.key = 'id')`);
  });
  afterAll(async () => {
    direct?.end();
    routed?.end();
    await cluster?.stop();
  });
}
