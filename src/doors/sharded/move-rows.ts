/**
 * Moves the rows of a plain table of the home node into the leaves of all nodes, before anybody can see these.
 *
 * On each node a staging table, partitioned as the face is, has the node's leaves as partitions for the time of one
 * transaction; PostgreSQL itself then puts each row where it belongs. Where listed keys stand beside keys that go by hash, it
 * takes two: by list, and by hash the rest.
 *
 * Invariant: nothing here runs a user's functions (ddl/users-code.ts), and all that names the table runs with its owner's role.
 */
import { objectError } from '../../base/errors.ts';
import { LEAF_SCHEMA, type NodeInfo, type TablePlacement } from '../../catalog/map.ts';
import {
  bucketCondition,
  type KeyColumn,
  partitionBound,
  partitionStrategy,
} from '../../catalog/placement-sql.ts';
import {
  asAdmin,
  asClient,
  type DdlContext,
  type DdlSession,
  otherNodes,
  withConnection,
} from '../../ddl/context.ts';
import { grantLeafSchema } from '../../ddl/leaf-rights.ts';
import { ROW_COPY_SETTINGS, ROW_COPY_TIMEOUT_MS } from '../../ddl/row-copy.ts';
import { statementOn } from '../../ddl/table-extras.ts';
import { refuseUsersCodeOf } from '../../ddl/users-code.ts';
import { quoteIdentifier, quoteQualified } from '../../pg/identifier.ts';
import type { ControlConnection } from '../../platform/control-connection.ts';
import { copyRows } from '../../platform/copy-rows.ts';
import type { Face } from './face.ts';
import type { ShardKey } from './key.ts';
import { qualifiedLeaf } from './leaf.ts';

export interface MoveRequest {
  /** Quoted and qualified. */
  readonly from: string;
  readonly owner: string;
  readonly columns: readonly string[];
  readonly face: Face;
  readonly key: ShardKey;
  readonly placement: TablePlacement;
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
  await refuseRowsWithoutBucket(home, request);
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
  const face = quoteQualified(request.face.schema, request.face.name);
  const checks = buckets.map((bucket) =>
    bucketCondition(request.placement, keyOf(request), { face, bucket }),
  );
  return `(${checks.join(' OR ')})`;
}

function keyOf({ key }: MoveRequest): KeyColumn {
  return { name: quoteIdentifier(key.column), type: key.type };
}

/** Keys that are not listed where there are no buckets for the others, and NULL where there are ranges. */
async function refuseRowsWithoutBucket(home: ControlConnection, request: MoveRequest): Promise<void> {
  const { placement, key, face } = request;
  if (placement.hashBuckets > 0) return;
  const all = request.nodeIds.map((_, bucket) => bucket);
  const rows = await home.query<{ key: string | null }>(
    `SELECT ${quoteIdentifier(key.column)}::text AS key FROM ${request.from} WHERE NOT ${inBuckets(request, all)} LIMIT 1`,
  );
  const [row] = rows;
  if (!row) return;
  throw objectError(
    '23514',
    `no bucket of table "${face.name}" takes the key ${row.key === null ? 'NULL' : `"${row.key}"`} of a row`,
    'List it, or give buckets for keys that are not listed: postern.buckets = 1.',
  );
}

/** Leaves the transaction with the owner's role; `unstage` gives it back. */
async function stage(
  connection: ControlConnection,
  request: MoveRequest,
  buckets: readonly number[],
): Promise<string> {
  const { placement, generation, face } = request;
  const staging = quoteQualified(LEAF_SCHEMA, `staging_g${generation}`);
  const leaf = qualifiedLeaf(face.name, buckets[0]!, generation);
  const like = `(LIKE ${leaf} INCLUDING GENERATED)`;
  const key = quoteIdentifier(request.key.column);
  const statements = isMixed(placement)
    ? [
        `CREATE TABLE ${staging} ${like} PARTITION BY LIST (${key})`,
        `CREATE TABLE ${hashedStaging(request)} ${like} PARTITION BY HASH (${key})`,
        `ALTER TABLE ${staging} ATTACH PARTITION ${hashedStaging(request)} DEFAULT`,
      ]
    : [
        `CREATE TABLE ${staging} ${like} PARTITION BY ${placement.lists.length > 0 ? 'LIST' : partitionStrategy(placement)} (${key})`,
      ];
  for (const bucket of buckets) {
    const bound = partitionBound(placement, request.key.type, bucket);
    statements.push(
      `ALTER TABLE ${stagingOf(request, bucket)} ATTACH PARTITION ${qualifiedLeaf(face.name, bucket, generation)} ${bound}`,
    );
  }
  await connection.query(ROW_COPY_SETTINGS);
  // A type of the same name may be another one here.
  for (const bucket of buckets)
    await refuseUsersCodeOf(connection, qualifiedLeaf(face.name, bucket, generation), { hasRows: true });
  await grantLeafSchema(connection, request.owner);
  await asClient(connection, ownerSession(request));
  await connection.query([...statements, ...quiet(request, buckets).before].join(';\n'));
  return staging;
}

/** Listed keys beside more than one bucket of others. */
function isMixed(placement: TablePlacement): boolean {
  return placement.lists.length > 0 && placement.hashBuckets > 1;
}

function hashedStaging({ generation }: MoveRequest): string {
  return quoteQualified(LEAF_SCHEMA, `staging_hash_g${generation}`);
}

/** Where the leaf of a bucket is attached. */
function stagingOf(request: MoveRequest, bucket: number): string {
  const { placement, generation } = request;
  const isHashed = isMixed(placement) && bucket < placement.hashBuckets;
  return isHashed ? hashedStaging(request) : quoteQualified(LEAF_SCHEMA, `staging_g${generation}`);
}

async function unstage(
  connection: ControlConnection,
  request: MoveRequest,
  buckets: readonly number[],
  staging: string,
): Promise<void> {
  const statements = buckets.map(
    (bucket) =>
      `ALTER TABLE ${stagingOf(request, bucket)} DETACH PARTITION ${qualifiedLeaf(request.face.name, bucket, request.generation)}`,
  );
  const { after } = quiet(request, buckets);
  await connection.query([...statements, `DROP TABLE ${staging}`, ...after].join(';\n'));
  await asAdmin(connection);
}

/** Rows that are moved are no new rows: no trigger fires for them, and no policy is asked. */
function quiet(
  { face, generation }: MoveRequest,
  buckets: readonly number[],
): { readonly before: readonly string[]; readonly after: readonly string[] } {
  const { statements } = face.extras;
  const hasTriggers = statements.some(({ before }) => /^CREATE (CONSTRAINT )?TRIGGER /.test(before));
  const states = statements.filter(({ after }) => TRIGGER_STATE.test(after));
  const forced = statements.filter(({ after }) => after === FORCED);
  const before: string[] = [];
  const after: string[] = [];
  for (const bucket of buckets) {
    const leaf = qualifiedLeaf(face.name, bucket, generation);
    if (hasTriggers) {
      before.push(`ALTER TABLE ${leaf} DISABLE TRIGGER USER`);
      after.push(`ALTER TABLE ${leaf} ENABLE TRIGGER USER`);
    }
    if (forced.length > 0) before.push(`ALTER TABLE ${leaf} NO FORCE ROW LEVEL SECURITY`);
    after.push(...[...states, ...forced].map((statement) => statementOn(leaf, statement)));
  }
  return { before, after };
}

const TRIGGER_STATE = /^ (DISABLE|ENABLE REPLICA|ENABLE ALWAYS) TRIGGER /;
const FORCED = ' FORCE ROW LEVEL SECURITY';
