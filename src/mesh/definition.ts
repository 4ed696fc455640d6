/**
 * What the meshes have to show, read from the nodes' own catalogs: from home the schemas, types, functions, views and
 * tables; from every node the rights on leaves, and how many rows they have.
 *
 * Invariant: what is read of home is of one snapshot, and so is the mark that stands for it (mark.ts).
 */
import type { ClusterMap } from '../catalog/map.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import { loadMap } from '../catalog/store.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import { MARK_QUERY, USER_SCHEMAS } from './mark.ts';

/** The database's default, the operating system, ICU. */
export type Sorter = 'default' | 'libc' | 'icu';

/** null: PUBLIC. */
export type Grantees = readonly (string | null)[];

export interface ColumnDefinition {
  readonly name: string;
  /** As format_type() prints it. */
  readonly type: string;
  /** Quoted; null: the type's own. */
  readonly collation: string | null;
  /** What sorts it, if not its bytes alone. */
  readonly sortedBy: Sorter | null;
  readonly notNull: boolean;
  /** An index begins with it. */
  readonly leadsIndex: boolean;
  /** Who may read this column, beside those who may read all. */
  readonly readers: Grantees;
}

export interface RelationDefinition {
  readonly schema: string;
  readonly name: string;
  /** As in pg_class.relkind. */
  readonly kind: 'r' | 'p' | 'm' | 'f' | 'v';
  readonly door: 'sharded' | 'reference' | null;
  readonly tableId: number | null;
  readonly owner: string;
  readonly hasRowSecurity: boolean;
  readonly readers: Grantees;
  readonly columns: readonly ColumnDefinition[];
  /** Of a view. */
  readonly query: string | null;
  readonly options: readonly string[];
  readonly rows: number;
  readonly pages: number;
}

export interface TypeDefinition {
  readonly schema: string;
  readonly name: string;
  /** The whole CREATE statement. */
  readonly text: string;
}

export interface FunctionDefinition {
  readonly schema: string;
  readonly name: string;
  readonly identity: string;
  readonly text: string;
  /** A body in SQL's own syntax names relations, and they have to be there first. */
  readonly isBound: boolean;
  /** It is not made in a mesh: it may do more than read. */
  readonly why: string | null;
  readonly callers: Grantees;
}

export interface HomeDefinition {
  readonly schemas: readonly { readonly name: string; readonly users: Grantees }[];
  readonly extensions: readonly { readonly name: string; readonly schema: string }[];
  readonly collations: readonly TypeDefinition[];
  readonly types: readonly TypeDefinition[];
  readonly functions: readonly FunctionDefinition[];
  readonly casts: readonly Pick<TypeDefinition, 'name' | 'text'>[];
  /** Names of those that users have made. */
  readonly operators: readonly string[];
  readonly relations: readonly RelationDefinition[];
  /** ALTER DATABASE … SET, for all roles or one. */
  readonly settings: readonly {
    readonly role: string | null;
    readonly name: string;
    readonly value: string;
  }[];
  /** How CREATE DATABASE has to be told to sort as home does. */
  readonly locale: LocaleDefinition;
}

export interface LocaleDefinition {
  readonly provider: string;
  readonly collate: string;
  readonly ctype: string;
  readonly locale: string | null;
}

export interface LeafDefinition {
  readonly tableId: number;
  readonly name: string;
  readonly hasRowSecurity: boolean;
  readonly readers: Grantees;
  readonly columnReaders: Readonly<Record<string, Grantees>>;
  readonly rows: number;
  readonly pages: number;
}

export interface HomeState {
  readonly mark: string;
  readonly map: ClusterMap;
  readonly definition: HomeDefinition;
}

/** Roles with a privilege in an ACL, by name; those without a name any more are left out. */
function grantees(acl: string, privilege: string): string {
  return `(SELECT coalesce(json_agg(DISTINCT r.rolname), '[]') FROM aclexplode(${acl}) g LEFT JOIN pg_roles r ON r.oid = g.grantee
    WHERE g.privilege_type = '${privilege}' AND (g.grantee = 0 OR r.oid IS NOT NULL))`;
}

const NOT_OF_EXTENSION = (catalog: string, oid: string) =>
  `NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '${catalog}'::regclass AND d.objid = ${oid} AND d.deptype = 'e')`;

const COLUMNS = `(SELECT coalesce(json_agg(json_build_object(
    'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
    'collation', CASE WHEN a.attcollation <> y.typcollation THEN quote_ident(k.nspname) || '.' || quote_ident(l.collname) END,
    'sortedBy', CASE WHEN a.attcollation = 0 OR l.collname IN ('C', 'POSIX') THEN NULL WHEN l.collprovider = 'd' THEN 'default'
      WHEN l.collprovider = 'i' THEN 'icu' WHEN l.collprovider = 'c' THEN 'libc' END,
    'notNull', a.attnotnull, 'leadsIndex', EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum),
    'readers', ${grantees('a.attacl', 'SELECT')}) ORDER BY a.attnum), '[]')
  FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
  LEFT JOIN pg_collation l ON l.oid = a.attcollation LEFT JOIN pg_namespace k ON k.oid = l.collnamespace
  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)`;

const RELATIONS = `SELECT coalesce(json_agg(json_build_object(
    'schema', n.nspname, 'name', c.relname, 'kind', c.relkind, 'door', t.door, 'tableId', t.table_id,
    'owner', pg_get_userbyid(c.relowner), 'hasRowSecurity', c.relrowsecurity,
    'readers', ${grantees("coalesce(c.relacl, acldefault('r', c.relowner))", 'SELECT')}, 'columns', ${COLUMNS},
    'query', CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END,
    'options', CASE WHEN c.relkind = 'v' THEN coalesce(to_json(c.reloptions), '[]') ELSE '[]' END,
    'rows', c.reltuples, 'pages', c.relpages) ORDER BY c.oid), '[]')
  FROM pg_class c JOIN (${USER_SCHEMAS}) n ON n.oid = c.relnamespace
  LEFT JOIN ${INTERNAL_SCHEMA}.local_tables f ON f.face = c.oid
  LEFT JOIN ${INTERNAL_SCHEMA}.tables t ON t.table_id = f.table_id AND t.state = 'ready'
  WHERE c.relkind IN ('r', 'p', 'm', 'f', 'v') AND c.relpersistence <> 't' AND (f.table_id IS NULL OR t.table_id IS NOT NULL)
    AND ${NOT_OF_EXTENSION('pg_class', 'c.oid')}`;

const FULL_NAME = `quote_ident(n.nspname) || '.' || quote_ident(y.typname)`;

/** In the order in which they were made, so that each finds what it is made of. */
export const TYPES = `SELECT coalesce(json_agg(json_build_object('schema', schema, 'name', name, 'text', text) ORDER BY oid), '[]') FROM (
  SELECT y.oid, n.nspname AS schema, y.typname AS name, CASE y.typtype
    WHEN 'e' THEN 'CREATE TYPE ' || ${FULL_NAME} || ' AS ENUM (' ||
      (SELECT coalesce(string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder), '') FROM pg_enum e WHERE e.enumtypid = y.oid) || ')'
    WHEN 'd' THEN 'CREATE DOMAIN ' || ${FULL_NAME} || ' AS ' || format_type(y.typbasetype, y.typtypmod) ||
      coalesce((SELECT ' COLLATE ' || quote_ident(k.nspname) || '.' || quote_ident(l.collname) FROM pg_collation l
        JOIN pg_namespace k ON k.oid = l.collnamespace JOIN pg_type b ON b.oid = y.typbasetype
        WHERE l.oid = y.typcollation AND y.typcollation <> b.typcollation), '') ||
      CASE WHEN y.typnotnull THEN ' NOT NULL' ELSE '' END ||
      coalesce((SELECT string_agg(' CONSTRAINT ' || quote_ident(o.conname) || ' ' || pg_get_constraintdef(o.oid), '' ORDER BY o.conname)
        FROM pg_constraint o WHERE o.contypid = y.oid AND o.contype = 'c'), '')
    WHEN 'c' THEN 'CREATE TYPE ' || ${FULL_NAME} || ' AS (' || coalesce((SELECT string_agg(quote_ident(a.attname) || ' ' ||
      format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) FROM pg_attribute a
      WHERE a.attrelid = y.typrelid AND a.attnum > 0 AND NOT a.attisdropped), '') || ')'
    WHEN 'r' THEN (SELECT 'CREATE TYPE ' || ${FULL_NAME} || ' AS RANGE (SUBTYPE = ' || format_type(r.rngsubtype, NULL) ||
      ', SUBTYPE_OPCLASS = ' || (SELECT quote_ident(k.nspname) || '.' || quote_ident(o.opcname) FROM pg_opclass o
         JOIN pg_namespace k ON k.oid = o.opcnamespace WHERE o.oid = r.rngsubopc) ||
      CASE WHEN r.rngsubdiff <> 0 THEN ', SUBTYPE_DIFF = ' || r.rngsubdiff::regproc::text ELSE '' END ||
      coalesce((SELECT ', MULTIRANGE_TYPE_NAME = ' || quote_ident(k.nspname) || '.' || quote_ident(m.typname) FROM pg_type m
         JOIN pg_namespace k ON k.oid = m.typnamespace WHERE m.oid = r.rngmultitypid), '') || ')'
      FROM pg_range r WHERE r.rngtypid = y.oid)
    END AS text
  FROM pg_type y JOIN (${USER_SCHEMAS}) n ON n.oid = y.typnamespace
  WHERE y.typtype IN ('e', 'd', 'r') AND ${NOT_OF_EXTENSION('pg_type', 'y.oid')}
     OR y.typtype = 'c' AND EXISTS (SELECT FROM pg_class c WHERE c.oid = y.typrelid AND c.relkind = 'c')
        AND ${NOT_OF_EXTENSION('pg_type', 'y.oid')}
  ) made`;

const COLLATIONS = `SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'name', l.collname, 'text',
    'CREATE COLLATION ' || quote_ident(n.nspname) || '.' || quote_ident(l.collname) || ' (PROVIDER = ' ||
    CASE l.collprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END ||
    CASE WHEN l.collprovider = 'c' THEN ', LC_COLLATE = ' || quote_literal(l.collcollate) || ', LC_CTYPE = ' || quote_literal(l.collctype)
      ELSE ', LOCALE = ' || quote_literal(coalesce(to_jsonb(l) ->> 'colllocale', to_jsonb(l) ->> 'colliculocale', l.collcollate)) END ||
    CASE WHEN l.collisdeterministic THEN '' ELSE ', DETERMINISTIC = false' END || ')') ORDER BY l.oid), '[]')
  FROM pg_collation l JOIN (${USER_SCHEMAS}) n ON n.oid = l.collnamespace WHERE l.oid >= 16384 AND ${NOT_OF_EXTENSION('pg_collation', 'l.oid')}`;

/** Words in a body after which more may be done than reading tables, or other things be read than rows. */
const DOES_MORE =
  'notify|pg_notify|\\w*advisory\\w*|dblink\\w*|nextval|setval|currval|lastval|current_database|current_catalog|insert|update|' +
  'delete|merge|truncate|create|drop|alter|grant|revoke|copy|execute|set_config|information_schema|pg_class|pg_\\w+_size';

const FUNCTIONS = `SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'name', p.proname,
    'identity', p.oid::regprocedure::text, 'text', CASE WHEN p.prokind = 'f' THEN pg_get_functiondef(p.oid) ELSE '' END,
    'isBound', pg_get_function_sqlbody(p.oid) IS NOT NULL,
    'why', CASE WHEN p.prokind <> 'f' THEN 'it is an aggregate, a window function or a procedure'
      WHEN l.lanname NOT IN ('sql', 'plpgsql') THEN 'it is written in ' || l.lanname
      WHEN p.prosecdef THEN 'it runs with its owner''s rights'
      WHEN concat_ws(' ', p.prosrc, pg_get_function_sqlbody(p.oid)) ~* '\\m(${DOES_MORE})\\M'
        THEN 'it may do more than read' END,
    'callers', ${grantees("coalesce(p.proacl, acldefault('f', p.proowner))", 'EXECUTE')}) ORDER BY p.oid), '[]')
  FROM pg_proc p JOIN (${USER_SCHEMAS}) n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
  WHERE p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype) AND ${NOT_OF_EXTENSION('pg_proc', 'p.oid')}`;

const CASTS = `SELECT coalesce(json_agg(json_build_object('name', t.source || ' AS ' || t.target, 'text',
    'CREATE CAST (' || t.source || ' AS ' || t.target || ') ' || CASE c.castmethod WHEN 'f' THEN 'WITH FUNCTION ' || c.castfunc::regprocedure
      WHEN 'i' THEN 'WITH INOUT' ELSE 'WITHOUT FUNCTION' END ||
    CASE c.castcontext WHEN 'i' THEN ' AS IMPLICIT' WHEN 'a' THEN ' AS ASSIGNMENT' ELSE '' END) ORDER BY c.oid), '[]')
  FROM pg_cast c, LATERAL (SELECT format_type(c.castsource, NULL) AS source, format_type(c.casttarget, NULL) AS target) t
  WHERE c.oid >= 16384 AND ${NOT_OF_EXTENSION('pg_cast', 'c.oid')}`;

const OPERATORS = `SELECT coalesce(json_agg(DISTINCT o.oprname), '[]') FROM pg_operator o
  WHERE o.oid >= 16384 AND ${NOT_OF_EXTENSION('pg_operator', 'o.oid')}`;

const SETTINGS = `SELECT coalesce(json_agg(json_build_object('role', r.rolname, 'name', split_part(s.one, '=', 1),
    'value', substr(s.one, strpos(s.one, '=') + 1)) ORDER BY r.rolname, s.one), '[]')
  FROM pg_db_role_setting c JOIN pg_database d ON d.oid = c.setdatabase AND d.datname = current_database()
  CROSS JOIN unnest(c.setconfig) AS s (one) LEFT JOIN pg_roles r ON r.oid = c.setrole WHERE c.setrole = 0 OR r.oid IS NOT NULL`;

const HOME_QUERY = `SELECT json_build_object(
  'schemas', (SELECT coalesce(json_agg(json_build_object('name', n.nspname,
     'users', ${grantees("coalesce(n.nspacl, acldefault('n', n.nspowner))", 'USAGE')}) ORDER BY n.nspname), '[]')
     FROM pg_namespace n WHERE n.oid IN (SELECT oid FROM (${USER_SCHEMAS}) u)),
  'extensions', (SELECT coalesce(json_agg(json_build_object('name', e.extname, 'schema', n.nspname) ORDER BY e.oid), '[]')
     FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname NOT IN ('plpgsql', 'postgres_fdw')),
  'collations', (${COLLATIONS}), 'types', (${TYPES}), 'functions', (${FUNCTIONS}), 'relations', (${RELATIONS}),
  'casts', (${CASTS}), 'operators', (${OPERATORS}),
  'settings', (${SETTINGS}),
  'locale', (SELECT json_build_object('provider', coalesce(to_jsonb(d) ->> 'datlocprovider', 'c'), 'collate', d.datcollate,
     'ctype', d.datctype, 'locale', coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'))
     FROM pg_database d WHERE d.datname = current_database())
) AS definition`;

/** In one snapshot of home. */
export async function readHome(home: ControlConnection): Promise<HomeState> {
  return await home.transaction(async () => {
    const [marked] = await home.query<{ mark: string }>(MARK_QUERY);
    const map = await loadMap(home);
    const [row] = await home.query<{ definition: HomeDefinition }>(HOME_QUERY);
    return { mark: marked!.mark, map, definition: row!.definition };
  }, 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
}

/** The leaves that a node has. */
export async function readLeaves(node: ControlConnection): Promise<readonly LeafDefinition[]> {
  return await node.query<LeafDefinition>(
    `SELECT l.table_id AS "tableId", c.relname AS name, c.relrowsecurity AS "hasRowSecurity",
       ${grantees("coalesce(c.relacl, acldefault('r', c.relowner))", 'SELECT')} AS readers,
       (SELECT coalesce(json_object_agg(a.attname, ${grantees('a.attacl', 'SELECT')}), '{}') FROM pg_attribute a
         WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL AND NOT a.attisdropped) AS "columnReaders",
       c.reltuples::float8 AS rows, c.relpages AS pages
     FROM ${INTERNAL_SCHEMA}.local_leaves l JOIN pg_class c ON c.oid = l.leaf`,
  );
}
