/** Text whose values are lifted out of it (session/lifted-queries.ts) does, and is answered, what it is without the router. */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestFront, type TestFront } from './front.ts';

const SCHEMA = `SET ROLE app;
  CREATE TABLE plain (id int PRIMARY KEY, v text CHECK (v <> 'bad'));
  CREATE TABLE ruled (id int, v text);
  CREATE RULE tells AS ON INSERT TO ruled DO ALSO SELECT NEW.id * 10 AS tenfold;
  CREATE VIEW over_ruled AS SELECT * FROM ruled;
  CREATE TABLE later_ruled (id int, v text);
  CREATE TABLE guarded (id int, v text);
  CREATE SEQUENCE tries;
  CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM nextval('tries');
    IF NEW.v = 'bad' THEN RAISE EXCEPTION 'refused %', NEW.id USING HINT = 'not this'; END IF;
    RETURN NEW;
  END $$;
  CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON guarded FOR EACH ROW EXECUTE FUNCTION refuse()`;

let front: TestFront;

beforeAll(async () => {
  front = await startTestFront({ schema: SCHEMA });
});
afterAll(() => front?.stop());

/** More often than a text is looked at before it is lifted. */
const TIMES = [1, 2, 3, 4, 5, 6];

/** The judging of a shape goes on beside its session. */
const judged = async (client: pg.Client, text: (i: number) => string): Promise<void> => {
  for (const i of TIMES) await client.query(text(100 + i));
};

async function answerOf(client: pg.Client, text: string): Promise<unknown> {
  try {
    const { command, rowCount, rows } = await client.query(text);
    return { command, rowCount, rows };
  } catch (error) {
    const { code, message, hint, where, position } = error as pg.DatabaseError;
    return { code, message, hint, where, position };
  }
}

/** The answers to `text` with several values, without and with a transaction around, and as its second statement. */
async function answersOf(client: pg.Client, text: (i: number) => string): Promise<unknown[]> {
  const answers: unknown[] = [];
  for (const i of TIMES) answers.push(await answerOf(client, text(i)));
  for (const before of [undefined, "INSERT INTO plain VALUES (1, 'x')"]) {
    await client.query('BEGIN');
    if (before !== undefined) await client.query(before);
    answers.push(await answerOf(client, text(7)));
    answers.push(await answerOf(client, 'ROLLBACK'));
  }
  return answers;
}

describe('a rule that adds rows to the answer', () => {
  it.each(['ruled', 'over_ruled'])('tells them: %s', async (table) => {
    const insert = (i: number) => `INSERT INTO ${table} VALUES (${i}, 'x')`;
    const direct = await answersOf(await front.connectDirectly(), insert);
    expect(direct[0]).toMatchObject({ rows: [{ tenfold: 10 }] });
    expect(await answersOf(await front.connect(), insert)).toEqual(direct);
  });

  it('made when the text is lifted already', async () => {
    const client = await front.connect();
    const insert = (i: number) => `INSERT INTO later_ruled VALUES (${i}, 'x')`;
    await judged(client, insert);
    const other = await front.connect();
    await other.query('CREATE RULE tells AS ON INSERT TO later_ruled DO ALSO SELECT NEW.id * 10 AS tenfold');
    const direct = await answersOf(await front.connectDirectly(), insert);
    expect(await answersOf(client, insert)).toEqual(direct);
  });
});

describe('a statement that a trigger refuses', () => {
  const insert = (v: string) => (i: number) => `INSERT INTO guarded VALUES (${i}, '${v}')`;
  it('fails as it does without the router, and the trigger has run once for each', async () => {
    const direct = await front.connectDirectly();
    const client = await front.connect();
    await judged(client, insert('good'));
    const tries = async () => Number((await direct.query('SELECT last_value AS n FROM tries')).rows[0].n);
    const counts: number[] = [];
    const answers: unknown[] = [];
    for (const who of [direct, client]) {
      const before = await tries();
      answers.push(await answersOf(who, insert('bad')));
      counts.push((await tries()) - before);
    }
    expect(answers[1]).toEqual(answers[0]);
    expect(counts).toEqual([TIMES.length + 2, TIMES.length + 2]);
  });
});

it('a statement that fails first in its transaction leaves the rest of it as its BEGIN has said', async () => {
  const texts = (i: number) => [
    'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY',
    `SELECT id FROM plain WHERE id = ${i} AND v = 'a'::text`,
    `SELECT id FROM plain WHERE id = '${i}x'`,
    'SHOW transaction_isolation',
    'ROLLBACK',
    'BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY',
    `INSERT INTO plain VALUES (${i}, 'x')`,
    'SHOW transaction_read_only',
    'ROLLBACK',
    'BEGIN ISOLATION LEVEL SERIALIZABLE',
    `SELECT id FROM plain WHERE id = ${i}`,
    'SHOW transaction_isolation',
    'COMMIT',
  ];
  const run = async (client: pg.Client) => {
    const answers: unknown[] = [];
    for (const i of TIMES) for (const text of texts(i)) answers.push([text, await answerOf(client, text)]);
    return answers;
  };
  const direct = await run(await front.connectDirectly());
  expect(await run(await front.connect())).toEqual(direct);
});
