/**
 * DDL that can't be in a transaction (VACUUM, CREATE INDEX CONCURRENTLY and its kin): its steps are carried out one by one, each for
 * itself, on a connection of the client's role to each node. What works on indexes is a job of the catalog's (ddl/jobs.ts), so that
 * it can be completed after a crash: by the same statement again, or postern.resume_ddl().
 *
 *   opened ──▶ unit after unit (the nodes side by side) ──all──▶ the catalog's changes ──▶ the job is over
 *                │ a server's error                       │ lost, or this router ends
 *                ▼                                        ▼
 *              taken back: what was made is dropped     the job stays
 *
 * Invariant: an index of a sharded table is on its face, where users see it, only when each leaf has it.
 */
import type { BackendConnection } from '../backend/connection.ts';
import { ask } from '../backend/internal-query.ts';
import { queryRows } from '../backend/typed-query.ts';
import { assert } from '../base/assert.ts';
import { notSupported, objectError, PosternError } from '../base/errors.ts';
import {
  CATALOG_BUCKET,
  type ClusterMap,
  LEAF_SCHEMA,
  leafBucketsOn,
  leafName,
  type ShardedTable,
} from '../catalog/map.ts';
import { catalogStatements } from '../ddl/catalog-change.ts';
import type { Job, JobUnit } from '../ddl/jobs.ts';
import { mayOwnLeaves, type RightsWorld } from '../ddl/leaf-rights.ts';
import { settledAll } from '../ddl/world.ts';
import type { CommandResult } from '../execute/context.ts';
import { quoteQualified } from '../pg/identifier.ts';
import type { DdlChange, DdlStep } from '../plan/ddl/change.ts';
import { textOfReplacement } from '../plan/rewrite.ts';
import { ServerError } from '../platform/control-connection.ts';
import type { Conversation } from './conversation.ts';
import { NO_VALUES_TAIL } from './ddl-branch.ts';
import type { LeafTarget } from './leaf-errors.ts';
import { RunningPieces } from './pieces.ts';

/** Those whose statements are jobs: what they leave half done has to be known. */
const OF_INDEXES: ReadonlySet<string> = new Set(['CREATE INDEX', 'DROP INDEX', 'REINDEX']);

/** Gives the command tag. `text`: the client's statement. */
export async function runOutside(
  conversation: Conversation,
  change: DdlChange,
  text: string,
): Promise<string> {
  await refuseInTransaction(
    conversation,
    `${change.tag ?? 'this statement'}${/concurrently/i.test(text) ? ' CONCURRENTLY' : ''}`,
  );
  return await withNodes(conversation, (nodes) => new OutsideRun(conversation, nodes).run(change, text));
}

/** SELECT postern.resume_ddl(): completes what this role has left unfinished. */
export async function resumeDdl(conversation: Conversation, functionName: string): Promise<CommandResult> {
  await refuseInTransaction(conversation, 'postern.resume_ddl()');
  const { context, role } = conversation.state;
  const services = context.ddl;
  if (!services)
    throw notSupported('there is no DDL over several nodes here', 'Send it through postern serve.');
  const ids = await services.unfinishedJobs(role);
  let count = 0;
  for (const id of ids) {
    const job = await services.reopenJob(id);
    if (!job) continue;
    await withNodes(conversation, (nodes) => new OutsideRun(conversation, nodes).carryOut(job));
    count++;
  }
  if (count > 0) await services.changeCatalog([]);
  conversation.onDdl();
  await context.catalog.refresh().catch(() => {});
  return { tag: 'SELECT 1', row: { column: functionName, value: String(count) }, notices: [] };
}

async function refuseInTransaction(conversation: Conversation, what: string): Promise<void> {
  const { lease, state } = conversation;
  const inside = () => lease.inBlock || lease.unsynced || state.transaction !== 'none';
  if (!inside()) await lease.drained();
  if (inside()) throw objectError('25001', `${what} cannot run inside a transaction block`);
}

/** By node. */
type Nodes = ReadonlyMap<number, BackendConnection>;

/** A connection to each node, with the client's role and settings, for work outside of any transaction. */
async function withNodes<T>(conversation: Conversation, work: (nodes: Nodes) => Promise<T>): Promise<T> {
  const { lease, map, state } = conversation;
  const nodes = new Map<number, BackendConnection>();
  try {
    for (const { id, name } of map.nodes) {
      if (!state.context.pools.has(id))
        throw objectError('55000', `this router does not know node "${name}", which has joined the cluster`);
      nodes.set(id, await lease.open(id, { beside: nodes.size > 0 }));
    }
    return await work(nodes);
  } finally {
    for (const connection of nodes.values())
      if (!connection.closed) lease.backends.giveBack(connection, { discard: false });
  }
}

class OutsideRun {
  readonly #c: Conversation;
  readonly #nodes: Nodes;
  readonly #map: ClusterMap;
  readonly #running = new Set<RunningPieces>();

  constructor(conversation: Conversation, nodes: Nodes) {
    this.#c = conversation;
    this.#nodes = nodes;
    this.#map = conversation.map;
  }

  async run(change: DdlChange, text: string): Promise<string> {
    const { context, role, commandSession } = this.#c.state;
    const home = this.#connection(this.#map.homeNodeId);
    const answers: (string | null)[][][] = [];
    for (const question of change.questions) {
      const connection = this.#connection(question.nodeId ?? this.#map.homeNodeId);
      answers.push(await ask(connection, question.text));
    }
    const steps = change.steps(answers);
    const units = steps.flatMap((step) => this.#unitsOf(step, change));
    const tables = steps.flatMap((step) => (step.kind === 'leaves' ? [step.table] : []));
    const catalog = steps.flatMap((step) =>
      step.kind === 'catalog' ? catalogStatements(step.change, this.#map) : [],
    );
    const touches = steps.some(({ kind }) => kind === 'catalog');
    const tag = change.tag ?? '';
    const services = context.ddl;
    if (!OF_INDEXES.has(tag) || (tables.length === 0 && units.length < 2) || !services) {
      await this.#units(units, undefined);
      if (touches && services) await this.#changeCatalog(catalog);
      return tag;
    }
    const world: RightsWorld = {
      home: rightsBranch(home),
      others: [...this.#nodes.values()].filter((one) => one !== home).map(rightsBranch),
      services,
    };
    await mayOwnLeaves(world, tables, undefined);
    const [table] = tables;
    const job = await services.openJob({
      ...{ statement: text, role, tag, units, searchPath: commandSession.searchPath },
      tableId: table?.id ?? 0,
    });
    if (!job.resumed && tag === 'CREATE INDEX' && table) await this.#refuseKnownIndex(job, steps, table);
    await this.carryOut(job);
    if (touches) await this.#changeCatalog(catalog);
    return tag;
  }

  /** To its end, and lets go of it. */
  async carryOut(job: Job): Promise<void> {
    try {
      if (job.resumed) await this.#clean(job, (index) => !job.done.has(index));
      await this.#units(job.units, job);
      await this.#c.state.context.ddl?.beforeStep?.('end');
      await job.end();
    } catch (error) {
      if (!(error instanceof ServerError) || [...this.#nodes.values()].some(({ closed }) => closed))
        throw withResumeHint(error);
      const isUndone = await this.#takeBack(job).then(
        () => true,
        () => false,
      );
      if (!isUndone) throw withResumeHint(error);
      await job.end();
      throw error;
    } finally {
      await job.release();
    }
  }

  async #changeCatalog(statements: readonly string[]): Promise<void> {
    const { ddl, catalog } = this.#c.state.context;
    await ddl!.changeCatalog(statements);
    this.#c.onDdl();
    await catalog.refresh().catch(() => {});
  }

  #unitsOf(step: DdlStep, change: DdlChange): JobUnit[] {
    const { nodes, homeNodeId } = this.#map;
    switch (step.kind) {
      case 'text': {
        const others = nodes.map(({ id }) => id).filter((id) => id !== homeNodeId);
        // An index is on home, where it is looked for, when it is everywhere.
        const ids = change.tag === 'CREATE INDEX' ? [...others, homeNodeId] : [homeNodeId, ...others];
        const wanted = ids.filter(
          (id) => step.nodes === 'all' || (step.nodes === 'home') === (id === homeNodeId),
        );
        return wanted.map((nodeId) => ({ nodeId, text: step.text }));
      }
      case 'leaves':
        return leavesOf(step.table, homeNodeId).map(({ nodeId, bucket }) => {
          const at = { bucket, ids: [] };
          const text = step.parts
            .map((part) => (typeof part === 'string' ? part : textOfReplacement(part, at)))
            .join('');
          const made = step.parts.find((part) => typeof part !== 'string' && part.kind === 'leafObject');
          const undo =
            change.tag === 'CREATE INDEX' && made && typeof made !== 'string'
              ? `DROP INDEX CONCURRENTLY IF EXISTS ${LEAF_SCHEMA}.${textOfReplacement(made, at)}`
              : undefined;
          return { nodeId, text, undo, leaf: { tableId: step.table.id, bucket } };
        });
      case 'leafList': {
        const { tables, others, homeOnly, before, after, suffix } = step;
        return nodes.flatMap(({ id }) => {
          const leaves = tables.flatMap((table) => leavesOn(table, id, homeNodeId));
          const names = [...leaves, ...others, ...(id === homeNodeId ? homeOnly : [])];
          const list = names.map((name) => name + suffix).join(', ');
          return names.length > 0 ? [{ nodeId: id, text: before + list + after }] : [];
        });
      }
      case 'catalog':
        return [];
      case 'dropTables':
        throw notSupported('tables are dropped in a transaction', 'This is a bug in Postern.');
    }
  }

  /** The nodes side by side for what concerns leaves; all else in its order, when what is before it is done. */
  async #units(units: readonly JobUnit[], job: Job | undefined): Promise<void> {
    const { runningPieces } = this.#c;
    assert(runningPieces === undefined, 'one statement runs at a time');
    this.#c.isCanceled = false;
    this.#c.runningPieces = {
      cancel: () => {
        for (const pieces of this.#running) pieces.cancel();
      },
      pause: () => {},
      resume: () => {},
    };
    try {
      let at = 0;
      while (at < units.length) {
        let end = at + 1;
        if (units[at]!.leaf) while (units[end]?.leaf) end++;
        const indexes = Array.from({ length: end - at }, (_, i) => at + i);
        const nodeIds = [...new Set(indexes.map((index) => units[index]!.nodeId))];
        await settledAll(
          nodeIds.map(async (nodeId) => {
            for (const index of indexes) {
              if (units[index]!.nodeId !== nodeId || job?.done.has(index)) continue;
              await this.#c.state.context.ddl?.beforeStep?.(`unit ${index}`);
              await this.#unit(units[index]!, job);
              await job?.noteDone(index);
            }
          }),
        );
        at = end;
      }
    } finally {
      this.#c.runningPieces = undefined;
    }
  }

  async #unit(unit: JobUnit, job: Job | undefined): Promise<void> {
    try {
      await this.#send(unit.nodeId, unit.text, this.#targetOf(unit));
    } catch (error) {
      // It was done before its router ended, and could not be noted.
      const isDone = job?.resumed === true && error instanceof ServerError && DONE_BEFORE.has(error.sqlState);
      if (!isDone) throw error;
    }
  }

  async #send(nodeId: number, text: string, leaf: LeafTarget | undefined): Promise<void> {
    const connection = this.#connection(nodeId);
    const piece = { nodeId, text, shared: undefined, parameterOids: [], tail: NO_VALUES_TAIL, leaf };
    const running = new RunningPieces(new Map([[nodeId, connection]]), [piece], {
      onRows() {},
      onNotice: (reader) => {
        if (!leaf) this.#c.responses.onNotice(reader);
      },
      onMissingLeaf() {},
    });
    this.#running.add(running);
    try {
      await running.done;
    } finally {
      this.#running.delete(running);
    }
  }

  /** What a build that was cut short has left on these leaves: indexes that are kept up to date, and never used. */
  async #clean(job: Job, isWanted: (index: number) => boolean): Promise<void> {
    for (const [index, unit] of job.units.entries()) {
      const table = this.#tableOf(unit);
      if (!table || !unit.leaf || !isWanted(index)) continue;
      const { bucket } = unit.leaf;
      const leaf = quoteQualified(
        LEAF_SCHEMA,
        leafName(table.name, bucket, table.buckets[bucket]!.generation),
      );
      const connection = this.#connection(unit.nodeId);
      const invalid = await queryRows<{ name: string }>(
        connection,
        `SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name
         FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE i.indrelid = pg_catalog.to_regclass($1) AND NOT i.indisvalid`,
        [leaf],
      );
      for (const { name } of invalid)
        await this.#send(unit.nodeId, `DROP INDEX CONCURRENTLY IF EXISTS ${name}`, undefined);
    }
  }

  async #takeBack(job: Job): Promise<void> {
    await this.#clean(job, () => true);
    for (const { nodeId, undo } of job.units)
      if (undo !== undefined) await this.#send(nodeId, undo, undefined);
  }

  /** Before anything is made: on the leaves, an index of that name would be taken for one of this job. */
  async #refuseKnownIndex(job: Job, steps: readonly DdlStep[], table: ShardedTable): Promise<void> {
    const leaves = steps.find((step) => step.kind === 'leaves');
    const part =
      leaves?.kind === 'leaves'
        ? leaves.parts.find((one) => typeof one !== 'string' && one.kind === 'leafObject')
        : undefined;
    if (!part || typeof part === 'string' || part.kind !== 'leafObject') return;
    const rows = await queryRows<{ found: boolean }>(
      this.#connection(this.#map.homeNodeId),
      'SELECT pg_catalog.to_regclass($1) IS NOT NULL AS found',
      [quoteQualified(table.schema, part.name)],
    );
    if (!rows[0]?.found) return;
    await job.end();
    await job.release();
    throw objectError('42P07', `relation "${part.name}" already exists`);
  }

  #targetOf(unit: JobUnit): LeafTarget | undefined {
    const table = this.#tableOf(unit);
    return table && unit.leaf && { table, bucket: unit.leaf.bucket, mapPosition: () => 0 };
  }

  #tableOf({ leaf }: JobUnit): ShardedTable | undefined {
    if (!leaf) return undefined;
    for (const tables of this.#map.tables.values())
      for (const table of tables.values()) if (table.id === leaf.tableId) return table;
    return undefined;
  }

  #connection(nodeId: number): BackendConnection {
    const connection = this.#nodes.get(nodeId);
    assert(connection, 'there is a connection to each node');
    return connection;
  }
}

/** It is there already (a CREATE), or gone (a DROP). */
const DONE_BEFORE: ReadonlySet<string> = new Set(['42P07', '42704']);

/** With home's empty one (catalog/map.ts). */
function leavesOf(table: ShardedTable, homeNodeId: number) {
  const leaves = table.buckets.map(({ nodeId }, bucket) => ({ nodeId, bucket }));
  return table.catalogLeaf ? [{ nodeId: homeNodeId, bucket: CATALOG_BUCKET }, ...leaves] : leaves;
}

function leavesOn(table: ShardedTable, nodeId: number, homeNodeId: number): string[] {
  return leafBucketsOn(table, nodeId, homeNodeId).map((bucket) =>
    textOfReplacement({ kind: 'leaf', table, alias: undefined }, { bucket, ids: [] }),
  );
}

function rightsBranch(connection: BackendConnection): RightsWorld['home'] {
  return {
    nodeId: connection.address.nodeId,
    query: (text, values) => queryRows(connection, text, values),
  };
}

function withResumeHint(error: unknown): unknown {
  const hint = 'What is missing is made by the same statement again, or by SELECT postern.resume_ddl().';
  if (error instanceof ServerError) return error.withHint(hint);
  if (!(error instanceof PosternError)) return error;
  const { sqlState, message, detail, severity } = error;
  return new PosternError({ sqlState, message, detail, severity, hint });
}
