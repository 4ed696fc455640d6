/**
 * Long names of foreign keys, on home: only leaves have them, cut so that the bucket's suffix fits (map.ts, leafName), and the catalogs
 * show them as they were given (src/introspect/).
 *
 * Invariant: a name that is not there any more does no harm: a leaf's is told by the digest in it.
 */
import { quoteLiteral } from '../pg/identifier.ts';

/** No suffix is so long that a shorter name is cut. */
const NOTED_BYTES_MIN = 40;

export function cutNamesTable(internalSchema: string): string {
  return `
CREATE TABLE IF NOT EXISTS ${internalSchema}.cut_names (
  table_id int NOT NULL REFERENCES ${internalSchema}.tables ON DELETE CASCADE,
  name text NOT NULL,
  PRIMARY KEY (table_id, name)
);`;
}

/** To be run on home with the rights of Postern's role, behind the record of the table. None: all are short. */
export function noteNames(
  internalSchema: string,
  tableId: number,
  names: readonly string[],
): readonly string[] {
  const long = names.filter((name) => Buffer.byteLength(name) >= NOTED_BYTES_MIN);
  if (long.length === 0) return [];
  const rows = [...new Set(long)].map((name) => `(${Number(tableId)}, ${quoteLiteral(name)})`);
  return [
    `INSERT INTO ${internalSchema}.cut_names (table_id, name) VALUES ${rows.join(', ')} ON CONFLICT DO NOTHING`,
  ];
}
