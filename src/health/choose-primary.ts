/**
 * Which host of a node is its primary, from what each of them has said last. Pure.
 *
 * Invariant: of several that call themselves primary, the one of the highest timeline is: a standby begins a new one when it
 * is promoted, and the server that it takes over from stays on the old one.
 * Invariant: while a router runs, the timeline of a node's primary never goes back. An old primary that comes back alone
 * would lose what was committed since.
 * Invariant: a server of another cluster (another system identifier) is never taken for this node's.
 */

export type HostAnswer =
  | {
      readonly kind: 'primary';
      readonly timeline: number;
      readonly systemId: string;
      /** default_transaction_read_only. */
      readonly isReadOnly: boolean;
      /** When this server was started: two hosts that tell the same are one server. */
      readonly startedAt: string;
    }
  | { readonly kind: 'standby' }
  /** A server that runs and lets nobody in now: what it is is not known. */
  | { readonly kind: 'refusing'; readonly cause: string }
  | { readonly kind: 'away'; readonly cause: string }
  | { readonly kind: 'silent' };

export interface KnownPrimary {
  /** Its place in the list of hosts. */
  readonly place: number | undefined;
  /** Of the primary, the highest seen. */
  readonly timeline: number;
  readonly systemId: string | undefined;
}

export const NO_PRIMARY_YET: KnownPrimary = { place: undefined, timeline: 0, systemId: undefined };

export interface PrimaryChoice {
  /** As before where none calls itself primary now: `isThere` is false then. */
  readonly known: KnownPrimary;
  readonly isThere: boolean;
  /** They call themselves primary, and are on an older timeline, or on the same one and found later. */
  readonly outdated: readonly number[];
  /** They are no hosts of this node. */
  readonly foreign: readonly number[];
}

/** `answers`: by place, the last one of each; undefined: none has come yet. */
export function choosePrimary(
  answers: readonly (HostAnswer | undefined)[],
  before: KnownPrimary,
): PrimaryChoice {
  let known = before;
  let isThere = false;
  const foreign: number[] = [];
  for (const [place, answer] of inTurn(answers, before.place)) {
    if (answer?.kind === 'refusing' && (place === before.place || answers.length === 1)) isThere = true;
    if (answer?.kind !== 'primary') continue;
    if (known.systemId !== undefined && answer.systemId !== known.systemId) foreign.push(place);
    else if (answer.timeline > known.timeline || (answer.timeline === known.timeline && !isThere)) {
      known = { place, timeline: answer.timeline, systemId: answer.systemId };
      isThere = true;
    }
  }
  const present = known.place === undefined ? undefined : answers[known.place];
  const outdated = [...answers.entries()]
    .filter(([place, answer]) => {
      if (answer?.kind !== 'primary' || foreign.includes(place)) return false;
      if (place === known.place) return answer.timeline < known.timeline;
      return !(present?.kind === 'primary' && present.startedAt === answer.startedAt);
    })
    .map(([place]) => place);
  return { known, isThere, outdated, foreign };
}

/** The present one first: it stays where nothing speaks against it. */
function inTurn<T>(answers: readonly T[], first: number | undefined): [number, T][] {
  const all = [...answers.entries()];
  return first === undefined
    ? all
    : [...all.filter(([p]) => p === first), ...all.filter(([p]) => p !== first)];
}
