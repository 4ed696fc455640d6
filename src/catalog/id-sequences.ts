/**
 * The sequences on the home node that the ids of sharded tables come from: routers lease blocks by calling nextval() many times
 * at once, so that what clients do with the sequence themselves (nextval, setval, ALTER SEQUENCE, pg_dump, pg_restore) means
 * what it means in PostgreSQL.
 *
 * Invariant: an id is handed out by nextval() of that one sequence, and nowhere else: so it is unique among blocks, among clients'
 * own calls, and over all tables that share the sequence, unless somebody sets the sequence back.
 * Invariant: no block has an id above `max_id`: 2^53 − 1, or the maximum of the column's type.
 * Invariant: `next_id` of a row of id_columns is above its `max_id`: before, the row itself was the counter, and a router
 * that knows no better has no more ids.
 */
import { objectError } from '../base/errors.ts';
import { quoteLiteral } from '../pg/identifier.ts';
import type { ControlConnection } from '../platform/control-connection.ts';

/** As INTERNAL_SCHEMA of schema.ts, which imports this file. */
const SCHEMA = 'postern_internal';

/** The oid of the sequence of a column of `face`; both are SQL expressions, the column's that of its pg_attribute row. */
export function sequenceOf(face: string, attribute: string): string {
  return `(SELECT s.oid FROM pg_depend p JOIN pg_class s
      ON s.oid = CASE WHEN p.classid = 'pg_class'::regclass THEN p.objid ELSE p.refobjid END AND s.relkind = 'S'
    WHERE (p.classid = 'pg_class'::regclass AND p.refclassid = 'pg_class'::regclass AND p.deptype = 'i'
        AND p.refobjid = ${face} AND p.refobjsubid = ${attribute}.attnum AND ${attribute}.attidentity <> '')
      OR (p.classid = 'pg_attrdef'::regclass AND p.refclassid = 'pg_class'::regclass AND p.objid =
        (SELECT d.oid FROM pg_attrdef d WHERE d.adrelid = ${face} AND d.adnum = ${attribute}.attnum)) LIMIT 1)`;
}

const SEQUENCES = `SELECT i.table_id, i.column_name, i.next_id, i.max_id, ${sequenceOf('f.face', 'a')} AS sequence
  FROM ${SCHEMA}.id_columns i JOIN ${SCHEMA}.local_tables f USING (table_id)
  JOIN pg_attribute a ON a.attrelid = f.face AND a.attname = i.column_name AND NOT a.attisdropped`;

export const ID_OBJECTS = `ALTER TABLE ${SCHEMA}.id_columns ADD COLUMN IF NOT EXISTS restarts int NOT NULL DEFAULT 0`;

/** Is what ID_OBJECTS adds there? */
export const HAS_ID_OBJECTS = `EXISTS (SELECT FROM pg_attribute
  WHERE attrelid = to_regclass('${SCHEMA}.id_columns') AND attname = 'restarts')`;

/** Where a row of id_columns is still the counter, as an earlier version has made it, the sequence goes on from there. */
export const ADOPT_COUNTERS = `WITH adopted AS (
    UPDATE ${SCHEMA}.id_columns i SET next_id = i.max_id + 1 FROM (${SEQUENCES}) s
    WHERE s.table_id = i.table_id AND s.column_name = i.column_name AND s.next_id <= s.max_id RETURNING s.sequence, s.next_id)
  SELECT setval(a.sequence, a.next_id, false) FROM adopted a JOIN pg_sequence q ON q.seqrelid = a.sequence
  WHERE a.next_id > coalesce(pg_sequence_last_value(a.sequence) + 1, q.seqstart) AND a.next_id <= q.seqmax`;

export interface IdColumn {
  readonly tableId: number;
  readonly column: string;
}

/** In the transaction that makes the table. `nextIds`: where ids go on, for columns that had a sequence before. */
export async function addIdColumns(
  home: Pick<ControlConnection, 'query'>,
  tableId: number,
  columns: readonly { readonly name: string; readonly nextId: string; readonly maxId: string }[],
): Promise<void> {
  for (const { name, nextId, maxId } of columns) {
    await home.query(
      `INSERT INTO ${SCHEMA}.id_columns (table_id, column_name, next_id, max_id) VALUES ($1, $2, $3, $4)`,
      [tableId, name, nextId, maxId],
    );
  }
  if (columns.length > 0) await home.query(ADOPT_COUNTERS);
}

export interface IdBlock {
  /** Both ends belong to the block. */
  readonly first: number;
  readonly last: number;
}

/** What drawText() gives, as JSON, in one row of one column. */
export interface DrawnIds {
  readonly blocks: readonly IdBlock[] | null;
  readonly name: string;
  readonly max: number;
}

/**
 * A query that draws the next `count` ids of a column, or as many as are left, as blocks: one, unless others draw from the sequence
 * in that moment. DrawnIds; no row or NULL: there is no such column.
 */
export function drawText({ tableId, column, count }: IdColumn & { readonly count: number }): string {
  return `WITH s AS MATERIALIZED (SELECT sequence, max_id FROM (${SEQUENCES}) q
       WHERE table_id = ${tableId} AND column_name = ${quoteLiteral(column)}),
     limits AS MATERIALIZED (SELECT s.sequence, s.max_id, least(${count}, CASE WHEN q.seqcycle THEN ${count} ELSE
         (least(q.seqmax, s.max_id) - coalesce(pg_sequence_last_value(s.sequence), q.seqstart - q.seqincrement)) / q.seqincrement END) AS count
       FROM s JOIN pg_sequence q ON q.seqrelid = s.sequence),
     drawn AS MATERIALIZED (SELECT nextval(l.sequence) AS id FROM limits l, generate_series(1, l.count)),
     runs AS (SELECT min(id) AS first, max(id) AS last FROM
       (SELECT id, id - row_number() OVER (ORDER BY id) AS run FROM drawn) d GROUP BY run)
     SELECT json_build_object('blocks', (SELECT json_agg(json_build_object('first', r.first, 'last', r.last) ORDER BY r.first) FROM runs r),
       'name', (SELECT relname FROM pg_class WHERE oid = l.sequence), 'max', l.max_id) AS drawn FROM limits l`;
}

/** 2200H when there are none left. */
export function blocksOf(drawn: DrawnIds | null | undefined): readonly IdBlock[] {
  if (!drawn) throw objectError('42P01', 'the table was dropped while an id for it was being made');
  const { name, max } = drawn;
  const blocks = (drawn.blocks ?? [])
    .filter(({ first }) => first <= max)
    .map(({ first, last }) => ({ first, last: Math.min(last, max) }));
  if (blocks.length > 0) return blocks;
  throw objectError('2200H', `nextval: reached maximum value of sequence "${name}" (${max})`);
}

export async function leaseIdBlocks(
  home: Pick<ControlConnection, 'query'>,
  request: IdColumn & { readonly count: number },
): Promise<readonly IdBlock[]> {
  const [row] = await home.query<{ drawn: DrawnIds }>(drawText(request));
  return blocksOf(row?.drawn);
}

/** The sequence was set: routers drop the blocks that they have of it when they see the new map. Raise the epoch with it. */
export async function announceRestart(
  home: Pick<ControlConnection, 'query'>,
  columns: readonly IdColumn[],
): Promise<void> {
  for (const { tableId, column } of columns) {
    await home.query(
      `UPDATE ${SCHEMA}.id_columns SET restarts = restarts + 1 WHERE table_id = $1 AND column_name = $2`,
      [tableId, column],
    );
  }
}
