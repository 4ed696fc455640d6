/**
 * Thousands of generated statements and transactions, of two roles, in both protocols, to one PostgreSQL and to a router over
 * three nodes with the same data: the same answer, or 0A000; and the same rows in the end. The share that is refused is
 * printed by kind. `SQL_SEED=n SQL_STATEMENTS=n` runs others.
 */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RawClient } from '../support/raw-client.ts';
import { SeededRandom } from '../tpc/random.ts';
import { play } from './script-run.ts';
import { generateScript } from './scripts.ts';
import { type Generated, generate } from './statements.ts';
import { COMPARED, type Side, startWorld, type World } from './world.ts';

const SEED = Number(process.env.SQL_SEED ?? 1);
const STATEMENTS = Number(process.env.SQL_STATEMENTS ?? 1200);
const LIMIT_MS = 300_000 + STATEMENTS * 100;
/** The first wrong answer of so many kinds is told before the run ends. */
const WRONG_MAX = 20;
/** How statements stand: alone, each behind a savepoint, or in a transaction block that ends with the first error. */
const BLOCKS = ['none', 'none', 'none', 'savepoints', 'bare'] as const;
/** What becomes of a savepoint whose statement was taken. */
const KEPT = ['', '', 'RELEASE SAVEPOINT s', 'ROLLBACK TO SAVEPOINT s'];
const refusals = new Map<string, string>();

let world: World;

beforeAll(async () => {
  world = await startWorld();
}, 240_000);
afterAll(async () => {
  await world?.stop();
});

interface Answer {
  /** An SQLSTATE, or what came. */
  readonly error: string | undefined;
  readonly tag: string;
  readonly rowCount: number | null;
  readonly columns: readonly unknown[];
  readonly rows: readonly string[];
  readonly message: string;
}

async function send(client: pg.Client, statement: Generated): Promise<Answer> {
  try {
    const { text, values } = statement;
    const result = await client.query({
      text,
      rowMode: 'array',
      ...(values.length > 0 && { values: [...values] }),
    });
    const rows = result.rows.map((row) => JSON.stringify(row));
    if (!statement.ordered) rows.sort();
    const columns = result.fields.map(({ name, dataTypeID }) => [name, dataTypeID]);
    return { error: undefined, tag: result.command, rowCount: result.rowCount, columns, rows, message: '' };
  } catch (error) {
    const { code = '', message } = error as { code?: string; message: string };
    if (code === '' && /timeout/.test(message))
      throw new Error(`no answer to ${statement.text} ${JSON.stringify(statement.values)}`);
    return { error: code, tag: '', rowCount: 0, columns: [], rows: [], message };
  }
}

/** Types of the user's own have other numbers on other servers. */
const FIRST_USER_OID = 16_384;

function compared({ error, tag, rowCount, columns, rows }: Answer): unknown {
  const portable = (columns as [string, number][]).map(([name, oid]) => [
    name,
    oid >= FIRST_USER_OID ? 'own' : oid,
  ]);
  return { error, tag, rowCount, columns: portable, rows };
}

interface Counts {
  sent: number;
  refused: number;
}

describe('statements and transactions of an application', () => {
  it(
    `answers as one PostgreSQL does, or 0A000 (SQL_SEED=${SEED})`,
    async () => {
      const random = new SeededRandom(SEED);
      const clients = new Map<string, Record<Side, pg.Client>>();
      for (const user of world.users)
        clients.set(user, {
          plain: await world.client('plain', user),
          routed: await world.client('routed', user),
          other: await world.client('other', user),
        });
      const byKind = new Map<string, Counts>();
      const wrong = new Map<string, string>();
      let sent = 0;
      while (sent < STATEMENTS && wrong.size < WRONG_MAX) {
        const user = random.between(1, 4) === 1 ? 'clerk' : 'app';
        const side = random.between(1, 3) === 1 ? 'other' : 'routed';
        const { plain, [side]: routed } = clients.get(user)!;
        const block = random.pick(BLOCKS);
        const count = block === 'none' ? 1 : random.between(2, 7);
        if (block !== 'none') for (const client of [plain, routed]) await client.query('BEGIN');
        let failed = false;
        for (let i = 0; i < count && !failed; i++) {
          const statement = generate(random, user);
          const kind = byKind.get(statement.kind) ?? { sent: 0, refused: 0 };
          byKind.set(statement.kind, kind);
          kind.sent++;
          sent++;
          if (block === 'savepoints') for (const client of [plain, routed]) await client.query('SAVEPOINT s');
          const answer = await send(routed, statement);
          if (answer.error === '0A000') {
            kind.refused++;
            refusals.set(statement.kind, answer.message);
            failed = block === 'bare';
            if (block === 'savepoints')
              for (const client of [plain, routed]) await client.query('ROLLBACK TO SAVEPOINT s');
            continue;
          }
          const expected = await send(plain, statement);
          const isError = (answer.error ?? expected.error) !== undefined;
          if (block === 'savepoints') {
            const then = isError ? 'ROLLBACK TO SAVEPOINT s' : random.pick(KEPT);
            if (then) for (const client of [plain, routed]) await client.query(then);
          }
          const [is, ought] = [compared(answer), compared(expected)];
          if (JSON.stringify(is) !== JSON.stringify(ought)) {
            const told = (one: Answer) => `${JSON.stringify(compared(one)).slice(0, 600)} ${one.message}`;
            const text = `${user} by ${side}, block: ${block}: ${statement.text} ${JSON.stringify(statement.values)}`;
            if (!wrong.has(statement.kind))
              wrong.set(statement.kind, `${text}\n  is ${told(answer)}\n  ought ${told(expected)}`);
            failed = true;
          }
          if (block === 'bare' && isError) failed = true;
        }
        if (block === 'none') continue;
        const end = failed || random.between(1, 4) === 1 ? 'ROLLBACK' : 'COMMIT';
        const [is, ought] = await Promise.all(
          [routed, plain].map((client) => client.query(end).then(({ command }) => command, String)),
        );
        if (is !== ought) wrong.set(end, `${end}: is ${is}, ought ${ought}`);
      }
      report(byKind);
      expect([...wrong].map(([kind, text]) => `${kind}: ${text}`).join('\n\n')).toBe('');
      await compareRows(clients.get('app')!.routed, clients.get('app')!.plain);
    },
    LIMIT_MS,
  );

  it(
    `takes scripts of messages as one PostgreSQL does (SQL_SEED=${SEED})`,
    async () => {
      const random = new SeededRandom(SEED + 1000);
      const player = async (side: Side) => {
        const client = await RawClient.connect({
          port: world.port(side),
          database: side === 'plain' ? 'postgres' : 'app',
        });
        await client.query("SET timezone = 'UTC'");
        return { client, port: world.port(side) };
      };
      const [plain, routed, other] = [await player('plain'), await player('routed'), await player('other')];
      const byKind = new Map<string, Counts>();
      const wrong = new Map<string, string>();
      for (let sent = 0; sent < STATEMENTS / 25 && wrong.size < WRONG_MAX; sent++) {
        const { kind, script } = generateScript(random);
        const counts = byKind.get(kind) ?? { sent: 0, refused: 0 };
        byKind.set(kind, counts);
        counts.sent++;
        const { refusal, difference } = await play(
          script,
          random.between(1, 3) === 1 ? other : routed,
          plain,
        );
        if (refusal !== undefined) {
          counts.refused++;
          refusals.set(kind, refusal);
        }
        if (difference !== undefined && !wrong.has(kind)) wrong.set(kind, difference);
      }
      report(byKind);
      expect([...wrong].map(([kind, text]) => `${kind}: ${text}`).join('\n\n')).toBe('');
      for (const { client } of [plain, routed, other]) client.end();
      await compareRows(await world.client('routed', 'app'), await world.client('plain', 'app'));
    },
    LIMIT_MS,
  );
});

async function compareRows(routed: pg.Client, plain: pg.Client): Promise<void> {
  for (const [table, columns] of Object.entries(COMPARED)) {
    const [is, ought] = await Promise.all([routed, plain].map((client) => rowsOf(client, table, columns)));
    expect(is, table).toEqual(ought);
  }
}

/** Whoever has added a kind looks at what it is refused with: `SQL_REASONS=1`. */
const REASONS = process.env.SQL_REASONS !== undefined;

async function rowsOf(client: pg.Client, table: string, columns: string): Promise<string[]> {
  const { rows } = await client.query({ text: `SELECT ${columns} FROM ${table}`, rowMode: 'array' });
  return rows.map((row) => JSON.stringify(row)).sort();
}

function report(byKind: ReadonlyMap<string, Counts>): void {
  const sum = (of: (counts: Counts) => number) => [...byKind.values()].reduce((all, one) => all + of(one), 0);
  const sent = sum((one) => one.sent);
  const refused = sum((one) => one.refused);
  const lines = [...byKind]
    .filter(([, one]) => one.refused > 0)
    .sort(([, a], [, b]) => b.refused / b.sent - a.refused / a.sent)
    .map(
      ([kind, one]) => `  ${kind}: ${one.refused} of ${one.sent}${REASONS ? ` ${refusals.get(kind)}` : ''}`,
    );
  console.log(
    `refused with 0A000: ${refused} of ${sent} statements (${((100 * refused) / sent).toFixed(1)}%)\n${lines.join('\n')}`,
  );
}
