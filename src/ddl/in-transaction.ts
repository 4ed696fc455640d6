/**
 * What the doors have in common when they make a table inside the client's transaction: names as the client means them, and the
 * plain table that gets a door.
 */
import { notSupported, objectError } from '../base/errors.ts';
import { quoteIdentifier, quoteLiteral, quoteQualified } from '../pg/identifier.ts';
import { noSuchTable } from './context.ts';
import type { PlainTable } from './definition.ts';
import type { DdlBranch, DdlWorld } from './world.ts';

/** The schema named, or the one in which the client's CREATE TABLE makes an unqualified table. */
export async function schemaOfNewTable({ home }: DdlWorld, named: string | undefined): Promise<string> {
  const [row] = named === undefined ? await home.texts('SELECT pg_catalog.current_schema()') : [[named]];
  const schema = row?.[0];
  if (schema === null || schema === undefined)
    throw objectError('3F000', 'no schema has been selected to create in');
  if (/^pg_|^postern/.test(schema)) {
    throw notSupported(
      `a table with a door cannot be in schema "${schema}"`,
      'Name another schema, or put one first in search_path.',
    );
  }
  return schema;
}

/** By the client's search_path; undefined: there is none of that name. */
export async function relationNamed(
  { home }: DdlWorld,
  text: string,
): Promise<{ readonly oid: number; readonly schema: string; readonly name: string } | undefined> {
  const [row] = await home.texts(
    `SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = pg_catalog.to_regclass(${quoteLiteral(text)})`,
  );
  return row && { oid: Number(row[0]), schema: row[1]!, name: row[2]! };
}

export async function findOid(branch: DdlBranch, schema: string, name: string): Promise<number | undefined> {
  const rows = await branch.query<{ oid: number }>(
    `SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2`,
    [schema, name],
  );
  return rows[0]?.oid;
}

export interface LockedTable extends PlainTable {
  readonly owner: string;
  /** It has rows. */
  readonly filled: boolean;
}

/** A plain table that gets a door, locked to the end of the transaction. Throws what keeps it from that. */
export async function lockPlainTable(
  world: DdlWorld,
  relation: string,
  door: 'sharded' | 'reference',
): Promise<LockedTable> {
  const { home, map } = world;
  const named = await relationNamed(world, relation);
  if (!named) throw noSuchTable(relation);
  const { oid, schema, name } = named;
  const [row] = await home.query<{ owner: string; kind: string; mayOwn: boolean }>(
    `SELECT pg_get_userbyid(relowner) AS owner, relkind::text || relpersistence::text AS kind,
       pg_has_role(relowner, 'USAGE') AS "mayOwn" FROM pg_class WHERE oid = $1`,
    [oid],
  );
  if (!row) throw noSuchTable(relation);
  const { owner, kind, mayOwn } = row;
  if (!mayOwn) throw objectError('42501', `must be owner of table ${name}`);
  if (map.tables.get(schema)?.has(name) || map.references.get(schema)?.has(name))
    throw objectError('42P16', `table "${name}" has a door already`);
  if (kind !== 'rp' || /^(pg_|information_schema$|postern)/.test(schema)) {
    const what = door === 'sharded' ? 'sharded' : 'reference tables';
    throw objectError(
      '42809',
      `"${name}" is not an ordinary table`,
      `Only ordinary, permanent tables can be ${what}.`,
    );
  }
  const quoted = quoteQualified(schema, name);
  await home.run([`LOCK TABLE ${quoted} IN ACCESS EXCLUSIVE MODE`]);
  const [found] = await home.texts(`SELECT EXISTS (SELECT FROM ${quoted})`);
  return { oid, schema, name, owner, filled: found?.[0] === 't' };
}

/** As home has it: with its owner, if that role is there. */
export async function ensureSchemaInTransaction(
  { home, session }: DdlWorld,
  branch: DdlBranch,
  schema: string,
): Promise<void> {
  const found = await branch.query('SELECT FROM pg_namespace WHERE nspname = $1', [schema]);
  if (found.length > 0) return;
  const [at] = await home.query<{ owner: string }>(
    'SELECT pg_get_userbyid(nspowner) AS owner FROM pg_namespace WHERE nspname = $1',
    [schema],
  );
  const owners = await branch.query('SELECT FROM pg_roles WHERE rolname = $1', [at?.owner ?? '']);
  const owner = quoteIdentifier(owners.length > 0 && at ? at.owner : session.role);
  await branch.signed(`CREATE SCHEMA ${quoteIdentifier(schema)} AUTHORIZATION ${owner}`);
  await branch.signed(
    `GRANT USAGE, CREATE ON SCHEMA ${quoteIdentifier(schema)} TO ${quoteIdentifier(session.role)}`,
  );
}
