/**
 * From what the nodes' servers say of waits to the graph of who waits for whom. Pure, but for the text of the question.
 *
 * A node tells its waits by process, with pg_blocking_pids; a process stands for its distributed transaction where it holds
 * a registration, else for itself. A prepared transaction has no process: pg_blocking_pids says 0, and the holders of
 * that lock without a pid, in a mode that conflicts, are meant. Such a one is told by its virtual transaction, which it keeps
 * from the session that prepared it ('-1/<xid>' after a restart).
 *
 * Nodes are not read at one moment, so that one look alone may show a cycle that never was. Who waits does nothing else,
 * hence lets go of nothing: a wait with the same start in two looks, for the same blocker, was there all the time between. If
 * the first look had ended when the second began, then at that moment all waits that are in both were there together.
 */
import type { Deadlock, Vertex, WaitGraph, WaitGroup } from './deadlock-graph.ts';
import { IS_REGISTRATION, REGISTERED_KEY } from './registration.ts';

/** Waits of less than this are not asked about: most end by themselves, and each costs the server a look at all its locks. */
const WAIT_MS_MIN = 100;
/** Of each node, the oldest; a deadlock's waits only become older. */
const WAITS_MAX = 1_000;
const DETAIL_LINES_MAX = 10;

/** One row, one column `report`: NodeAnswer. $1: are registrations wanted even if nobody waits? */
export const REPORT_QUERY = `
WITH locks AS MATERIALIZED (SELECT * FROM pg_catalog.pg_locks),
waits AS MATERIALIZED (
  SELECT l.*, coalesce(a.leader_pid, a.pid) AS session, pg_catalog.pg_blocking_pids(l.pid) AS blockers
  FROM (
    SELECT * FROM locks
    WHERE NOT granted AND waitstart < pg_catalog.clock_timestamp() - interval '${WAIT_MS_MIN} ms'
    ORDER BY waitstart LIMIT ${WAITS_MAX}
  ) l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
  WHERE a.datname = pg_catalog.current_database()
)
SELECT pg_catalog.json_build_object(
  'waits', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
      'pid', w.session, 'startedAt', (extract(epoch FROM w.waitstart) * 1000000)::bigint::text,
      'mode', w.mode, 'blockers', w.blockers,
      'prepared', CASE WHEN 0 = ANY (w.blockers) THEN (
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object('branch', h.virtualtransaction, 'mode', h.mode))
        FROM locks h WHERE h.granted AND h.pid IS NULL AND h.locktype = w.locktype
          AND (h.database, h.relation, h.page, h.tuple, h.virtualxid, h.transactionid, h.classid, h.objid, h.objsubid)
            IS NOT DISTINCT FROM
            (w.database, w.relation, w.page, w.tuple, w.virtualxid, w.transactionid, w.classid, w.objid, w.objsubid)
      ) END)), '[]') FROM waits w),
  'registered', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
      'pid', l.pid, 'branch', l.virtualtransaction, 'key', ${REGISTERED_KEY})), '[]')
    FROM locks l WHERE ${IS_REGISTRATION} AND ($1 OR EXISTS (SELECT FROM waits)))
) AS report`;

export interface NodeAnswer {
  readonly waits: readonly {
    readonly pid: number;
    /** Microseconds since the epoch. */
    readonly startedAt: string;
    /** As in pg_locks: 'ShareLock'. */
    readonly mode: string;
    readonly blockers: readonly number[];
    /** Prepared transactions that hold the lock waited for, in any mode. */
    readonly prepared: readonly { readonly branch: string; readonly mode: string }[] | null;
  }[];
  /** `pid` is null for a prepared transaction. */
  readonly registered: readonly {
    readonly pid: number | null;
    readonly branch: string;
    readonly key: number;
  }[];
}

/** A distributed transaction of this router that waits for a backend connection of a node. */
export interface PoolWait {
  readonly key: number;
  readonly nodeId: number;
  readonly sinceMs: number;
  /** The server processes behind all connections of that pool. */
  readonly holders: readonly number[];
}

/** What was seen once. */
export interface Look {
  /** By node; one that could not be asked is not there. */
  readonly answers: ReadonlyMap<number, NodeAnswer>;
  readonly poolWaits: readonly PoolWait[];
}

interface LockEdge {
  readonly waiter: string;
  readonly blocker: string;
  readonly nodeId: number;
  /** Which wait of which process; never the same for another wait. */
  readonly identity: string;
}

interface PoolEdge {
  readonly waiter: string;
  readonly holders: readonly string[];
  readonly nodeId: number;
  readonly identity: string;
}

/** Who waits for whom, by names of vertices. */
export interface Waits {
  readonly locks: readonly LockEdge[];
  readonly pools: readonly PoolEdge[];
  /** Distributed transactions, by key, with a prepared branch: they are in their commit. */
  readonly committing: ReadonlySet<number>;
}

const transactionName = (key: number): string => `transaction ${key.toString(16).padStart(12, '0')}`;

/** The key, if it is the name of a distributed transaction. */
export function keyOfVertex(name: string): number | undefined {
  const digits = /^transaction ([0-9a-f]{12})$/.exec(name)?.[1];
  return digits === undefined ? undefined : Number.parseInt(digits, 16);
}

export function waitsOf(look: Look): Waits {
  const keys = new Map<string, number>();
  const committing = new Set<number>();
  const process = (nodeId: number, pid: number): string => `process ${pid} of node ${nodeId}`;
  const prepared = (nodeId: number, branch: string): string =>
    `prepared transaction ${branch} of node ${nodeId}`;
  for (const [nodeId, answer] of look.answers) {
    for (const { pid, branch, key } of answer.registered) {
      if (pid === null) committing.add(key);
      keys.set(pid === null ? prepared(nodeId, branch) : process(nodeId, pid), key);
    }
  }
  const nameOf = (holder: string): string => {
    const key = keys.get(holder);
    return key === undefined ? holder : transactionName(key);
  };
  const locks: LockEdge[] = [];
  for (const [nodeId, { waits }] of look.answers) {
    for (const wait of waits) {
      const waiter = nameOf(process(nodeId, wait.pid));
      const holders = wait.blockers.filter((pid) => pid !== 0).map((pid) => process(nodeId, pid));
      for (const holder of wait.prepared ?? [])
        if (conflict(holder.mode, wait.mode)) holders.push(prepared(nodeId, holder.branch));
      for (const holder of new Set(holders)) {
        const identity = `${nodeId} ${wait.pid} ${wait.startedAt} ${holder}`;
        locks.push({ waiter, blocker: nameOf(holder), nodeId, identity });
      }
    }
  }
  const pools = look.poolWaits.map(
    (wait): PoolEdge => ({
      waiter: transactionName(wait.key),
      holders: wait.holders.map((pid) => nameOf(process(wait.nodeId, pid))),
      nodeId: wait.nodeId,
      identity: `${wait.key} ${wait.nodeId} ${wait.sinceMs}`,
    }),
  );
  return { locks, pools, committing };
}

/** The waits that are in both looks: those that were there when the first had ended and the second had not begun. */
export function lastingWaits(first: Waits, second: Waits): Waits {
  const same = (edge: LockEdge): string => `${edge.identity} ${edge.waiter} ${edge.blocker}`;
  const locksBefore = new Set(first.locks.map(same));
  const holdersBefore = new Map(first.pools.map((edge) => [edge.identity, edge.holders]));
  return {
    locks: second.locks.filter((edge) => locksBefore.has(same(edge))),
    pools: second.pools.flatMap((edge) => {
      const before = holdersBefore.get(edge.identity);
      // One that held a connection in either look may give it back.
      return before ? [{ ...edge, holders: [...new Set([...before, ...edge.holders])] }] : [];
    }),
    committing: new Set([...first.committing, ...second.committing]),
  };
}

/** `rankOf`: how gladly a distributed transaction would be made the victim; undefined: never. */
export function graphOf(
  waits: Waits,
  rankOf: (key: number, isCommitting: boolean) => number | undefined,
): WaitGraph {
  const groups = new Map<string, WaitGroup[]>();
  const add = (waiter: string, group: WaitGroup): void => {
    const list = groups.get(waiter);
    if (list) list.push(group);
    else groups.set(waiter, [group]);
  };
  for (const { waiter, blocker, nodeId } of waits.locks)
    add(waiter, { anyOf: [blocker], lockNodeId: nodeId });
  for (const { waiter, holders } of waits.pools) add(waiter, { anyOf: holders, lockNodeId: undefined });
  const graph = new Map<string, Vertex>();
  for (const [name, list] of groups) {
    const key = keyOfVertex(name);
    const victimRank = key === undefined ? undefined : rankOf(key, waits.committing.has(key));
    graph.set(name, { waits: list, victimRank });
  }
  return graph;
}

/** The shortest way around from the victim back to it, a line for each wait, as PostgreSQL words its own. */
export function describeDeadlock(
  deadlock: Deadlock,
  waits: Waits,
  nodeNames: ReadonlyMap<number, string>,
): string {
  const members = new Set(deadlock.members);
  const nodeName = (nodeId: number): string => `node "${nodeNames.get(nodeId) ?? nodeId}"`;
  const told = (vertex: string): string => vertex.replace(/node (\d+)$/, (_, id) => nodeName(Number(id)));
  const steps: { from: string; to: string; text: string }[] = [];
  for (const { waiter, blocker, nodeId } of waits.locks)
    steps.push({ from: waiter, to: blocker, text: `waits on ${nodeName(nodeId)} for ${told(blocker)}` });
  for (const { waiter, holders, nodeId } of waits.pools)
    for (const holder of holders) {
      const text = `waits for a connection to ${nodeName(nodeId)}, held by ${told(holder)}`;
      steps.push({ from: waiter, to: holder, text });
    }
  const cameBy = new Map<string, (typeof steps)[number]>();
  const next = [deadlock.victim];
  for (let at = next.shift(); at !== undefined && !cameBy.has(deadlock.victim); at = next.shift()) {
    for (const step of steps) {
      if (step.from !== at || !members.has(step.to) || cameBy.has(step.to)) continue;
      cameBy.set(step.to, step);
      next.push(step.to);
    }
  }
  const lines: string[] = [];
  for (let step = cameBy.get(deadlock.victim); step; step = cameBy.get(step.from)) {
    const line = `${told(step.from)} ${step.text}.`;
    lines.unshift(line[0]!.toUpperCase() + line.slice(1));
    if (step.from === deadlock.victim) break;
  }
  if (lines.length > DETAIL_LINES_MAX) lines.splice(DETAIL_LINES_MAX, lines.length, '…');
  return lines.join('\n');
}

/** Table-level lock modes, and for each those that it conflicts with, by number (documentation: "Conflicting Lock Modes"). */
const LOCK_MODES = [
  'AccessShareLock',
  'RowShareLock',
  'RowExclusiveLock',
  'ShareUpdateExclusiveLock',
  'ShareLock',
  'ShareRowExclusiveLock',
  'ExclusiveLock',
  'AccessExclusiveLock',
];
const CONFLICTS = ['7', '67', '4567', '34567', '23567', '234567', '1234567', '01234567'];

/** Unknown modes (SIReadLock) conflict with nothing. */
export function conflict(held: string, wanted: string): boolean {
  const row = CONFLICTS[LOCK_MODES.indexOf(held)];
  const at = LOCK_MODES.indexOf(wanted);
  return row !== undefined && at >= 0 && row.includes(String(at));
}
