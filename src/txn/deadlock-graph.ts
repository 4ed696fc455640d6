/**
 * Who waits for whom, and who of them waits for ever. Pure.
 *
 * A vertex waits in groups: for one of each group ("any of"). A lock wait is a group of one for each blocker, since all of them
 * have to let go; a wait in a pool's line is one group of all that hold its connections, since any one that comes back ends it.
 * A vertex that no wait keeps ends some day, and releases what it holds; whoever is left when all of those are taken out, again
 * and again, is deadlocked. Each one left waits for others left, so that from everywhere there one comes to a set whose members
 * wait only for one another (a strongly connected component that nothing leaves): these are the deadlocks that are broken, and
 * those who only wait for them go on by it.
 *
 * Invariant: the same graph has the same victims, whoever asks and in whatever order it is given.
 * Invariant: no victim is chosen in a set whose waits are all lock waits on one node: its PostgreSQL sees them itself.
 */

export interface WaitGroup {
  /** Vertices; one that is not in the graph doesn't wait. */
  readonly anyOf: readonly string[];
  /** The node whose lock manager knows of it; undefined: a wait inside a router. */
  readonly lockNodeId: number | undefined;
}

export interface Vertex {
  readonly waits: readonly WaitGroup[];
  /** Of a distributed transaction: may it be ended, and how gladly; the greatest rank is the victim. undefined: never. */
  readonly victimRank: number | undefined;
}

export type WaitGraph = ReadonlyMap<string, Vertex>;

export interface Deadlock {
  readonly victim: string;
  /** Sorted. */
  readonly members: readonly string[];
}

/** All vertices that no course of events lets go on. */
export function deadlockedIn(graph: WaitGraph): Set<string> {
  const stuck = new Set(graph.keys());
  const unsatisfied = new Map<string, number>();
  /** The groups in which a vertex is named. */
  const namedIn = new Map<string, { owner: string; satisfied: boolean }[]>();
  const freed: string[] = [];
  for (const [id, vertex] of graph) {
    unsatisfied.set(id, vertex.waits.length);
    if (vertex.waits.length === 0) freed.push(id);
    for (const group of vertex.waits) {
      const entry = { owner: id, satisfied: false };
      for (const other of group.anyOf) {
        if (!graph.has(other)) freed.push(other);
        const entries = namedIn.get(other);
        if (entries) entries.push(entry);
        else namedIn.set(other, [entry]);
      }
    }
  }
  for (let id = freed.pop(); id !== undefined; id = freed.pop()) {
    stuck.delete(id);
    for (const entry of namedIn.get(id) ?? []) {
      if (entry.satisfied) continue;
      entry.satisfied = true;
      const left = unsatisfied.get(entry.owner)! - 1;
      unsatisfied.set(entry.owner, left);
      if (left === 0) freed.push(entry.owner);
    }
  }
  return stuck;
}

/** The waits of a deadlocked vertex that keep it: those whose whole group is deadlocked. */
export function hopelessWaits(vertex: Vertex, stuck: ReadonlySet<string>): WaitGroup[] {
  return vertex.waits.filter((group) => group.anyOf.every((other) => stuck.has(other)));
}

/** What has to be ended so that nobody who can be helped is deadlocked any more; in the order in which it was found. */
export function findDeadlocks(graph: WaitGraph): Deadlock[] {
  const found: Deadlock[] = [];
  const rest = new Map(graph);
  for (;;) {
    const stuck = deadlockedIn(rest);
    const broken: Deadlock[] = [];
    for (const members of closedComponents(rest, stuck)) {
      if (isLocal(rest, members, stuck)) continue;
      const victim = victimAmong(rest, members);
      if (victim !== undefined) broken.push({ victim, members });
    }
    if (broken.length === 0) return found;
    broken.sort((a, b) => (a.victim < b.victim ? -1 : 1));
    for (const { victim } of broken) rest.delete(victim);
    found.push(...broken);
  }
}

function isLocal(graph: WaitGraph, members: readonly string[], stuck: ReadonlySet<string>): boolean {
  const places = new Set<number | undefined>();
  for (const member of members) {
    for (const group of hopelessWaits(graph.get(member)!, stuck)) places.add(group.lockNodeId);
  }
  return places.size === 1 && !places.has(undefined);
}

function victimAmong(graph: WaitGraph, members: readonly string[]): string | undefined {
  let victim: string | undefined;
  let greatest = Number.NEGATIVE_INFINITY;
  for (const member of members) {
    const rank = graph.get(member)!.victimRank;
    if (rank === undefined || rank < greatest || (rank === greatest && victim! > member)) continue;
    victim = member;
    greatest = rank;
  }
  return victim;
}

/** Tarjan's strongly connected components of the deadlocked vertices, those only that no wait leaves; members sorted. */
function closedComponents(graph: WaitGraph, stuck: ReadonlySet<string>): string[][] {
  const successors = new Map<string, string[]>();
  for (const id of stuck) {
    const groups = hopelessWaits(graph.get(id)!, stuck);
    successors.set(
      id,
      groups.flatMap((group) => group.anyOf),
    );
  }
  const order = new Map<string, number>();
  const low = new Map<string, number>();
  const componentOf = new Map<string, number>();
  const components: string[][] = [];
  const open: string[] = [];
  for (const root of stuck) {
    if (order.has(root)) continue;
    // Iterative: a queue of a thousand waiters is a path of a thousand vertices.
    const path: { id: string; next: number }[] = [{ id: root, next: 0 }];
    order.set(root, order.size);
    low.set(root, order.get(root)!);
    open.push(root);
    for (let top = path.at(-1); top; top = path.at(-1)) {
      const other = successors.get(top.id)![top.next++];
      if (other !== undefined) {
        if (!order.has(other)) {
          order.set(other, order.size);
          low.set(other, order.get(other)!);
          open.push(other);
          path.push({ id: other, next: 0 });
        } else if (!componentOf.has(other)) low.set(top.id, Math.min(low.get(top.id)!, order.get(other)!));
        continue;
      }
      path.pop();
      const above = path.at(-1);
      if (above) low.set(above.id, Math.min(low.get(above.id)!, low.get(top.id)!));
      if (low.get(top.id) !== order.get(top.id)) continue;
      const members = open.splice(open.lastIndexOf(top.id));
      for (const member of members) componentOf.set(member, components.length);
      components.push(members.sort());
    }
  }
  return components.filter((members, at) =>
    members.every((member) => successors.get(member)!.every((other) => componentOf.get(other) === at)),
  );
}
