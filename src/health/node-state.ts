/**
 * What a router makes of one node, from what its pings bring: pure, driven by prober.ts. SPEC.md has the words.
 *
 *             owes an answer, or failed once              no answer for unresponsiveAfterMs
 *   up ─────────────────────────────────► doubtful ───────────────────────────────────────► unresponsive (shut)
 *   ▲                                        │ failed again                                        │ failed
 *   │ answered, from every state             └──────────────────────► unreachable ◄────────────────┘
 *   └─────────────────────────────────────────────────────────────────── noPrimary ◄── all that answer are standbys
 *
 * Invariant: what waits at a shut node is told so, and nothing new is sent there; every other state is decided by each
 * connection itself, which hears a refusal at once.
 * Invariant: `cut` comes only when nothing has answered for cutAfterMs, once until something has.
 * Invariant: time in which this process itself did not run counts for nothing.
 */

export type NodeStateKind = 'up' | 'doubtful' | 'unresponsive' | 'unreachable' | 'noPrimary';

export interface NodeState {
  readonly kind: NodeStateKind;
  /** Since when it is of this kind. */
  readonly sinceMs: number;
  /** When the primary answered last. */
  readonly answeredMs: number;
  /** Refusals, one after the other. */
  readonly failures: number;
  /** What the last refusal was. */
  readonly cause: string | undefined;
  readonly isCut: boolean;
}

export interface HealthTimes {
  /** How often a node is asked, and by when its answer is due. */
  readonly intervalMs: number;
  readonly unresponsiveAfterMs: number;
  /** What still waits for an answer then is given up. */
  readonly cutAfterMs: number;
}

export type NodeEvent =
  /** By a primary. A refusal that only a running server can give (53300) is an answer. */
  | { readonly kind: 'answered'; readonly atMs: number }
  /** Promptly: no server is there, or it is starting or stopping. */
  | { readonly kind: 'failed'; readonly atMs: number; readonly cause: string }
  | { readonly kind: 'noPrimary'; readonly atMs: number; readonly cause: string }
  /** `owedMs`: for how long an answer has been awaited; 0: none is. */
  | { readonly kind: 'tick'; readonly atMs: number; readonly owedMs: number }
  | { readonly kind: 'paused'; readonly forMs: number };

export type NodeEffect =
  /** Nothing is sent there any more, and who waits in a line for it hears why. */
  | 'shut'
  /** Connections are tried again. */
  | 'open'
  /** Connections are given up, with what runs on them. */
  | 'cut'
  /** To be told: another kind than before. */
  | 'changed';

export interface NodeStep {
  readonly state: NodeState;
  readonly effects: readonly NodeEffect[];
}

export function initialNodeState(atMs: number): NodeState {
  return { kind: 'up', sinceMs: atMs, answeredMs: atMs, failures: 0, cause: undefined, isCut: false };
}

export function isShut({ kind }: NodeState): boolean {
  return kind === 'unresponsive';
}

export function stepNode(state: NodeState, event: NodeEvent, times: HealthTimes): NodeStep {
  switch (event.kind) {
    case 'answered':
      return become(
        'up',
        { ...state, answeredMs: event.atMs, failures: 0, cause: undefined, isCut: false },
        event.atMs,
      );
    case 'failed': {
      const failures = state.failures + 1;
      // One alone may be a connection that was lost by itself: the next ping opens another.
      const kind = state.kind === 'up' && failures === 1 ? 'doubtful' : 'unreachable';
      return withCut(become(kind, { ...state, failures, cause: event.cause }, event.atMs), event.atMs, times);
    }
    case 'noPrimary':
      return withCut(
        become('noPrimary', { ...state, failures: 0, cause: event.cause }, event.atMs),
        event.atMs,
        times,
      );
    case 'tick':
      return withCut(onTick(state, event, times), event.atMs, times);
    case 'paused':
      return { state: { ...state, answeredMs: state.answeredMs + event.forMs }, effects: [] };
    default:
      return event satisfies never;
  }
}

function onTick(
  state: NodeState,
  { atMs, owedMs }: { readonly atMs: number; readonly owedMs: number },
  times: HealthTimes,
): NodeStep {
  if (owedMs < times.intervalMs) return { state, effects: [] };
  if (atMs - state.answeredMs >= times.unresponsiveAfterMs) return become('unresponsive', state, atMs);
  return state.kind === 'up' ? become('doubtful', state, atMs) : { state, effects: [] };
}

function become(kind: NodeStateKind, state: NodeState, atMs: number): NodeStep {
  if (kind === state.kind) return { state, effects: [] };
  const next = { ...state, kind, sinceMs: atMs };
  const effects: NodeEffect[] = [];
  if (isShut(next)) effects.push('shut');
  if (isShut(state)) effects.push('open');
  effects.push('changed');
  return { state: next, effects };
}

function withCut(step: NodeStep, atMs: number, times: HealthTimes): NodeStep {
  const { state, effects } = step;
  if (state.kind === 'up' || state.isCut || atMs - state.answeredMs < times.cutAfterMs) return step;
  return { state: { ...state, isCut: true }, effects: [...effects, 'cut'] };
}
