/**
 * The queries that stand for tables of pg_catalog: as views of schema `postern_shown`, and by themselves for dumps. Each has the columns that the server's own catalog
 * has, in its order, and shows a face as an ordinary table: with the privileges of its leaves, their foreign keys, and the
 * figures of all nodes; and nothing of Postern's own schemas.
 *
 * Invariant: none shows what the catalog it stands for keeps from anybody: each is over catalogs that PUBLIC may read.
 */
import { CATALOG_SCHEMA, COMMIT_SCHEMA, LEAF_SCHEMA, SHOWN_SCHEMA } from '../catalog/map.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import { quoteLiteral } from '../pg/identifier.ts';

const HIDDEN_SCHEMAS = [LEAF_SCHEMA, INTERNAL_SCHEMA, COMMIT_SCHEMA, SHOWN_SCHEMA];
/** What a router makes at its start is no part of a dump. */
const UNDUMPED_SCHEMAS = [...HIDDEN_SCHEMAS, CATALOG_SCHEMA];
/** The database of the mesh, beside the cluster's own. */
const MESH_SUFFIX = '_postern_mesh';

/** The OIDs of schemas, as an array: constants, once the view is made. */
function schemaOids(schemas: readonly string[]): string {
  return `ARRAY[${schemas.map((name) => `${quoteLiteral(name)}::pg_catalog.regnamespace`).join(', ')}]::pg_catalog.oid[]`;
}

export const HIDDEN_NAMES = `ARRAY[${HIDDEN_SCHEMAS.map(quoteLiteral).join(', ')}]::name[]`;

export const FIGURES_TABLE = `${INTERNAL_SCHEMA}.table_figures`;

export function isFace(oid: string): string {
  return `${SHOWN_SCHEMA}.is_face(${oid})`;
}

/** One of the leaves of a face, on the home node; null: of another relation, or if none is there. */
function leafOf(face: string): string {
  return `${SHOWN_SCHEMA}.leaf_of(${face})`;
}

export interface ShownCatalog {
  readonly name: string;
  /** Which rows; the catalog is `c`, and `hidden` an array of the OIDs of schemas. */
  readonly where: (hidden: string) => string;
  /** Columns that are not the catalog's own. */
  readonly columns?: Readonly<Record<string, string>>;
  /** More rows: of queries over `from`, with these columns in place of the catalog's `c`. */
  readonly more?: readonly { readonly from: string; readonly columns: Readonly<Record<string, string>> }[];
}

/**
 * Relations of these schemas. Hashed once for a query: asked row by row, it would look so costly that PostgreSQL compiles (JIT)
 * for seconds what takes milliseconds.
 */
function relationsOf(schemas: string): string {
  return `(SELECT h.oid FROM pg_catalog.pg_class h WHERE h.relnamespace = ANY (${schemas}))`;
}

function ofRelation(column: string): ShownCatalog['where'] {
  return (hidden) => `c.${column} NOT IN ${relationsOf(hidden)}`;
}

function ofSchema(column: string): ShownCatalog['where'] {
  return (hidden) => `c.${column} <> ALL (${hidden})`;
}

function leafs(column: string): string {
  return `(SELECT v.${column} FROM pg_catalog.pg_class v WHERE v.oid = ${leafOf('c.oid')})`;
}

const IS_FACE = `c.relkind = 'p' AND ${isFace('c.oid')}`;

function figure(column: string): string {
  const own = `(SELECT g.${column} FROM ${SHOWN_SCHEMA}.figures_of(c.oid) g)`;
  return `CASE WHEN c.relkind IN ('p', 'I') THEN coalesce(${own}, c.${column}) ELSE c.${column} END`;
}

function ofFace(value: string, own: string): string {
  return `CASE WHEN ${IS_FACE} THEN ${value} ELSE ${own} END`;
}

/** That a foreign key needs the index of what it refers to. */
const KEY_OF_INDEX = `c.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND c.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  AND c.refobjsubid = 0 AND c.deptype = 'n'`;

/** One that is kept on other nodes too: the face has a plain index for it, whose OID it has, being no constraint of the server's. */
const UNIQUE_CONSTRAINT: Readonly<Record<string, string>> = {
  tableoid: "'pg_catalog.pg_constraint'::pg_catalog.regclass::oid",
  oid: 'u.index',
  conname: 'u.conname',
  connamespace: 'u.connamespace',
  contype: `'u'::"char"`,
  condeferrable: 'false',
  condeferred: 'false',
  conenforced: 'true',
  convalidated: 'true',
  conrelid: 'u.conrelid',
  contypid: '0::oid',
  conindid: 'u.index',
  conparentid: '0::oid',
  confrelid: '0::oid',
  confupdtype: `' '::"char"`,
  confdeltype: `' '::"char"`,
  confmatchtype: `' '::"char"`,
  conislocal: 'true',
  coninhcount: '0::int2',
  connoinherit: 'true',
  conperiod: 'false',
  conkey: 'u.conkey',
};

export const SHOWN_CATALOGS: readonly ShownCatalog[] = [
  { name: 'pg_namespace', where: ofSchema('oid') },
  {
    name: 'pg_class',
    where: (
      hidden,
    ) => `c.relnamespace <> ALL (${hidden}) AND NOT (c.relnamespace = 'pg_toast'::pg_catalog.regnamespace
      AND coalesce(substring(c.relname::text from '^pg_toast_([0-9]+)')::oid IN ${relationsOf(hidden)}, false))`,
    columns: {
      // PostgreSQL evaluates what is cheap first, and functions of sequences fail for what is none: this has to be as cheap as a
      // column.
      relkind: `CASE WHEN c.relkind IN ('p', 'I') THEN ${SHOWN_SCHEMA}.shown_relkind(c.oid, c.relkind) ELSE c.relkind END`,
      relam: ofFace("(SELECT m.oid FROM pg_catalog.pg_am m WHERE m.amname = 'heap')", 'c.relam'),
      reltuples: figure('reltuples'),
      relpages: figure('relpages'),
      relallvisible: figure('relallvisible'),
      relhassubclass: ofFace('false', 'c.relhassubclass'),
      // Foreign keys are triggers, and the leaves have those; and some of Postern's, which are no internal ones.
      relhastriggers: ofFace(
        `c.relhastriggers OR EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgrelid = ${leafOf('c.oid')} AND g.tgisinternal)`,
        'c.relhastriggers',
      ),
      relrowsecurity: ofFace(
        `c.relrowsecurity OR coalesce(${leafs('relrowsecurity')}, false)`,
        'c.relrowsecurity',
      ),
      relforcerowsecurity: ofFace(
        `c.relforcerowsecurity OR coalesce(${leafs('relforcerowsecurity')}, false)`,
        'c.relforcerowsecurity',
      ),
      relfrozenxid: ofFace(`${SHOWN_SCHEMA}.oldest_xid(c.oid)`, 'c.relfrozenxid'),
      relminmxid: ofFace(`${SHOWN_SCHEMA}.oldest_multixact(c.oid)`, 'c.relminmxid'),
      relacl: ofFace(`${SHOWN_SCHEMA}.face_acl(c.oid)`, 'c.relacl'),
      reloptions: `CASE WHEN c.relkind IN ('r', 'p') AND c.oid >= 16384 THEN nullif(${SHOWN_SCHEMA}.door_options(c.oid) ||
        CASE WHEN ${IS_FACE} THEN ${leafs('reloptions')} ELSE c.reloptions END, '{}') ELSE c.reloptions END`,
    },
  },
  {
    name: 'pg_attribute',
    where: ofRelation('attrelid'),
    columns: {
      attacl: `CASE WHEN c.attrelid >= 16384 AND c.attnum > 0 AND c.attacl IS NULL AND ${isFace('c.attrelid')}
        THEN ${SHOWN_SCHEMA}.face_column_acl(c.attrelid, c.attname) ELSE c.attacl END`,
    },
  },
  { name: 'pg_attrdef', where: ofRelation('adrelid') },
  {
    name: 'pg_constraint',
    where: ofSchema('connamespace'),
    more: [
      {
        from: `${SHOWN_SCHEMA}.leaf_foreign_keys() k JOIN pg_catalog.pg_constraint c ON c.oid = k.oid`,
        columns: {
          conname: 'k.conname',
          connamespace: 'k.connamespace',
          conrelid: 'k.conrelid',
          conparentid: '0::oid',
          confrelid: 'k.confrelid',
          conkey: 'k.conkey',
          confkey: 'k.confkey',
          conindid: 'k.conindid',
        },
      },
      {
        from: `${SHOWN_SCHEMA}.uniques_off_key() u LEFT JOIN pg_catalog.pg_constraint c ON false WHERE u.is_constraint`,
        columns: UNIQUE_CONSTRAINT,
      },
    ],
  },
  {
    // By this information_schema finds the constraint that a foreign key refers to.
    name: 'pg_depend',
    where: () =>
      `NOT (${KEY_OF_INDEX} AND c.objid IN (SELECT k.oid FROM ${SHOWN_SCHEMA}.leaf_foreign_keys() k WHERE k.references_leaf))`,
    more: [
      {
        from: `${SHOWN_SCHEMA}.leaf_foreign_keys() k JOIN pg_catalog.pg_depend c ON c.objid = k.oid AND ${KEY_OF_INDEX} WHERE k.references_leaf`,
        columns: { refobjid: 'k.conindid' },
      },
    ],
  },
  {
    name: 'pg_index',
    where: ofRelation('indrelid'),
    columns: {
      indisunique: `CASE WHEN c.indisunique OR c.indexrelid < 16384 THEN c.indisunique
        ELSE ${SHOWN_SCHEMA}.is_unique_off_key(c.indexrelid) END`,
    },
  },
  { name: 'pg_type', where: ofSchema('typnamespace') },
  { name: 'pg_proc', where: ofSchema('pronamespace') },
  {
    name: 'pg_trigger',
    where: (
      hidden,
    ) => `c.tgrelid NOT IN ${relationsOf(hidden)} AND c.tgconstrrelid NOT IN ${relationsOf(hidden)}
      AND c.tgfoid NOT IN (SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.pronamespace = ANY (${hidden}))`,
  },
  { name: 'pg_policy', where: ofRelation('polrelid') },
  { name: 'pg_rewrite', where: ofRelation('ev_class') },
  { name: 'pg_partitioned_table', where: () => `NOT ${isFace('c.partrelid')}` },
  { name: 'pg_statistic_ext', where: ofSchema('stxnamespace') },
  { name: 'pg_sequence', where: ofRelation('seqrelid') },
  {
    name: 'pg_database',
    where: () => `right(c.datname::text, ${MESH_SUFFIX.length}) <> ${quoteLiteral(MESH_SUFFIX)}`,
  },
];

export interface CatalogColumn {
  readonly name: string;
  /** A view can't have a column of a pseudo-type. */
  readonly isAnyArray: boolean;
}

/** The query for one of them. `isDump`: without what a router makes at its start. */
export function catalogQuery(
  catalog: ShownCatalog,
  ownColumns: readonly CatalogColumn[],
  { hasSystemColumns, isDump }: { readonly hasSystemColumns: boolean; readonly isDump: boolean },
): string {
  const system = hasSystemColumns ? ['tableoid', 'xmin'] : [];
  const columns = [...system.map((name) => ({ name, isAnyArray: false })), ...ownColumns];
  const list = (others: Readonly<Record<string, string>>): string =>
    columns
      .map(({ name, isAnyArray }) => {
        const value = others[name];
        return value ? `${value} AS ${name}` : isAnyArray ? `c.${name}::text AS ${name}` : `c.${name}`;
      })
      .join(', ');
  const hidden = schemaOids(isDump ? UNDUMPED_SCHEMAS : HIDDEN_SCHEMAS);
  const own = `SELECT ${list(catalog.columns ?? {})} FROM pg_catalog.${catalog.name} c WHERE ${catalog.where(hidden)}`;
  const more = (catalog.more ?? []).map(
    ({ from, columns: others }) => ` UNION ALL SELECT ${list(others)} FROM ${from}`,
  );
  return own + more.join('');
}
