/** TPC-H's 22 queries over four nodes: each gives the answer that one PostgreSQL gives of the same rows. */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTpcPair, type TpcPair } from './tpc-pair.ts';
import { TPCH_REFERENCES, TPCH_SHARDED, TPCH_TABLES, tpchRows } from './tpch-data.ts';
import { TPCH_QUERIES } from './tpch-queries.ts';

let pair: TpcPair;

let direct: pg.Client;
let routed: pg.Client;

beforeAll(async () => {
  pair = await startTpcPair(4, {
    tables: TPCH_TABLES,
    indexes: [],
    references: TPCH_REFERENCES,
    sharded: TPCH_SHARDED,
    rows: tpchRows(),
  });
  ({ direct, routed } = pair);
}, 240_000);

afterAll(async () => {
  await pair?.stop();
});

describe('TPC-H over four nodes', () => {
  it.each(TPCH_QUERIES)('$name', async ({ text }) => {
    const expected = await direct.query({ text, rowMode: 'array' });
    const answer = await routed.query({ text, rowMode: 'array' });
    // With nothing in it, an answer would prove nothing.
    expect(expected.rows.length).toBeGreaterThan(0);
    expect(expected.rows.flat().some((value) => value !== null)).toBe(true);
    expect(answer.fields.map(({ name, dataTypeID }) => [name, dataTypeID])).toEqual(
      expected.fields.map(({ name, dataTypeID }) => [name, dataTypeID]),
    );
    expect(answer.rows).toEqual(expected.rows);
  });
});
