/**
 * DDL inside clients' transactions, put together: what the router commits for it over the control path, and which door carries out
 * which command.
 */
import { assert } from '../base/assert.ts';
import { notSupported, objectError } from '../base/errors.ts';
import { storeCoalescing } from '../catalog/coalescing.ts';
import { bumpEpoch, INTERNAL_SCHEMA, PLACEMENT_LOCK } from '../catalog/schema.ts';
import { createSigner } from '../catalog/signed-statements.ts';
import { type DdlContext, type DdlResult, withConnection } from '../ddl/context.ts';
import { dropOnBranches } from '../ddl/drop-on-branches.ts';
import { findOid, relationNamed, schemaOfNewTable } from '../ddl/in-transaction.ts';
import { type Job, openJob, reopenJob, unfinishedJobs } from '../ddl/jobs.ts';
import { grantLeafSchema } from '../ddl/leaf-rights.ts';
import type { DdlServices, DdlWorld } from '../ddl/world.ts';
import {
  createReferenceInTransaction,
  makeReferenceInTransaction,
} from '../doors/reference/in-transaction.ts';
import { createShardedInTransaction, distributeInTransaction } from '../doors/sharded/in-transaction.ts';
import { mergesOf } from '../doors/sharded/make.ts';
import { choosePlacement } from '../doors/sharded/placement.ts';
import type { CommandResult, RouterDdl } from '../execute/context.ts';
import { addLookup, dropLookup } from '../lookup/ddl.ts';
import type { RouterCommand } from '../plan/plan.ts';
import type { ControlConnection } from '../platform/control-connection.ts';

type CommandOf<K extends RouterCommand['kind']> = Extract<RouterCommand, { kind: K }>;

export function routerDdl(
  context: DdlContext,
  cluster: {
    readonly id: string;
    readonly key: Buffer;
    readonly controls: HomeControls;
    readonly beforeStep: DdlServices['beforeStep'];
  },
): RouterDdl {
  const { homeNodeId } = context;
  return {
    signer: createSigner(cluster.id, cluster.key),
    beforeStep: cluster.beforeStep,
    reserveTable: () => cluster.controls.use(reserveTable),
    ensureGroup: (request) =>
      withConnection(context, homeNodeId, (home) =>
        home.transaction(async () => {
          await home.query(`SELECT ${PLACEMENT_LOCK}`);
          return await choosePlacement(context, home, { ...request, searchPath: '' });
        }),
      ),
    grantLeafSchema: (nodeId, role) =>
      withConnection(context, nodeId, (connection) =>
        connection.transaction(() => grantLeafSchema(connection, role)),
      ),
    openJob: (spec) => onOwnConnection(context, (home) => openJob(home, spec)),
    reopenJob: (id) => onOwnConnection(context, (home) => reopenJob(home, id)),
    unfinishedJobs: (role) => cluster.controls.use((home) => unfinishedJobs(home, role)),
    changeCatalog: (statements) =>
      withConnection(context, homeNodeId, (home) =>
        home.transaction(async () => {
          for (const statement of statements) await home.query(statement);
          await bumpEpoch(home);
        }),
      ),
    blockersOf: (nodeId, processId) =>
      withConnection(context, nodeId, (connection) => blockersOf(connection, processId)),
    runs: (command) => command.kind in COMMANDS,
    runCommand: async (command, world) => {
      const run = COMMANDS[command.kind] as
        | ((world: DdlWorld, command: RouterCommand) => Promise<CommandResult>)
        | undefined;
      if (!run)
        throw notSupported(
          'this command cannot run inside a transaction',
          'Send it outside of the transaction.',
        );
      return await run(world, command);
    },
  };
}

/** Closed if there is no job, and else with the job. */
async function onOwnConnection<T extends Job | undefined>(
  context: DdlContext,
  work: (home: ControlConnection) => Promise<T>,
): Promise<T> {
  const home = await context.connect(context.homeNodeId);
  let job: T | undefined;
  try {
    job = await work(home);
    return job;
  } finally {
    if (!job) await home.close();
  }
}

interface HomeControls {
  use<T>(work: (home: ControlConnection) => Promise<T>): Promise<T>;
}

const COMMANDS: {
  readonly [K in RouterCommand['kind']]?: (world: DdlWorld, command: CommandOf<K>) => Promise<CommandResult>;
} = {
  createShardedTable: async (world, command) => {
    const { made, ...result } = await createShardedInTransaction(world, command);
    for (const spec of made ? (command.uniques ?? []) : []) await addLookup(world, made!, spec);
    return told('CREATE TABLE', result);
  },
  addLookup: async (world, { table, spec, tag, ifNotExists }) => {
    const isThere = ifNotExists && (await findOid(world.home, table.schema, spec.name)) !== undefined;
    if (!isThere) await addLookup(world, table, spec);
    const notice = { sqlState: '42P07', message: `relation "${spec.name}" already exists, skipping` };
    return told(tag, { notices: isThere ? [notice] : [] });
  },
  dropLookup: async (world, { table, lookup, tag }) => {
    await dropLookup(world, table, lookup);
    return told(tag);
  },
  createReferenceTable: async (world, command) =>
    told('CREATE TABLE', await createReferenceInTransaction(world, command)),
  distributeTable: async (world, command) => {
    const { made, uniques, ...result } = await distributeInTransaction(world, command);
    for (const spec of uniques) await addLookup(world, made, spec);
    return doorGiven(command.functionName, result);
  },
  makeReferenceTable: async (world, command) =>
    doorGiven(command.functionName, await makeReferenceInTransaction(world, command)),
  dropTables: async (world, { tables, cascade }) => {
    await dropOnBranches(world, tables, { cascade });
    return told('DROP TABLE');
  },
  createCoalescing: async (world, command) => {
    const { home } = world;
    const { name, createText, coalesce } = command;
    const schema = await schemaOfNewTable(world, command.schema);
    if (command.ifNotExists && (await findOid(home, schema, name)) !== undefined) {
      const message = `relation "${name}" already exists, skipping`;
      return told('CREATE TABLE', { notices: [{ sqlState: '42P07', message }] });
    }
    await home.run([createText]);
    const oid = await findOid(home, schema, name);
    assert(oid !== undefined, 'the table that was just made is in its schema');
    await storeCoalescing(home.postern, oid, mergesOf(coalesce));
    world.noteCatalogChange();
    return told('CREATE TABLE');
  },
  setCoalescing: async (world, { relation, ifExists, coalesce, functionName }) => {
    const { home } = world;
    const named = await relationNamed(world, relation);
    if (!named && !ifExists) throw objectError('42P01', `relation "${relation}" does not exist`);
    if (named) {
      const [row] = await home.query<{ may: boolean }>(
        `SELECT pg_has_role(relowner, 'USAGE') AND relkind IN ('r', 'p') AND relpersistence <> 't' AS may FROM pg_class WHERE oid = $1`,
        [named.oid],
      );
      if (!row?.may) throw objectError('42501', `must be owner of table ${named.name}`);
      await storeCoalescing(home.postern, named.oid, mergesOf(coalesce));
      world.noteCatalogChange();
    }
    const message = `relation "${relation}" does not exist, skipping`;
    return doorGiven(functionName, { notices: named ? [] : [{ sqlState: '00000', message }] });
  },
};

function told(tag: string, { notices }: DdlResult = { notices: [] }): CommandResult {
  return { tag, row: undefined, notices };
}

/** ALTER TABLE … SET, or a function that does the same. */
function doorGiven(functionName: string | undefined, { notices }: DdlResult): CommandResult {
  if (functionName === undefined) return { tag: 'ALTER TABLE', row: undefined, notices };
  return { tag: 'SELECT 1', row: { column: functionName, value: '' }, notices };
}

/** Committed at once: whatever becomes of the transaction that it is for, nobody gets the same again. */
async function reserveTable(home: ControlConnection): Promise<{ id: number; generation: number }> {
  const [row] = await home.query<{ id: number; generation: number }>(
    `WITH counter AS (
       UPDATE ${INTERNAL_SCHEMA}.cluster SET next_generation = next_generation + 1 RETURNING next_generation - 1 AS g)
     SELECT nextval(pg_get_serial_sequence('${INTERNAL_SCHEMA}.tables', 'table_id'))::int AS id, g::int AS generation FROM counter`,
  );
  assert(row, 'the cluster has its row');
  return row;
}

async function blockersOf(connection: ControlConnection, processId: number): Promise<string | undefined> {
  const rows = await connection.query<{ text: string }>(
    `SELECT format('process %s of role %s, in its transaction since %s ago: %s', a.pid, a.usename,
       justify_interval(date_trunc('second', clock_timestamp() - a.xact_start)), left(a.query, 100)) AS text
     FROM unnest(pg_blocking_pids($1)) AS b (pid) JOIN pg_stat_activity a USING (pid) LIMIT 1`,
    [processId],
  );
  return rows[0]?.text;
}
