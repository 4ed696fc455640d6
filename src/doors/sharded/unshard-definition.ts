/**
 * What a sharded table is made of, read back to make one plain table of it: from its face (columns, constraints, indexes,
 * statistics, comments), and from one of its leaves what only these have (foreign keys, privileges, policies, triggers,
 * storage parameters).
 *
 * Invariant: all texts are printed under search_path pg_catalog, and mean the same under it.
 */
import { notSupported } from '../../base/errors.ts';
import { COMMIT_SCHEMA, LEAF_SCHEMA, leafSuffix } from '../../catalog/map.ts';
import { INTERNAL_SCHEMA } from '../../catalog/schema.ts';
import type { DdlSession } from '../../ddl/context.ts';
import { quoteIdentifier, quoteLiteral, quoteQualified } from '../../pg/identifier.ts';
import type { ControlConnection } from '../../platform/control-connection.ts';
import { describeFace } from './face.ts';

export interface SequenceOfColumn {
  readonly column: string;
  /** Quoted and qualified. */
  readonly sequence: string;
  readonly sequenceName: string;
  readonly isIdentity: boolean;
  /** What nextval() gives next, if it was ever called. */
  readonly lastValue: string | null;
}

export interface PlainDefinition {
  /** Columns that a row is copied by: all but the generated ones. */
  readonly columns: readonly string[];
  readonly sequences: readonly SequenceOfColumn[];
  /** Storage parameters as a WITH clause, or nothing. */
  readonly storage: string;
  /** Statements for the table under its own name and with its rows. */
  readonly statements: readonly string[];
  readonly forcesRowSecurity: boolean;
}

/** A leaf, and the connection to its node. */
export interface LeafAt {
  readonly connection: ControlConnection;
  readonly oid: number;
  readonly bucket: number;
  readonly generation: number;
}

export async function readPlainDefinition(
  home: ControlConnection,
  face: { readonly oid: number; readonly schema: string; readonly name: string },
  leaf: LeafAt,
): Promise<PlainDefinition> {
  const name = quoteQualified(face.schema, face.name);
  const columns = await home.query<{ name: string }>(
    `SELECT attname AS name FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
     ORDER BY attnum`,
    [face.oid],
  );
  const described = await describeFace(home, face.oid);
  const own = described.constraints.filter((one) => !described.foreignKeys.includes(one.name));
  const offKey = await readUniqueOffKey(home, face.oid, name);
  const statements = [
    ...own.map((one) => `ALTER TABLE ${name} ADD CONSTRAINT ${quoteIdentifier(one.name)} ${one.definition}`),
    ...described.indexes
      .filter((index) => !offKey.some((unique) => unique.name === index.name))
      .map(
        (index) =>
          `CREATE ${index.unique ? 'UNIQUE ' : ''}INDEX ${quoteIdentifier(index.name)} ON ${name}${index.tail}`,
      ),
    ...offKey.map(({ text }) => text),
    ...(await readStatistics(home, face.oid)),
    ...(await readTableComment(home, face.oid, name)),
    ...(await readLeafExtras(leaf, { name, nameOfKey: (key) => key })),
  ];
  const [facts] = await leaf.connection.query<{ forces: boolean; options: string[] | null }>(
    `SELECT relforcerowsecurity AS forces, ARRAY(
       SELECT format('%I = %L', o.option_name, o.option_value) FROM pg_options_to_table(c.reloptions) o) AS options
     FROM pg_class c WHERE c.oid = $1`,
    [leaf.oid],
  );
  const options = facts?.options ?? [];
  return {
    columns: columns.map((column) => column.name),
    sequences: await readColumnSequences(home, face.oid),
    storage: options.length > 0 ? ` WITH (${options.join(', ')})` : '',
    statements,
    forcesRowSecurity: facts?.forces === true,
  };
}

/** Another table that gets what a leaf has. */
export interface LeafCopy {
  /** Quoted. */
  readonly name: string;
  /** What a foreign key is called there, by the user's name for it. */
  readonly nameOfKey: (key: string) => string;
  /** The leaf that its foreign keys reference of a sharded table; absent, or undefined: they can't. */
  readonly leafOf?: (tableId: number) => string | undefined;
}

/** What a leaf has beside its face, as statements. */
export async function readLeafExtras(leaf: LeafAt, target: LeafCopy): Promise<string[]> {
  const { name } = target;
  const statements = [
    ...(await readForeignKeys(leaf, target)),
    ...(await readTriggers(leaf, name)),
    ...(await readPolicies(leaf, name)),
    ...(await readGrants(leaf, name)),
  ];
  const [facts] = await leaf.connection.query<{ rls: boolean; forces: boolean }>(
    'SELECT relrowsecurity AS rls, relforcerowsecurity AS forces FROM pg_class WHERE oid = $1',
    [leaf.oid],
  );
  if (facts?.rls) statements.push(`ALTER TABLE ${name} ENABLE ROW LEVEL SECURITY`);
  if (facts?.forces) statements.push(`ALTER TABLE ${name} FORCE ROW LEVEL SECURITY`);
  return statements;
}

async function readColumnSequences(home: ControlConnection, oid: number): Promise<SequenceOfColumn[]> {
  return await home.query<SequenceOfColumn>(
    `SELECT a.attname AS column, format('%I.%I', n.nspname, s.relname) AS sequence, s.relname AS "sequenceName",
       a.attidentity <> '' AS "isIdentity", pg_sequence_last_value(s.oid)::text AS "lastValue"
     FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' JOIN pg_namespace n ON n.oid = s.relnamespace
     JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
     WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1
       AND d.deptype IN ('a', 'i') ORDER BY a.attnum`,
    [oid],
  );
}

/** Those that are kept in tables of their own, over all nodes. */
async function readUniqueOffKey(
  home: ControlConnection,
  oid: number,
  name: string,
): Promise<{ readonly name: string; readonly text: string }[]> {
  const rows = await home.query<{ name: string; columns: string[]; isConstraint: boolean }>(
    `SELECT u.constraint_name AS name, u.columns, u.is_constraint AS "isConstraint" FROM ${INTERNAL_SCHEMA}.lookups u
     JOIN ${INTERNAL_SCHEMA}.local_tables f USING (table_id) WHERE f.face = $1::oid::regclass ORDER BY u.lookup_id`,
    [oid],
  );
  return rows.map((row) => {
    const columns = row.columns.map(quoteIdentifier).join(', ');
    const unique = quoteIdentifier(row.name);
    const text = row.isConstraint
      ? `ALTER TABLE ${name} ADD CONSTRAINT ${unique} UNIQUE (${columns})`
      : `CREATE UNIQUE INDEX ${unique} ON ${name} (${columns})`;
    // The face has an ordinary index of this name.
    return { name: row.name, text };
  });
}

async function readStatistics(home: ControlConnection, oid: number): Promise<string[]> {
  const rows = await home.query<{ text: string }>(
    'SELECT pg_get_statisticsobjdef(oid) AS text FROM pg_statistic_ext WHERE stxrelid = $1 ORDER BY stxname',
    [oid],
  );
  return rows.map(({ text }) => text);
}

/** To reference tables, which are on every node under the same names, and leaf to leaf. */
async function readForeignKeys(leaf: LeafAt, { name, nameOfKey, leafOf }: LeafCopy): Promise<string[]> {
  const rows = await leaf.connection.query<{
    name: string;
    definition: string;
    relation: string;
    tableId: number | null;
  }>(
    `SELECT conname AS name, pg_get_constraintdef(c.oid) AS definition, c.confrelid::regclass::text AS relation,
       (SELECT l.table_id FROM ${INTERNAL_SCHEMA}.local_leaves l WHERE l.leaf = c.confrelid) AS "tableId"
     FROM pg_constraint c WHERE conrelid = $1 AND contype = 'f' AND conparentid = 0 ORDER BY conname`,
    [leaf.oid],
  );
  const suffix = leafSuffix(leaf.bucket, leaf.generation);
  return rows.map((row) => {
    const own = row.name.endsWith(suffix) ? row.name.slice(0, -suffix.length) : row.name;
    let { definition } = row;
    if (row.tableId !== null) {
      const referenced = leafOf?.(row.tableId);
      if (referenced === undefined) throw refersToSharded(own);
      definition = definition.replace(` REFERENCES ${row.relation}(`, () => ` REFERENCES ${referenced}(`);
    }
    return `ALTER TABLE ${name} ADD CONSTRAINT ${quoteIdentifier(nameOfKey(own))} ${definition}`;
  });
}

function refersToSharded(constraint: string) {
  return notSupported(
    `foreign key "${constraint}" references a sharded table`,
    'Drop the constraint, bring both tables back, and add it again.',
  );
}

async function readTableComment(home: ControlConnection, oid: number, name: string): Promise<string[]> {
  const [row] = await home.query<{ text: string | null }>(`SELECT obj_description($1, 'pg_class') AS text`, [
    oid,
  ]);
  return row?.text ? [`COMMENT ON TABLE ${name} IS ${quoteLiteral(row.text)}`] : [];
}

const ENABLING: Readonly<Record<string, string>> = { D: 'DISABLE', R: 'ENABLE REPLICA', A: 'ENABLE ALWAYS' };

async function readTriggers({ connection, oid }: LeafAt, name: string): Promise<string[]> {
  const rows = await connection.query<{ name: string; text: string; leaf: string; enabled: string }>(
    `SELECT tgname AS name, pg_get_triggerdef(oid) AS text, tgrelid::regclass::text AS leaf, tgenabled::text AS enabled
     FROM pg_trigger t WHERE tgrelid = $1 AND NOT tgisinternal AND NOT EXISTS (SELECT FROM pg_proc p
       WHERE p.oid = t.tgfoid AND p.pronamespace IN ('${LEAF_SCHEMA}'::regnamespace, '${COMMIT_SCHEMA}'::regnamespace)) ORDER BY tgname`,
    [oid],
  );
  return rows.flatMap((row) => {
    const trigger = quoteIdentifier(row.name);
    const text = row.text.replace(` ON ${row.leaf} `, () => ` ON ${name} `);
    const enabling = ENABLING[row.enabled];
    return enabling === undefined ? [text] : [text, `ALTER TABLE ${name} ${enabling} TRIGGER ${trigger}`];
  });
}

async function readPolicies({ connection, oid }: LeafAt, name: string): Promise<string[]> {
  const rows = await connection.query<{ text: string }>(
    `SELECT format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s', p.polname, $2::text,
       CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
       CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
       (SELECT string_agg(CASE r.role WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r.role)) END, ', ')
        FROM unnest(p.polroles) AS r (role)),
       ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
       ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')') AS text
     FROM pg_policy p WHERE p.polrelid = $1 ORDER BY p.polname`,
    [oid, name],
  );
  return rows.map(({ text }) => text);
}

async function readGrants({ connection, oid }: LeafAt, name: string): Promise<string[]> {
  const rows = await connection.query<{ text: string }>(
    `SELECT format('GRANT %s%s ON %s TO %s%s', g.privilege_type, g.columns, $2::text, coalesce(quote_ident(r.rolname), 'PUBLIC'),
       CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' END) AS text
     FROM (SELECT a.grantee, a.privilege_type, a.is_grantable, '' AS columns FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
             WHERE c.oid = $1 AND a.grantee <> c.relowner
           UNION ALL SELECT a.grantee, a.privilege_type, a.is_grantable, format(' (%I)', k.attname)
             FROM pg_attribute k CROSS JOIN aclexplode(k.attacl) a WHERE k.attrelid = $1 AND NOT k.attisdropped) g
     LEFT JOIN pg_roles r ON r.oid = g.grantee ORDER BY 1`,
    [oid, name],
  );
  return rows.map(({ text }) => text);
}

/** Names in texts were printed under it. */
export function asOwner(owner: string): DdlSession {
  return { role: owner, searchPath: 'pg_catalog' };
}
