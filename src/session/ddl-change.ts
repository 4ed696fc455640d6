/**
 * Carries out what the planner has decided about a DDL statement (plan/ddl/change.ts) on branches of the client's transaction
 * (ddl-run.ts): its questions, and then its steps, one after the other.
 */
import { unreachable } from '../base/assert.ts';
import { PosternError } from '../base/errors.ts';
import { noteNames } from '../catalog/cut-names.ts';
import { leafBucketsOn, type ShardedTable } from '../catalog/map.ts';
import { LOWER_GUARD, liftGuard } from '../catalog/reference-guard.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import { catalogStatements } from '../ddl/catalog-change.ts';
import { dropOnBranches } from '../ddl/drop-on-branches.ts';
import { mayOwnLeaves } from '../ddl/leaf-rights.ts';
import { naming, settledAll } from '../ddl/world.ts';
import type { DdlChange, DdlStep, LeafTextPart } from '../plan/ddl/change.ts';
import type { StatementPlan } from '../plan/plan.ts';
import { textOfReplacement } from '../plan/rewrite.ts';
import { ServerError } from '../platform/control-connection.ts';
import type { Conversation } from './conversation.ts';
import type { BranchOfDdl, DdlText } from './ddl-branch.ts';
import { runOutside } from './ddl-outside.ts';
import { type DdlRunWorld, runDdl } from './ddl-run.ts';
import { measure } from './measurement.ts';
import { lockTables } from './table-locks.ts';

/** Gives the command tag. Rejects with what the client hears. */
export async function runDdlChange(
  conversation: Conversation,
  statement: StatementPlan,
  text: string,
): Promise<string> {
  const measurement = measure(conversation.state, conversation.plan(text), undefined);
  measurement?.noteNodes(conversation.map.nodes.map(({ id }) => id));
  try {
    const tag = await carryOut(conversation, statement, text);
    measurement?.end();
    return tag;
  } catch (error) {
    measurement?.fail();
    throw error;
  }
}

async function carryOut(conversation: Conversation, statement: StatementPlan, text: string): Promise<string> {
  const { placement, effects, parameterCount, start, end } = statement;
  if (placement.kind !== 'everywhere') throw new Error('this statement is not DDL over all nodes');
  if (parameterCount > 0) throw noParameter();
  if (placement.change.mode === 'locks') return await lockTables(conversation, placement.change);
  const { change } = placement;
  if (change.mode === 'outside')
    return await runOutside(conversation, change, Buffer.from(text).toString('utf8', start, end));
  const { lease } = conversation;
  return await runDdl(
    conversation,
    async (world) => {
      const tag = await new ChangeRun(change, world).run();
      lease.noteEffects(effects);
      return tag;
    },
    change.forgives && { states: change.forgives, result: change.tag ?? '' },
  );
}

class ChangeRun {
  readonly #change: DdlChange;
  readonly #world: DdlRunWorld;
  /** Of the first text on home. */
  #tag: string | undefined;

  constructor(change: DdlChange, world: DdlRunWorld) {
    this.#change = change;
    this.#world = world;
  }

  async run(): Promise<string> {
    const { questions, steps, liftsGuard, leafOwner, tag } = this.#change;
    const world = this.#world;
    const all = [world.home, ...world.others];
    const answers: (string | null)[][][] = [];
    for (const { text, nodeId } of questions) {
      const branch = all.find((one) => one.nodeId === (nodeId ?? world.homeNodeId));
      answers.push(await branch!.texts(text));
    }
    const list = steps(answers);
    const tables = list.flatMap((step) => (step.kind === 'leaves' ? [step.table] : []));
    await mayOwnLeaves(world, tables, leafOwner);
    if (liftsGuard) {
      const lift = liftGuard(world.nodes.map(({ id }) => id));
      await settledAll(all.map((branch) => branch.run([lift])));
    }
    // Whoever writes to a leaf locks its face behind it (the leaf's CHECK of its bucket asks it): so do we, or each would wait for the other.
    const ofLeaves = list.filter(({ kind }) => kind === 'leaves');
    const others = list.filter(({ kind }) => kind !== 'leaves');
    for (const step of [...ofLeaves, ...others]) {
      await world.services.beforeStep?.(step.kind);
      await this.#step(step);
    }
    if (liftsGuard) await settledAll(all.map((branch) => branch.run([LOWER_GUARD])));
    return tag ?? this.#tag ?? '';
  }

  async #step(step: DdlStep): Promise<void> {
    const { home, map } = this.#world;
    switch (step.kind) {
      case 'text': {
        const text = [{ text: step.text }];
        if (step.nodes !== 'others') {
          const [tag] = await home.carryOut(text);
          this.#tag ??= tag;
        }
        if (step.nodes !== 'home') await this.#onOthers(step, text);
        return;
      }
      case 'leaves':
        this.#world.noteCatalogChange();
        await this.#onLeaves(step.table, step.parts);
        return;
      case 'leafList':
        await this.#onLeafList(step);
        return;
      case 'dropTables':
        await dropOnBranches(this.#world, step.tables, { cascade: step.cascade });
        return;
      case 'catalog':
        this.#world.noteCatalogChange();
        for (const statement of catalogStatements(step.change, map)) await home.signed(statement);
        return;
      default:
        unreachable(step);
    }
  }

  async #onOthers(step: Extract<DdlStep, { kind: 'text' }>, text: readonly DdlText[]): Promise<void> {
    const { home, others } = this.#world;
    const servers = new Set(step.nodes === 'others' ? [] : [serverOf(home)]);
    const branches = step.oncePerServer
      ? others.filter((branch) => !servers.has(serverOf(branch)) && servers.add(serverOf(branch)))
      : others;
    const { toleratedStates } = step;
    await settledAll(
      branches.map((branch) =>
        naming(branch, async () => {
          if (!toleratedStates || toleratedStates.length === 0) {
            await branch.carryOut(text);
            return;
          }
          const refused = await branch.tryOut(text, toleratedStates);
          if (refused instanceof ServerError)
            this.#world.notice('00000', `not carried out on node "${branch.nodeName}": ${refused.message}`);
        }),
      ),
    );
  }

  async #onLeaves(table: ShardedTable, parts: readonly LeafTextPart[]): Promise<void> {
    const names = parts.flatMap((part) =>
      typeof part !== 'string' && part.kind === 'leafObject' ? [part.name] : [],
    );
    for (const statement of noteNames(INTERNAL_SCHEMA, table.id, names))
      await this.#world.home.signed(statement);
    await this.#onNodesOf(async (branch) => {
      const texts = leafBucketsOn(table, branch.nodeId, this.#world.homeNodeId).map((bucket) => ({
        text: parts
          .map((part) => (typeof part === 'string' ? part : textOfReplacement(part, { bucket, ids: [] })))
          .join(''),
        leaf: { table, bucket, mapPosition: () => 0 },
      }));
      if (texts.length > 0) await branch.carryOut(texts);
    });
  }

  async #onLeafList(step: Extract<DdlStep, { kind: 'leafList' }>): Promise<void> {
    const { tables, others, homeOnly, before, after, suffix } = step;
    if (tables.length > 0) this.#world.noteCatalogChange();
    await this.#onNodesOf(async (branch) => {
      const leaves = tables.flatMap((table) =>
        leafBucketsOn(table, branch.nodeId, this.#world.homeNodeId).map((bucket) => leafName(table, bucket)),
      );
      const own = branch === this.#world.home ? homeOnly : [];
      const names = [...leaves, ...others, ...own].map((name) => name + suffix);
      const [table] = tables;
      const leaf = table && { table, bucket: 0, buckets: [...table.buckets.keys()], mapPosition: () => 0 };
      if (names.length > 0) {
        const [tag] = await branch.carryOut([{ text: before + names.join(', ') + after, leaf }]);
        if (branch === this.#world.home) this.#tag ??= tag;
      }
    });
  }

  /** On home first, and then on the others side by side. */
  async #onNodesOf(work: (branch: BranchOfDdl) => Promise<void>): Promise<void> {
    const { home, others } = this.#world;
    await work(home);
    await settledAll(others.map((branch) => naming(branch, () => work(branch))));
  }
}

function leafName(table: ShardedTable, bucket: number): string {
  return textOfReplacement({ kind: 'leaf', table, alias: undefined }, { bucket, ids: [] });
}

function serverOf({ connection }: BranchOfDdl): string {
  return `${connection.address.host}:${connection.address.port}`;
}

function noParameter(): PosternError {
  return new PosternError({ sqlState: '42P02', message: 'there is no parameter $1' });
}
