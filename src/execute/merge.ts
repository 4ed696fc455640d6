/**
 * The two queries of a merged SELECT: what each node is asked for, and what one of them makes of all that came. PostgreSQL
 * compares, sorts and adds; nothing is decided here but the texts, once the home node has said of which types the partial
 * columns are.
 *
 * The final query reads its rows from arrays, beside `SELECT … FROM a leaf WHERE false`: that gives the columns the
 * collations that they have in the statement, and is planned away.
 *
 * Previous hop: plan/scatter-read-merge.ts took the statement apart. Next: session/merged-read.ts runs the two.
 */
import type { BackendConnection } from '../backend/connection.ts';
import { ask } from '../backend/internal-query.ts';
import { notSupported, type PosternError } from '../base/errors.ts';
import type { ShardedTable } from '../catalog/map.ts';
import { quoteIdentifier, quoteQualified } from '../pg/identifier.ts';
import { OID } from '../pg/oid.ts';
import type { EditReplacement } from '../plan/plan.ts';
import { textOfReplacement } from '../plan/rewrite.ts';
import type { FinalPart, GroupsMerge, OrderItem, ReadMerge, RowsMerge } from '../plan/scatter-read-merge.ts';
import { assemble, type TextPart, textPart } from '../plan/scatter-text.ts';
import { type FieldDescription, readRowDescription } from '../wire/backend.ts';
import { Backend } from '../wire/message-types.ts';
import { describeStatement } from './describe.ts';
import { type MergeColumn, mergeColumnOf } from './merge-columns.ts';
import type { Described } from './plan-cache.ts';

/** What is known of a merged SELECT after the home node has described it. */
export interface DescribedMerge {
  readonly columns: readonly MergeColumn[];
  /** For the leaves of a node, or of a bucket. */
  readonly partial: readonly TextPart[];
  /** Its first parameters are the columns as arrays; the client's follow. For one leaf. */
  readonly final: readonly TextPart[];
}

interface ColumnType {
  readonly typeOid: number;
  readonly typeName: string;
  readonly kind: string;
  readonly isText: boolean;
}

const MERGED = 'postern_merged';
const SUMMED: ReadonlySet<number> = new Set([
  OID.int8,
  OID.numeric,
  OID.float4,
  OID.float8,
  OID.interval,
  790,
]);
const AVERAGED: ReadonlySet<number> = new Set([OID.int8, OID.numeric, OID.float4, OID.float8]);

function cannotMerge(what: string): PosternError {
  return notSupported(
    `${what} can't be merged over several buckets of a sharded table`,
    'Leave the column out, or cast it to text or to a number.',
  );
}

/** Asks the home node, where every sharded table has its face. `sortsAlike`: whether all nodes sort text alike. */
export async function describeMerge(
  home: BackendConnection,
  merge: ReadMerge,
  described: Described,
  sortsAlike: () => Promise<boolean>,
): Promise<DescribedMerge> {
  const result = fieldsOf(described.rows);
  const orders = merge.order.map((item) => resolveOrder(item, result));
  const describeOnFace = async (parts: readonly TextPart[], arrays: number) => {
    const { text, parameters } = assemble(parts, onFace, arrays + 1);
    const oids = [
      ...new Array<number>(arrays).fill(0),
      ...parameters.map((i) => described.parameterOids[i] ?? 0),
    ];
    return fieldsOf((await describeStatement(home, text, oids)).rows);
  };
  const first = partialOf(merge, orders, { wide: [], cutsRows: true });
  let types = await typesOf(home, await describeOnFace(first, 0));
  const wide = merge.kind === 'groups' ? merge.columns.map((column, i) => isWide(column, types[i])) : [];
  const cutsRows =
    !needsSorting(merge, orders, { types, resultCount: result.length }) || (await sortsAlike());
  if (merge.kind === 'groups' && !cutsRows)
    throw cannotMerge('min() or max() of text, which the nodes sort by different collations,');
  const isOther = wide.includes(true) || !cutsRows;
  const partial = isOther ? partialOf(merge, orders, { wide, cutsRows }) : first;
  if (isOther) types = await typesOf(home, await describeOnFace(partial, 0));
  const columns = types.map((type) => {
    const column = mergeColumnOf(type);
    if (!column) throw cannotMerge(`a value of type ${type.typeName}`);
    return column;
  });
  if (columns.length === 0) throw cannotMerge('a SELECT without columns');
  const final = finalOf(merge, { orders, columns, partial, resultCount: result.length });
  const merged = await describeOnFace(final, columns.length);
  const isSame =
    merged.length === result.length && merged.every((field, i) => field.typeOid === result[i]!.typeOid);
  if (!isSame) throw cannotMerge('a column whose type changes on the way');
  return { columns, partial, final };
}

function fieldsOf(rows: Buffer): FieldDescription[] {
  if (rows[0] !== Backend.RowDescription) return [];
  return readRowDescription({ buffer: rows, bodyStart: 5, end: rows.length });
}

function onFace(replacement: EditReplacement): string {
  if (replacement.kind !== 'leaf') return textOfReplacement(replacement, undefined);
  const { table, alias } = replacement;
  const face = quoteQualified(table.schema, table.name);
  return alias === undefined ? face : `${face} AS ${quoteIdentifier(alias)}`;
}

async function typesOf(home: BackendConnection, fields: readonly FieldDescription[]): Promise<ColumnType[]> {
  const oids = fields.map(({ typeOid }) => typeOid);
  const rows = await ask(
    home,
    `SELECT pg_catalog.format_type(t.oid, -1), t.typtype, t.typcollation <> 0, EXISTS (
        SELECT FROM pg_catalog.pg_proc p WHERE p.oid >= 16384
           AND p.proname IN ('count', 'sum', 'min', 'max', 'avg', 'bool_and', 'bool_or', 'every'))
       FROM pg_catalog.unnest('{${oids.join(',')}}'::pg_catalog.oid[]) WITH ORDINALITY AS asked(oid, place)
       JOIN pg_catalog.pg_type t ON t.oid = asked.oid ORDER BY place`,
  );
  if (rows.some((row) => row[3] === 't')) throw cannotMerge('a database with aggregates of these names');
  return rows.map((row, i) => ({
    typeOid: oids[i]!,
    typeName: row[0] ?? '',
    kind: row[1] ?? '',
    isText: row[2] === 't',
  }));
}

/** Does what the nodes leave out depend on how they sort text? */
function needsSorting(
  merge: ReadMerge,
  orders: readonly ResolvedOrder[],
  { types, resultCount }: { types: readonly ColumnType[]; resultCount: number },
): boolean {
  if (merge.kind === 'groups') {
    const parts = [...merge.list, merge.having, ...orders.map(({ expression }) => expression)].flat();
    return parts.some(
      (part) =>
        part.kind === 'merged' &&
        (part.aggregate === 'min' || part.aggregate === 'max') &&
        types[part.column]?.isText === true,
    );
  }
  if (merge.limit.length === 0) return false;
  let hidden = resultCount;
  return orders.some(({ position }) => types[position ?? hidden++]?.isText === true);
}

function isWide(column: { readonly wideText: unknown }, type: ColumnType | undefined): boolean {
  return column.wideText !== undefined && type?.typeOid === OID.float4;
}

/** ORDER BY, with the names of the result known: a column of it, or an expression. */
interface ResolvedOrder {
  readonly position: number | undefined;
  readonly expression: readonly FinalPart[];
  readonly suffix: string;
}

function resolveOrder(item: OrderItem, result: readonly FieldDescription[]): ResolvedOrder {
  const { name, suffix } = item;
  const named = name === undefined ? -1 : result.findIndex((field) => field.name === name);
  if (named >= 0) return { position: named, expression: [], suffix };
  if (item.position !== undefined) return { position: item.position, expression: [], suffix };
  if (!item.expression) throw cannotMerge(`ORDER BY "${name ?? ''}"`);
  return { position: undefined, expression: item.expression, suffix };
}

function partialOf(
  merge: ReadMerge,
  orders: readonly ResolvedOrder[],
  how: { readonly wide: readonly boolean[]; readonly cutsRows: boolean },
): TextPart[] {
  return merge.kind === 'rows' ? partialRows(merge, orders, how.cutsRows) : partialGroups(merge, how.wide);
}

function partialRows(merge: RowsMerge, orders: readonly ResolvedOrder[], cutsRows: boolean): TextPart[] {
  const parts = [...merge.head, textPart(merge.distinct ? ' DISTINCT ' : ' '), ...merge.list];
  for (const { position, expression } of orders) {
    if (position === undefined) parts.push(textPart(', ('), ...expression.map(asText), textPart(')'));
  }
  parts.push(textPart(' '), ...merge.source);
  if (merge.limit.length === 0 || !cutsRows) return parts;
  if (merge.orderText.length > 0) parts.push(textPart(' ORDER BY '), ...merge.orderText);
  // Each node's first rows, as many as the result and its OFFSET could take from it alone.
  if (merge.offset.length === 0) return [...parts, textPart(' LIMIT '), ...merge.limit];
  return [
    ...parts,
    ...[textPart(' LIMIT LEAST(('), ...merge.limit, textPart(')::pg_catalog.numeric + COALESCE((')],
    ...merge.offset,
    textPart(')::pg_catalog.numeric, 0), 9223372036854775807)::pg_catalog.int8'),
  ];
}

/** A hidden column of rows is nothing but the client's own text. */
function asText(part: FinalPart): TextPart {
  if (part.kind === 'column' || part.kind === 'merged' || part.kind === 'average')
    throw cannotMerge('an aggregate in this ORDER BY');
  return part;
}

function partialGroups(merge: GroupsMerge, wide: readonly boolean[]): TextPart[] {
  const parts = [...merge.head, textPart(' ')];
  for (const [i, column] of merge.columns.entries()) {
    if (i > 0) parts.push(textPart(', '));
    parts.push(...(wide[i] && column.wideText ? column.wideText : column.text));
  }
  parts.push(textPart(' '), ...merge.source);
  if (merge.groupCount > 0) {
    const positions = Array.from({ length: merge.groupCount }, (_, i) => i + 1);
    parts.push(textPart(` GROUP BY ${positions.join(', ')}`));
  }
  return parts;
}

interface FinalInput {
  readonly orders: readonly ResolvedOrder[];
  readonly columns: readonly MergeColumn[];
  readonly partial: readonly TextPart[];
  readonly resultCount: number;
}

function finalOf(merge: ReadMerge, input: FinalInput): TextPart[] {
  const { columns, orders } = input;
  const parts: TextPart[] = [textPart(merge.distinct ? 'SELECT DISTINCT ' : 'SELECT ')];
  if (merge.kind === 'rows') {
    parts.push(textPart(Array.from({ length: input.resultCount }, (_, i) => columnName(i)).join(', ')));
  } else {
    for (const [i, expression] of merge.list.entries()) {
      if (i > 0) parts.push(textPart(', '));
      parts.push(...finalText(expression, columns));
    }
  }
  parts.push(textPart(' FROM '), ...gathered(input));
  if (merge.kind === 'groups' && merge.groupCount > 0) {
    const names = Array.from({ length: merge.groupCount }, (_, i) => columnName(i));
    parts.push(textPart(` GROUP BY ${names.join(', ')}`));
  }
  if (merge.kind === 'groups' && merge.having.length > 0)
    parts.push(textPart(' HAVING '), ...finalText(merge.having, columns));
  let hidden = input.resultCount;
  for (const [i, { position, expression, suffix }] of orders.entries()) {
    parts.push(textPart(i === 0 ? ' ORDER BY ' : ', '));
    if (merge.kind === 'rows') parts.push(textPart(columnName(position ?? hidden++)));
    else if (position !== undefined) parts.push(textPart(String(position + 1)));
    else parts.push(...finalText(expression, columns));
    parts.push(textPart(suffix));
  }
  if (merge.limit.length > 0) parts.push(textPart(' LIMIT '), ...merge.limit);
  if (merge.offset.length > 0) parts.push(textPart(' OFFSET '), ...merge.offset);
  return parts;
}

function columnName(index: number): string {
  return `${MERGED}.c${index}`;
}

/** All partial rows as a table. */
function gathered({ columns, partial }: FinalInput): TextPart[] {
  const names = columns.map((_, i) => `c${i}`).join(', ');
  const values = columns.map(({ format, typeName }, i) =>
    format === 1 ? `u.c${i}` : `u.c${i}::${typeName}`,
  );
  const arrays = columns.map(
    ({ format, typeName }, i) => `$${i + 1}::${format === 1 ? typeName : 'pg_catalog.text'}[]`,
  );
  return [
    textPart('(SELECT * FROM ('),
    ...partial,
    textPart(`) AS p WHERE false UNION ALL SELECT ${values.join(', ')} FROM `),
    textPart(
      `ROWS FROM (${arrays.map((array) => `pg_catalog.unnest(${array})`).join(', ')}) AS u (${names})`,
    ),
    textPart(`) AS ${MERGED} (${names})`),
  ];
}

function finalText(parts: readonly FinalPart[], columns: readonly MergeColumn[]): TextPart[] {
  return parts.map((part) => {
    switch (part.kind) {
      case 'column':
        return textPart(` ${columnName(part.column)} `);
      case 'merged':
        return textPart(` ${mergedText(part.aggregate, part.column, columns)} `);
      case 'average':
        return textPart(` ${averageText(part.column, columns)} `);
      default:
        return part;
    }
  });
}

function mergedText(
  aggregate: Extract<FinalPart, { kind: 'merged' }>['aggregate'],
  index: number,
  columns: readonly MergeColumn[],
): string {
  const column = columnName(index);
  const { typeOid, typeName } = columns[index]!;
  switch (aggregate) {
    case 'count':
      return `COALESCE(pg_catalog.sum(${column}), 0)::pg_catalog.int8`;
    case 'sum':
      if (!SUMMED.has(typeOid)) throw cannotMerge(`a sum of type ${typeName}`);
      return `pg_catalog.sum(${column})::${typeName}`;
    default:
      return `pg_catalog.${aggregate}(${column})`;
  }
}

/** Of sums and counts: int8 and numeric are added up and divided as numeric, as PostgreSQL's own avg does. */
function averageText(index: number, columns: readonly MergeColumn[]): string {
  const { typeOid, typeName } = columns[index]!;
  if (!AVERAGED.has(typeOid)) throw cannotMerge(`an average of type ${typeName}`);
  const divisorType = typeOid === OID.float8 ? 'pg_catalog.float8' : 'pg_catalog.numeric';
  const count = `NULLIF(pg_catalog.sum(${columnName(index + 1)}), 0)::${divisorType}`;
  return `(pg_catalog.sum(${columnName(index)}) OPERATOR(pg_catalog./) ${count})`;
}

/**
 * `(SELECT … FROM leaf UNION ALL …) AS alias`: all leaves of these buckets as one table, with the face's columns, or those among
 * `names`.
 */
export function unionOfLeaves(
  replacement: EditReplacement,
  buckets: readonly number[],
  names?: ReadonlySet<string>,
): string {
  if (replacement.kind !== 'leaf') return textOfReplacement(replacement, undefined);
  const { table, alias } = replacement;
  const read = table.columns.filter(({ name }) => !names || names.has(name));
  const columns = read.map(({ name }) => quoteIdentifier(name)).join(', ');
  const reads = buckets.map((bucket) => `SELECT ${columns} FROM ${leafText(table, bucket)}`);
  const text = `(${reads.join(' UNION ALL ')})`;
  return alias === undefined ? text : `${text} AS ${quoteIdentifier(alias)}`;
}

function leafText(table: ShardedTable, bucket: number): string {
  return textOfReplacement({ kind: 'leaf', table, alias: undefined }, { bucket, ids: [] });
}
