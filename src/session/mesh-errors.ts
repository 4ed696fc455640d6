/** What a mesh's server says, in the client's own terms; and what can't be had from it. */

import { ask } from '../backend/internal-query.ts';
import { bucketMoved, notSupported } from '../base/errors.ts';
import { LEAF_SCHEMA, type NodeInfo } from '../catalog/map.ts';
import type { Described } from '../execute/plan-cache.ts';
import { isOfUser } from '../pg/oid.ts';
import { ServerError } from '../platform/control-connection.ts';
import { readRowDescription } from '../wire/backend.ts';
import { Backend } from '../wire/message-types.ts';
import type { Conversation } from './conversation.ts';
import type { ScatteredPortal } from './scattered-run.ts';

/** Something that a mesh lacks if it is older than the statement. */
const NOT_THERE = new Set(['42P01', '42703', '42704', '42883', '3F000', '42501', '3D000', '42P17', '42804']);

/** May it go well when the mesh has been brought up to date? */
export function isOfStaleMesh(error: unknown): boolean {
  const sqlState = (error as { sqlState?: unknown }).sqlState;
  if (typeof sqlState !== 'string') return false;
  if (sqlState === '0A000') return error instanceof ServerError && /cached plan/.test(error.message);
  return NOT_THERE.has(sqlState);
}

/** Somebody has dropped the mesh's database. */
export function isWithoutDatabase(error: unknown): boolean {
  return (error as { sqlState?: unknown }).sqlState === '3D000';
}

const LEAF_NAME = new RegExp(`"?(?:${LEAF_SCHEMA}"?\\."?)?([^"\\s.]+?)_b\\d+_g\\d+"?`, 'g');

/** Names of leaves are told as those of their tables, and of what the nodes were sent nothing is said. */
export function toldOfMesh(error: unknown, nodes: readonly NodeInfo[]): unknown {
  if (!(error instanceof ServerError)) return error;
  const message = error.fields.get('M') ?? '';
  const [, table] =
    new RegExp(`"?${LEAF_SCHEMA}"?\\."?([^"\\s.]+?)_b\\d+_g\\d+"? does not exist`).exec(message) ?? [];
  if (error.sqlState === '42P01' && table !== undefined) return bucketMoved(table);
  const told = new Map<string, string>();
  for (const [code, value] of error.fields) {
    const text = code === 'W' ? withoutRemote(value) : value;
    if (code === 's' && value === LEAF_SCHEMA) continue;
    if (text !== '') told.set(code, inUsersWords(text, nodes));
  }
  if (!told.has('H') && (error.sqlState === '42883' || error.sqlState === '42704'))
    told.set(
      'H',
      'Over several nodes at once there are the types of the database, its extensions, and its functions in SQL and PL/pgSQL that only read; no operators, casts or aggregates that users have made.',
    );
  return new ServerError(error.nodeName, told);
}

function inUsersWords(text: string, nodes: readonly NodeInfo[]): string {
  const named = text.replaceAll(
    /postern_node_(\d+)/g,
    (whole, id) => nodes.find((node) => node.id === Number(id))?.name ?? whole,
  );
  return named.replaceAll(LEAF_NAME, '"$1"');
}

function withoutRemote(context: string): string {
  return context
    .split('\n')
    .filter((line) => !line.startsWith('remote SQL command:'))
    .join('\n');
}

/** Of rows whose fields have types of their own. */
const RECORDS = new Set([2249, 2287]);

/** Arrays and rows of users' types have the numbers of these types inside of their binary form, and each database its own. */
export async function refuseUserValues(
  conversation: Conversation,
  described: Described,
  { view, buffer }: ScatteredPortal,
): Promise<void> {
  const { rows } = described;
  if (rows[0] !== Backend.RowDescription) return;
  const count = buffer.readUInt16BE(view.resultFormatsStart);
  const formatOf = (column: number) =>
    count === 0
      ? 0
      : buffer.readInt16BE(view.resultFormatsStart + 2 + 2 * (count === 1 ? 0 : Math.min(column, count - 1)));
  const fields = readRowDescription({ buffer: rows, bodyStart: 5, end: rows.length });
  const binary = fields.map(({ typeOid }) => typeOid).filter((_oid, i) => formatOf(i) === 1);
  const oids = binary.filter((oid) => isOfUser(oid) || RECORDS.has(oid));
  if (oids.length === 0) return;
  const [row] = await conversation.onHome((home) =>
    ask(
      home,
      `SELECT pg_catalog.format_type(oid, NULL) FROM pg_catalog.pg_type WHERE oid IN (${oids.join(', ')}) AND (typelem <> 0 OR typrelid <> 0 OR typtype = 'p') LIMIT 1`,
    ),
  );
  if (!row) return;
  throw notSupported(
    `a value of type ${row[0]} can't be read over several nodes in binary form`,
    'Ask for the column in text, or cast it to text.',
  );
}
