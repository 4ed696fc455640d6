/**
 * What routers plan by of a distributed schema, as the catalog on home keeps it: the names of its relations, and whether users'
 * functions may be reached through them. It follows what is made and dropped where the schema lives.
 */
import { bumpEpoch, INTERNAL_SCHEMA } from '../../catalog/schema.ts';
import { type DdlContext, withConnection } from '../../ddl/context.ts';
import type { ControlConnection } from '../../platform/control-connection.ts';

export interface SchemaFacts {
  readonly relations: readonly string[];
  readonly plain: boolean;
}

/** Looks at each node that has such schemas. True: something has changed. */
export async function syncSchemas(context: DdlContext): Promise<boolean> {
  return await withConnection(context, context.homeNodeId, async (home) => {
    const schemas = await home.query<SchemaFacts & { name: string; nodeId: number }>(
      `SELECT s.schema_name AS name, s.node_id AS "nodeId", s.plain,
         ARRAY(SELECT r.relation_name FROM ${INTERNAL_SCHEMA}.schema_relations r WHERE r.schema_name = s.schema_name) AS relations
       FROM ${INTERNAL_SCHEMA}.schemas s`,
    );
    let changed = false;
    for (const { name, nodeId, ...known } of schemas) {
      const found = await withConnection(context, nodeId, (connection) => readSchemaFacts(connection, name));
      if (textOf(found) === textOf(known)) continue;
      await home.transaction(async () => {
        const rows = await home.query(
          `SELECT FROM ${INTERNAL_SCHEMA}.schemas WHERE schema_name = $1 AND node_id = $2 FOR UPDATE`,
          [name, nodeId],
        );
        if (rows.length === 0) return;
        await storeSchemaFacts(home, name, found);
        await bumpEpoch(home);
        changed = true;
      });
    }
    return changed;
  });
}

function textOf({ relations, plain }: SchemaFacts): string {
  return JSON.stringify([plain, [...relations].sort()]);
}

export async function readSchemaFacts(connection: ControlConnection, schema: string): Promise<SchemaFacts> {
  const rows = await connection.query<{ name: string; plain: boolean }>(
    `SELECT c.relname AS name, c.relkind IN ('r', 'S') AND NOT c.relrowsecurity AND NOT EXISTS (
         SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)
       AND NOT EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid)
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid >= 16384 AND (
         (d.classid = 'pg_constraint'::regclass AND d.objid IN (SELECT oid FROM pg_constraint WHERE conrelid = c.oid))
         OR (d.classid = 'pg_attrdef'::regclass AND d.objid IN (SELECT oid FROM pg_attrdef WHERE adrelid = c.oid))
         OR (d.classid = 'pg_class'::regclass AND d.objid IN (SELECT indexrelid FROM pg_index WHERE indrelid = c.oid))))
       AND NOT EXISTS (SELECT FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid WHERE a.attrelid = c.oid AND y.typtype = 'd') AS plain
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')`,
    [schema],
  );
  const [functions] = await connection.query<{ found: boolean }>(
    `SELECT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1) AS found`,
    [schema],
  );
  return {
    relations: rows.map(({ name }) => name),
    plain: functions?.found !== true && rows.every(({ plain }) => plain),
  };
}

export async function storeSchemaFacts(
  home: ControlConnection,
  schema: string,
  { relations, plain }: SchemaFacts,
): Promise<void> {
  await home.query(`UPDATE ${INTERNAL_SCHEMA}.schemas SET plain = $2 WHERE schema_name = $1`, [
    schema,
    plain,
  ]);
  await home.query(`DELETE FROM ${INTERNAL_SCHEMA}.schema_relations WHERE schema_name = $1`, [schema]);
  await home.query(
    `INSERT INTO ${INTERNAL_SCHEMA}.schema_relations (schema_name, relation_name) SELECT $1, unnest($2::text[])`,
    [schema, relations],
  );
}
