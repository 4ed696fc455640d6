/**
 * Columns of partial results on their way from the nodes to the query that merges them: which types can make the way, and the
 * values themselves, kept as one array a column in PostgreSQL's binary form. Nothing is decoded: a value stays the bytes that
 * a node has sent.
 *
 * Invariant: a value arrives exactly as it was sent, whatever DateStyle, extra_float_digits and so on are set to: built-in
 * scalars travel in binary, and as text only what has no settings.
 */
import { protocolViolation } from '../base/errors.ts';
import { OID } from '../pg/oid.ts';

/** How a column makes its way. */
export interface MergeColumn {
  /** The format that nodes are asked for: 0 text, 1 binary. */
  readonly format: 0 | 1;
  /** Of the array's elements. */
  readonly elementOid: number;
  /** As SQL writes it. */
  readonly typeName: string;
  readonly typeOid: number;
}

/** bool bytea char name int8 int2 int4 text oid json geometry inet macaddr money bpchar varchar … numeric uuid ts* jsonb jsonpath xid8 */
const BINARY_TYPES: ReadonlySet<number> = new Set([
  16, 17, 18, 19, 20, 21, 23, 25, 26, 114, 600, 601, 602, 603, 604, 628, 650, 700, 701, 718, 774, 790, 829,
  869, 1042, 1043, 1082, 1083, 1114, 1184, 1186, 1266, 1560, 1562, 1700, 2950, 3614, 3615, 3802, 4072, 5069,
]);
/** Arrays of what is written in one way only: bool int2 int4 int8 oid text varchar bpchar numeric uuid jsonb. */
const TEXT_TYPES: ReadonlySet<number> = new Set([
  1000, 1005, 1007, 1016, 1028, 1009, 1015, 1014, 1231, 2951, 3807,
]);

/** undefined: values of this type are not merged. */
export function mergeColumnOf(type: {
  readonly typeOid: number;
  readonly typeName: string;
  /** pg_type.typtype */
  readonly kind: string;
}): MergeColumn | undefined {
  const { typeOid, typeName, kind } = type;
  if (BINARY_TYPES.has(typeOid)) return { format: 1, elementOid: typeOid, typeName, typeOid };
  const isText = TEXT_TYPES.has(typeOid) || kind === 'e';
  return isText ? { format: 0, elementOid: OID.text, typeName, typeOid } : undefined;
}

const ARRAY_HEADER_BYTES = 20;
const LENGTH_BYTES = 4;

/** Values of one column, each with its length before it, as DataRow and arrays both have them. */
class Values {
  #buffer = Buffer.alloc(1024);
  #length = 0;
  hasNull = false;

  get length(): number {
    return this.#length;
  }

  append(source: Buffer, start: number, end: number): void {
    const needed = this.#length + end - start;
    if (needed > this.#buffer.length) {
      const bigger = Buffer.alloc(Math.max(needed, 2 * this.#buffer.length));
      this.#buffer.copy(bigger, 0, 0, this.#length);
      this.#buffer = bigger;
    }
    source.copy(this.#buffer, this.#length, start, end);
    this.#length = needed;
  }

  view(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }
}

export class GatheredColumns {
  readonly #columns: readonly MergeColumn[];
  readonly #values: readonly Values[];
  #rowCount = 0;
  #bytes = 0;

  constructor(columns: readonly MergeColumn[]) {
    this.#columns = columns;
    this.#values = columns.map(() => new Values());
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Whole DataRow frames, as they came. */
  append(buffer: Buffer, start: number, end: number): void {
    for (let at = start; at < end; ) {
      const frameEnd = at + 1 + buffer.readInt32BE(at + 1);
      const count = buffer.readUInt16BE(at + 5);
      if (count !== this.#values.length)
        throw protocolViolation('a row with an unexpected number of columns');
      let field = at + 7;
      for (const values of this.#values) {
        const length = buffer.readInt32BE(field);
        if (length < 0) values.hasNull = true;
        const fieldEnd = field + LENGTH_BYTES + Math.max(0, length);
        if (fieldEnd > frameEnd) throw protocolViolation('a row whose values go beyond its end');
        values.append(buffer, field, fieldEnd);
        field = fieldEnd;
      }
      this.#rowCount++;
      this.#bytes += frameEnd - at;
      at = frameEnd;
    }
  }

  /** One value of an array type for each column, in binary (array_recv), in two parts. */
  arrays(): (readonly [header: Buffer, values: Buffer])[] {
    return this.#columns.map(({ elementOid }, index) => {
      const values = this.#values[index]!;
      const header = Buffer.alloc(this.#rowCount === 0 ? ARRAY_HEADER_BYTES - 8 : ARRAY_HEADER_BYTES);
      header.writeInt32BE(this.#rowCount === 0 ? 0 : 1, 0);
      header.writeInt32BE(values.hasNull ? 1 : 0, 4);
      header.writeUInt32BE(elementOid, 8);
      if (this.#rowCount > 0) {
        header.writeInt32BE(this.#rowCount, 12);
        header.writeInt32BE(1, 16);
      }
      return [header, values.view()] as const;
    });
  }
}
