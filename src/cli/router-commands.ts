/** What the router itself carries out for a client over the control path: tables with a door, and switches of tables without one. */
import { unreachable } from '../base/assert.ts';
import { createCoalescing, setCoalescing } from '../catalog/coalescing.ts';
import { type DdlContext, withConnection } from '../ddl/context.ts';
import { dropTables } from '../ddl/drop.ts';
import { createReferenceTable, makeReferenceTable } from '../doors/reference/create.ts';
import { createShardedTable } from '../doors/sharded/create.ts';
import { distributeTable } from '../doors/sharded/distribute.ts';
import { grantOnShardedTables } from '../doors/sharded/grant.ts';
import { mergesOf } from '../doors/sharded/make.ts';
import { truncateShardedTables } from '../doors/sharded/truncate.ts';
import type { CommandResult, CommandSession } from '../execute/context.ts';
import type { RouterCommand } from '../plan/plan.ts';
import type { ControlConnection } from '../platform/control-connection.ts';

export async function runCommand(
  sharding: DdlContext,
  command: Exclude<RouterCommand, { kind: 'tellOutcome' }>,
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
    case 'dropTables': {
      const { notices } = await dropTables(sharding, command, session);
      return { tag: 'DROP TABLE', row: undefined, notices };
    }
    case 'truncateTables': {
      const { notices } = await truncateShardedTables(sharding, command, session);
      return { tag: 'TRUNCATE TABLE', row: undefined, notices };
    }
    case 'grantOnTables': {
      const { notices } = await grantOnShardedTables(sharding, command, session);
      return { tag: command.isGrant ? 'GRANT' : 'REVOKE', row: undefined, notices };
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
