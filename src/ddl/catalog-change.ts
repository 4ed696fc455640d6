/** A change of the catalog as the statements that make it, on home, with the rights of Postern's role (world.ts). */
import { assert, unreachable } from '../base/assert.ts';
import { type ClusterMap, leafName } from '../catalog/map.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import { quoteLiteral } from '../pg/identifier.ts';
import type { CatalogChange } from '../plan/ddl/change.ts';

/** `map`: as it was before. The epoch is raised at the end of the transaction, and not by these. */
export function catalogStatements(change: CatalogChange, map: ClusterMap): readonly string[] {
  switch (change.kind) {
    case 'touch':
      return [];
    case 'renameTable': {
      const { tableId, schema, name } = change;
      const statements = [
        `UPDATE ${INTERNAL_SCHEMA}.tables SET table_schema = ${quoteLiteral(schema)}, table_name = ${quoteLiteral(name)}
         WHERE table_id = ${Number(tableId)}`,
      ];
      const sharded = [...map.tables.values()].flatMap((tables) => [...tables.values()]);
      const table = sharded.find(({ id }) => id === tableId);
      if (table && table.name !== name) {
        const rows = table.buckets.map(
          ({ generation }, bucket) => `(${bucket}, ${quoteLiteral(leafName(name, bucket, generation))})`,
        );
        statements.push(
          `UPDATE ${INTERNAL_SCHEMA}.leaves l SET leaf_name = made.name
           FROM (VALUES ${rows.join(', ')}) AS made (bucket, name) WHERE l.table_id = ${table.id} AND l.bucket = made.bucket`,
        );
      }
      return statements;
    }
    case 'renameColumn': {
      const { tableId, from, to } = change;
      return [
        `UPDATE ${INTERNAL_SCHEMA}.tables SET key_column = ${quoteLiteral(to)}
         WHERE table_id = ${Number(tableId)} AND key_column = ${quoteLiteral(from)}`,
        `UPDATE ${INTERNAL_SCHEMA}.id_columns SET column_name = ${quoteLiteral(to)}
         WHERE table_id = ${Number(tableId)} AND column_name = ${quoteLiteral(from)}`,
      ];
    }
    case 'addIdColumn': {
      const { tableId, column, maxId } = change;
      // The sequence is the counter, and the row's own stays above the end (catalog/id-sequences.ts).
      return [
        `INSERT INTO ${INTERNAL_SCHEMA}.id_columns (table_id, column_name, next_id, max_id)
         VALUES (${Number(tableId)}, ${quoteLiteral(column)}, ${Number(maxId)}::bigint + 1, ${Number(maxId)})`,
      ];
    }
    case 'dropColumn':
      return [
        `DELETE FROM ${INTERNAL_SCHEMA}.id_columns
         WHERE table_id = ${Number(change.tableId)} AND column_name = ${quoteLiteral(change.column)}`,
      ];
    case 'renameSchema': {
      const from = quoteLiteral(change.from);
      const to = quoteLiteral(change.to);
      return [`UPDATE ${INTERNAL_SCHEMA}.tables SET table_schema = ${to} WHERE table_schema = ${from}`];
    }
    case 'noteCascade':
      return [
        `UPDATE ${INTERNAL_SCHEMA}.tables SET cascades = true WHERE table_id = ${Number(change.tableId)}`,
      ];
    case 'restartIds':
      return [
        `UPDATE ${INTERNAL_SCHEMA}.id_columns SET restarts = restarts + 1
         WHERE table_id = ${Number(change.tableId)} AND column_name = ${quoteLiteral(change.column)}`,
      ];
    default:
      return unreachable(change);
  }
}

/** The end of a table in the catalog: a group that has no table left goes with it. */
export function deleteTableStatement(tableId: number): string {
  assert(Number.isInteger(tableId), 'a table id is a number');
  return `WITH gone AS (DELETE FROM ${INTERNAL_SCHEMA}.tables WHERE table_id = ${tableId} RETURNING colocation_id)
    DELETE FROM ${INTERNAL_SCHEMA}.colocation_groups g USING gone WHERE g.colocation_id = gone.colocation_id
      AND NOT EXISTS (SELECT FROM ${INTERNAL_SCHEMA}.tables t WHERE t.colocation_id = g.colocation_id AND t.table_id <> ${tableId})`;
}
