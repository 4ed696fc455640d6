/**
 * Reads the shard key of the row that has these unique values (lookup/SPEC.md, "Reading"), outside of a transaction and beside it: on
 * the node that keeps them. What is not certain (a server refuses the question, the values have another type, a transaction is open)
 * is answered by asking all buckets, as if there were no lookup.
 */
import { ask, borrow } from '../backend/internal-query.ts';
import { assert } from '../base/assert.ts';
import { PosternError } from '../base/errors.ts';
import { FIND_UNIQUE_SCOPE } from '../catalog/lookup-objects.ts';
import { COMMIT_SCHEMA, LEAF_SCHEMA, leafName } from '../catalog/map.ts';
import { bucketsOf, type KeyValues, SEVERAL } from '../execute/route.ts';
import { quoteLiteral, quoteQualified } from '../pg/identifier.ts';
import { OID } from '../pg/oid.ts';
import type { LookupRead, LookupReadType } from '../plan/lookup-reads.ts';
import type { KeySource } from '../plan/plan.ts';
import { ServerError } from '../platform/control-connection.ts';
import type { Conversation } from './conversation.ts';

const NO_VALUES: KeyValues = { bind: undefined, ids: [] };

/** Where there is no such row, and so nothing to be read: any bucket will do. */
const ANY_BUCKET = 0;

/** The bucket of the row, or SEVERAL: all have to be asked. */
export async function bucketByLookup(
  conversation: Conversation,
  read: LookupRead,
  values: KeyValues,
): Promise<number> {
  const { state, lease } = conversation;
  const signer = state.context.ddl?.signer;
  const isOpen = lease.inBlock || lease.unsynced || state.transaction !== 'none';
  if (!signer || isOpen || state.overlay || state.wantsConsistentReads) return SEVERAL;
  const texts = read.values.map((source, i) => textOf(source, read.types[i]!, values));
  if (texts.includes(undefined)) return SEVERAL;
  if (texts.includes(null)) return ANY_BUCKET;
  try {
    return await find(conversation, read, texts as string[]);
  } catch (error) {
    // What is wrong with the statement, its own nodes tell.
    if (error instanceof ServerError || error instanceof PosternError) return SEVERAL;
    throw error;
  }
}

async function find(
  conversation: Conversation,
  { table, lookup }: LookupRead,
  texts: readonly string[],
): Promise<number> {
  const { context, user, settings } = conversation.state;
  const asked = (text: string) => conversation.askAnyNode(text);
  const kept = lookup.table;
  const [bucket] = await bucketsOf(kept, [{ kind: 'literal', text: texts[0]! }], NO_VALUES, asked);
  const { nodeId, generation } = kept.buckets[bucket!]!;
  const leaf = quoteQualified(LEAF_SCHEMA, leafName(kept.name, bucket!, generation));
  const request = JSON.stringify({ leaf, columns: lookup.columns, values: texts });
  const pool = context.pools.get(nodeId);
  assert(pool, 'each node of the map has a pool');
  const [row] = await borrow(pool, { user, settings }, (connection) => {
    const target = { nodeId, processId: connection.processId, transactionId: FIND_UNIQUE_SCOPE };
    const signature = context.ddl!.signer.sign(request, target);
    return ask(
      connection,
      `SELECT ${COMMIT_SCHEMA}.find_unique(${quoteLiteral(request)}, ${quoteLiteral(signature)})`,
    );
  });
  const found = row?.[0];
  if (found === null || found === undefined) return ANY_BUCKET;
  const [key] = JSON.parse(found) as [string | null];
  const [place] = await bucketsOf(table, [{ kind: 'literal', text: key }], NO_VALUES, asked);
  return place!;
}

/** The value as the column's own type writes it; undefined: that is not certain. */
function textOf(source: KeySource, type: LookupReadType, { bind }: KeyValues): string | null | undefined {
  if (source.kind === 'literal') return source.text;
  if (source.kind !== 'parameter' || !bind || source.index >= bind.view.parameterCount) return undefined;
  const { view, buffer, oids } = bind;
  const { index } = source;
  const oid = oids[index] ?? OID.unspecified;
  if (!OIDS[type].includes(oid)) return undefined;
  const length = view.parameterLength(index);
  if (length < 0) return null;
  const bytes = buffer.subarray(view.parameterStart(index), view.parameterStart(index) + length);
  if (view.parameterFormat(index) === 0) return bytes.toString('utf8');
  switch (oid) {
    case OID.int2:
      return length === 2 ? String(bytes.readInt16BE()) : undefined;
    case OID.int4:
      return length === 4 ? String(bytes.readInt32BE()) : undefined;
    case OID.int8:
      return length === 8 ? String(bytes.readBigInt64BE()) : undefined;
    case OID.uuid:
      return length === 16 ? bytes.toString('hex') : undefined;
    default:
      return bytes.toString('utf8');
  }
}

const INTEGERS: readonly number[] = [OID.int2, OID.int4, OID.int8];
const STRINGS: readonly number[] = [OID.text, OID.varchar];
/** Types of parameters that are compared with a column of this type as its own values are. */
const OIDS: Readonly<Record<LookupReadType, readonly number[]>> = {
  ...{ int2: INTEGERS, int4: INTEGERS, int8: INTEGERS },
  ...{ text: STRINGS, varchar: STRINGS, uuid: [OID.uuid] },
};
