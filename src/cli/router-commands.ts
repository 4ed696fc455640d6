/** What the router itself carries out for a client over the control path: tables with a door, and switches of tables without one. */
import { unreachable } from '../base/assert.ts';
import { notSupported } from '../base/errors.ts';
import { createCoalescing, setCoalescing } from '../catalog/coalescing.ts';
import { type DdlContext, withConnection } from '../ddl/context.ts';
import { findDoorTable } from '../ddl/door-table.ts';
import { dropTables } from '../ddl/drop.ts';
import { createReferenceTable, makeReferenceTable } from '../doors/reference/create.ts';
import { unshardReferenceTable } from '../doors/reference/unshard.ts';
import { distributeSchema, undistributeSchema } from '../doors/schema/distribute.ts';
import { createShardedTable } from '../doors/sharded/create.ts';
import { distributeTable } from '../doors/sharded/distribute.ts';
import { mergesOf } from '../doors/sharded/make.ts';
import { pinTenant } from '../doors/sharded/pin-tenant.ts';
import { unshardTable } from '../doors/sharded/unshard.ts';
import type { CommandResult, CommandSession } from '../execute/context.ts';
import type { RouterCommand } from '../plan/plan.ts';
import type { ControlConnection } from '../platform/control-connection.ts';

export async function runCommand(
  sharding: DdlContext,
  command: Exclude<RouterCommand, { kind: 'tellOutcome' | 'resetStatements' | 'refreshStatistics' }>,
  session: CommandSession,
): Promise<CommandResult> {
  switch (command.kind) {
    case 'createShardedTable': {
      const { notices } = await createShardedTable(sharding, command, session);
      return { tag: 'CREATE TABLE', row: undefined, notices };
    }
    case 'distributeTable': {
      const { notices } = await distributeTable(sharding, command, session);
      const { functionName } = command;
      return functionName === undefined
        ? { tag: 'ALTER TABLE', row: undefined, notices }
        : { tag: 'SELECT 1', row: { column: functionName, value: '' }, notices };
    }
    case 'createReferenceTable': {
      const { notices } = await createReferenceTable(sharding, command, session);
      return { tag: 'CREATE TABLE', row: undefined, notices };
    }
    case 'makeReferenceTable': {
      const { notices } = await makeReferenceTable(sharding, command, session);
      const { functionName } = command;
      return functionName === undefined
        ? { tag: 'ALTER TABLE', row: undefined, notices }
        : { tag: 'SELECT 1', row: { column: functionName, value: '' }, notices };
    }
    case 'unshardTable': {
      const table = await findDoorTable(sharding, command.relation, session);
      await (table.door === 'reference' ? unshardReferenceTable : unshardTable)(sharding, table);
      const { functionName } = command;
      return functionName === undefined
        ? { tag: 'ALTER TABLE', row: undefined, notices: [] }
        : { tag: 'SELECT 1', row: { column: functionName, value: '' }, notices: [] };
    }
    case 'pinTenant': {
      const table = await findDoorTable(sharding, command.relation, session);
      const pinned = await pinTenant(sharding, table, command, session);
      const message = `tenant "${command.tenant}" is on node "${command.node}" already`;
      return {
        ...{ tag: 'SELECT 1', row: { column: command.functionName, value: '' } },
        notices: pinned ? [] : [{ sqlState: '00000', message }],
      };
    }
    case 'distributeSchema':
    case 'undistributeSchema': {
      if (command.kind === 'distributeSchema') await distributeSchema(sharding, command, session);
      else await undistributeSchema(sharding, command, session);
      return { tag: 'SELECT 1', row: { column: command.functionName, value: '' }, notices: [] };
    }
    case 'dropTables': {
      const { notices } = await dropTables(sharding, command, session);
      return { tag: 'DROP TABLE', row: undefined, notices };
    }
    case 'createCoalescing': {
      const { coalesce, ...table } = command;
      const made = await onHome(sharding, (home) =>
        createCoalescing(home, { ...table, merges: mergesOf(coalesce) }, session),
      );
      const message = `relation "${command.name}" already exists, skipping`;
      return { tag: 'CREATE TABLE', row: undefined, notices: made ? [] : [{ sqlState: '42P07', message }] };
    }
    case 'setCoalescing': {
      const { relation, ifExists, functionName } = command;
      const merges = mergesOf(command.coalesce);
      const found = await onHome(sharding, (home) =>
        setCoalescing(home, { relation, ifExists, merges }, session),
      );
      if (functionName !== undefined)
        return { tag: 'SELECT 1', row: { column: functionName, value: '' }, notices: [] };
      const message = `relation "${relation}" does not exist, skipping`;
      return { tag: 'ALTER TABLE', row: undefined, notices: found ? [] : [{ sqlState: '00000', message }] };
    }
    case 'resumeDdl':
      // On connections of its own (session/ddl-outside.ts).
      throw new Error('it is carried out by the session');
    case 'addLookup':
    case 'dropLookup':
      throw notSupported(
        'this statement needs a transaction over all nodes',
        'Send it through postern serve.',
      );
    default:
      return unreachable(command);
  }
}

/** A change of the catalog, which this router knows of before its client does. */
async function onHome<T>(sharding: DdlContext, work: (home: ControlConnection) => Promise<T>): Promise<T> {
  const result = await withConnection(sharding, sharding.homeNodeId, work);
  await sharding.refresh().catch(() => undefined);
  return result;
}
