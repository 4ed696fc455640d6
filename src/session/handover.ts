/**
 * Takes a session's state apart for another process, and puts it together there; and says when that may be (HANDOVER.md).
 *
 * Invariant: a session that is packed has nothing under way, and nothing of its own on a backend or in this process but what the
 * packed form holds.
 */
import { Settings } from '../backend/settings.ts';
import { BOUNDS } from '../base/bounds.ts';
import type { RouterContext } from '../execute/context.ts';
import type { ClientStatements } from './client-statements.ts';
import type { Conversation } from './conversation.ts';
import type { PackedState } from './handover-form.ts';
import type { ClientOutput } from './output.ts';
import { ClientState } from './state.ts';

/** No statement is under way, no transaction is open, and the client is owed nothing. */
export function isBetweenTransactions(conversation: AtRest): boolean {
  const { state, lease, responses } = conversation;
  return (
    state.transaction === 'none' &&
    lease.connection === undefined &&
    lease.backends.awaitedNodeId === undefined &&
    !lease.unsynced &&
    !lease.branches.areMany &&
    responses.owedReady === 0 &&
    !responses.holdsReady &&
    !conversation.skipping &&
    conversation.runningPieces === undefined &&
    conversation.copyIntake === undefined &&
    state.overlay === undefined &&
    state.copiesAhead <= 0 &&
    !state.copyIn &&
    !state.syncHeld
  );
}

type AtRest = Pick<
  Conversation,
  'state' | 'lease' | 'responses' | 'skipping' | 'runningPieces' | 'copyIntake'
>;

/**
 * The state of a session that is between two transactions; undefined: it has something that does not go along. `unreadBytes`: how many
 * will. Changes nothing.
 */
export function packState(
  {
    state,
    lease,
    sequences,
    notifications,
  }: Pick<Conversation, 'state' | 'lease' | 'sequences' | 'notifications'>,
  statements: ClientStatements | undefined,
  unreadBytes: number,
): Omit<PackedState, 'unread'> | undefined {
  const all = statements?.all();
  const keepsSomething =
    notifications.isListening ||
    lease.pinReason !== undefined ||
    lease.backends.own.length > 0 ||
    lease.tainted ||
    lease.changed.mustBeRead;
  if (keepsSomething || !all || state.output.unsentBytes > 0) return undefined;
  let bytes = unreadBytes;
  for (const { text } of all) bytes += text.length;
  if (bytes > BOUNDS.handoverBytesMax) return undefined;
  return {
    user: state.user,
    tenant: state.tenant,
    defaults: [...state.defaults.values],
    settings: [...state.settings.values],
    loginSearchPath: state.loginSearchPath,
    searchPath: state.commandSession.searchPath,
    told: [...state.told],
    statements: all.map(({ name, text, oids, shown, described }) => ({
      ...{ name, text, oids },
      shown: (shown ?? described?.rows)?.toString('base64'),
    })),
    sequences: sequences.memory.pack(),
    log: state.log.identity(),
  };
}

/** The other way round, before there is a session. */
export function unpackState(
  packed: PackedState,
  { context, output }: { readonly context: RouterContext; readonly output: ClientOutput },
): ClientState {
  const state = new ClientState({
    ...{ context, output, user: packed.user, tenant: packed.tenant, searchPathText: packed.loginSearchPath },
    defaults: new Settings(new Map(packed.defaults)),
    log: context.clientLogs.adopt(packed.log),
  });
  state.settings = new Settings(new Map(packed.settings));
  state.setSearchPath(packed.searchPath);
  for (const [name, value] of packed.told) state.told.set(name, value);
  return state;
}

/** What the session itself holds, once it is there. */
export function unpackSession(
  packed: PackedState,
  conversation: Pick<Conversation, 'sequences' | 'plan'>,
  statements: ClientStatements,
): void {
  conversation.sequences.memory.unpack(packed.sequences);
  statements.restore(
    packed.statements.map(({ name, text, oids, shown }) => ({
      ...{ name, text, oids, cached: conversation.plan(text), described: undefined },
      shown: shown === undefined ? undefined : Buffer.from(shown, 'base64'),
    })),
  );
}
