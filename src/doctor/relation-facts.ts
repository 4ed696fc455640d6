/**
 * What a node's own catalogs say of its relations: all leaves, and the tables with a door, in one question.
 *
 * With search_path pg_catalog, so that all names in definitions come out qualified.
 */
import { LEAF_SCHEMA } from '../catalog/map.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import type { ControlConnection } from '../platform/control-connection.ts';

export interface ColumnFacts {
  readonly name: string;
  readonly type: string;
  readonly collation: string | null;
  readonly notNull: boolean;
  readonly expression: string | null;
  /** As in pg_attribute. */
  readonly generated: '' | 's' | 'v';
  readonly identity: '' | 'a' | 'd';
}

export interface ConstraintFacts {
  readonly name: string;
  /** As in pg_constraint.contype. */
  readonly kind: string;
  readonly definition: string;
  readonly valid: boolean;
}

export interface IndexFacts {
  readonly name: string;
  readonly unique: boolean;
  /** As pg_get_indexdef() prints it. */
  readonly definition: string;
  readonly valid: boolean;
  readonly ofConstraint: boolean;
}

export interface TriggerFacts {
  readonly name: string;
  readonly definition: string;
  /** As in pg_trigger.tgenabled. */
  readonly enabled: string;
}

export interface PolicyFacts {
  readonly name: string;
  /** What stands behind the table's name in CREATE POLICY. */
  readonly definition: string;
}

export interface GrantFacts {
  /** null: PUBLIC. */
  readonly grantee: string | null;
  readonly privilege: string;
  readonly grantable: boolean;
  /** null: on the whole table. */
  readonly column: string | null;
}

export interface RelationFacts {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  /** As regclass prints it. */
  readonly printed: string;
  /** As in pg_class. */
  readonly kind: string;
  readonly persistence: string;
  readonly owner: string;
  readonly rowSecurity: boolean;
  readonly forcedRowSecurity: boolean;
  readonly partitionKey: string | null;
  /** Tables that inherit from it or are its partitions. */
  readonly children: number;
  readonly bytes: number;
  readonly options: readonly { readonly name: string; readonly value: string }[];
  readonly columns: readonly ColumnFacts[];
  readonly constraints: readonly ConstraintFacts[];
  readonly indexes: readonly IndexFacts[];
  readonly triggers: readonly TriggerFacts[];
  readonly policies: readonly PolicyFacts[];
  /** The owner's own among them. */
  readonly grants: readonly GrantFacts[];
}

const list = (query: string): string => `(SELECT coalesce(json_agg(x), '[]') FROM (${query}) x)`;

const COLUMNS = list(`SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
    CASE WHEN a.attcollation <> t.typcollation THEN format('%I.%I', ln.nspname, l.collname) END AS collation,
    a.attnotnull AS "notNull", pg_get_expr(d.adbin, d.adrelid) AS expression,
    a.attgenerated::text AS generated, a.attidentity::text AS identity
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  LEFT JOIN pg_collation l ON l.oid = a.attcollation LEFT JOIN pg_namespace ln ON ln.oid = l.collnamespace
  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`);

const CONSTRAINTS = list(`SELECT k.conname AS name, k.contype::text AS kind,
    regexp_replace(pg_get_constraintdef(k.oid), ' NOT VALID$', '') AS definition, k.convalidated AS valid
  FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'c', 'x', 'f') ORDER BY k.conname`);

const INDEXES =
  list(`SELECT x.relname AS name, i.indisunique AS unique, pg_get_indexdef(x.oid) AS definition, i.indisvalid AS valid,
    EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = x.oid AND k.conrelid = c.oid AND k.contype IN ('p', 'u', 'x')) AS "ofConstraint"
  FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid ORDER BY x.relname`);

const TRIGGERS =
  list(`SELECT g.tgname AS name, pg_get_triggerdef(g.oid) AS definition, g.tgenabled::text AS enabled
  FROM pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal ORDER BY g.tgname`);

const POLICIES = list(`SELECT p.polname AS name,
    format(' AS %s FOR %s TO %s%s%s', CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
      CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
      (SELECT string_agg(CASE WHEN g.role = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.role)) END, ', ' ORDER BY 1)
       FROM unnest(p.polroles) AS g (role)),
      ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
      ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')') AS definition
  FROM pg_policy p WHERE p.polrelid = c.oid ORDER BY p.polname`);

/** MAINTAIN is of version 17, and what owners have by default differs by it. */
const GRANTS =
  list(`SELECT r.rolname AS grantee, g.privilege_type AS privilege, g.is_grantable AS grantable, g.attname AS column FROM (
    SELECT NULL::name AS attname, a.* FROM aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
    UNION ALL SELECT t.attname, a.* FROM pg_attribute t CROSS JOIN aclexplode(t.attacl) a
    WHERE t.attrelid = c.oid AND NOT t.attisdropped) g
  LEFT JOIN pg_roles r ON r.oid = g.grantee WHERE g.privilege_type <> 'MAINTAIN' AND (g.grantee = 0 OR r.oid IS NOT NULL)
  ORDER BY 4 NULLS FIRST, 1 NULLS FIRST, 2`);

/** `named`: tables beside those that are recorded. A node on which Postern has made nothing has none. */
export async function readRelations(
  node: ControlConnection,
  named: readonly { readonly schema: string; readonly name: string }[],
): Promise<readonly RelationFacts[]> {
  return await node.query<RelationFacts>(
    `SELECT c.oid::int8::float8 AS oid, n.nspname AS schema, c.relname AS name, c.oid::regclass::text AS printed,
       c.relkind::text AS kind, c.relpersistence::text AS persistence, pg_get_userbyid(c.relowner) AS owner,
       c.relrowsecurity AS "rowSecurity", c.relforcerowsecurity AS "forcedRowSecurity",
       CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END AS "partitionKey",
       (SELECT count(*) FROM pg_inherits h WHERE h.inhparent = c.oid)::int AS children,
       CASE WHEN c.relkind = 'r' THEN pg_relation_size(c.oid)::float8 ELSE 0 END AS bytes,
       ${list('SELECT o.option_name AS name, o.option_value AS value FROM pg_options_to_table(c.reloptions) o ORDER BY 1')} AS options,
       ${COLUMNS} AS columns, ${CONSTRAINTS} AS constraints, ${INDEXES} AS indexes, ${TRIGGERS} AS triggers,
       ${POLICIES} AS policies, ${GRANTS} AS grants
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND (n.nspname = '${LEAF_SCHEMA}'
       OR c.oid IN (SELECT face FROM ${INTERNAL_SCHEMA}.local_tables)
       OR (n.nspname, c.relname) IN (SELECT * FROM unnest($1::text[], $2::text[])))
     ORDER BY n.nspname, c.relname`,
    [named.map(({ schema }) => schema), named.map(({ name }) => name)],
  );
}
