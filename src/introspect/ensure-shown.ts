/**
 * Makes schema `postern_shown` on the home node: PostgreSQL's catalogs as users should see them. It holds nothing but views and
 * functions, and is made anew when this version of Postern, or of the server, would make other ones; what it is made of stands in
 * the schema's comment.
 *
 * Next: plan/introspection.ts, which puts its names into queries.
 */
import { createHash } from 'node:crypto';
import { CATALOG_SCHEMA, SHOWN_SCHEMA } from '../catalog/map.ts';
import { CREATE_CATALOG_LOCK } from '../catalog/schema.ts';
import { quoteLiteral } from '../pg/identifier.ts';
import { withSystemColumns } from '../plan/introspection.ts';
import type { ShownCatalogs } from '../plan/resolve.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import { deriveViews, ROW_FUNCTIONS, type ServersView, withViews } from './derived-views.ts';
import { FIGURES_TABLE_DEFINITION, TABLE_STATISTICS_VIEW } from './figures-table.ts';
import { catalogQuery, SHOWN_CATALOGS } from './shown-catalogs.ts';
import {
  functionDefinitions,
  type OwnFunction,
  PRIVILEGE_FUNCTIONS,
  SHOWN_FUNCTIONS,
} from './shown-functions.ts';
import {
  FILTERED_VIEWS,
  filteredView,
  STATISTICS_VIEWS,
  type StatisticsColumn,
  statisticsView,
} from './shown-statistics.ts';

/** Views over these show nothing of a table with a door: they stay the server's own. */
const NOT_DERIVED = new Set(['pg_database']);
/** Security labels, of which nearly nobody has any: it asks roles for their tableoid. */
const LEFT_AS_IT_IS = ['pg_seclabels'];

export async function ensureShown(home: ControlConnection): Promise<ShownCatalogs> {
  return await home.transaction(async () => {
    await home.query(`SELECT ${CREATE_CATALOG_LOCK}`);
    const { shown, statements } = await definitions(home);
    const mark = createHash('sha256').update(statements.join(';\n')).digest('hex');
    const found = await home.query<{ mark: string | null }>(
      `SELECT obj_description(to_regnamespace('${SHOWN_SCHEMA}'), 'pg_namespace') AS mark`,
    );
    if (found[0]?.mark === mark) return shown;
    await home.query(
      `DROP SCHEMA IF EXISTS ${SHOWN_SCHEMA} CASCADE; DROP VIEW IF EXISTS ${CATALOG_SCHEMA}.table_statistics`,
    );
    await home.query(`${FIGURES_TABLE_DEFINITION};
      CREATE SCHEMA ${SHOWN_SCHEMA}; REVOKE ALL ON SCHEMA ${SHOWN_SCHEMA} FROM PUBLIC`);
    for (const statement of statements) await home.query(statement);
    await home.query(`${TABLE_STATISTICS_VIEW};
      GRANT USAGE ON SCHEMA ${SHOWN_SCHEMA} TO PUBLIC; GRANT SELECT ON ALL TABLES IN SCHEMA ${SHOWN_SCHEMA} TO PUBLIC;
      GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ${SHOWN_SCHEMA} TO PUBLIC;
      COMMENT ON SCHEMA ${SHOWN_SCHEMA} IS ${quoteLiteral(mark)}`);
    return shown;
  });
}

interface ServersColumn extends StatisticsColumn {
  readonly relation: string;
}

async function definitions(
  home: ControlConnection,
): Promise<{ shown: ShownCatalogs; statements: readonly string[] }> {
  const catalogs = SHOWN_CATALOGS.map(({ name }) => name);
  const statistics = [...STATISTICS_VIEWS.map(({ name }) => name), ...FILTERED_VIEWS];
  const all = await home.query<ServersColumn>(
    `SELECT c.relname AS relation, a.attname AS name, format_type(a.atttypid, NULL) AS type
     FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
     WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relname = ANY ($1) AND a.attnum > 0 ORDER BY c.relname, a.attnum`,
    [[...catalogs, ...statistics]],
  );
  const columnsOf = (relation: string) => all.filter((column) => column.relation === relation);
  const queryOf = (name: string, options: Parameters<typeof catalogQuery>[2]): string => {
    const columns = columnsOf(name).map((column) => ({
      name: column.name,
      isAnyArray: column.type === 'anyarray',
    }));
    return catalogQuery(SHOWN_CATALOGS.find((catalog) => catalog.name === name)!, columns, options);
  };
  const own = await home.query<OwnFunction>(
    `SELECT proname AS name, (SELECT json_agg(format_type(t, NULL) ORDER BY place) FROM unnest(proargtypes) WITH ORDINALITY u (t, place)) AS types
     FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY ($1) ORDER BY proname, proargtypes::text`,
    [PRIVILEGE_FUNCTIONS],
  );
  const base: ShownCatalogs = {
    relations: new Set([...catalogs, ...statistics]),
    tables: new Map(
      catalogs.map((name) => [
        name,
        {
          shown: queryOf(name, { hasSystemColumns: false, isDump: false }),
          shownWithSystemColumns: queryOf(name, { hasSystemColumns: true, isDump: false }),
          dumped: queryOf(name, { hasSystemColumns: false, isDump: true }),
          dumpedWithSystemColumns: queryOf(name, { hasSystemColumns: true, isDump: true }),
        },
      ]),
    ),
    information: new Set(),
    functions: new Set(SHOWN_FUNCTIONS),
  };
  const ofTables = {
    ...base,
    relations: new Set([...base.relations].filter((name) => !NOT_DERIVED.has(name))),
  };
  const derived = deriveViews(await serversViews(home, base), ofTables);
  const statements = [
    ...functionDefinitions(own),
    ...SHOWN_CATALOGS.flatMap(({ name }) =>
      [false, true].map((hasSystemColumns) => {
        const view = hasSystemColumns ? withSystemColumns(name) : name;
        return `CREATE VIEW ${SHOWN_SCHEMA}.${view} AS ${queryOf(name, { hasSystemColumns, isDump: false })}`;
      }),
    ),
    ROW_FUNCTIONS,
    ...STATISTICS_VIEWS.map((view) => statisticsView(view, columnsOf(view.name))),
    ...FILTERED_VIEWS.filter((name) => columnsOf(name).length > 0).map((name) =>
      filteredView(name, columnsOf(name)),
    ),
    ...derived.map(({ create }) => create),
  ];
  return {
    shown: withViews(
      base,
      derived.map(({ view }) => view),
    ),
    statements,
  };
}

/** Those that everybody may read. */
async function serversViews(home: ControlConnection, { relations }: ShownCatalogs): Promise<ServersView[]> {
  return await home.query<ServersView>(
    `SELECT n.nspname AS schema, c.relname AS name, pg_get_viewdef(c.oid) AS definition
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'v' AND n.nspname IN ('pg_catalog', 'information_schema') AND c.oid < 16384
       AND (has_table_privilege('public', c.oid, 'SELECT') OR left(c.relname, 1) = '_') AND c.relname <> ALL ($1)
     ORDER BY n.nspname, c.relname`,
    [[...relations, ...LEFT_AS_IT_IS]],
  );
}
