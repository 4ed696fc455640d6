/**
 * What DDL inside a client's transaction works with (SPEC.md): the transaction's branches on all nodes, as session/ddl-run.ts
 * gives them, and what the router commits for itself before it, outside of the transaction.
 */
import type { ClusterMap, NodeInfo, TablePlacement } from '../catalog/map.ts';
import type { StatementSigner } from '../catalog/signed-statements.ts';
import type { KeyTypeName } from '../pg/hash/key-type.ts';
import type { PlacementOptions } from '../plan/placement-options.ts';
import { ServerError } from '../platform/control-connection.ts';
import type { DdlSession, SqlConnection } from './context.ts';
import type { Job, JobSpec } from './jobs.ts';

/** One node's branch of the client's transaction, inside a savepoint of the router's. */
export interface DdlBranch extends SqlConnection {
  readonly nodeId: number;
  /** Asks PostgreSQL's catalogs as the client, with search_path pg_catalog: names come out qualified. */
  query: SqlConnection['query'];
  /** Texts as the client, in order, in one write. `searchPath`: default the client's own. */
  run(texts: readonly string[], searchPath?: string): Promise<void>;
  /** The rows of a question that finds names by the client's own search_path, as texts. */
  texts(text: string): Promise<(string | null)[][]>;
  /** With the rights of Postern's role (signed-statements.ts), and search_path pg_catalog. Rows of a SELECT come as JSON has them. */
  readonly postern: SqlConnection;
  /** A statement with these rights. `values` take the places of $1, $2, …. */
  signed(statement: string, values?: readonly unknown[]): Promise<void>;
  /** The same; gives the only column of its first row, which is JSON. */
  signedValue<T>(statement: string): Promise<T>;
}

export interface DdlWorld {
  readonly nodes: readonly NodeInfo[];
  readonly homeNodeId: number;
  /** With what the transaction has changed before. */
  readonly map: ClusterMap;
  readonly session: DdlSession;
  readonly services: DdlServices;
  readonly home: DdlBranch;
  /** All but home's. */
  readonly others: readonly DdlBranch[];
  /** What maps are read from has changed: the epoch goes up with the commit. */
  noteCatalogChange(): void;
  notice(sqlState: string, message: string): void;
}

/** Where the buckets of a table are. */
export interface ChosenGroup {
  readonly colocationId: number;
  readonly placement: TablePlacement;
  /** Index = bucket. */
  readonly nodeIds: readonly number[];
}

/** Steps that are committed by the router itself, outside of the client's transaction, and do no harm if that is rolled back. */
export interface DdlServices {
  readonly signer: StatementSigner;
  /** For tests. */
  readonly beforeStep: ((step: string) => Promise<void> | void) | undefined;
  /** An id and a generation for a table, which nobody else will ever get. */
  reserveTable(): Promise<{ readonly id: number; readonly generation: number }>;
  /** The colocation group for a table that names none: found, or made. */
  ensureGroup(request: GroupRequest): Promise<ChosenGroup>;
  /** Lets the role make leaves of its own on this node. */
  grantLeafSchema(nodeId: number, role: string): Promise<void>;
  /** A job of its own (jobs.ts), or the one that was begun with the same text. Its connection is closed by its release(). */
  openJob(spec: JobSpec): Promise<Job>;
  /** Undefined: it is over. */
  reopenJob(id: number): Promise<Job | undefined>;
  unfinishedJobs(role: string): Promise<readonly number[]>;
  /** Commits changes of the catalog, with the next epoch. */
  changeCatalog(statements: readonly string[]): Promise<void>;
  /** Who holds what this backend waits for, in words for a hint; undefined: nobody. */
  blockersOf(nodeId: number, processId: number): Promise<string | undefined>;
}

export interface GroupRequest {
  readonly keyType: KeyTypeName;
  readonly placement: PlacementOptions | undefined;
  readonly nodes: readonly string[] | undefined;
  /** 'none': nobody else may join it. */
  readonly colocateWith: 'none' | undefined;
}

/** On home first, and then on all others side by side. */
export async function everywhere<T>(
  world: Pick<DdlWorld, 'home' | 'others'>,
  work: (branch: DdlBranch) => Promise<T>,
): Promise<T[]> {
  const first = await work(world.home);
  return [first, ...(await settledAll(world.others.map(work)))];
}

/** Home has taken the same: what another node says makes sense only with that node's name. */
export async function naming(branch: DdlBranch, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    throw error.withHint(`This comes from node "${branch.nodeName}", and not from the home node.`);
  }
}

/** Waits for all, then throws the first error. */
export async function settledAll<T>(work: readonly Promise<T>[]): Promise<T[]> {
  const results = await Promise.allSettled(work);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
  return results.map((result) => (result as PromiseFulfilledResult<T>).value);
}
