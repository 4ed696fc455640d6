/**
 * Scripts of raw messages over the tables of world.ts, made by chance: cursors, portals, pipelines, COPY, query strings of
 * several statements, schema changes inside transactions, savepoints, and clients that cancel. Each item is one exchange.
 */
import type { Message } from '../support/raw-client.ts';
import { run } from '../support/raw-client.ts';
import type { SeededRandom } from '../tpc/random.ts';
import { generate } from './statements.ts';
import { DAYS, SENSORS, TENANTS } from './values.ts';

/** What is sent together, up to the answers of all its `query` and `sync` messages. `cancels`: while it runs, it is canceled. */
export interface Exchange {
  readonly messages: readonly Message[];
  readonly cancels?: boolean;
}
export type Script = readonly Exchange[];

const SYNC: Message = ['sync'];
const q = (text: string): Exchange => ({ messages: [['query', text]] });
const all = (...texts: readonly string[]): Script => texts.map(q);

/** A statement of statements.ts, as text. */
function statement(r: SeededRandom): string {
  for (;;) {
    const { text, values, kind } = generate(r, 'app');
    if (values.length === 0 && !/truncate|select into/.test(kind)) return text;
  }
}

const ORDERED = [
  'SELECT id, name, balance FROM accounts ORDER BY id',
  'SELECT account_id, no, total FROM orders ORDER BY account_id DESC, no',
  'SELECT no, total FROM orders WHERE account_id = 7 ORDER BY no',
  'SELECT a.id, r.sensor FROM accounts a JOIN readings r ON r.n >= a.id ORDER BY 1, 2, r.n',
  'SELECT tier, count(*) FROM accounts GROUP BY tier ORDER BY tier',
  'SELECT code FROM currencies ORDER BY code',
  'SELECT key, value FROM settings ORDER BY key',
  'SELECT day, seq FROM ledger ORDER BY day, seq',
  'SELECT tenant, n FROM plots ORDER BY tenant COLLATE "C" DESC, n',
];
const FETCHES = ['FETCH c', 'FETCH 3 c', 'FETCH ALL c', 'MOVE 2 c', 'FETCH FORWARD 2 c', 'MOVE ALL c'];
const BACKWARDS = [
  'FETCH 0 c',
  'FETCH PRIOR c',
  'FETCH LAST c',
  'FETCH ABSOLUTE 2 c',
  'FETCH BACKWARD ALL c',
  'FETCH RELATIVE -1 c',
  'FETCH FIRST c',
];

const KEYED: readonly (readonly [text: string, parameters: (r: SeededRandom) => string[]])[] = [
  ['SELECT id, name FROM accounts WHERE id = $1', (r) => [String(r.between(1, 30))]],
  [
    'SELECT id FROM accounts WHERE id = ANY ($1) ORDER BY id',
    (r) => [`{${r.between(1, 30)},${r.between(1, 9)}}`],
  ],
  [
    'SELECT id FROM accounts WHERE id IN ($1, $2) ORDER BY id',
    (r) => [String(r.between(1, 9)), String(r.between(1, 9))],
  ],
  ['UPDATE accounts SET rank = rank + 1 WHERE id = $1 RETURNING id, rank', (r) => [String(r.between(1, 30))]],
  [
    'UPDATE accounts SET rank = $2 WHERE id > $1',
    (r) => [String(r.between(1, 30)), String(r.between(1, 30))],
  ],
  [
    'INSERT INTO readings VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING n',
    (r) => [r.pick(SENSORS), String(r.between(1, 50)), '2'],
  ],
  [
    'INSERT INTO readings VALUES ($1, $2, 1), ($3, $2, 2) ON CONFLICT DO NOTHING',
    (r) => [r.pick(SENSORS), String(r.between(1, 50)), r.pick(SENSORS)],
  ],
  [
    'DELETE FROM plots WHERE tenant = $1 AND n = $2 RETURNING body',
    (r) => [r.pick(TENANTS), String(r.between(1, 6))],
  ],
  [
    'INSERT INTO ledger VALUES ($1, $2, 1, true) ON CONFLICT (day, seq) DO UPDATE SET amount = ledger.amount + 1 RETURNING amount',
    (r) => [r.pick(DAYS), String(r.between(1, 6))],
  ],
  [
    'SELECT count(*), sum(amount) FROM ledger WHERE day >= $1 AND amount > $2',
    (r) => [r.pick(DAYS), String(r.between(1, 99))],
  ],
  [
    'SELECT a.id, c.name FROM accounts a JOIN currencies c ON c.code = a.currency WHERE a.id = $1 FOR UPDATE OF a',
    (r) => [String(r.between(1, 30))],
  ],
  ['UPDATE people SET email = $2 WHERE id = $1', (r) => [String(r.between(1, 30)), `p${r.between(1, 12)}@x`]],
  [
    'SELECT id FROM accounts ORDER BY balance, id LIMIT $1 OFFSET $2',
    (r) => [String(r.between(0, 4)), String(r.between(0, 4))],
  ],
  ['SELECT $1::int / $2::int', (r) => ['4', String(r.between(0, 2))]],
];

const keyed = (r: SeededRandom): [text: string, parameters: string[]] => {
  const [text, parameters] = r.pick(KEYED);
  return [text, parameters(r)];
};

/** For strings that commit in their middle: what is refused behind it would leave the first half on one side alone. */
const TAKEN = [
  'SELECT id, name FROM accounts WHERE id = 3',
  'UPDATE accounts SET rank = rank + 1 WHERE id = 5',
  'UPDATE accounts SET rank = 2 WHERE id > 20',
  "INSERT INTO plots VALUES ('acme', 12, 'a'), ('hooli', 12, 'b') ON CONFLICT DO NOTHING",
  'SELECT 1 / 0',
  'DELETE FROM plots WHERE n = 12',
  'SELECT nothing FROM accounts',
];

/** Rows of COPY's text format; now and then a bad one. */
function copied(r: SeededRandom): string {
  // Of several bad rows another one may be told, so a bad one stands alone.
  if (r.between(1, 4) === 1) return r.pick(['\\N\t1\t1\n', 'a\tseven\t1\n', 'a\t1\n', 'a\t1\t1\t1\n']);
  const rows = Array.from({ length: r.between(0, 6) }, () => {
    const sensor = r.pick(['a', 'b', 'kitchen', 'K\\tq', '\\\\x', '']);
    return `${sensor}\t${r.between(41, 90)}\t${r.pick(['1.5', '\\N', 'NaN', '2'])}\n`;
  });
  return rows.join('');
}
const copyIn = (head: string, data: string, end: Message = ['copyDone']): Exchange => ({
  messages: [['query', head], ...(data === '' ? [] : [['copyData', data] as const]), end],
});

const SCRIPTS: Readonly<Record<string, (r: SeededRandom) => Script>> = {
  cursor: (r) => {
    const scroll = r.between(0, 1) === 1;
    const fetches = Array.from({ length: r.between(1, 4) }, () =>
      r.pick(scroll ? [...FETCHES, ...BACKWARDS] : FETCHES),
    );
    return all(
      'BEGIN',
      `DECLARE c ${scroll ? 'SCROLL' : 'NO SCROLL'} CURSOR FOR ${r.pick(ORDERED)}`,
      ...fetches,
      'CLOSE c',
      'COMMIT',
    );
  },
  'cursor behind a write': (r) =>
    all(
      'BEGIN',
      statement(r),
      `DECLARE c CURSOR FOR ${r.pick(ORDERED)}`,
      r.pick(FETCHES),
      statement(r),
      r.pick(FETCHES),
      'ROLLBACK',
    ),
  'cursor of a prepared statement': (r) => [
    q('BEGIN'),
    {
      messages: [
        ...run('DECLARE c CURSOR FOR SELECT id FROM accounts WHERE id > $1 ORDER BY id', ['4']),
        SYNC,
      ],
    },
    q('FETCH 2 c'),
    q(r.pick(FETCHES)),
    q('COMMIT'),
  ],
  'portal in portions': (r) => {
    const text = r.pick(ORDERED);
    const portions = Array.from(
      { length: r.between(1, 3) },
      (): Message => ['execute', 'p', r.between(1, 4)],
    );
    return [
      q('BEGIN'),
      { messages: [['parse', '', text], ['bind', 'p', ''], ['describe', 'P', 'p'], ...portions, SYNC] },
      { messages: [['execute', 'p', 2], SYNC] },
      { messages: [['execute', 'p', 0], ['close', 'P', 'p'], SYNC] },
      q(r.pick(['COMMIT', 'ROLLBACK'])),
    ];
  },
  'prepared many times': (r) => {
    const [text, parameters] = r.pick(KEYED);
    const name = `s${r.between(1, 1e6)}`;
    return [
      { messages: [['parse', name, text], ['describe', 'S', name], SYNC] },
      ...Array.from(
        { length: 8 },
        (): Exchange => ({
          messages: [['bind', '', name, parameters(r)], ['execute', ''], SYNC],
        }),
      ),
      { messages: [['close', 'S', name], SYNC] },
    ];
  },
  'prepared in a block': (r) => {
    const picked = Array.from({ length: 3 }, () => r.pick(KEYED));
    const names = picked.map((_, i) => `t${r.between(1, 1e6)}_${i}`);
    return [
      { messages: [...picked.map(([text], i): Message => ['parse', names[i]!, text]), SYNC] },
      q('BEGIN'),
      ...Array.from({ length: 6 }, (): Exchange => {
        const i = r.between(0, 2);
        return { messages: [['bind', '', names[i]!, picked[i]![1](r)], ['execute', ''], SYNC] };
      }),
      q('COMMIT'),
    ];
  },
  pipeline: (r) => [
    {
      messages: [
        ...Array.from({ length: r.between(2, 6) }, () => {
          const [text, parameters] = r.pick(KEYED);
          return run(text, parameters(r));
        }).flat(),
        SYNC,
      ],
    },
  ],
  'pipeline of transactions': (r) => [
    {
      messages: [
        ...run('BEGIN'),
        ...Array.from({ length: r.between(1, 3) }, () => {
          const [text, parameters] = r.pick(KEYED);
          return run(text, parameters(r));
        }).flat(),
        ...run(r.pick(['COMMIT', 'ROLLBACK', 'COMMIT'])),
        ...run(...keyed(r)),
        SYNC,
      ],
    },
    q('ROLLBACK'),
  ],
  'pipeline of Syncs': (r) => [
    {
      messages: Array.from({ length: r.between(2, 5) }, () => {
        const [text, parameters] = r.pick(KEYED);
        return [...run(text, parameters(r)), SYNC];
      }).flat(),
    },
  ],
  'query string': (r) => [
    q(Array.from({ length: r.between(2, 4) }, () => statement(r)).join('; ')),
    q('ROLLBACK'),
  ],
  'query string with a block': (r) => [
    q(`${r.pick(TAKEN)}; BEGIN; ${r.pick(TAKEN)}; ${r.pick(['COMMIT', 'ROLLBACK'])}; ${r.pick(TAKEN)}`),
    q('ROLLBACK'),
  ],
  'bare block': (r) => all('BEGIN', ...Array.from({ length: r.between(1, 5) }, () => statement(r)), 'COMMIT'),
  savepoints: (r) =>
    all(
      'BEGIN',
      ...Array.from({ length: r.between(4, 10) }, () =>
        r.pick([
          statement(r),
          statement(r),
          'SAVEPOINT a',
          'SAVEPOINT b',
          'ROLLBACK TO a',
          'ROLLBACK TO b',
          'RELEASE a',
          'RELEASE b',
        ]),
      ),
      r.pick(['COMMIT', 'COMMIT', 'ROLLBACK']),
    ),
  'chained blocks': (r) =>
    all('BEGIN', statement(r), r.pick(['COMMIT AND CHAIN', 'ROLLBACK AND CHAIN']), statement(r), 'COMMIT'),
  'read only block': (r) => all('BEGIN READ ONLY', statement(r), statement(r), 'COMMIT'),
  'repeatable read': (r) =>
    all('BEGIN ISOLATION LEVEL REPEATABLE READ', statement(r), statement(r), 'COMMIT'),
  'copy in': (r) => [
    copyIn(
      'COPY readings FROM STDIN',
      copied(r),
      r.between(1, 8) === 1 ? ['copyFail', 'no more'] : ['copyDone'],
    ),
  ],
  'copy in a block': (r) => [
    q('BEGIN'),
    q(statement(r)),
    q('SAVEPOINT a'),
    copyIn('COPY readings (sensor, n, value) FROM STDIN', copied(r)),
    q(r.pick(['ROLLBACK TO a', 'RELEASE a'])),
    copyIn(
      'COPY plots FROM STDIN (FORMAT csv)',
      `acme,${r.between(20, 90)},"x ""y"""\nhooli,${r.between(20, 90)},\n`,
    ),
    q('SELECT tenant, n, body FROM plots ORDER BY tenant COLLATE "C", n'),
    q(r.pick(['COMMIT', 'ROLLBACK'])),
  ],
  'copy to other tables': (r) => [
    copyIn(
      r.pick([
        'COPY currencies FROM STDIN',
        'COPY settings FROM STDIN',
        'COPY ledger FROM STDIN',
        'COPY people FROM STDIN',
      ]),
      r.pick([
        'CPY\tcopied\t1\n',
        'k9\tcopied\n',
        '2026-01-01\t7\t1\tt\n2026-07-01\t7\t1\tf\n',
        '41\tcopied@x\t\\N\n',
        '42\tp1@x\t1\n',
      ]),
    ),
  ],
  'copy out': (r) => [
    q(
      `COPY (${r.pick(ORDERED)}) TO STDOUT${r.pick(['', ' (FORMAT csv, HEADER)', " (FORMAT csv, FORCE_QUOTE *, NULL '-')"])}`,
    ),
  ],
  'copy out of a block': (r) => all('BEGIN', statement(r), `COPY (${r.pick(ORDERED)}) TO STDOUT`, 'ROLLBACK'),
  'added column': (r) =>
    all(
      'BEGIN',
      statement(r),
      `ALTER TABLE ${r.pick(['accounts', 'readings', 'ledger', 'plots', 'currencies'])} ADD COLUMN extra int DEFAULT 4`,
      'SELECT * FROM accounts WHERE id = 5',
      "INSERT INTO readings (sensor, n) VALUES ('ddl', 1), ('b', 99)",
      statement(r),
      'SELECT sensor, n FROM readings ORDER BY 1, 2',
      'ROLLBACK',
      'SELECT * FROM readings ORDER BY 1, 2',
    ),
  'column for good': (r) => {
    const table = r.pick(['accounts', 'loose', 'ledger']);
    return [
      { messages: [['parse', 'old', `SELECT * FROM ${table}`], SYNC] },
      { messages: [['bind', '', 'old'], ['execute', ''], SYNC] },
      ...all(`ALTER TABLE ${table} ADD COLUMN extra text DEFAULT 'e'`, `SELECT * FROM ${table}`),
      { messages: [['bind', '', 'old'], ['execute', ''], SYNC] },
      ...all(`UPDATE ${table} SET extra = 'f'`, `SELECT extra, count(*) FROM ${table} GROUP BY extra`),
      q(`ALTER TABLE ${table} DROP COLUMN extra`),
      q(`SELECT * FROM ${table}`),
      { messages: [['close', 'S', 'old'], SYNC] },
    ];
  },
  'renamed column': (r) =>
    all(
      'BEGIN',
      'ALTER TABLE readings RENAME COLUMN value TO reading',
      'SELECT reading + 0 FROM readings WHERE reading <> 0 ORDER BY 1',
      "INSERT INTO readings (sensor, n, reading) VALUES ('a', 77, 1) ON CONFLICT DO NOTHING",
      'SELECT value FROM readings',
      r.pick(['ROLLBACK', 'COMMIT']),
      'SELECT count(value) FROM readings',
    ),
  'renamed key': (r) =>
    all(
      'BEGIN',
      'ALTER TABLE readings RENAME COLUMN sensor TO probe',
      "SELECT probe FROM readings WHERE probe = 'a' ORDER BY n",
      "SELECT sensor FROM readings WHERE sensor = 'a'",
      'ROLLBACK',
      `SELECT sensor, n FROM readings WHERE sensor = '${r.pick(['a', 'b'])}' ORDER BY n`,
    ),
  'renamed table': (r) =>
    all(
      'BEGIN',
      'ALTER TABLE loose RENAME TO looser',
      'INSERT INTO looser VALUES (5, NULL), (6, NULL)',
      'SELECT k FROM looser ORDER BY k',
      'SAVEPOINT a',
      'SELECT k FROM loose',
      'ROLLBACK TO a',
      'ALTER TABLE looser RENAME TO loose',
      r.pick(['ROLLBACK', 'COMMIT']),
      'SELECT k FROM loose ORDER BY k',
    ),
  'index and constraint': (r) =>
    all(
      'BEGIN',
      'CREATE UNIQUE INDEX once ON readings (sensor, value)',
      'ALTER TABLE plots ADD CONSTRAINT small CHECK (n < 5)',
      "INSERT INTO plots VALUES ('acme', 6, 'large')",
      'ROLLBACK',
      `INSERT INTO plots VALUES ('acme', ${r.between(6, 9)}, 'large') ON CONFLICT DO NOTHING`,
    ),
  'view replaced': (r) =>
    all(
      'BEGIN',
      'CREATE OR REPLACE VIEW rich AS SELECT id, name, balance, twice(balance) AS double FROM accounts WHERE balance > 500',
      'SELECT id, double FROM rich ORDER BY id',
      'ROLLBACK',
      'SELECT id, double FROM rich ORDER BY id',
      'BEGIN',
      'CREATE VIEW few AS SELECT id, rank FROM accounts WHERE id < 9',
      `SELECT * FROM few WHERE id = ${r.between(1, 12)}`,
      'SELECT count(*) FROM few',
      'DROP VIEW few',
      'SELECT count(*) FROM few',
      'COMMIT',
    ),
  'table as': (r) =>
    all(
      'BEGIN',
      `CREATE ${r.pick(['TABLE', 'TEMP TABLE', 'UNLOGGED TABLE'])} made AS ${r.pick(ORDERED)}`,
      'SELECT count(*) FROM made',
      'ROLLBACK',
    ),
  'temporary table': (r) =>
    all(
      'BEGIN',
      'CREATE TEMP TABLE mine (id bigint) ON COMMIT DROP',
      'INSERT INTO mine VALUES (1), (5)',
      `SELECT a.id FROM accounts a JOIN mine USING (id) WHERE a.id = ${r.between(1, 6)}`,
      'COMMIT',
    ),
  'temporary table over one with a door': () =>
    all(
      'BEGIN',
      'CREATE TEMP TABLE loose (x int) ON COMMIT DROP',
      'INSERT INTO loose VALUES (1)',
      'SELECT x FROM loose',
      'ROLLBACK',
    ),
  'new table': (r) =>
    all(
      'BEGIN',
      'CREATE TABLE fresh (id int PRIMARY KEY, v text)',
      "INSERT INTO fresh VALUES (1, 'a')",
      statement(r),
      'SELECT * FROM fresh',
      r.pick(['ROLLBACK', 'DROP TABLE fresh; COMMIT']),
      'SELECT * FROM fresh',
    ),
  'serial ids': (r) =>
    all(
      'BEGIN',
      `INSERT INTO tickets (title) VALUES ('serial'${r.between(0, 1) === 1 ? "), ('two'" : ''})`,
      "SELECT lastval() = currval('tickets_id_seq')",
      "SELECT pg_get_serial_sequence('tickets', 'id')",
      r.pick(['COMMIT', 'ROLLBACK']),
      "SELECT lastval() = currval('tickets_id_seq')",
    ),
  'role of another': (r) =>
    all(
      'BEGIN',
      'SET LOCAL ROLE clerk',
      'SELECT id FROM accounts ORDER BY id',
      'SELECT account_id, no, author FROM notes WHERE account_id = 3 ORDER BY no',
      r.pick([
        'UPDATE accounts SET rank = 1',
        'SELECT label FROM orders',
        'DELETE FROM notes WHERE account_id = 4',
        'SELECT count(*) FROM readings',
      ]),
      'COMMIT',
      'SELECT current_user',
    ),
  'settings of a block': (r) =>
    all(
      'BEGIN',
      `SET LOCAL TimeZone = '${r.pick(['Asia/Tokyo', 'America/New_York'])}'`,
      "SET LOCAL DateStyle = 'German'",
      'SELECT account_id, no, at FROM orders ORDER BY 1, 2',
      'SELECT max(at), min(at) FROM orders',
      'SELECT day FROM ledger ORDER BY day, seq',
      "SELECT seq FROM ledger WHERE day = '1.6.2026' ORDER BY seq",
      'SET LOCAL extra_float_digits = 0',
      'SELECT value / 3 FROM readings WHERE value <> 0 ORDER BY 1',
      'SELECT sum(value) FROM readings WHERE value IN (0.25, 0.5)',
      'COMMIT',
      'SHOW TimeZone',
    ),
  'search path': (r) =>
    all(
      'BEGIN',
      "SET LOCAL search_path = ''",
      'SELECT id FROM public.accounts ORDER BY id',
      `SELECT id FROM accounts WHERE id = ${r.between(1, 9)}`,
      'ROLLBACK',
    ),
  'locked tables': (r) =>
    all(
      'BEGIN',
      `LOCK TABLE ${r.pick(['accounts', 'currencies', 'readings, settings'])} IN SHARE MODE`,
      statement(r),
      'COMMIT',
    ),
  'deferred key': () =>
    all('BEGIN', 'SET CONSTRAINTS ALL DEFERRED', 'UPDATE people SET boss = 1 WHERE id = 3', 'COMMIT'),
  canceled: (r) => [
    ...(r.between(0, 1) === 1
      ? [q('BEGIN'), q('UPDATE accounts SET rank = 99 WHERE id < 20'), q('SAVEPOINT a')]
      : []),
    {
      messages: [
        [
          'query',
          r.pick([
            'SELECT id, pg_sleep(60) FROM currencies, accounts',
            'SELECT pg_sleep(60)',
            'UPDATE accounts SET rank = 3 WHERE pg_sleep(60) IS NOT NULL AND id = 7',
            'INSERT INTO loose SELECT 1, pg_sleep(60)::text FROM settings',
            'DELETE FROM loose WHERE pg_sleep(60) IS NOT NULL',
          ]),
        ],
      ],
      cancels: true,
    },
    q('SELECT count(*) FROM accounts'),
    q('ROLLBACK TO a'),
    q('SELECT max(rank) FROM accounts'),
    q('COMMIT'),
    q('SELECT id, rank FROM accounts ORDER BY id'),
  ],
  nonsense: (r) => [
    q(
      r.pick([
        '',
        ';',
        'SELEC',
        'SELECT $1',
        'COMMIT',
        'SELECT FROM FROM accounts',
        'FETCH c',
        'EXECUTE nothing',
        'DEALLOCATE nothing',
      ]),
    ),
    { messages: [...run(r.pick(['SELECT $2::int', 'SELECT 1; SELECT 2', 'nope', ''])), SYNC] },
  ],
};

export const SCRIPT_KINDS: readonly string[] = Object.keys(SCRIPTS);

export function generateScript(random: SeededRandom): { readonly kind: string; readonly script: Script } {
  const kind = random.pick(SCRIPT_KINDS);
  return { kind, script: SCRIPTS[kind]!(random) };
}
