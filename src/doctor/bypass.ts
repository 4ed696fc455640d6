/**
 * Who is logged in at a node round the routers: sessions in the nodes' database that no router claims and that are nothing of
 * Postern's own.
 *
 * Invariant: it is told, and counted; nobody is ever kept out by it.
 * Invariant: a session is told of when it was unknown in two looks, one after the other: routers renew what they claim less often than they
 * open connections. A look for which not all claims are fresh says nothing.
 *
 *     unknown ──next look: claimed or gone──▶ forgotten
 *        └──next look: still unknown──▶ told, once for each (node, role, address, application_name); counted for each session
 */
import type { SessionFacts } from './server-facts.ts';

export interface BypassRules {
  /** The role that Postern has on that node. */
  readonly controlRole: string;
  readonly meshRole: string;
  /** Roles that may log in there: monitoring, backups. */
  readonly allowed: ReadonlySet<string>;
  /** Pids that routers claim. */
  readonly claimed: ReadonlySet<number>;
}

/** Connections of the control path are all called so. */
const OWN_NAME = /^postern( |$)/;

export function unclaimed(
  sessions: readonly SessionFacts[],
  { controlRole, meshRole, allowed, claimed }: BypassRules,
): readonly SessionFacts[] {
  return sessions.filter(
    ({ processId, role, applicationName }) =>
      !claimed.has(processId) &&
      !allowed.has(role) &&
      !(OWN_NAME.test(applicationName) && (role === controlRole || role === meshRole)),
  );
}

export interface BypassLogin {
  readonly node: string;
  readonly role: string;
  /** null: a Unix socket. */
  readonly address: string | null;
  readonly applicationName: string;
}

export interface BypassState {
  /** By node: sessions that were unknown in its last look, and those that have been counted. */
  readonly suspects: ReadonlyMap<string, ReadonlySet<string>>;
  readonly counted: ReadonlyMap<string, ReadonlySet<string>>;
  /** What was told; the oldest are forgotten first. */
  readonly told: ReadonlySet<string>;
}

export const NOTHING_SEEN: BypassState = { suspects: new Map(), counted: new Map(), told: new Set() };

/** More different ones than that are told again. */
const TOLD_MAX = 1_000;

export interface BypassLook {
  readonly node: string;
  readonly unknown: readonly SessionFacts[];
}

export function step(
  state: BypassState,
  { node, unknown }: BypassLook,
): { readonly state: BypassState; readonly tell: readonly BypassLogin[]; readonly newSessions: number } {
  const before = state.suspects.get(node) ?? new Set();
  const countedBefore = state.counted.get(node) ?? new Set();
  const counted = new Set<string>();
  const told = new Set(state.told);
  const tell: BypassLogin[] = [];
  let newSessions = 0;
  for (const session of unknown) {
    const key = sessionKey(session);
    if (!before.has(key)) continue;
    counted.add(key);
    if (countedBefore.has(key)) continue;
    newSessions++;
    const { role, address, applicationName } = session;
    const login = { node, role, address, applicationName };
    const kind = JSON.stringify(login);
    if (told.has(kind)) continue;
    told.add(kind);
    tell.push(login);
  }
  for (const oldest of told) {
    if (told.size <= TOLD_MAX) break;
    told.delete(oldest);
  }
  return {
    state: {
      suspects: new Map(state.suspects).set(node, new Set(unknown.map(sessionKey))),
      counted: new Map(state.counted).set(node, counted),
      told,
    },
    tell,
    newSessions,
  };
}

/** Pids come again, with another start. */
function sessionKey({ processId, startedAt }: SessionFacts): string {
  return `${processId} ${startedAt}`;
}
