/**
 * What keeps a user's code away from the control path. There the session is Postern's own, and its role is but changed to the
 * owner's: a function that it called could change it back (RESET ROLE), and do what Postern's role may do. So a statement that
 * may call one is carried out on backends that have logged in as the client (session/ddl-run.ts), or is refused.
 *
 * Invariant: before the control path makes a table after another one, or puts rows into one, nothing of a user's can be reached by
 * it: no function, operator or operator class (in a check, a generated column, an index), and no domain if there are rows, since its
 * owner may add a check to it at any time.
 * Not looked for: defaults (rows come with all values), triggers (they are made behind the rows, or disabled) and policies (owners
 * bypass them). PostgreSQL itself keeps what an index calls from changing the role.
 */
import { notSupported } from '../base/errors.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import type { ControlConnection } from '../platform/control-connection.ts';

const NOT_OF_EXTENSION = `NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = r.classid AND e.objid = r.objid AND e.deptype = 'e')`;

/** $1: the table. `direct`: it is named by the expression of a generated column, which the server may evaluate when it makes the table. */
const REACHED = `WITH RECURSIVE reached (classid, objid, direct) AS (
    SELECT 'pg_class'::regclass::oid, $1::oid, false
    UNION
    SELECT n.classid, n.objid, n.direct FROM reached r CROSS JOIN LATERAL (
      SELECT d.refclassid AS classid, d.refobjid AS objid, r.classid = 'pg_attrdef'::regclass AS direct FROM pg_depend d
      WHERE d.classid = r.classid AND d.objid = r.objid AND d.deptype <> 'e' AND (
        d.refclassid IN ('pg_type'::regclass, 'pg_proc'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass, 'pg_opfamily'::regclass)
        OR d.refclassid = 'pg_class'::regclass AND r.classid = 'pg_type'::regclass)
      UNION ALL
      SELECT d.classid, d.objid, false FROM pg_depend d
      WHERE d.refclassid = r.classid AND d.refobjid = r.objid AND r.classid IN ('pg_class'::regclass, 'pg_type'::regclass) AND (
        d.classid = 'pg_constraint'::regclass AND d.deptype IN ('a', 'i')
        OR d.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_class c WHERE c.oid = d.objid AND c.relkind IN ('i', 'I', 'c'))
        OR d.classid = 'pg_attrdef'::regclass AND EXISTS (SELECT FROM pg_attrdef f JOIN pg_attribute a
          ON a.attrelid = f.adrelid AND a.attnum = f.adnum WHERE f.oid = d.objid AND a.attgenerated <> ''))
    ) n)
  SELECT DISTINCT pg_describe_object(r.classid, r.objid, 0) AS what FROM reached r
  WHERE r.objid >= 16384 AND ${NOT_OF_EXTENSION} AND (
    r.classid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass, 'pg_opfamily'::regclass)
    OR r.classid = 'pg_type'::regclass AND (r.direct OR $2 AND EXISTS (SELECT FROM pg_type y WHERE y.oid = r.objid AND y.typtype = 'd')))
  ORDER BY 1 LIMIT 3`;

/** Throws 0A000. `table`: its oid, locked so that it stays as it is. With the rights of Postern's role and search_path pg_catalog. */
export async function refuseUsersCode(
  connection: ControlConnection,
  table: { readonly oid: number; readonly name: string },
  options: { readonly hasRows: boolean },
): Promise<void> {
  const rows = await connection.query<{ what: string }>(REACHED, [table.oid, options.hasRows]);
  if (rows.length === 0) return;
  throw notSupported(
    `table "${table.name}" uses ${rows.map(({ what }) => what).join(', ')}, and its place can't be changed with Postern's rights`,
    'An empty table gets a door inside a transaction block (BEGIN; …; COMMIT). With rows: take away the check, the generated column or the index, or change the type, and make it again behind it.',
    'Code of a user could run here with the rights of Postern’s role.',
  );
}

/** The same for a table by its quoted name, which is there. */
export async function refuseUsersCodeOf(
  connection: ControlConnection,
  quoted: string,
  options: { readonly hasRows: boolean },
): Promise<void> {
  const [row] = await connection.query<{ oid: number; name: string }>(
    'SELECT oid, relname AS name FROM pg_class WHERE oid = $1::regclass',
    [quoted],
  );
  if (row) await refuseUsersCode(connection, row, options);
}

const HANGING = `SELECT what FROM (
    SELECT 'rule ' || r.rulename AS what FROM pg_rewrite r WHERE r.ev_class = $1::regclass
    UNION ALL SELECT 'child ' || i.inhrelid::regclass FROM pg_inherits i WHERE i.inhparent = $1::regclass
    UNION ALL SELECT 'foreign key ' || k.conname || ' of ' || k.conrelid::regclass FROM pg_constraint k
      WHERE k.confrelid = $1::regclass AND k.contype = 'f' AND k.conrelid NOT IN (SELECT leaf FROM ${INTERNAL_SCHEMA}.local_leaves)
  ) hanging ORDER BY 1 LIMIT 1`;

/** Before rows of a leaf, which is locked, are deleted: its owner may have hung something on it, connected to the node directly. */
export async function refuseWhatHangsOn(connection: ControlConnection, leaf: string): Promise<void> {
  const [row] = await connection.query<{ what: string }>(HANGING, [leaf]);
  if (!row) return;
  throw notSupported(
    `rows of ${leaf} on node "${connection.nodeName}" cannot be moved: ${row.what} is not of Postern's making`,
    'Drop it there, connected to that node directly.',
  );
}
