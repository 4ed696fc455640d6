/**
 * What a client may say, by a seed: rounds of messages over the whole of what a session keeps (settings, prepared statements, sequences,
 * transactions over nodes, portals, COPY), whose answers don't depend on other clients.
 */
import type { Message } from '../support/raw-client.ts';

export interface Round {
  readonly messages: readonly Message[];
  /** ReadyForQuery that come of it. */
  readonly readies: number;
}

export const CLIENT_KEYS = 12;

/** What has to be there before. */
export function schemaOf(clients: number): string[] {
  const sharded = ` WITH (postern.door = 'sharded', postern.key = 'k')`;
  return [
    `CREATE TABLE acc (k int8 PRIMARY KEY, n int8 NOT NULL)${sharded}`,
    `CREATE TABLE log (k int8 NOT NULL, t text NOT NULL)${sharded}`,
    'CREATE SCHEMA other',
    'CREATE TABLE other.shown (id int)',
    ...Array.from({ length: clients }, (_, c) => `CREATE SEQUENCE own_${c}`),
    `INSERT INTO acc SELECT k, 0 FROM generate_series(0, ${clients * CLIENT_KEYS - 1}) AS k`,
  ];
}

export function makeRandom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

const SYNC: Message = ['sync'];

function queries(...texts: readonly string[]): Round {
  return { messages: texts.map((text) => ['query', text] as const), readies: texts.length };
}

function pipeline(...messages: readonly Message[]): Round {
  return { messages: [...messages, SYNC], readies: 1 };
}

export function nextRound(client: number, random: (below: number) => number): Round {
  const one = () => client * CLIENT_KEYS + random(CLIENT_KEYS);
  const name = () => `s${random(4)}`;
  const pick = <T>(of: readonly T[]): T => of[random(of.length)]!;
  const end = () => pick(['COMMIT', 'COMMIT', 'ROLLBACK', 'COMMIT AND CHAIN; ROLLBACK']);
  const add = (key = one()) => `UPDATE acc SET n = n + 1 WHERE k = ${key}`;
  const setting = () =>
    pick([
      `SET work_mem = '${1 + random(9)}MB'`,
      `SET application_name = 'name ${random(5)}'`,
      'SET search_path = other, public',
      'SET search_path = public',
      'RESET search_path',
      `SET my.own = '${random(100)}'`,
      `SET DateStyle = '${pick(['ISO, DMY', 'ISO, MDY', 'German'])}'`,
      `SET TimeZone = '${pick(['UTC', 'Asia/Tokyo', 'America/New_York'])}'`,
      'RESET work_mem',
      'RESET ALL',
    ]);
  switch (random(21)) {
    case 0:
      return queries(`SELECT n FROM acc WHERE k = ${one()}`, `${add()} RETURNING n`);
    case 1:
      return queries('BEGIN', add(), add(), `SELECT n FROM acc WHERE k = ${one()}`, end());
    case 2:
      return queries(setting(), `SELECT current_setting('work_mem'), current_setting('my.own', true)`);
    case 3:
      return queries(
        `SELECT current_setting('application_name'), current_setting('search_path'), current_setting('TimeZone'), to_regclass('shown')::text, DATE '2026-11-23'`,
      );
    case 4:
      return queries('BEGIN', `SET LOCAL work_mem = '32MB'`, setting(), add(), end(), 'SHOW work_mem');
    case 5: {
      const named = name();
      return pipeline(['close', 'S', named], ['parse', named, `SELECT $1::int4 + ${random(50)} AS v`]);
    }
    case 6: {
      const named = name();
      return pipeline(
        ['close', 'S', named],
        ['parse', named, 'UPDATE acc SET n = n + $2 WHERE k = $1 RETURNING n'],
      );
    }
    case 7:
      return pipeline(['parse', name(), 'SELECT $1::text AS t, $2 + 1 AS v', random(2) ? [25, 20] : []]);
    case 8:
      return pipeline(['describe', 'S', name()]);
    case 9:
      return pipeline(['bind', '', name(), [String(one()), '1']], ['describe', 'P', ''], ['execute', '']);
    case 10:
      return pipeline(['bind', '', name(), [String(one())]], ['execute', '']);
    // The unnamed statement lives until the next Query or Parse of it.
    case 11:
      return pipeline(['parse', '', pick(['SELECT $1::int8 AS big', 'SELECT n FROM acc WHERE k = $1'])]);
    case 12:
      return pipeline(['bind', '', '', [String(one())]], ['execute', '']);
    case 13: {
      const parts: Message[] = [];
      for (let i = random(4); i >= 0; i--)
        parts.push(['parse', '', random(6) ? add() : 'SELECT 1/0'], ['bind', '', ''], ['execute', '']);
      return pipeline(...parts);
    }
    case 14:
      // What currval() says depends on whose backend others use: restart.test.ts has it.
      return queries(`SELECT nextval('public.own_${client}')`);
    case 15:
      return queries('', 'SELECT 1/0', `SELECT '${'y'.repeat(random(3000))}' <> ''`);
    case 16:
      return queries('COMMIT', 'BEGIN', 'BEGIN', 'ROLLBACK');
    case 17:
      return queries(pick(['DEALLOCATE ALL', 'DISCARD ALL']));
    case 18:
      return queries(
        'BEGIN',
        'DECLARE c CURSOR FOR SELECT generate_series(1, 9)',
        'FETCH 3 FROM c',
        pick(['FETCH 2 FROM c', 'SELECT 1/0', add()]),
        end(),
      );
    case 19: {
      const rows: Message[] = [
        ['query', 'BEGIN'],
        ['parse', '', 'SELECT generate_series(1, 5)'],
        ['bind', 'p', ''],
        ['execute', 'p', 2],
        SYNC,
        ['execute', 'p', 2],
        SYNC,
        ['query', end()],
      ];
      return { messages: rows, readies: 4 };
    }
    case 20:
      return {
        messages: [
          ['query', 'COPY log (k, t) FROM STDIN'],
          ['copyData', `${one()}\tfirst\n${one()}\t`],
          ['copyData', 'second\n'],
          random(4) ? ['copyDone'] : ['copyFail', 'no'],
        ],
        readies: 1,
      };
    default:
      return queries(`SELECT repeat('x', 2000) FROM generate_series(1, ${1 + random(60)})`);
  }
}
