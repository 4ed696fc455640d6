/**
 * Rows that were read on one node, on their way to the buckets that they belong to: which of their columns go where, in
 * what form, and the INSERTs of one batch.
 *
 * Values keep their type: a parameter is declared with the type that the query gave it, so that the INSERT converts it as
 * INSERT … SELECT would. Those of common built-in types travel in binary, exact whatever the session's settings; the shard
 * key and all others as text.
 */
import { notSupported, PosternError } from '../base/errors.ts';
import type { ShardedTable } from '../catalog/map.ts';
import { LEAF_SCHEMA, leafName } from '../catalog/map.ts';
import { isComparable } from '../pg/hash/bucket.ts';
import { quoteIdentifier, quoteQualified } from '../pg/identifier.ts';
import { isOfUser, OID, portableOids } from '../pg/oid.ts';
import type { KeySource, QueryPlan } from '../plan/plan.ts';
import { textOfReplacement } from '../plan/rewrite.ts';
import type { RowTarget } from '../plan/scatter.ts';
import { assemble } from '../plan/scatter-text.ts';
import type { BindView, BoundValue } from '../wire/frontend.ts';
import { bindTailOfValues } from '../wire/frontend.ts';
import { inOrder, nodeOf, positionMapper } from './scatter.ts';

/** Types whose binary form means the same on every node and in every session. */
const BINARY_TYPES = new Set<number>([
  ...[OID.bool, OID.bytea, OID.int2, OID.int4, OID.int8, OID.text, OID.varchar, OID.float4, OID.float8],
  ...[OID.date, OID.timestamp, OID.timestamptz, OID.interval, OID.numeric, OID.uuid],
  // time timetz point lseg path box polygon line circle money
  ...[1083, 1266, 600, 601, 602, 603, 604, 628, 718, 790],
  // Ranges and multiranges of int4, numeric, timestamp, timestamptz, date, int8.
  ...[3904, 3906, 3908, 3910, 3912, 3926, 4451, 4532, 4533, 4534, 4535, 4536],
  // Arrays of float4 float8 date timestamp timestamptz time timetz interval point money, and of the ranges.
  ...[1021, 1022, 1182, 1115, 1185, 1183, 1270, 1187, 1017, 791, 3905, 3907, 3909, 3911, 3913, 3927],
]);

const PARAMETERS_MAX = 0xffff;

/** The columns of rows on their way. */
export class RowShape {
  readonly table: ShardedTable;
  /** The target's columns, in the order of the rows' values. */
  readonly columns: readonly string[];
  /** Their types as parameters; 0: the target's. */
  readonly oids: readonly number[];
  /** How the rows are read. */
  readonly formats: readonly (0 | 1)[];
  /** Columns behind those, that the router gives ids for. */
  readonly supplied: readonly { readonly name: string; readonly typeOid: number }[];
  readonly #keyAt: number;

  /** `given`: undefined: the table's first columns. `untyped`: indexes of values that are the target's type, as text. */
  constructor(options: {
    table: ShardedTable;
    given: readonly string[] | undefined;
    typeOids: readonly number[];
    untyped: ReadonlySet<number>;
  }) {
    const { table, typeOids, untyped } = options;
    this.table = table;
    const given = options.given ?? table.columns.slice(0, typeOids.length).map(({ name }) => name);
    if (given.length !== typeOids.length) throw moreColumns(given.length < typeOids.length);
    for (const [index, name] of given.entries()) refuseCast(table, name, typeOids[index]!);
    const supplied = table.columns.filter(({ name, sequence }) => sequence && !given.includes(name));
    const key = table.keyColumn;
    this.supplied = supplied;
    this.columns = [...given, ...supplied.map(({ name }) => name)];
    this.#keyAt = this.columns.indexOf(key);
    this.oids = [
      ...portableOids(typeOids).map((oid, index) => (untyped.has(index) ? OID.unspecified : oid)),
      ...supplied.map(({ typeOid }) => typeOid),
    ];
    this.formats = typeOids.map((oid, index) =>
      BINARY_TYPES.has(oid) && !untyped.has(index) && (index !== this.#keyAt || oid === OID.timestamptz)
        ? 1
        : 0,
    );
    const keyOid = this.oids[this.#keyAt];
    if (keyOid === undefined || !isComparable(table.keyType, keyOid)) {
      throw notSupported(
        `the shard key "${key}" of table "${table.schema}.${table.name}" is given as a value of another type`,
        `Cast it in the query to ${table.keyTypeText}.`,
      );
    }
  }

  /** So many rows fit into one statement. */
  get rowsMax(): number {
    return Math.max(1, Math.floor(PARAMETERS_MAX / 2 / this.columns.length));
  }

  /** Where the row's key comes from, for the choice of its bucket. */
  keyOf(row: readonly (Buffer | null)[]): KeySource {
    const value = row[this.#keyAt];
    if (!value) return { kind: 'literal', text: null };
    const isBinary = this.formats[this.#keyAt] === 1;
    return { kind: 'literal', text: isBinary ? timestampText(value) : value.toString() };
  }

  valueOf(row: readonly (Buffer | null)[], column: number): BoundValue {
    return { bytes: row[column] ?? null, format: this.formats[column] ?? 0 };
  }
}

export interface BatchPiece {
  readonly nodeId: number;
  readonly bucket: number;
  readonly text: string;
  readonly parameterOids: readonly number[];
  readonly tail: Buffer;
  readonly mapPosition: (position: number) => number;
}

/** The INSERTs of a batch of rows, one for each bucket; of no rows, one into the first of `buckets`. `client`: the statement's own parameters and result formats. */
export function piecesOfBatch(options: {
  shape: RowShape;
  rows: readonly (readonly (Buffer | null)[])[];
  /** Of each row. */
  buckets: readonly number[];
  target: RowTarget;
  plan: QueryPlan;
  client: { readonly view: BindView; readonly buffer: Buffer; readonly oids: readonly number[] };
}): BatchPiece[] {
  const { shape, rows, buckets, target, plan, client } = options;
  const { table } = shape;
  return inOrder(table, buckets).map((bucket) => {
    const chosen = rows.filter((_, row) => buckets[row] === bucket);
    const count = shape.columns.length;
    const values = chosen.flatMap((row) => shape.columns.map((_, column) => shape.valueOf(row, column)));
    const leaf = leafName(table.name, bucket, table.buckets[bucket]!.generation);
    const noRow = `SELECT ${shape.columns.map(() => 'NULL').join(', ')} WHERE false`;
    const tuples = chosen.map(
      (_, row) => `(${shape.columns.map((__, i) => `$${row * count + i + 1}`).join(', ')})`,
    );
    const head =
      `INSERT INTO ${quoteQualified(LEAF_SCHEMA, leaf)} AS ${quoteIdentifier(target.alias)} ` +
      `(${shape.columns.map(quoteIdentifier).join(', ')}) ${chosen.length > 0 ? `VALUES ${tuples.join(', ')}` : noRow} `;
    const tail = assemble(
      target.tail,
      (replacement) => textOfReplacement(replacement, { bucket, ids: [] }),
      values.length + 1,
    );
    const headLength = [...head].length;
    const map = positionMapper(plan, tail);
    return {
      nodeId: nodeOf(table, bucket),
      bucket,
      text: head + tail.text,
      parameterOids: [
        ...chosen.flatMap(() => shape.oids),
        ...tail.parameters.map((index) => client.oids[index] ?? OID.unspecified),
      ],
      tail: bindTailOfValues(values, { ...client, indexes: tail.parameters }),
      // An error of a value has its place in no text of the client's.
      mapPosition: (position) => (position > headLength ? map(position - headLength) : 1),
    };
  });
}

/** A value of a user's type goes as text, which is what it is in a column of its own type or of text. */
function refuseCast(table: ShardedTable, name: string, typeOid: number): void {
  const target = table.columns.find((column) => column.name === name)?.typeOid ?? typeOid;
  if (!isOfUser(typeOid) || isOfUser(target) || target === OID.text || target === OID.varchar) return;
  throw notSupported(
    `a value of a type that a user has made, for column "${name}" of another type, is not supported here`,
    'Cast it in the query to the type of the column.',
  );
}

const INFINITIES = new Map([
  [0x7fff_ffff_ffff_ffffn, 'infinity'],
  [-0x8000_0000_0000_0000n, '-infinity'],
]);

/** A binary timestamptz in a form that means the same in every session: the client's own may name a zone that is not unique. */
function timestampText(value: Buffer): string {
  const sincePostgresEpoch = value.readBigInt64BE();
  const infinity = INFINITIES.get(sincePostgresEpoch);
  if (infinity !== undefined) return infinity;
  const microseconds = sincePostgresEpoch + BigInt(Date.UTC(2000, 0, 1)) * 1000n;
  const fraction = ((microseconds % 1_000_000n) + 1_000_000n) % 1_000_000n;
  const date = new Date(Number((microseconds - fraction) / 1000n));
  if (Number.isNaN(date.getTime()))
    throw notSupported('a shard key after the year 275760', 'Insert the row with INSERT … VALUES.');
  const year = date.getUTCFullYear();
  const two = (number: number) => String(number).padStart(2, '0');
  const day = `${String(year > 0 ? year : 1 - year).padStart(4, '0')}-${two(date.getUTCMonth() + 1)}-${two(date.getUTCDate())}`;
  const time = `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())}`;
  return `${day} ${time}.${String(fraction).padStart(6, '0')}+00${year > 0 ? '' : ' BC'}`;
}

function moreColumns(inQuery: boolean): PosternError {
  return new PosternError({
    sqlState: '42601',
    message: inQuery
      ? 'INSERT has more expressions than target columns'
      : 'INSERT has more target columns than expressions',
  });
}
