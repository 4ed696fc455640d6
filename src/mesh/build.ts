/**
 * Brings one mesh's database to what it should be, under an advisory lock, so that of several routers one does it and the
 * others find it done.
 *
 *   whatever is there ──the base differs──▶ empty ──base──▶ tables, one transaction each ──▶ late ──▶ mark
 *                     └─some tables differ──▶ those are dropped and made, each in one transaction ──▶ mark
 *
 * Invariant: the mark says that all is as it was when home had that mark; it is taken away before anything is changed.
 * Invariant: a table that can be seen is whole.
 */
import { quoteIdentifier, quoteLiteral } from '../pg/identifier.ts';
import { type ControlConnection, ServerError } from '../platform/control-connection.ts';
import type { LeftOut, Making, MeshObjects, MeshTable } from './objects.ts';

/** Of a mesh's database: what is known of it. */
const SCHEMA = 'postern_mesh';
const LOCK = `pg_catalog.pg_advisory_lock(${0x706f7374}, 7)`;

const OWN_OBJECTS = `CREATE SCHEMA IF NOT EXISTS ${SCHEMA}; REVOKE ALL ON SCHEMA ${SCHEMA} FROM PUBLIC;
CREATE SCHEMA IF NOT EXISTS postern_leaves; REVOKE ALL ON SCHEMA postern_leaves FROM PUBLIC;
CREATE TABLE IF NOT EXISTS ${SCHEMA}.state (one bool PRIMARY KEY DEFAULT true CHECK (one), mark text, base text);
INSERT INTO ${SCHEMA}.state DEFAULT VALUES ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS ${SCHEMA}.tables (key text PRIMARY KEY, fingerprint text NOT NULL, drop_text text NOT NULL);
CREATE TABLE IF NOT EXISTS ${SCHEMA}.left_out (kind text NOT NULL, name text NOT NULL, reason text NOT NULL)`;

export interface BuildRequest {
  readonly mark: string;
  /** CREATE SERVER … for each node. */
  readonly servers: string;
  /** ALTER DATABASE … SET: of home's database. */
  readonly settings: string;
  readonly objects: MeshObjects;
}

/** Gives what had to be left out. */
export async function buildMesh(mesh: ControlConnection, request: BuildRequest): Promise<readonly LeftOut[]> {
  // Another router may be at it, and long; a reader of a table that changes is not waited for as long, since others wait behind.
  await mesh.query(`SET lock_timeout = '50s'; SELECT ${LOCK}; SET lock_timeout = '5s'`);
  try {
    return await buildLocked(mesh, request);
  } finally {
    if (!mesh.lost) await mesh.query(`SELECT pg_catalog.pg_advisory_unlock_all()`);
  }
}

async function buildLocked(mesh: ControlConnection, request: BuildRequest): Promise<readonly LeftOut[]> {
  const [there] = await mesh.query<{ there: boolean }>(
    `SELECT to_regclass('${SCHEMA}.left_out') IS NOT NULL AS there`,
  );
  if (!there?.there) await mesh.query(OWN_OBJECTS);
  const [state] = await mesh.query<{ mark: string | null; base: string | null }>(
    `SELECT mark, base FROM ${SCHEMA}.state`,
  );
  if (state?.mark === request.mark) return await readLeftOut(mesh);
  const { objects } = request;
  const rows = await mesh.query<{ key: string; fingerprint: string; drop_text: string }>(
    `SELECT key, fingerprint, drop_text FROM ${SCHEMA}.tables`,
  );
  const found = new Map(rows.map((row) => [row.key, row]));
  const wanted = new Map(objects.tables.map((table) => [table.key, table]));
  const stale = rows.filter(({ key, fingerprint }) => wanted.get(key)?.fingerprint !== fingerprint);
  // What is dropped takes the views of it along.
  const isWhole = state?.base !== objects.baseFingerprint || (stale.length > 0 && objects.late.length > 0);
  await mesh.query(`UPDATE ${SCHEMA}.state SET mark = NULL${isWhole ? ', base = NULL' : ''}`);
  const leftOut: LeftOut[] = [...objects.leftOut];
  for (const { key, drop_text: drop } of isWhole ? rows : stale) {
    await mesh.query(`BEGIN; ${drop}; DELETE FROM ${SCHEMA}.tables WHERE key = ${quoteLiteral(key)}; COMMIT`);
    found.delete(key);
  }
  if (isWhole) {
    await mesh.transaction(async () => {
      await dropAll(mesh);
      await mesh.query(request.servers);
      await make(mesh, objects.base, leftOut);
    });
    await mesh.query(request.settings);
  }
  for (const table of objects.tables) if (!found.has(table.key)) await makeTable(mesh, table, leftOut);
  if (isWhole) await mesh.transaction(() => make(mesh, objects.late, leftOut));
  else
    leftOut.push(
      ...(await readLeftOut(mesh)).filter((one) => !leftOut.some(({ name }) => name === one.name)),
    );
  await mesh.query(
    `BEGIN; DELETE FROM ${SCHEMA}.left_out;
     ${leftOut.map(({ kind, name, reason }) => `INSERT INTO ${SCHEMA}.left_out VALUES (${[kind, name, reason].map(quoteLiteral).join(', ')});`).join('\n')}
     UPDATE ${SCHEMA}.state SET mark = ${quoteLiteral(request.mark)}, base = ${quoteLiteral(objects.baseFingerprint)};
     COMMIT`,
  );
  return leftOut;
}

async function readLeftOut(mesh: ControlConnection): Promise<readonly LeftOut[]> {
  return await mesh.query<LeftOut>(`SELECT kind, name, reason FROM ${SCHEMA}.left_out`);
}

/** All but what is known of the mesh itself. */
async function dropAll(mesh: ControlConnection): Promise<void> {
  const drops = await mesh.query<{ text: string }>(
    `SELECT format('DROP EXTENSION IF EXISTS %I CASCADE', extname) AS text FROM pg_extension WHERE extname NOT IN ('plpgsql', 'postgres_fdw')
     UNION ALL SELECT format('DROP SERVER IF EXISTS %I CASCADE', srvname) FROM pg_foreign_server
     UNION ALL SELECT format('DROP SCHEMA IF EXISTS %I CASCADE', nspname) FROM pg_namespace
       WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'postern_leaves', '${SCHEMA}')`,
  );
  for (const { text } of drops) await mesh.query(text);
}

/** In an open transaction. Each by itself: one that fails is left out. */
async function make(mesh: ControlConnection, makings: readonly Making[], leftOut: LeftOut[]): Promise<void> {
  await mesh.query('SET LOCAL check_function_bodies = off');
  let waiting = makings;
  // What names something that is made behind it is tried again.
  for (let last = Number.POSITIVE_INFINITY; waiting.length > 0 && waiting.length < last; ) {
    last = waiting.length;
    const failed: { making: Making; error: ServerError }[] = [];
    for (const making of waiting) {
      const error = await attempt(mesh, making.text);
      if (error && !making.orElse) throw error;
      if (error) failed.push({ making, error });
    }
    waiting = failed.map(({ making }) => making);
    if (waiting.length === last)
      for (const { making, error } of failed) leftOut.push({ ...making.orElse!, reason: error.message });
  }
}

async function attempt(mesh: ControlConnection, text: string): Promise<ServerError | undefined> {
  try {
    await mesh.query(`SAVEPOINT attempt; ${text};\nRELEASE attempt`);
    return undefined;
  } catch (error) {
    if (!isOfItsOwn(error)) throw error;
    await mesh.query('ROLLBACK TO attempt; RELEASE attempt');
    return error;
  }
}

/** Nothing that another time, or another lock, would change. */
function isOfItsOwn(error: unknown): error is ServerError {
  return error instanceof ServerError && /^(0A|2[0-8B]|42|3F|22)/.test(error.sqlState);
}

async function makeTable(mesh: ControlConnection, table: MeshTable, leftOut: LeftOut[]): Promise<void> {
  await mesh.transaction(async () => {
    const error = await attempt(mesh, table.text);
    if (error) {
      leftOut.push({ ...table.orElse, reason: error.message });
      return;
    }
    await mesh.query(`INSERT INTO ${SCHEMA}.tables VALUES ($1, $2, $3)`, [
      table.key,
      table.fingerprint,
      table.drop,
    ]);
  });
}

/**
 * Tables that are split alike are joined part by part. Without statistics of the nodes' tables postgres_fdw takes a join on a
 * node for one of all rows with all rows, and would fetch both sides: so what can be joined there is, since joining here is said
 * to be the last thing to do. (To ask the nodes for estimates instead costs a round trip for each way to read each bucket.)
 */
const PLANNING: readonly (readonly [setting: string, value: string])[] = [
  ['enable_partitionwise_join', 'on'],
  ['enable_partitionwise_aggregate', 'on'],
  ['enable_hashjoin', 'off'],
  ['enable_mergejoin', 'off'],
  ['enable_nestloop', 'off'],
  // Before PostgreSQL 18 the last thing to do has a cost at which it would compile each statement.
  ['jit', 'off'],
];

/** The text that makes home's settings those of the mesh's database; what a mesh needs itself comes last. */
export function settingsText(
  database: string,
  settings: readonly { readonly role: string | null; readonly name: string; readonly value: string }[],
  roles: ReadonlySet<string>,
): string {
  const name = quoteIdentifier(database);
  const own = PLANNING.map(([setting, value]) => `ALTER DATABASE ${name} SET ${setting} = ${value}`);
  const others = settings
    .filter(({ role }) => role === null || roles.has(role))
    .map(({ role, name: setting, value }) => {
      const target = role === null ? `DATABASE ${name}` : `ROLE ${quoteIdentifier(role)} IN DATABASE ${name}`;
      return `ALTER ${target} SET ${quoteIdentifier(setting)} = ${isList(setting) ? quotedList(value) : quoteLiteral(value)}`;
    });
  // Nobody makes anything there but Postern.
  const closed = `REVOKE TEMP ON DATABASE ${name} FROM PUBLIC`;
  return [closed, `ALTER DATABASE ${name} RESET ALL`, ...others, ...own].join(';\n');
}

/** Its value is a list of names. */
function isList(setting: string): boolean {
  return [
    'search_path',
    'temp_tablespaces',
    'local_preload_libraries',
    'session_preload_libraries',
    'datestyle',
  ].includes(setting.toLowerCase());
}

/**
 * The names of a list, as PostgreSQL's SplitIdentifierString finds them, each as a literal. The value comes from whoever has set it,
 * and is kept as it was written (SET … FROM CURRENT): without blanks, anything may stand in it unquoted.
 */
export function quotedList(value: string): string {
  const names: string[] = [];
  for (const [, quoted, plain] of value.matchAll(/\s*(?:"((?:[^"]|"")*)"|([^\s,]+))\s*(?:,|$)/g))
    names.push(quoteLiteral(quoted?.replaceAll('""', '"') ?? plain!.toLowerCase()));
  return names.length === 0 ? "''" : names.join(', ');
}
