/**
 * The meshes as one router has them: which are as the cluster is now, and what is done when one is not (SPEC.md).
 *
 *   unknown ──ready(): home's mark is another──▶ building (once for all who wait) ──▶ known, at that mark
 *      ▲                                                    │
 *      └── invalidate(), or believedMs have gone by ────────┴── failed: whoever waits hears it; the next one tries again
 *
 * Invariant: a mesh is handed out only if home's mark, read after ready() was called or within `believedMs` before, is the one
 * that it was built at, or it is newer.
 */
import type { NodePool } from '../backend/pool.ts';
import { notSupported, type PosternError } from '../base/errors.ts';
import type { Mesh, ReadyMesh } from '../execute/mesh.ts';
import type { Log } from '../observe/log.ts';
import { parseDsn } from '../pg/dsn.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import { buildMesh, settingsText } from './build.ts';
import { type HomeState, type LeafDefinition, readHome, readLeaves, type Sorter } from './definition.ts';
import { MARK_QUERY } from './mark.ts';
import {
  ensureMeshRole,
  type MeshNode,
  meshDatabaseOf,
  type NodeSide,
  openMeshDatabase,
  readSide,
  serversText,
} from './nodes.ts';
import { type LeftOut, meshObjects } from './objects.ts';
import { sizesOf, tellSizes } from './sizes.ts';

export interface ClusterMeshOptions {
  readonly clusterId: string;
  readonly tokenKey: Buffer;
  readonly nodes: readonly MeshNode[];
  readonly homeNodeId: number;
  readonly connect: (nodeId: number) => Promise<ControlConnection>;
  /** Home's mark, over a connection that is kept. */
  readonly askHome: (text: string) => Promise<(string | null)[][]>;
  readonly openPool: (node: MeshNode, database: string) => NodePool;
  readonly log: Log;
  /** Monotonic milliseconds. */
  readonly now: () => number;
}

/** For how long home is not asked again whether anything has changed there: other routers' DDL shows within this. */
const BELIEVED_MS = 200;

/** How often the nodes are asked how large their tables are. */
const SIZES_EVERY_MS = 60_000;

const SORTERS: readonly Sorter[] = ['default', 'libc', 'icu'];

interface UnderWay {
  promise: Promise<ReadyMesh>;
  /** Something has changed since it began: nobody else joins it. */
  isLate: boolean;
}

interface Built {
  readonly mark: string;
  readonly nodeId: number;
  readonly ready: ReadyMesh;
}

export class ClusterMesh implements Mesh {
  readonly #options: ClusterMeshOptions;
  readonly #pools = new Map<number, NodePool>();
  readonly #rolesEnsured = new Set<number>();
  #built: Built | undefined;
  #believedUntilMs = Number.NEGATIVE_INFINITY;
  #underWay: UnderWay | undefined;
  #version = 0;
  /** When the tables' sizes were last told. */
  #sizedAtMs = 0;
  #closed = false;

  constructor(options: ClusterMeshOptions) {
    this.#options = options;
  }

  ready({ fresh = false }: { readonly fresh?: boolean } = {}): Promise<ReadyMesh> {
    if (fresh) this.invalidate();
    const built = this.#built;
    if (built && this.#options.now() < this.#believedUntilMs) return Promise.resolve(built.ready);
    // What is under way may have read home before the caller's own change.
    const before = this.#underWay;
    if (before && !before.isLate) return before.promise;
    const own: UnderWay = { promise: Promise.resolve(undefined as never), isLate: false };
    const promise = (before ? before.promise.catch(() => {}) : Promise.resolve()).then(() =>
      this.#bring(own),
    );
    own.promise = promise;
    this.#underWay = own;
    const done = () => {
      if (this.#underWay === own) this.#underWay = undefined;
    };
    promise.then(done, done);
    return promise;
  }

  invalidate(): void {
    this.#believedUntilMs = Number.NEGATIVE_INFINITY;
    if (this.#underWay) this.#underWay.isLate = true;
  }

  close(): void {
    this.#closed = true;
    for (const pool of this.#pools.values()) pool.close();
  }

  forget(): void {
    this.#built = undefined;
    for (const pool of this.#pools.values()) pool.close();
    this.#pools.clear();
    this.invalidate();
  }

  async #bring(own: UnderWay): Promise<ReadyMesh> {
    const askedAtMs = this.#options.now();
    const [row] = await this.#options.askHome(MARK_QUERY);
    const isAsItWas = this.#built !== undefined && this.#built.mark === row?.[0];
    if (!isAsItWas) this.#built = await this.#build();
    else if (askedAtMs - this.#sizedAtMs > SIZES_EVERY_MS) {
      this.#sizedAtMs = askedAtMs;
      // In the background: what is known is good enough for this statement.
      void this.#build().catch((error: Error) =>
        this.#options.log.warn(`sizes of tables in the mesh: ${error.message}`),
      );
    }
    if (!own.isLate) this.#believedUntilMs = askedAtMs + BELIEVED_MS;
    return this.#built!.ready;
  }

  async #build(): Promise<Built> {
    const { nodes, homeNodeId, connect, log, now } = this.#options;
    const startedAtMs = now();
    const opened = await Promise.allSettled(nodes.map((node) => connect(node.id)));
    const connections = new Map<number, ControlConnection>();
    for (const [i, result] of opened.entries())
      if (result.status === 'fulfilled') connections.set(nodes[i]!.id, result.value);
    try {
      for (const result of opened) if (result.status === 'rejected') throw result.reason;
      const home = await readHome(connections.get(homeNodeId)!);
      const leaves = new Map<string, LeafDefinition>();
      const sides: NodeSide[] = [];
      await Promise.all(
        nodes.map(async (node) => {
          const connection = connections.get(node.id)!;
          await this.#ensureRole(node.id, connection);
          for (const leaf of await readLeaves(connection)) leaves.set(leaf.name, leaf);
          sides.push(await readSide(node, connection));
        }),
      );
      const side = chosenSide(sides, homeNodeId);
      const leftOut = await this.#buildOn(side, connections.get(side.node.id)!, { home, leaves });
      log.info(`mesh of node ${side.node.name} is up to date (${Math.round(now() - startedAtMs)} ms)`);
      const unlike = SORTERS.filter((sorter) =>
        sides.some(({ sorting }) => sorting[sorter] !== side.sorting[sorter]),
      );
      const ready = {
        pool: this.#poolOf(side.node),
        version: ++this.#version,
        refusalOf: refusals(home, leftOut, unlike),
        columnsOf: columnsOf(home),
      };
      return { mark: home.mark, nodeId: side.node.id, ready };
    } finally {
      await Promise.all([...connections.values()].map((connection) => connection.close()));
    }
  }

  async #ensureRole(nodeId: number, connection: ControlConnection): Promise<void> {
    if (this.#rolesEnsured.has(nodeId)) return;
    await ensureMeshRole(connection, this.#options);
    this.#rolesEnsured.add(nodeId);
  }

  async #buildOn(
    side: NodeSide,
    own: ControlConnection,
    { home, leaves }: { readonly home: HomeState; readonly leaves: ReadonlyMap<string, LeafDefinition> },
  ): Promise<readonly LeftOut[]> {
    const { node, roles } = side;
    const servers = serversText(this.#options.nodes, { ...this.#options, ...side });
    const objects = meshObjects({ home, leaves, nodeId: node.id, roles, servers });
    const settings = settingsText(
      meshDatabaseOf(parseDsn(node.dsn).database),
      home.definition.settings,
      roles,
    );
    const mesh = await openMeshDatabase(node, own, home.definition.locale);
    try {
      const leftOut = await buildMesh(mesh, { mark: home.mark, servers, settings, objects });
      if (side.isSuperuser) await tellSizes(mesh, sizesOf(home, leaves));
      this.#sizedAtMs = this.#options.now();
      return leftOut;
    } finally {
      await mesh.close();
    }
  }

  #poolOf(node: MeshNode): NodePool {
    let pool = this.#pools.get(node.id);
    if (!pool) {
      pool = this.#options.openPool(node, meshDatabaseOf(parseDsn(node.dsn).database));
      this.#pools.set(node.id, pool);
      if (this.#closed) pool.close();
    }
    return pool;
  }
}

/** Home, which has the tables without a door; its server parses what it described. */
function chosenSide(sides: readonly NodeSide[], homeNodeId: number): NodeSide {
  return sides.find(({ node }) => node.id === homeNodeId)!;
}

/** Of tables; of views nothing is said. */
function columnsOf({ definition }: HomeState): ReadyMesh['columnsOf'] {
  return (schema, name) => {
    const [only, second] = definition.relations.filter((relation) => relation.name === name);
    if (!only || second || only.kind === 'v' || (schema !== undefined && schema !== only.schema))
      return undefined;
    return new Map(only.columns.map((column) => [column.name, column]));
  };
}

function refusals(
  { definition }: HomeState,
  leftOut: readonly LeftOut[],
  unlike: readonly Sorter[],
): ReadyMesh['refusalOf'] {
  const byName = (kind: LeftOut['kind']) =>
    new Map(leftOut.filter((one) => one.kind === kind).map((one) => [one.name, one]));
  const [relations, functions, operators] = [byName('relation'), byName('function'), byName('operator')];
  const cast = leftOut.find(({ kind }) => kind === 'cast');
  const sorted = new Set(
    definition.relations
      .filter(({ columns }) => columns.some(({ sortedBy }) => sortedBy !== null && unlike.includes(sortedBy)))
      .map(({ name }) => name),
  );
  return ({ names, functions: called, namesCollation }): PosternError | undefined => {
    if (namesCollation && unlike.some((sorter) => sorter !== 'default'))
      return sortedUnlike('this statement names a collation');
    if (cast) return notThere(`the cast ${cast.name} can't be made over several nodes: ${cast.reason}`);
    for (const name of names) {
      const found = relations.get(name);
      if (found)
        return notThere(`"${name}" can't be read together with rows of several nodes: ${found.reason}`);
      if (operators.has(name))
        return notThere(
          `operator ${name} can't be used over rows of several nodes: a user has made one of that name`,
        );
      if (sorted.has(name)) return sortedUnlike(`"${name}" has columns of text`);
    }
    for (const name of called) {
      const found = functions.get(name.slice(name.lastIndexOf('.') + 1));
      if (found)
        return notThere(`function ${name} can't be called over rows of several nodes: ${found.reason}`);
    }
    return undefined;
  };
}

function sortedUnlike(what: string): PosternError {
  return notSupported(
    `${what}, and the nodes sort text by different collations`,
    'Give the columns COLLATE "C", or the servers the same version of the operating system\'s collations.',
  );
}

function notThere(message: string): PosternError {
  return notSupported(
    message,
    'Read the rows bucket by bucket (WHERE with the shard key), and put them together yourself.',
  );
}
