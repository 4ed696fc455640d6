/**
 * What belongs to a table beside its columns, constraints and indexes, and can be said again of another one (its face, its leaves, its
 * copies): row-level security with its policies, triggers, privileges on columns, what the planner is told of columns.
 */
import { GUARD_TRIGGER } from '../catalog/reference-guard.ts';
import { quoteIdentifier } from '../pg/identifier.ts';
import type { SqlConnection } from './context.ts';

/** `before` + the table's quoted name + `after`. */
export interface TableStatement {
  readonly before: string;
  readonly after: string;
}

export interface TableExtras {
  readonly statements: readonly TableStatement[];
  /** Roles with privileges on columns; undefined: PUBLIC. */
  readonly columnGrantees: readonly (string | undefined)[];
}

export function statementOn(table: string, { before, after }: TableStatement): string {
  return before + table + after;
}

/** With search_path pg_catalog. */
export async function readTableExtras(connection: SqlConnection, oid: number): Promise<TableExtras> {
  const grants = await readColumnGrants(connection, oid);
  return {
    statements: [
      ...(await readColumnSettings(connection, oid)),
      ...grants.map(({ columns, privilege, grantee, grantable }) => ({
        before: `GRANT ${privilege} (${columns.map(quoteIdentifier).join(', ')}) ON `,
        after: ` TO ${grantee === null ? 'PUBLIC' : quoteIdentifier(grantee)}${grantable ? ' WITH GRANT OPTION' : ''}`,
      })),
      ...(await readPolicies(connection, oid)),
      ...(await readTriggers(connection, oid)),
    ],
    columnGrantees: grants.map(({ grantee }) => grantee ?? undefined),
  };
}

async function readColumnSettings(connection: SqlConnection, oid: number): Promise<TableStatement[]> {
  const rows = await connection.query<{ name: string; target: number | null; options: string | null }>(
    `SELECT attname AS name, NULLIF(attstattarget, -1)::int AS target,
       (SELECT string_agg(format('%I = %L', o.option_name, o.option_value), ', ') FROM pg_options_to_table(attoptions) o) AS options
     FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
       AND (NULLIF(attstattarget, -1) IS NOT NULL OR attoptions IS NOT NULL) ORDER BY attnum`,
    [oid],
  );
  return rows.flatMap(({ name, target, options }) => {
    const column = ` ALTER COLUMN ${quoteIdentifier(name)} SET`;
    return [
      ...(target === null ? [] : [{ before: 'ALTER TABLE ', after: `${column} STATISTICS ${target}` }]),
      ...(options === null ? [] : [{ before: 'ALTER TABLE ', after: `${column} (${options})` }]),
    ];
  });
}

interface ColumnGrant {
  readonly columns: readonly string[];
  readonly privilege: string;
  readonly grantee: string | null;
  readonly grantable: boolean;
}

async function readColumnGrants(connection: SqlConnection, oid: number): Promise<readonly ColumnGrant[]> {
  return await connection.query<ColumnGrant>(
    `SELECT array_agg(a.attname::text ORDER BY a.attnum) AS columns, x.privilege_type AS privilege,
       r.rolname::text AS grantee, x.is_grantable AS grantable
     FROM pg_attribute a CROSS JOIN aclexplode(a.attacl) x LEFT JOIN pg_roles r ON r.oid = x.grantee
     WHERE a.attrelid = $1 AND NOT a.attisdropped GROUP BY 2, 3, 4 ORDER BY 3, 2`,
    [oid],
  );
}

async function readPolicies(connection: SqlConnection, oid: number): Promise<TableStatement[]> {
  const policies = await connection.query<{ before: string; after: string }>(
    `SELECT format('CREATE POLICY %I ON ', p.polname) AS before,
       format(' AS %s FOR %s TO %s%s%s', CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
         CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
         (SELECT string_agg(CASE WHEN g.role = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.role)) END, ', ')
          FROM unnest(p.polroles) AS g (role)),
         ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
         ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')') AS after
     FROM pg_policy p WHERE p.polrelid = $1 ORDER BY p.polname`,
    [oid],
  );
  const [row] = await connection.query<{ enabled: boolean; forced: boolean }>(
    'SELECT relrowsecurity AS enabled, relforcerowsecurity AS forced FROM pg_class WHERE oid = $1',
    [oid],
  );
  const alter = (after: string) => ({ before: 'ALTER TABLE ', after });
  return [
    ...policies,
    ...(row?.enabled ? [alter(' ENABLE ROW LEVEL SECURITY')] : []),
    ...(row?.forced ? [alter(' FORCE ROW LEVEL SECURITY')] : []),
  ];
}

const ENABLED_AS: Readonly<Record<string, string>> = {
  D: 'DISABLE TRIGGER',
  R: 'ENABLE REPLICA TRIGGER',
  A: 'ENABLE ALWAYS TRIGGER',
};

async function readTriggers(connection: SqlConnection, oid: number): Promise<TableStatement[]> {
  const rows = await connection.query<{ name: string; text: string; relation: string; enabled: string }>(
    `SELECT tgname::text AS name, pg_get_triggerdef(oid) AS text, tgrelid::regclass::text AS relation, tgenabled::text AS enabled
     FROM pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal AND tgname <> '${GUARD_TRIGGER}' ORDER BY tgname`,
    [oid],
  );
  return rows.flatMap(({ name, text, relation, enabled }) => {
    const at = text.indexOf(` ON ${relation} `) + ' ON '.length;
    const made = { before: text.slice(0, at), after: text.slice(at + relation.length) };
    const state = ENABLED_AS[enabled];
    return state ? [made, { before: 'ALTER TABLE ', after: ` ${state} ${quoteIdentifier(name)}` }] : [made];
  });
}
