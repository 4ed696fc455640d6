/**
 * Commits one piece of work over several nodes, done on connections of the control path, all or nothing: two-phase commit as a
 * client's transaction has it (src/txn/SPEC.md), with home as the commit point. Marks and decision are those of src/txn, so
 * that any router's recovery ends what this one leaves behind, and its sweep takes the rows away.
 */
import { objectError, outcomeUnknown } from '../base/errors.ts';
import { COMMIT_SCHEMA } from '../catalog/map.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import { quoteLiteral } from '../pg/identifier.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import { formatGid } from '../txn/gid.ts';
import { registrationText, transactionKeyOf } from '../txn/registration.ts';
import { all } from './context.ts';

interface HomeFacts {
  readonly transactionId: string;
  readonly clusterId: string;
  readonly homeNodeId: number;
  readonly processId: number;
  readonly startedAtUs: string;
}

/** Before any work is done: 55000 if one of these servers prepares no transactions. */
export async function requirePreparedTransactions(others: readonly ControlConnection[]): Promise<void> {
  for (const connection of others) {
    const [row] = await connection.query<{ max: number }>(
      `SELECT current_setting('max_prepared_transactions')::int4 AS max`,
    );
    if (row && row.max > 0) continue;
    throw objectError(
      '55000',
      `node "${connection.nodeName}" prepares no transactions`,
      'This changes several nodes at once: set max_prepared_transactions above 0 there, and restart its server.',
    );
  }
}

/**
 * All connections are in their transactions. On a failure nothing is committed and all are rolled back; if it is not known
 * whether home has committed: 08007. What a node that can't be reached has prepared is ended by recovery.
 */
export async function commitTogether(options: {
  readonly home: ControlConnection;
  readonly others: readonly ControlConnection[];
  readonly afterStep?: ((step: string) => void) | undefined;
}): Promise<void> {
  const { home, others, afterStep } = options;
  if (others.length === 0) {
    await commitHome(home);
    return;
  }
  const facts = await homeFacts(home);
  const { transactionId } = facts;
  const gid = formatGid(facts.clusterId, {
    transactionId,
    commitPointNodeId: facts.homeNodeId,
    commitPointBackend: { processId: facts.processId, startedAtUs: Number(facts.startedAtUs) },
  });
  const nodeIds = await all(others.map((connection) => nodeIdOf(connection)));
  const participants = `{${nodeIds.join()}}`;
  const ends = (verb: string) =>
    Promise.allSettled(others.map((connection) => connection.query(`${verb} PREPARED ${quoteLiteral(gid)}`)));
  try {
    const owners = await all(
      others.map(async (connection) => {
        const owner = await mark(connection, { ...facts, participants });
        await connection.query(`PREPARE TRANSACTION ${quoteLiteral(gid)}`);
        return owner;
      }),
    );
    afterStep?.('prepared');
    await home.query(`SELECT ${COMMIT_SCHEMA}.decide($1, $2, $3)`, [transactionId, participants, owners[0]]);
  } catch (error) {
    // Nothing is decided, and home, where the decision would be, will not.
    await home.rollback();
    await all(others.map((connection) => connection.rollback()));
    await ends('ROLLBACK');
    throw error;
  }
  await commitHome(home).catch(async (error: unknown) => {
    if (!home.lost) await ends('ROLLBACK');
    throw error;
  });
  afterStep?.('decided');
  await ends('COMMIT');
}

async function commitHome(home: ControlConnection): Promise<void> {
  try {
    await home.query('COMMIT');
  } catch (error) {
    if (home.lost) throw outcomeUnknown(home.nodeName);
    throw error;
  }
}

/** Registers the transaction on home, and gives it an id there that is older than every abort row. */
async function homeFacts(home: ControlConnection): Promise<HomeFacts> {
  const [facts] = await home.query<HomeFacts>(
    `SELECT gen_random_uuid()::text AS "transactionId", n.cluster_id AS "clusterId", n.node_id AS "homeNodeId",
       pg_backend_pid() AS "processId", pg_current_xact_id()::text AS xid,
       (SELECT (extract(epoch FROM a.backend_start) * 1000000)::int8::text FROM pg_stat_get_activity(pg_backend_pid()) a)
         AS "startedAtUs"
     FROM ${INTERNAL_SCHEMA}.local_node n`,
  );
  if (!facts) throw objectError('55000', `node "${home.nodeName}" is no node of a cluster`);
  await home.query(registrationText(transactionKeyOf(facts.transactionId)));
  return facts;
}

async function nodeIdOf(connection: ControlConnection): Promise<number> {
  const [row] = await connection.query<{ id: number }>(
    `SELECT node_id AS id FROM ${INTERNAL_SCHEMA}.local_node`,
  );
  if (!row) throw objectError('55000', `node "${connection.nodeName}" is no node of a cluster`);
  return row.id;
}

async function mark(
  connection: ControlConnection,
  { transactionId, homeNodeId, participants }: HomeFacts & { readonly participants: string },
): Promise<string> {
  await connection.query(registrationText(transactionKeyOf(transactionId)));
  const [row] = await connection.query<{ owner: string }>(
    `SELECT ${COMMIT_SCHEMA}.mark($1, $2, $3) AS owner`,
    [transactionId, homeNodeId, participants],
  );
  return row?.owner ?? '';
}
