/**
 * Moves the rows of a plain table of the home node into the leaves of all nodes, before anybody can see these.
 *
 * On each node a staging table, partitioned as the face is, has the node's leaves as partitions for the time of one
 * transaction; PostgreSQL itself then puts each row where it belongs.
 *
 * Invariant: what may run a user's functions (checks, generated columns, indexes) runs with the table's owner's role.
 */
import { LEAF_SCHEMA, type NodeInfo } from '../../catalog/map.ts';
import {
  asAdmin,
  asClient,
  type DdlContext,
  type DdlSession,
  otherNodes,
  withConnection,
} from '../../ddl/context.ts';
import { ROW_COPY_SETTINGS, ROW_COPY_TIMEOUT_MS } from '../../ddl/row-copy.ts';
import { quoteIdentifier, quoteLiteral, quoteQualified } from '../../pg/identifier.ts';
import type { ControlConnection } from '../../platform/control-connection.ts';
import { copyRows } from '../../platform/copy-rows.ts';
import type { Face } from './face.ts';
import { qualifiedLeaf } from './leaf.ts';

export interface MoveRequest {
  /** Quoted and qualified. */
  readonly from: string;
  readonly owner: string;
  readonly columns: readonly string[];
  readonly face: Face;
  readonly keyColumn: string;
  readonly generation: number;
  /** Index = bucket. */
  readonly nodeIds: readonly number[];
}

/** `home` has the transaction open in which the rows are still there. One node after the other. */
export async function moveRows(
  context: DdlContext,
  home: ControlConnection,
  request: MoveRequest,
): Promise<void> {
  const columns = request.columns.map(quoteIdentifier).join(', ');
  for (const node of otherNodes(context)) {
    const buckets = bucketsOf(request, node);
    if (buckets.length === 0) continue;
    await withConnection(context, node.id, (connection) =>
      connection.transaction(async () => {
        const staging = await stage(connection, request, buckets);
        await home.query(ROW_COPY_SETTINGS);
        await asClient(home, ownerSession(request));
        await copyRows({
          source: home,
          sourceText: `COPY (SELECT ${columns} FROM ${request.from} WHERE ${inBuckets(request, buckets)}) TO STDOUT`,
          target: connection,
          targetText: `COPY ${staging} (${columns}) FROM STDIN`,
          timeoutMs: ROW_COPY_TIMEOUT_MS,
        });
        await asAdmin(home);
        await unstage(connection, request, buckets, staging);
      }),
    );
  }
  const buckets = bucketsOf(request, { id: context.homeNodeId, name: '' });
  if (buckets.length === 0) return;
  const staging = await stage(home, request, buckets);
  await home.query(
    `INSERT INTO ${staging} (${columns}) SELECT ${columns} FROM ${request.from} WHERE ${inBuckets(request, buckets)}`,
  );
  await unstage(home, request, buckets, staging);
}

function ownerSession(request: MoveRequest): DdlSession {
  return { role: request.owner, searchPath: 'pg_catalog' };
}

function bucketsOf(request: MoveRequest, node: NodeInfo): readonly number[] {
  return request.nodeIds.flatMap((nodeId, bucket) => (nodeId === node.id ? [bucket] : []));
}

/** The server's own word on where a row belongs. */
function inBuckets(request: MoveRequest, buckets: readonly number[]): string {
  const face = quoteLiteral(quoteQualified(request.face.schema, request.face.name));
  const key = quoteIdentifier(request.keyColumn);
  const checks = buckets.map(
    (bucket) => `satisfies_hash_partition(${face}::regclass, ${request.nodeIds.length}, ${bucket}, ${key})`,
  );
  return `(${checks.join(' OR ')})`;
}

/** Leaves the transaction with the owner's role; `unstage` gives it back. */
async function stage(
  connection: ControlConnection,
  request: MoveRequest,
  buckets: readonly number[],
): Promise<string> {
  const staging = quoteQualified(LEAF_SCHEMA, `staging_g${request.generation}`);
  const leaf = qualifiedLeaf(request.face.name, buckets[0]!, request.generation);
  const key = quoteIdentifier(request.keyColumn);
  const attachments = buckets.map(
    (bucket) =>
      `ALTER TABLE ${staging} ATTACH PARTITION ${qualifiedLeaf(request.face.name, bucket, request.generation)}
       FOR VALUES WITH (MODULUS ${request.nodeIds.length}, REMAINDER ${bucket})`,
  );
  await connection.query(ROW_COPY_SETTINGS);
  await connection.query(`GRANT CREATE ON SCHEMA ${LEAF_SCHEMA} TO ${quoteIdentifier(request.owner)}`);
  await asClient(connection, ownerSession(request));
  await connection.query(
    [
      `CREATE TABLE ${staging} (LIKE ${leaf} INCLUDING GENERATED) PARTITION BY HASH (${key})`,
      ...attachments,
    ].join(';\n'),
  );
  return staging;
}

async function unstage(
  connection: ControlConnection,
  request: MoveRequest,
  buckets: readonly number[],
  staging: string,
): Promise<void> {
  const statements = buckets.map(
    (bucket) =>
      `ALTER TABLE ${staging} DETACH PARTITION ${qualifiedLeaf(request.face.name, bucket, request.generation)}`,
  );
  await connection.query([...statements, `DROP TABLE ${staging}`].join(';\n'));
  await asAdmin(connection);
  await connection.query(`REVOKE CREATE ON SCHEMA ${LEAF_SCHEMA} FROM ${quoteIdentifier(request.owner)}`);
}
