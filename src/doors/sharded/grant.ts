/**
 * GRANT and REVOKE on sharded tables: the client's own text with the leaves in place of the tables, on each node as the
 * client, so that PostgreSQL itself judges its rights. In open transactions on all nodes, which then all commit, as TRUNCATE
 * does (SPEC.md). The face is left alone: nobody has a privilege on it.
 */
import { PosternError } from '../../base/errors.ts';
import type { ShardedTable } from '../../catalog/map.ts';
import { asClient, type DdlContext, type DdlResult, type DdlSession } from '../../ddl/context.ts';
import type { RouterCommand } from '../../plan/plan.ts';
import { type ControlConnection, ServerError } from '../../platform/control-connection.ts';
import { leavesOn, onAllNodes } from './on-all-nodes.ts';

type GrantCommand = Extract<RouterCommand, { kind: 'grantOnTables' }>;

export async function grantOnShardedTables(
  context: DdlContext,
  command: GrantCommand,
  session: DdlSession,
): Promise<DdlResult> {
  await onAllNodes({
    ...{ context, done: 'granted', partly: partlyGranted },
    work: (connection) => grantOnNode(connection, command, session),
  });
  return { notices: [] };
}

async function grantOnNode(
  connection: ControlConnection,
  { tables, before, after }: GrantCommand,
  session: DdlSession,
): Promise<void> {
  const leaves = await leavesOn(connection, tables);
  if (leaves.length === 0) return;
  await asClient(connection, session);
  try {
    await connection.query(`${before}${leaves.join(', ')}${after}`);
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    throw inUsersNames(error, tables, connection.nodeName);
  }
}

/** What a server says of a leaf, said of its table. */
function inUsersNames(error: ServerError, tables: readonly ShardedTable[], nodeName: string): PosternError {
  const message = error.message.replaceAll(/\b[^\s"]+_b\d+_g\d+\b/g, (leaf) => {
    const table = tables.find(({ name }) => leaf.startsWith(`${name}_b`));
    return table?.name ?? leaf;
  });
  return new PosternError({
    sqlState: error.sqlState,
    message,
    detail: error.fields.get('D'),
    hint: error.fields.get('H') ?? `This comes from node "${nodeName}"; nothing was changed on any node.`,
  });
}

/** Sending the same again is right: privileges that are there already stay as they are. */
function partlyGranted(nodeNames: readonly string[]): PosternError {
  return new PosternError({
    sqlState: '08007',
    message: `the privileges are committed on nodes ${nodeNames.join(', ')}, and the outcome on the others is unknown`,
    hint: 'Send the same statement again.',
  });
}
