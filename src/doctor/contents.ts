/**
 * Rows that have to be equal in two places: copies of a reference table, and the entries of a lookup against the rows of its table.
 *
 * Clients write meanwhile, and each node is read at its own moment: so what differs is read again, and is told of only if it stands
 * still. What goes on changing was not to be compared, which is said.
 */
import { LOOKUP_KEY } from '../catalog/lookup-objects.ts';
import {
  LEAF_SCHEMA,
  type Lookup,
  leafName,
  type ReferenceTable,
  type ShardedTable,
} from '../catalog/map.ts';
import { quoteIdentifier, quoteQualified } from '../pg/identifier.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import { tableWords } from './compare-leaves.ts';
import { docsOf, type Finding, type Unread } from './finding.ts';
import { remakeCopies, remakeLookup } from './remake.ts';

/** Larger ones are read with --deep only. */
export const CONTENT_BYTES_MAX = 64 * 1024 * 1024;
const LOOKS_MAX = 4;
const BETWEEN_LOOKS_MS = 300;

/** Values read alike on all servers, whatever their defaults are. */
export const CONTENT_SETTINGS = `SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET bytea_output = 'hex';
SET extra_float_digits = 1; SET row_security = off`;

export interface ContentResult {
  readonly findings: readonly Finding[];
  readonly unread: readonly Unread[];
}

interface Content {
  readonly rows: string;
  readonly digest: string;
}

/** Names of nodes with their connections; home first. */
export type Connections = readonly (readonly [string, ControlConnection])[];

export async function compareReferenceContents(
  table: ReferenceTable,
  connections: Connections,
): Promise<ContentResult> {
  const columns = table.columns.map(({ name }) => quoteIdentifier(name)).join(', ');
  const text = `SELECT count(*)::text AS rows, coalesce(sum(hashtextextended(ROW(${columns})::text COLLATE "C", 0)), 0)::text AS digest
    FROM ${quoteQualified(table.schema, table.name)}`;
  const read = () => readAll(connections, (connection) => askContent(connection, text));
  const settled = await settledLooks(read, (all) => all.every((one) => sameContent(one, all[0]!)));
  if (settled === 'equal') return { findings: [], unread: [] };
  const what = `contents of reference table ${tableWords(table)}`;
  if (settled === 'changing') return { findings: [], unread: [changing(what)] };
  const [home, ...copies] = settled;
  return {
    unread: [],
    findings: copies.flatMap((copy, place): readonly Finding[] => {
      if (sameContent(copy, home!)) return [];
      const [node] = connections[place + 1]!;
      return [
        {
          ...{ topic: 'references', severity: 'error', node, object: `copy of ${tableWords(table)}` },
          message: "its rows are not home's",
          found: `${copy.rows} rows${copy.rows === home!.rows ? ', other values' : ''}`,
          expected: `${home!.rows} rows`,
          advice: `Look first which rows are right. The statements take home's for all copies; if foreign keys refer to the table, see ${docsOf('references')}.`,
          remedies: remakeCopies(table),
        },
      ];
    }),
  };
}

/** Rows with a NULL in the constraint's columns have no entry. */
export async function compareLookupContents(
  table: ShardedTable,
  lookup: Lookup,
  connectionOf: (nodeId: number) => ControlConnection | undefined,
): Promise<ContentResult> {
  const key = quoteIdentifier(table.keyColumn);
  const columns = lookup.columns.map(quoteIdentifier);
  const filled = columns.map((column) => `${column} IS NOT NULL`).join(' AND ');
  const digestOf = (shardKey: string) =>
    `coalesce(sum(hashtextextended(ROW(${[...columns, shardKey].join(', ')})::text COLLATE "C", 0)), 0)`;
  const what = `entries of lookup ${lookup.name} of ${tableWords(table)}`;
  const byNode = new Map<number, number[]>();
  for (const [bucket, { nodeId }] of table.buckets.entries())
    byNode.set(nodeId, [...(byNode.get(nodeId) ?? []), bucket]);
  const connections: [string, ControlConnection][] = [];
  const texts = new Map<ControlConnection, string>();
  for (const [nodeId, buckets] of byNode) {
    const connection = connectionOf(nodeId);
    if (!connection)
      return { findings: [], unread: [{ what, node: undefined, why: 'a node did not answer' }] };
    connections.push([connection.nodeName, connection]);
    const union = (name: string, where: string, shardKey: string) =>
      buckets
        .map((bucket) => {
          const leaf = leafName(name, bucket, table.buckets[bucket]!.generation);
          return `SELECT count(*) AS n, ${digestOf(shardKey)} AS d FROM ${quoteQualified(LEAF_SCHEMA, leaf)}${where}`;
        })
        .join(' UNION ALL ');
    const sums = (text: string) => `SELECT sum(n) AS n, sum(d) AS d FROM (${text}) x`;
    texts.set(
      connection,
      `SELECT r.n::text AS rows, r.d::text AS digest, e.n::text AS entries, e.d::text AS "entriesDigest"
       FROM (${sums(union(table.name, ` WHERE ${filled}`, key))}) r, (${sums(union(lookup.table.name, '', LOOKUP_KEY))}) e`,
    );
  }
  const read = async (): Promise<readonly Content[]> => {
    const all = await readAll(connections, async (connection) => {
      const [row] = await connection.query<Content & { entries: string; entriesDigest: string }>(
        texts.get(connection)!,
      );
      return row!;
    });
    const sum = (of: (one: (typeof all)[number]) => string) =>
      all.reduce((total, one) => total + BigInt(of(one)), 0n).toString();
    return [
      { rows: sum(({ rows }) => rows), digest: sum(({ digest }) => digest) },
      { rows: sum(({ entries }) => entries), digest: sum(({ entriesDigest }) => entriesDigest) },
    ];
  };
  const settled = await settledLooks(read, ([rows, entries]) => sameContent(rows!, entries!));
  if (settled === 'equal') return { findings: [], unread: [] };
  if (settled === 'changing') return { findings: [], unread: [changing(what)] };
  const [rows, entries] = settled;
  return {
    unread: [],
    findings: [
      {
        ...{ topic: 'lookups', severity: 'error', node: undefined },
        object: `lookup ${lookup.name} of ${tableWords(table)}`,
        message:
          'its entries are not those of the rows: the constraint does not hold, or refuses what it should not',
        found: `${entries!.rows} entries${entries!.rows === rows!.rows ? ', other values' : ''}`,
        expected: `${rows!.rows} rows`,
        advice:
          'It is made anew from the rows; if two of them have the same values, that is refused, and says which.',
        remedies: remakeLookup(table, lookup),
      },
    ],
  };
}

async function askContent(connection: ControlConnection, text: string): Promise<Content> {
  const [row] = await connection.query<Content>(text);
  return row!;
}

async function readAll<T>(
  connections: Connections,
  read: (connection: ControlConnection) => Promise<T>,
): Promise<readonly T[]> {
  return await Promise.all(connections.map(([, connection]) => read(connection)));
}

/** Two looks with the same difference: nothing is under way that explains it. */
async function settledLooks(
  read: () => Promise<readonly Content[]>,
  areEqual: (all: readonly Content[]) => boolean,
): Promise<readonly Content[] | 'equal' | 'changing'> {
  let before: readonly Content[] | undefined;
  for (let look = 0; look < LOOKS_MAX; look++) {
    if (look > 0) await new Promise((resolve) => setTimeout(resolve, BETWEEN_LOOKS_MS));
    const all = await read();
    if (areEqual(all)) return 'equal';
    if (before?.every((one, place) => sameContent(one, all[place]!))) return all;
    before = all;
  }
  return 'changing';
}

function sameContent(a: Content, b: Content): boolean {
  return a.rows === b.rows && a.digest === b.digest;
}

function changing(what: string): Unread {
  return { what, node: undefined, why: 'they were written to all the time' };
}
