/**
 * What the DDL of tables with a door needs from the router, and the transactions it runs on nodes.
 *
 * Invariant: what a user's text or name decides runs with the user's own role and search_path, so that PostgreSQL itself
 * judges the rights; what Postern keeps for itself runs as the admin role with search_path pg_catalog.
 */
import { assert } from '../base/assert.ts';
import { objectError, type PosternError } from '../base/errors.ts';
import type { ClusterMap, NodeInfo } from '../catalog/map.ts';
import { quoteIdentifier } from '../pg/identifier.ts';
import { type ControlConnection, ServerError } from '../platform/control-connection.ts';

export interface DdlContext {
  readonly nodes: readonly NodeInfo[];
  readonly homeNodeId: number;
  /** A fresh connection of the control path, closed by the caller. */
  connect(nodeId: number, limits?: { readonly statementTimeoutMs: number }): Promise<ControlConnection>;
  /** Loads the map, so that this router knows a change before its client hears of it. */
  refresh(): Promise<ClusterMap>;
  /** Told of what needs an administrator. */
  readonly warn?: (message: string) => void;
  /** Called after each durable step of doors/sharded/SPEC.md, with its name. A test throws here. */
  readonly afterStep?: (step: string) => void;
}

/** A connection of the control path, or a branch of a client's transaction: what reads PostgreSQL's catalogs is the same on both. */
export interface SqlConnection {
  readonly nodeName: string;
  /** The rows of one statement. */
  query<Row extends object = Record<string, unknown>>(
    text: string,
    values?: readonly unknown[],
  ): Promise<Row[]>;
}

export interface DdlSession {
  readonly role: string;
  /** The value of the GUC, e.g. `"$user", public`. */
  readonly searchPath: string;
}

/** What the client is told besides the command's tag. */
export interface DdlResult {
  readonly notices: readonly { readonly sqlState: string; readonly message: string }[];
}

export function homeNode(context: DdlContext): NodeInfo {
  const home = context.nodes.find((node) => node.id === context.homeNodeId);
  assert(home, 'the home node is among the nodes');
  return home;
}

export function otherNodes(context: DdlContext): readonly NodeInfo[] {
  return context.nodes.filter((node) => node.id !== context.homeNodeId);
}

/** Opens a connection for `work` and closes it after, whatever happens; what is open in it is undone. */
export async function withConnection<T>(
  context: DdlContext,
  nodeId: number,
  work: (connection: ControlConnection) => Promise<T>,
): Promise<T> {
  const connection = await context.connect(nodeId);
  try {
    return await work(connection);
  } finally {
    await connection.close();
  }
}

/** From here to `asAdmin`, the transaction has the client's role and search_path. */
export async function asClient(connection: ControlConnection, session: DdlSession): Promise<void> {
  try {
    await connection.query(`SET LOCAL ROLE ${quoteIdentifier(session.role)}`);
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    throw error.withHint(
      `Role "${session.role}" must exist on node "${connection.nodeName}", and Postern's role must be a member of it.`,
    );
  }
  await connection.query(`SELECT pg_catalog.set_config('search_path', $1, true)`, [session.searchPath]);
}

export async function asAdmin(connection: ControlConnection): Promise<void> {
  await connection.query('RESET ROLE; SET LOCAL search_path = pg_catalog');
}

/** Waits for all, then throws the first error: no work goes on behind the caller's back. */
export async function all<T>(work: readonly Promise<T>[]): Promise<T[]> {
  const results = await Promise.allSettled(work);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
  return results.map((result) => (result as PromiseFulfilledResult<T>).value);
}

/** A transaction open on each node but the home, closed by the caller; all or none. */
export async function openTransactions(context: DdlContext): Promise<ControlConnection[]> {
  const opened = await Promise.allSettled(otherNodes(context).map((node) => context.connect(node.id)));
  const connections: ControlConnection[] = [];
  for (const result of opened) if (result.status === 'fulfilled') connections.push(result.value);
  try {
    for (const result of opened) if (result.status === 'rejected') throw result.reason;
    await all(connections.map((connection) => connection.query('BEGIN')));
    return connections;
  } catch (error) {
    await all(connections.map((connection) => connection.close()));
    throw error;
  }
}

/** A relation that should have been there has gone, e.g. dropped by another router a moment ago. */
export function noSuchTable(name: string): PosternError {
  return objectError('42P01', `table "${name}" does not exist`);
}
