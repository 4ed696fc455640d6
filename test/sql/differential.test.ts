/**
 * Thousands of generated statements and transactions, of two roles, in both protocols, to one PostgreSQL and to a router over
 * three nodes with the same data: the same answer, or 0A000; and the same rows in the end. The share that is refused is
 * printed by kind. `SQL_SEED=n SQL_STATEMENTS=n` runs others.
 */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SeededRandom } from '../tpc/random.ts';
import { type Generated, generate } from './statements.ts';
import { COMPARED, startWorld, type World } from './world.ts';

const SEED = Number(process.env.SQL_SEED ?? 1);
const STATEMENTS = Number(process.env.SQL_STATEMENTS ?? 2500);

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
  it(`answers as one PostgreSQL does, or 0A000 (SQL_SEED=${SEED})`, async () => {
    const random = new SeededRandom(SEED);
    const clients = new Map<string, { direct: pg.Client; routed: pg.Client }>();
    for (const user of world.users)
      clients.set(user, {
        direct: await world.client('plain', user),
        routed: await world.client('routed', user),
      });
    const byKind = new Map<string, Counts>();
    const wrong: string[] = [];
    let sent = 0;
    while (sent < STATEMENTS && wrong.length < 10) {
      const user = random.between(1, 4) === 1 ? 'clerk' : 'app';
      const { direct, routed } = clients.get(user)!;
      const inBlock = random.between(1, 3) === 1;
      const count = inBlock ? random.between(2, 6) : 1;
      if (inBlock) for (const client of [direct, routed]) await client.query('BEGIN');
      for (let i = 0; i < count; i++) {
        const statement = generate(random, user);
        const kind = byKind.get(statement.kind) ?? { sent: 0, refused: 0 };
        byKind.set(statement.kind, kind);
        kind.sent++;
        sent++;
        if (inBlock) await routed.query('SAVEPOINT s');
        const answer = await send(routed, statement);
        if (answer.error === '0A000') {
          kind.refused++;
          if (inBlock) await routed.query('ROLLBACK TO SAVEPOINT s');
          continue;
        }
        if (inBlock) await direct.query('SAVEPOINT s');
        const expected = await send(direct, statement);
        if (inBlock && (answer.error ?? expected.error) !== undefined)
          for (const client of [direct, routed]) await client.query('ROLLBACK TO SAVEPOINT s');
        const [is, ought] = [compared(answer), compared(expected)];
        if (JSON.stringify(is) === JSON.stringify(ought)) continue;
        const told = (one: Answer) => `${JSON.stringify(compared(one)).slice(0, 600)} ${one.message}`;
        wrong.push(
          `${user}${inBlock ? ' in a block' : ''}: ${statement.text} ${JSON.stringify(statement.values)}\n  is ${told(answer)}\n  ought ${told(expected)}`,
        );
      }
      if (!inBlock) continue;
      const end = random.between(1, 4) === 1 ? 'ROLLBACK' : 'COMMIT';
      const [is, ought] = await Promise.all(
        [routed, direct].map((client) => client.query(end).then(({ command }) => command, String)),
      );
      if (is !== ought) wrong.push(`${end}: is ${is}, ought ${ought}`);
    }
    report(byKind);
    expect(wrong.join('\n\n')).toBe('');
    const app = clients.get('app')!;
    for (const [table, columns] of Object.entries(COMPARED)) {
      const [is, ought] = await Promise.all(
        [app.routed, app.direct].map((client) => rowsOf(client, table, columns)),
      );
      expect(is, table).toEqual(ought);
    }
  }, 300_000);
});

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
    .map(([kind, one]) => `  ${kind}: ${one.refused} of ${one.sent}`);
  console.log(
    `refused with 0A000: ${refused} of ${sent} statements (${((100 * refused) / sent).toFixed(1)}%)\n${lines.join('\n')}`,
  );
}
