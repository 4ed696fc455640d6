/**
 * Who owns leaves needs CREATE on their schema: to make them, their indexes and constraints, and to rename them. It is granted once
 * on each node, outside of the client's transaction, since two transactions that grant on one schema fail ("tuple concurrently
 * updated").
 */
import { LEAF_SCHEMA, type ShardedTable } from '../catalog/map.ts';
import { GRANT_LOCK } from '../catalog/schema.ts';
import { quoteIdentifier } from '../pg/identifier.ts';
import type { SqlConnection } from './context.ts';
import { type DdlBranch, type DdlWorld, settledAll } from './world.ts';

type RightsBranch = Pick<DdlBranch, 'nodeId' | 'query'>;

export interface RightsWorld extends Pick<DdlWorld, 'services'> {
  readonly home: RightsBranch;
  readonly others: readonly RightsBranch[];
}

/** On the control path: unless it may already, so that a schema's row is written once for each role. */
export async function grantLeafSchema(connection: SqlConnection, role: string): Promise<void> {
  const rows = await connection.query<{ may: boolean }>(
    `SELECT pg_catalog.has_schema_privilege($1, $2, 'CREATE') AS may`,
    [role, LEAF_SCHEMA],
  );
  if (rows[0]?.may) return;
  await connection.query(`SELECT ${GRANT_LOCK}`);
  await connection.query(`GRANT CREATE ON SCHEMA ${LEAF_SCHEMA} TO ${quoteIdentifier(role)}`);
}

/** Sees to it that the owners of these tables, and the role given, may make leaves. */
export async function mayOwnLeaves(
  world: RightsWorld,
  tables: readonly Pick<ShardedTable, 'schema' | 'name'>[],
  role: string | undefined,
): Promise<void> {
  if (tables.length === 0 && role === undefined) return;
  const owners = await world.home.query<{ owner: string }>(
    `SELECT DISTINCT pg_get_userbyid(c.relowner) AS owner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest($1::text[], $2::text[]))
       AND pg_has_role(c.relowner, 'USAGE')`,
    [tables.map(({ schema }) => schema), tables.map(({ name }) => name)],
  );
  const roles = new Set(owners.map(({ owner }) => owner));
  if (role !== undefined) roles.add(role);
  await settledAll(
    [world.home, ...world.others].flatMap((branch) =>
      [...roles].map((one) => mayMakeLeaves(world, branch, one)),
    ),
  );
}

async function mayMakeLeaves(world: RightsWorld, branch: RightsBranch, role: string): Promise<void> {
  if (await mayAlready(branch, role)) return;
  await world.services.grantLeafSchema(branch.nodeId, role);
  // A question that locks a relation makes the branch's backend see it: CREATE TABLE judges by what its backend knew before.
  await mayAlready(branch, role);
}

async function mayAlready(branch: RightsBranch, role: string): Promise<boolean> {
  const [row] = await branch.query<{ may: boolean | null }>(
    `SELECT has_schema_privilege(r.oid, $2, 'CREATE') AS may FROM pg_roles r WHERE r.rolname = $1`,
    [role, LEAF_SCHEMA],
  );
  return row?.may !== false;
}
