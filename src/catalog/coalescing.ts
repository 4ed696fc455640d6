/**
 * The switch of write coalescing of single tables, as the catalog keeps it: by the table's OID on the home node, so that
 * it stays with a table that is renamed, and is gone with one that is dropped. (For a sharded table it is the face's OID.)
 * execute/write-facts.ts reads it there, with all else that decides on merging.
 */
import { objectError } from '../base/errors.ts';
import { quoteIdentifier } from '../pg/identifier.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import { bumpEpoch, INTERNAL_SCHEMA } from './schema.ts';

/** All tables that have one: rows of (relation oid, merges bool). */
export const COALESCING_QUERY = `SELECT relation::pg_catalog.oid, merges FROM ${INTERNAL_SCHEMA}.coalescing`;

/** As the client is, so that names mean what they mean to it and PostgreSQL itself judges its rights. */
export interface CoalescingClient {
  readonly role: string;
  /** The value of the GUC search_path. */
  readonly searchPath: string;
}

/**
 * ALTER TABLE … SET (postern.coalesce = …); `merges` undefined: RESET. False: there is no such table, and `ifExists`.
 * Throws 42P01, 42501 and 42809 as PostgreSQL's own ALTER TABLE does.
 */
export async function setCoalescing(
  home: ControlConnection,
  request: { readonly relation: string; readonly ifExists: boolean; readonly merges: boolean | undefined },
  client: CoalescingClient,
): Promise<boolean> {
  return await home.transaction(async () => {
    const table = await asClient(home, client, () => findTable(home, request.relation, client.role));
    if (!table && request.ifExists) return false;
    if (!table) throw objectError('42P01', `relation "${request.relation}" does not exist`);
    if (!table.mayOwn) throw objectError('42501', `must be owner of table ${table.name}`);
    if (!['rp', 'pp', 'ru'].includes(table.kind)) {
      throw objectError(
        '42809',
        `"${table.name}" is not an ordinary or partitioned table`,
        'Only writes to those can share a transaction with others.',
      );
    }
    await storeCoalescing(home, table.oid, request.merges);
    await bumpEpoch(home);
    return true;
  });
}

/** CREATE TABLE … WITH (postern.coalesce = …) of a table without a door. False: IF NOT EXISTS, and it does. */
export async function createCoalescing(
  home: ControlConnection,
  request: {
    readonly schema: string | undefined;
    readonly name: string;
    readonly ifNotExists: boolean;
    readonly createText: string;
    readonly merges: boolean | undefined;
  },
  client: CoalescingClient,
): Promise<boolean> {
  return await home.transaction(async () => {
    const oid = await asClient(home, client, async () => {
      const [current] = await home.query<{ schema: string | null }>(
        'SELECT coalesce($1, pg_catalog.current_schema()) AS schema',
        [request.schema ?? null],
      );
      const place = [current?.schema ?? null, request.name];
      if (request.ifNotExists && (await findByName(home, place)) !== undefined) return undefined;
      await home.query(request.createText);
      return await findByName(home, place);
    });
    if (oid === undefined) return false;
    await storeCoalescing(home, oid, request.merges);
    await bumpEpoch(home);
    return true;
  });
}

/** In the caller's transaction, which adds one to the epoch. `merges` undefined: as without a switch. */
export async function storeCoalescing(
  home: Pick<ControlConnection, 'query'>,
  oid: number,
  merges: boolean | undefined,
): Promise<void> {
  // Tables that were dropped leave theirs behind, and an OID may come again one day.
  await home.query(
    `DELETE FROM ${INTERNAL_SCHEMA}.coalescing WHERE relation = $1::oid
       OR NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = relation)`,
    [oid],
  );
  if (merges === undefined) return;
  await home.query(`INSERT INTO ${INTERNAL_SCHEMA}.coalescing (relation, merges) VALUES ($1::oid, $2)`, [
    oid,
    merges,
  ]);
}

/** What a table has been set to; undefined: nothing. */
export async function readCoalescing(
  home: Pick<ControlConnection, 'query'>,
  oid: number,
): Promise<boolean | undefined> {
  const rows = await home.query<{ merges: boolean }>(
    `SELECT merges FROM ${INTERNAL_SCHEMA}.coalescing WHERE relation = $1::oid`,
    [oid],
  );
  return rows[0]?.merges;
}

async function asClient<T>(
  home: ControlConnection,
  client: CoalescingClient,
  work: () => Promise<T>,
): Promise<T> {
  await home.query(`SET LOCAL ROLE ${quoteIdentifier(client.role)}`);
  await home.query(`SELECT pg_catalog.set_config('search_path', $1, true)`, [client.searchPath]);
  const result = await work();
  await home.query('RESET ROLE; SET LOCAL search_path = pg_catalog');
  return result;
}

async function findTable(home: ControlConnection, relation: string, role: string) {
  const rows = await home.query<{ oid: number; name: string; kind: string; mayOwn: boolean }>(
    `SELECT c.oid, c.relname AS name, c.relkind::text || c.relpersistence::text AS kind,
       pg_catalog.pg_has_role($2::name, c.relowner, 'USAGE') AS "mayOwn"
     FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1)`,
    [relation, role],
  );
  return rows[0];
}

async function findByName(
  home: ControlConnection,
  place: readonly (string | null)[],
): Promise<number | undefined> {
  const rows = await home.query<{ oid: number }>(
    `SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = $1 AND c.relname = $2`,
    [...place],
  );
  return rows[0]?.oid;
}
