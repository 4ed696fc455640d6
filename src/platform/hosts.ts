/**
 * A node is a list of hosts of which one is the primary at a time. tryHosts() opens a connection to that one: it tries the
 * hosts one soon after the other, and lets go of those that turn out to be standbys. Once the node's prober
 * (health/node-prober.ts) has found its primary, that one alone is tried, until the prober says otherwise.
 *
 * Invariant: a server that calls itself no primary is never taken, whatever is known here: each says so itself, on each
 * connection.
 * Invariant: where a primary was found by a prober, no other host is taken: one that answers sooner, or still, may be an old
 * primary that has just come back, and whatever is written there is lost.
 * Invariant: an attempt that was overtaken is closed as soon as it succeeds; each is bounded by whoever opens it.
 */
import { cannotConnect, PosternError } from '../base/errors.ts';
import { describeHosts, type Host } from '../pg/dsn.ts';

/** A host that has not answered by then is tried further beside the next. */
const NEXT_HOST_AFTER_MS = 500;

/** What this process knows of one list of hosts; places are those in the list. */
export interface KnownHosts {
  /** It answered as a primary last, and none of a higher timeline has. */
  readonly primary: number | undefined;
  /** Its timeline, and the system identifier of its cluster of servers. */
  readonly timeline: number;
  readonly systemId: string | undefined;
  /** They call themselves primaries, and are on an older timeline, or belong to another cluster of servers. */
  readonly excluded: ReadonlySet<number>;
  /** A prober goes on looking; else this was found once. */
  readonly isWatched: boolean;
  /** No server answers: an attempt would wait for nothing, and fails with this at once. */
  readonly closed: PosternError | undefined;
}

const NOTHING: KnownHosts = {
  primary: undefined,
  timeline: 0,
  systemId: undefined,
  excluded: new Set(),
  isWatched: false,
  closed: undefined,
};

/** By the text of the hosts: the same servers are meant wherever it stands. */
const knownByHosts = new Map<string, KnownHosts>();
/** Connections of the control path to nodes with several hosts: to be closed when another one becomes the primary. */
const openByHosts = new Map<string, Set<OpenHost>>();

interface OpenHost {
  readonly place: number;
  readonly close: () => void;
}

export function knownOfHosts(hosts: readonly Host[]): KnownHosts {
  return knownByHosts.get(describeHosts(hosts)) ?? NOTHING;
}

/** Of the node's prober alone; undefined: it stops, and nothing is known any more. Closes what is open to other hosts. */
export function tellHosts(hosts: readonly Host[], known: KnownHosts | undefined): void {
  const key = describeHosts(hosts);
  if (!known) {
    knownByHosts.delete(key);
    return;
  }
  knownByHosts.set(key, known);
  if (known.primary === undefined) return;
  for (const open of [...(openByHosts.get(key) ?? [])]) if (open.place !== known.primary) open.close();
}

/** Has `close` called when another host than this one turns out to be the primary; what it returns takes that back. */
export function closeWhenOutdated(hosts: readonly Host[], host: Host, close: () => void): () => void {
  const key = describeHosts(hosts);
  const one = { place: hosts.indexOf(host), close };
  const open = openByHosts.get(key) ?? new Set();
  openByHosts.set(key, open.add(one));
  return () => {
    open.delete(one);
    if (open.size === 0) openByHosts.delete(key);
  };
}

export interface HostAttempt<T> {
  readonly nodeName: string;
  /** At least one. */
  readonly hosts: readonly Host[];
  readonly open: (host: Host) => Promise<T>;
  /** Asked where there are several hosts: a single one is taken as it is. */
  readonly isPrimary: (opened: T) => boolean | Promise<boolean>;
  readonly close: (opened: T) => void;
}

/** Rejects as `open` does where there is one host; else with what a server said when it refused the login, or 08001. */
export async function tryHosts<T>(attempt: HostAttempt<T>): Promise<T> {
  const { hosts } = attempt;
  const known = knownOfHosts(hosts);
  if (known.closed) throw known.closed;
  return hosts.length === 1 ? await attempt.open(hosts[0]!) : await raceHosts(attempt, inOrder(hosts, known));
}

function inOrder(hosts: readonly Host[], { primary, excluded, isWatched }: KnownHosts): Host[] {
  const first = primary === undefined ? [] : [hosts[primary]!];
  if (isWatched && primary !== undefined) return first;
  const rest = hosts.filter((_, place) => place !== primary && !excluded.has(place));
  // Where all are excluded an attempt tells why.
  return first.length + rest.length > 0 ? [...first, ...rest] : [...hosts];
}

interface Failure {
  readonly host: Host;
  readonly error: unknown;
}

function raceHosts<T>(attempt: HostAttempt<T>, order: readonly Host[]): Promise<T> {
  return new Promise((resolve, reject) => {
    const failures: Failure[] = [];
    let started = 0;
    let isOver = false;
    let timer: NodeJS.Timeout | undefined;
    const startNext = (): void => {
      clearTimeout(timer);
      const host = order[started];
      if (isOver || !host) return;
      started++;
      timer = setTimeout(startNext, NEXT_HOST_AFTER_MS);
      openPrimary(attempt, host).then(
        (opened) => {
          if (isOver) {
            attempt.close(opened);
            return;
          }
          isOver = true;
          clearTimeout(timer);
          resolve(opened);
        },
        (error: unknown) => {
          failures.push({ host, error });
          if (failures.length < order.length) startNext();
          else reject(noPrimary(attempt.nodeName, failures));
        },
      );
    };
    startNext();
  });
}

async function openPrimary<T>(attempt: HostAttempt<T>, host: Host): Promise<T> {
  const opened = await attempt.open(host);
  try {
    if (await attempt.isPrimary(opened)) {
      // Found out while it was opened.
      const place = attempt.hosts.indexOf(host);
      const { primary, excluded, isWatched } = knownOfHosts(attempt.hosts);
      const isOther = isWatched && primary !== undefined && place !== primary;
      if (!isOther && !excluded.has(place)) return opened;
    }
  } catch (error) {
    attempt.close(opened);
    throw error;
  }
  attempt.close(opened);
  throw new Error('it is a standby, or on an older timeline, or of another cluster of servers');
}

/** A server that refuses the login for a reason of its own is told before those that are away. */
function noPrimary(nodeName: string, failures: readonly Failure[]): unknown {
  const refusal = failures.find(
    ({ error }) => error instanceof PosternError && !/^(08|57P)/.test(error.sqlState),
  );
  if (refusal) return refusal.error;
  const prefix = cannotConnect(nodeName, '').message;
  const causes = failures.map(({ host, error }) => {
    const message = error instanceof Error ? error.message : String(error);
    return `${describeHosts([host])}: ${message.startsWith(prefix) ? message.slice(prefix.length) : message}`;
  });
  return cannotConnect(nodeName, `none of its hosts is a primary that answers (${causes.join('; ')})`);
}
