/** What a COPY has to know of its table from a server's catalog. */

import { LEAF_SCHEMA, leafName, type ReferenceTable, type ShardedTable } from '../catalog/map.ts';
import { type CopyOption, optionsText } from '../copy/format.ts';
import { quoteIdentifier, quoteLiteral, quoteQualified } from '../pg/identifier.ts';
import type { Conversation } from './conversation.ts';

export interface CopyColumn {
  readonly name: string;
  readonly isGenerated: boolean;
  /** Its default as PostgreSQL prints it; undefined: it has none. */
  readonly defaultText: string | undefined;
}

export async function columnsOf(
  conversation: Conversation,
  table: ShardedTable | ReferenceTable,
): Promise<readonly CopyColumn[]> {
  const oid = `${quoteLiteral(quoteQualified(table.schema, table.name))}::pg_catalog.regclass`;
  const rows = await conversation.askAnyNode(
    `SELECT a.attname, a.attgenerated <> '' OR NULL, pg_catalog.pg_get_expr(d.adbin, d.adrelid)
     FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attrelid = ${oid} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`,
  );
  return rows.map(([name, generated, defaultText]) => ({
    name: name ?? '',
    isGenerated: generated !== null,
    defaultText: generated === null ? (defaultText ?? undefined) : undefined,
  }));
}

/** What the table of a bucket is called. */
export function leafOf(table: ShardedTable, bucket: number): { name: string; quoted: string } {
  const name = leafName(table.name, bucket, table.buckets[bucket]!.generation);
  return { name, quoted: quoteQualified(LEAF_SCHEMA, name) };
}

export function columnList(columns: readonly string[]): string {
  return columns.map(quoteIdentifier).join(', ');
}

/** ` WITH (…)`. */
export function withOptions(options: readonly CopyOption[]): string {
  return optionsText(options, { name: quoteIdentifier, text: quoteLiteral });
}

/** Of parts of the data behind the first: they have no header. */
export function withoutHeader(options: readonly CopyOption[]): readonly CopyOption[] {
  return options.filter(({ name }) => name !== 'header');
}
