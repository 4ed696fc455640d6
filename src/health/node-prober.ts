/**
 * Watches one node: asks its hosts, decides by choose-primary.ts and node-state.ts, and carries out what follows.
 *
 * A tick four times in an interval asks who is due: the primary once in each, the others when somebody is in doubt, else seldom.
 * A node that is away is asked at growing, jittered pauses.
 */
import { cannotConnect, nodeUnresponsive, type PosternError } from '../base/errors.ts';
import { type Dsn, describeHosts, type Host } from '../pg/dsn.ts';
import { knownOfHosts, tellHosts } from '../platform/hosts.ts';
import { backoffMs } from '../platform/reconnecting.ts';
import { choosePrimary, type HostAnswer, type KnownPrimary, type PrimaryChoice } from './choose-primary.ts';
import { HostProbe } from './host-probe.ts';
import {
  type HealthTimes,
  initialNodeState,
  isShut,
  type NodeEvent,
  type NodeState,
  type NodeStateKind,
  stepNode,
} from './node-state.ts';

const TICKS_PER_INTERVAL = 4;
/** Of a host that is not the primary, while all is well. */
const OTHERS_INTERVAL_MS = 5_000;
/** Between two tries to reach a host that is away: at first, and at last. */
const AWAY_INTERVAL_MS_MIN = 250;
const AWAY_INTERVAL_MS_MAX = 2_000;
/** After which a full disk that was met once is not told of any more. */
const FULL_TOLD_MS = 60_000;

export interface HealthLog {
  info(message: string): void;
  warn(message: string): void;
  error(message: string): void;
}

/** What the prober does to those who use the node. */
export interface NodeUse {
  /** Nothing goes there until `open`: who waits hears `why`. */
  shut(why: PosternError): void;
  open(): void;
  /** Ends the connections to all hosts but this one; undefined: to all. What runs on them is lost. */
  cut(keep: Host | undefined): void;
  /** This one is the primary: what is open to others by any chance is ended. */
  keepOnly(host: Host): void;
  /** Told with each change: what can go elsewhere as well does so while it is not `up`. */
  change(kind: NodeStateKind): void;
}

export interface ProberOptions {
  readonly nodeName: string;
  readonly dsn: Dsn;
  readonly times: HealthTimes;
  readonly use: NodeUse;
  readonly log: HealthLog;
  /** Monotonic ms. */
  readonly now: () => number;
  /** ms since 1970, for what people read. */
  readonly wallClock: () => number;
  /** From 0 to 1. */
  readonly random: () => number;
}

export class NodeProber {
  readonly #options: ProberOptions;
  readonly #hosts: readonly Host[];
  readonly #probes: readonly HostProbe[];
  /** By place: when it is asked next, and how often it has been away since it answered. */
  readonly #dueMs: number[];
  readonly #awayCounts: number[];
  readonly #tickMs: number;
  #state: NodeState;
  #known: KnownPrimary;
  #outdated: readonly number[] = [];
  #excluded: readonly number[] = [];
  /** The host that was the primary is another server by now. */
  #replaced: PosternError | undefined;
  #complaint = '';
  #fullAtMs = Number.NEGATIVE_INFINITY;
  #tickedAtMs: number;
  #timer: NodeJS.Timeout | undefined;
  /** For metrics. */
  readonly counters = { pings: 0, pingsFailed: 0, cuts: 0, promotions: 0, pingMs: 0 };

  constructor(options: ProberOptions) {
    const { nodeName, dsn } = options;
    this.#options = options;
    this.#hosts = dsn.hosts;
    // What was found when the router started.
    const { primary: place, timeline, systemId } = knownOfHosts(dsn.hosts);
    this.#known = { place, timeline, systemId };
    this.#probes = dsn.hosts.map((host) => new HostProbe({ nodeName, dsn, host }));
    const nowMs = options.now();
    this.#dueMs = dsn.hosts.map(() => nowMs);
    this.#awayCounts = dsn.hosts.map(() => 0);
    this.#state = initialNodeState(nowMs);
    this.#tickedAtMs = nowMs;
    this.#tickMs = options.times.intervalMs / TICKS_PER_INTERVAL;
  }

  get state(): NodeState {
    return this.#state;
  }

  /** When it came to be in this state: ms since 1970. */
  get since(): number {
    return this.#options.wallClock() - (this.#options.now() - this.#state.sinceMs);
  }

  /** Where the primary is, or was when it was seen last. */
  get primary(): Host | undefined {
    return this.#known.place === undefined ? undefined : this.#hosts[this.#known.place];
  }

  /** What else is to be known of it, in words that don't change. */
  get notes(): string[] {
    const notes: string[] = [];
    const answer = this.#known.place === undefined ? undefined : this.#probes[this.#known.place]!.answer;
    if (answer?.kind === 'primary' && answer.isReadOnly) notes.push('read-only');
    if (answer?.kind === 'refusing') notes.push('refuses logins');
    if (this.#options.now() - this.#fullAtMs < FULL_TOLD_MS) notes.push('disk full');
    if (this.#outdated.length > 0) notes.push('two primaries');
    return notes;
  }

  start(): void {
    for (const [place, probe] of this.#probes.entries()) {
      probe.onLost = () => {
        this.#dueMs[place] = 0;
        this.#askDue();
      };
    }
    this.#timer = setInterval(() => this.#tick(), this.#tickMs);
    this.#timer.unref();
    this.#tick();
  }

  stop(): void {
    clearInterval(this.#timer);
    for (const probe of this.#probes) probe.stop();
    tellHosts(this.#hosts, undefined);
  }

  /** A statement failed there since the disk is full. */
  noteFull(): void {
    this.#fullAtMs = this.#options.now();
  }

  #tick(): void {
    const { now } = this.#options;
    const nowMs = now();
    const pausedMs = nowMs - this.#tickedAtMs - this.#tickMs;
    this.#tickedAtMs = nowMs;
    if (pausedMs > this.#tickMs) {
      // This process stood still: answers may lie in its sockets, and are read before anybody is judged.
      this.#step({ kind: 'paused', forMs: pausedMs });
      for (const probe of this.#probes)
        if (probe.owedSinceMs !== undefined)
          probe.owedSinceMs = Math.min(nowMs, probe.owedSinceMs + pausedMs);
    } else {
      const owedSinceMs = this.#presentProbe.owedSinceMs;
      this.#step({ kind: 'tick', atMs: nowMs, owedMs: owedSinceMs === undefined ? 0 : nowMs - owedSinceMs });
    }
    this.#askDue();
  }

  /** Of the host that is the primary, as far as is known. */
  get #presentProbe(): HostProbe {
    return this.#probes[this.#known.place ?? 0]!;
  }

  #askDue(): void {
    const nowMs = this.#options.now();
    for (const [place, probe] of this.#probes.entries())
      if (!probe.isAsking && nowMs >= this.#dueMs[place]!) void this.#ask(place, probe);
  }

  async #ask(place: number, probe: HostProbe): Promise<void> {
    const { now } = this.#options;
    const askedMs = now();
    this.counters.pings++;
    await probe.ask(now);
    const { answer } = probe;
    if (answer === undefined) return;
    const nowMs = now();
    const isAway = answer.kind === 'away' || answer.kind === 'silent';
    if (isAway) this.counters.pingsFailed++;
    else if (probe === this.#presentProbe) this.counters.pingMs = nowMs - askedMs;
    this.#awayCounts[place] = isAway ? this.#awayCounts[place]! + 1 : 0;
    this.#judge(place);
    this.#dueMs[place] = isAway
      ? nowMs + this.#awayPauseMs(place)
      : askedMs + this.#intervalMs(place) - this.#tickMs / 2;
  }

  #awayPauseMs(place: number): number {
    const tries = this.#awayCounts[place]! - 1;
    const { random } = this.#options;
    return backoffMs({ tries, firstMs: AWAY_INTERVAL_MS_MIN, maxMs: AWAY_INTERVAL_MS_MAX, random });
  }

  /** Of a host that answers. */
  #intervalMs(place: number): number {
    const { intervalMs } = this.#options.times;
    if (this.#state.kind !== 'up') return intervalMs / 2;
    return place === this.#known.place ? intervalMs : Math.max(OTHERS_INTERVAL_MS, intervalMs);
  }

  #judge(place: number): void {
    const atMs = this.#options.now();
    const before = this.#known;
    const choice = choosePrimary(
      this.#probes.map((probe) => probe.answer),
      before,
    );
    this.#known = choice.known;
    this.#outdated = choice.outdated;
    this.#excluded = [...choice.outdated, ...choice.foreign];
    const isNew = choice.known.place !== before.place;
    if (isNew && before.place !== undefined) this.#onPromotion(before.place);
    else if (before.timeline > 0 && choice.known.timeline > before.timeline) this.#onMoved();
    this.#complain(choice);
    this.#exclude(choice);
    if (choice.isThere) {
      // Another host's answer says nothing of the primary's.
      if (isNew || place === choice.known.place || this.#hosts.length === 1)
        this.#step({ kind: 'answered', atMs });
    } else {
      const event = this.#absence(atMs);
      // A host that fails again and again is counted by its own answers, and not by the others'.
      if (event && (event.kind !== 'failed' || place === (this.#known.place ?? place))) this.#step(event);
    }
    this.#tellHosts();
  }

  /** No host calls itself primary; undefined: some owe their answers, and time will tell. */
  #absence(atMs: number): NodeEvent | undefined {
    const answers = this.#probes.map((probe) => (probe.owedSinceMs === undefined ? probe.answer : undefined));
    if (answers.some((one) => one === undefined || one.kind === 'silent')) return undefined;
    const said = answers.map((one, place) => {
      const what =
        one!.kind === 'standby'
          ? 'is a standby'
          : one!.kind === 'primary'
            ? this.#strangeness(one!)
            : (one as { cause: string }).cause;
      return this.#hosts.length === 1 ? what : `${describeHosts([this.#hosts[place]!])}: ${what}`;
    });
    const cause = said.join('; ');
    return answers.every((one) => one!.kind === 'away')
      ? { kind: 'failed', atMs, cause }
      : { kind: 'noPrimary', atMs, cause };
  }

  #onPromotion(before: number): void {
    const { nodeName, log, use } = this.#options;
    const host = this.#hosts[this.#known.place!]!;
    this.counters.promotions++;
    log.warn(
      `node "${nodeName}": ${describeHosts([host])} is the primary now, on timeline ${this.#known.timeline}; connections to ${describeHosts([this.#hosts[before]!])} are closed`,
    );
    this.#tellHosts();
    use.cut(host);
  }

  /** The same name or address, and a higher timeline: it leads to another server than before, or to one that was restored. */
  #onMoved(): void {
    const { nodeName, log, use } = this.#options;
    const where = describeHosts([this.#hosts[this.#known.place!]!]);
    this.counters.promotions++;
    log.warn(
      `node "${nodeName}": ${where} is on timeline ${this.#known.timeline} now; older connections are closed`,
    );
    use.cut(undefined);
  }

  /** Nothing stays open to a host that is not the primary; and nothing is opened to one that has become another server. */
  #exclude({ known, isThere }: PrimaryChoice): void {
    const { nodeName, use } = this.#options;
    if (isThere && known.place !== undefined && this.#hosts.length > 1)
      use.keepOnly(this.#hosts[known.place]!);
    const place = known.place ?? (this.#hosts.length === 1 ? 0 : undefined);
    const answer = place === undefined || isThere ? undefined : this.#probes[place]!.answer;
    const wasReplaced = this.#replaced !== undefined;
    this.#replaced =
      answer?.kind === 'primary'
        ? cannotConnect(nodeName, `its server ${this.#strangeness(answer)}`)
        : undefined;
    if (this.#replaced && !wasReplaced) {
      this.#tellHosts();
      use.cut(undefined);
    }
  }

  /** Why one that calls itself a primary is not taken for it. */
  #strangeness(answer: HostAnswer & { readonly kind: 'primary' }): string {
    const { timeline, systemId } = this.#known;
    return systemId !== undefined && answer.systemId !== systemId
      ? 'belongs to another cluster of servers'
      : `is on an older timeline, ${answer.timeline}, than ${timeline}, which was seen before`;
  }

  /** Once for each state of affairs. */
  #complain({ known, outdated, foreign }: PrimaryChoice): void {
    const { nodeName, log } = this.#options;
    const where = (places: readonly number[]): string =>
      describeHosts(places.map((place) => this.#hosts[place]!));
    const texts: string[] = [];
    const older = outdated.filter((place) => this.#timelineOf(place) < known.timeline);
    const beside = outdated.filter((place) => this.#timelineOf(place) === known.timeline);
    if (older.length > 0)
      texts.push(
        `node "${nodeName}" has two primaries: ${where(older)} is on an older timeline than ${known.timeline}, and is not used. Stop it: what was written there is not here`,
      );
    if (beside.length > 0)
      texts.push(
        `node "${nodeName}" has two primaries on timeline ${known.timeline}: ${where([known.place!])} is used since it was found first, and ${where(beside)} is not. Stop the one that is wrong; other routers may use it`,
      );
    if (foreign.length > 0)
      texts.push(
        `node "${nodeName}": ${where(foreign)} belongs to another cluster of servers, and is not used`,
      );
    const text = texts.join('; ');
    if (text !== '' && text !== this.#complaint) log.error(text);
    this.#complaint = text;
  }

  #timelineOf(place: number): number {
    const { answer } = this.#probes[place]!;
    return answer?.kind === 'primary' ? answer.timeline : 0;
  }

  #step(event: NodeEvent): void {
    const { times, use, log, nodeName } = this.#options;
    const before = this.#state;
    const { state, effects } = stepNode(before, event, times);
    this.#state = state;
    for (const effect of effects) {
      switch (effect) {
        case 'shut': {
          const why = this.#unresponsive();
          this.#tellHosts(why);
          use.shut(why);
          break;
        }
        case 'open':
          this.#tellHosts();
          use.open();
          break;
        case 'cut':
          this.counters.cuts++;
          log.warn(
            `node "${nodeName}": connections that have waited for ${Math.round(times.cutAfterMs / 1000)} s are given up`,
          );
          use.cut(undefined);
          break;
        case 'changed':
          // Another host may be the primary by now.
          if (state.kind !== 'up') this.#dueMs.fill(Number.NEGATIVE_INFINITY);
          use.change(state.kind);
          this.#tellChange(before.kind);
          break;
        default:
          effect satisfies never;
      }
    }
  }

  #unresponsive(): PosternError {
    const { now, wallClock, nodeName } = this.#options;
    return nodeUnresponsive(nodeName, new Date(wallClock() - (now() - this.#state.answeredMs)).toISOString());
  }

  #tellHosts(closed = isShut(this.#state) ? this.#unresponsive() : this.#replaced): void {
    const { place: primary, timeline, systemId } = this.#known;
    const excluded = new Set(this.#excluded);
    tellHosts(this.#hosts, { primary, timeline, systemId, excluded, isWatched: true, closed });
  }

  #tellChange(before: NodeStateKind): void {
    const { log, nodeName } = this.#options;
    const { kind, cause } = this.#state;
    switch (kind) {
      case 'up':
        if (before !== 'doubtful') log.info(`node "${nodeName}" answers again`);
        return;
      case 'doubtful':
        return;
      case 'unresponsive':
        log.warn(`node "${nodeName}" does not answer; what needs it is refused until it does`);
        return;
      case 'unreachable':
        log.warn(`node "${nodeName}" cannot be reached: ${cause}`);
        return;
      case 'noPrimary':
        log.warn(`node "${nodeName}" has no primary: ${cause}`);
        return;
      default:
        kind satisfies never;
    }
  }
}
