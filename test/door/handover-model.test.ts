/**
 * Clients that say whatever comes to their mind (handover-script.ts), in pipelines cut anywhere, through a router whose workers are replaced
 * again and again: each is answered as by a router that nobody replaces, message for message.
 *
 * Longer, or by another seed: POSTERN_HANDOVER_SECONDS=120 POSTERN_HANDOVER_SEED=7.
 */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { encodedMessages, type Message, RawClient } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { RouterProcess } from '../support/router-process.ts';
import { makeRandom, nextRound, type Round, schemaOf } from './handover-script.ts';

const CLIENTS = 8;
const SEED = Number(process.env.POSTERN_HANDOVER_SEED ?? 20261123);
const SECONDS = Number(process.env.POSTERN_HANDOVER_SECONDS ?? 0);
/** Goes to a server, which says what the settings are. */
const LAST: readonly Message[] = [
  ['query', `SELECT current_setting('search_path'), current_setting('TimeZone')`],
  ['query', 'SELECT 1'],
];
/** Of a short run. */
const RESTARTS = 2;

let cluster: TestCluster;
let router: RouterProcess;
let model: TestCluster;

beforeAll(async () => {
  [cluster, model] = await Promise.all([startTestCluster(), startTestCluster()]);
  router = await RouterProcess.start(cluster.routerOptions.nodes, {
    workers: 2,
    log: { connections: false },
  });
  for (const port of [router.port, model.port]) {
    const client = await RawClient.connect({ port });
    for (const text of schemaOf(CLIENTS)) {
      const lines = await client.query(text);
      expect(lines.filter((line) => line.startsWith('Error'))).toEqual([]);
    }
    client.end();
  }
}, 60_000);

afterAll(async () => {
  await router?.stop();
  await cluster?.stop();
  await model?.stop();
});

it(
  'is seen by no client',
  async () => {
    let isOver = false;
    const clients = Array.from({ length: CLIENTS }, (_, i) => converse(i, () => isOver));
    const failed = Promise.all(clients).then(
      () => {},
      (error) => {
        isOver = true;
        throw error;
      },
    );
    failed.catch(() => {});
    const endMs = performance.now() + SECONDS * 1_000;
    let restarts = 0;
    while (!isOver && (SECONDS > 0 ? performance.now() < endMs : restarts < RESTARTS)) {
      await Promise.race([router.restart(), failed]);
      restarts++;
    }
    isOver = true;
    await failed;
    const rows = await Promise.all([router.port, model.port].map((port) => contents(port)));
    expect(rows[0]).toEqual(rows[1]);
  },
  60_000 + SECONDS * 1_000,
);

/** One client and its model, until it is over. */
async function converse(index: number, isOver: () => boolean): Promise<void> {
  const random = makeRandom(SEED + index);
  const parameters = { application_name: `client ${index}`, options: '-c my.own=start' };
  const [client, expected] = await Promise.all(
    [router.port, model.port].map((port) => RawClient.connect({ port, parameters })),
  );
  const { processId } = client!;
  const told = new Map(client!.parameters);
  const history: Round[] = [];
  while (!isOver()) {
    const rounds = Array.from({ length: 1 + random(5) }, () => nextRound(index, random));
    history.push(...rounds);
    const messages = rounds.flatMap((round) => round.messages);
    expected!.send(...messages);
    await sendInPieces(client!, encodedMessages(messages), random);
    for (const { messages: said, readies } of rounds) {
      const [answer, right] = await Promise.all([client, expected].map((one) => answersOf(one!, readies)));
      changedOnly(told, answer!);
      if (!isSame(answer!, right!)) {
        const last = history.slice(-12).map((round) => JSON.stringify(round.messages));
        expect({ index, seed: SEED, said, last, answer }).toEqual({
          index,
          seed: SEED,
          said,
          last,
          answer: right,
        });
      }
    }
    if (random(3) === 0) await new Promise((resolve) => setTimeout(resolve, random(120)));
  }
  expect(client!.processId).toBe(processId);
  const last = await Promise.all(
    [client, expected].map((one) => one!.exchange([['query', 'DISCARD ALL'], ...LAST], LAST.length + 1)),
  );
  expect(last[0]!.filter(isAnswer)).toEqual(last[1]!.filter(isAnswer));
  expect(client!.parameters).toEqual(expected!.parameters);
  client!.end();
  expected!.end();
}

function isSame(answer: readonly string[], right: readonly string[]): boolean {
  return JSON.stringify(answer.filter(isAnswer)) === JSON.stringify(right.filter(isAnswer));
}

/** A setting that a DISCARD or RESET has changed is told with the next answer of a server, whichever that is. */
function isAnswer(line: string): boolean {
  return !line.startsWith('Parameter ');
}

/** No setting is told that the client knows. */
function changedOnly(told: Map<string, string>, answer: readonly string[]): void {
  for (const line of answer) {
    const [, name, value] = /^Parameter ([^=]+)=(.*)$/.exec(line) ?? [];
    if (name === undefined) continue;
    expect(`${name}=${value}`).not.toBe(`${name}=${told.get(name)}`);
    told.set(name, value!);
  }
}

async function answersOf(client: RawClient, count: number): Promise<string[]> {
  const lines: string[] = [];
  for (let i = 0; i < count; i++) for (const line of await client.readUntil(/^Ready/)) lines.push(line);
  return lines;
}

async function sendInPieces(
  { socket }: RawClient,
  bytes: Buffer,
  random: (below: number) => number,
): Promise<void> {
  let from = 0;
  for (let pieces = random(4); pieces > 0; pieces--) {
    const to = from + random(bytes.length - from);
    socket.write(bytes.subarray(from, to));
    from = to;
    if (random(3) === 0) await new Promise((resolve) => setTimeout(resolve, random(30)));
    else await new Promise(setImmediate);
  }
  socket.write(bytes.subarray(from));
}

async function contents(port: number): Promise<string[]> {
  const client = await RawClient.connect({ port });
  const lines = await client.exchange(
    [
      ['query', 'SELECT k, n FROM acc ORDER BY k'],
      ['query', 'SELECT k, t, count(*) FROM log GROUP BY k, t ORDER BY k, t'],
    ],
    2,
  );
  client.end();
  return lines.filter((line) => line.startsWith('Row'));
}
