/**
 * `postern wall watch`: look, judge (src/wall/watch/symptoms.ts), show, wait; until the time is over, an alert ends it, or
 * Ctrl-C. A server that goes away is asked again until it is back.
 */
import { appendFileSync, readFileSync } from 'node:fs';
import { parseDsnOfOneServer } from '../pg/dsn.ts';
import { type MeasuredWall, wallOfReport } from '../wall/watch/measured-wall.ts';
import { historyLine, parseHistory, RateHistory } from '../wall/watch/rate-history.ts';
import {
  afterGap,
  initialState,
  observe,
  type Reading,
  SYMPTOM_NAMES,
  type WatchState,
} from '../wall/watch/symptoms.ts';
import { WatchMetrics } from '../wall/watch/watch-metrics.ts';
import { costText, type Distance, loadText, readingBlock, verdictText } from '../wall/watch/watch-text.ts';
import { WatchedServer } from '../wall/watch/watched-server.ts';
import { failureText } from './failure-text.ts';
import { aborted, listenForInterrupt } from './interrupt.ts';
import type { WatchArguments } from './wall-watch.ts';

/** The arguments, with the wall read out of its file. */
export interface WatchOptions extends Omit<WatchArguments, 'wall'> {
  readonly wall: MeasuredWall | undefined;
}

const STATUS_FAILED = 1;
const STATUS_SYMPTOM = 3;
const STATUS_WALL = 4;
const STATUS_INTERRUPTED = 130;
const WEBHOOK_TIMEOUT_MS = 5_000;
/** How often a log has a line when nothing changes. */
const LOG_LINE_MS = 60_000;

/** What --wall names: a rate, or a file that `postern wall measure --json` wrote. `wrong`: a sentence for the user. */
export function wallOf(given: number | string | undefined): MeasuredWall | { wrong: string } | undefined {
  if (given === undefined) return undefined;
  if (typeof given === 'number') return { rate: given, isLowerBound: false };
  let document: unknown;
  try {
    document = JSON.parse(readFileSync(given, 'utf8'));
  } catch (error) {
    const reason = error instanceof SyntaxError ? 'it is no JSON' : (error as Error).message;
    return { wrong: `--wall is neither a number nor a file that can be read: ${reason}` };
  }
  const found = wallOfReport(document);
  return 'wrong' in found ? { wrong: `--wall: ${given} ${found.wrong}` } : found;
}

export async function runWatch(dsn: string, options: WatchOptions): Promise<number> {
  const { signal } = listenForInterrupt();
  const metrics = options.metrics === undefined ? undefined : new WatchMetrics();
  const server = { current: undefined as WatchedServer | undefined };
  try {
    // What is wrong from the start is told at once; only what goes away later is waited for.
    server.current = await WatchedServer.open(parseDsnOfOneServer(dsn, process.env), options.nodeExporter);
    const port = await metrics?.listen(options.metrics!.host, options.metrics!.port);
    const watch = new Watch({ dsn, options, metrics, server });
    watch.begin(port);
    return await watch.run(signal);
  } catch (error) {
    process.stderr.write(`${failureText(error)}\n`);
    return STATUS_FAILED;
  } finally {
    metrics?.close();
    await server.current?.close();
  }
}

class Watch {
  private readonly dsn: string;
  private readonly options: WatchOptions;
  private readonly metrics: WatchMetrics | undefined;
  private readonly server: { current: WatchedServer | undefined };
  private readonly history: RateHistory;
  private readonly startedMs = performance.now();
  private state: WatchState = initialState();
  private looks = 0;
  private blockLines = 0;
  private lastVerdict: string | undefined;
  private toldAtMs = 0;
  private webhookFailed = false;
  private readonly posts = new Set<Promise<void>>();

  constructor(parts: {
    dsn: string;
    options: WatchOptions;
    metrics: WatchMetrics | undefined;
    server: { current: WatchedServer | undefined };
  }) {
    this.dsn = parts.dsn;
    this.options = parts.options;
    this.metrics = parts.metrics;
    this.server = parts.server;
    this.history = new RateHistory(readHistory(parts.options.history));
  }

  begin(port: number | undefined): void {
    const { description, unread } = this.server.current!;
    process.stdout.write(`Watching ${description}, reading only, every ${this.options.interval} s.\n`);
    for (const what of unread) process.stdout.write(`Can't be seen: ${what}.\n`);
    if (port !== undefined)
      process.stdout.write(`Metrics: http://${this.options.metrics!.host}:${port}/metrics\n`);
  }

  async run(signal: AbortSignal): Promise<number> {
    const { duration, interval, alert } = this.options;
    const deadlineMs = duration === undefined ? Number.POSITIVE_INFINITY : this.startedMs + duration * 1000;
    const interrupted = aborted(signal);
    while (!signal.aborted && performance.now() < deadlineMs) {
      const lookedAt = performance.now();
      const reading = await this.look();
      if (alert !== undefined && reading !== undefined) {
        if (reading.verdict === 'wall') return this.end(STATUS_WALL);
        if (alert === 'symptom' && SYMPTOM_NAMES.some((name) => reading.symptoms[name].present)) {
          return this.end(STATUS_SYMPTOM);
        }
      }
      const waitMs = Math.min(deadlineMs, lookedAt + interval * 1000) - performance.now();
      await pause(waitMs, interrupted);
    }
    return this.end(signal.aborted ? STATUS_INTERRUPTED : 0);
  }

  private async end(status: number): Promise<number> {
    this.blockLines = 0;
    await Promise.all(this.posts);
    const { current } = this.server;
    if (current !== undefined) this.line(`${capital(costText(current.cost(), this.looks))}.`);
    return status;
  }

  /** Undefined: the server could not be asked. */
  private async look(): Promise<Reading | undefined> {
    try {
      this.server.current ??= await WatchedServer.open(
        parseDsnOfOneServer(this.dsn, process.env),
        this.options.nodeExporter,
      );
      const sample = await this.server.current.look();
      this.looks += 1;
      const { state, reading } = observe(this.state, sample, {
        windowMs: this.options.window * 1000,
        sustainMs: this.options.sustain * 1000,
        slo: this.options.slo,
      });
      this.state = state;
      this.show(reading);
      return reading;
    } catch (error) {
      await this.server.current?.close();
      this.server.current = undefined;
      this.state = afterGap(this.state);
      this.metrics?.show(undefined, { distance: undefined, lookSeconds: 0 });
      this.tellChange('unreachable', failureText(error).replace(/^postern: /, ''), undefined);
      return undefined;
    }
  }

  private show(reading: Reading): void {
    const current = this.server.current!;
    const distance = this.distanceOf(reading);
    const cost = current.cost();
    this.metrics?.show(reading, {
      distance: distance?.share,
      lookSeconds: cost.milliseconds / 1000 / Math.max(1, this.looks),
    });
    // The first look has no rates: what it would say is said a look later.
    if (reading.verdict !== 'calm' || reading.writesPerSecond !== undefined) {
      const present = SYMPTOM_NAMES.filter((name) => reading.symptoms[name].present).join(' ');
      this.tellChange(`${reading.verdict} ${present}`, verdictText(reading), { reading, distance });
    }
    if (!process.stdout.isTTY) {
      if (performance.now() - this.toldAtMs >= LOG_LINE_MS)
        this.tell(new Date().toISOString(), verdictText(reading), { reading, distance });
      return;
    }
    const lines = readingBlock({ reading, distance, cost, looks: this.looks, startedMs: this.startedMs });
    this.eraseBlock();
    process.stdout.write(`${lines.join('\n')}\n`);
    this.blockLines = lines.length;
  }

  private distanceOf({ writesPerSecond }: Reading): Distance | undefined {
    const nowMs = Date.now();
    if (writesPerSecond !== undefined) {
      const ended = this.history.add(nowMs, writesPerSecond);
      if (ended !== undefined && this.options.history !== undefined)
        appendFileSync(this.options.history, historyLine(ended));
    }
    const { wall } = this.options;
    if (wall === undefined) return undefined;
    return {
      wall,
      share: writesPerSecond === undefined ? undefined : writesPerSecond / wall.rate,
      arrival: this.history.arrival(wall.rate, nowMs),
    };
  }

  /** One line with its time, and a request to the webhook, whenever what is to be said has changed. */
  private tellChange(
    verdict: string,
    text: string,
    details: { reading: Reading; distance: Distance | undefined } | undefined,
  ): void {
    if (verdict === this.lastVerdict) return;
    this.lastVerdict = verdict;
    const time = new Date().toISOString();
    this.tell(time, text, details);
    if (details !== undefined) {
      for (const name of SYMPTOM_NAMES) {
        const symptom = details.reading.symptoms[name];
        if (symptom.present) this.line(`  ${name}: ${symptom.text}`);
      }
    }
    if (this.options.webhook === undefined) return;
    const body = JSON.stringify({
      time,
      server: this.server.current?.description,
      verdict,
      text,
      ...details?.reading,
    });
    const posted: Promise<void> = this.post(this.options.webhook, body).finally(() =>
      this.posts.delete(posted),
    );
    this.posts.add(posted);
  }

  private tell(
    time: string,
    text: string,
    details: { reading: Reading; distance: Distance | undefined } | undefined,
  ): void {
    const load = details === undefined ? '' : ` ${capital(loadText(details.reading, details.distance))}.`;
    this.line(`${time}  ${text}${load}`);
    this.toldAtMs = performance.now();
  }

  /** A webhook that can't be reached is told once; it never ends the watch. */
  private async post(url: string, body: string): Promise<void> {
    try {
      const response = await fetch(url, {
        ...{ method: 'POST', body, headers: { 'content-type': 'application/json' } },
        signal: AbortSignal.timeout(WEBHOOK_TIMEOUT_MS),
      });
      if (!response.ok) throw new Error(`status ${response.status}`);
      this.webhookFailed = false;
    } catch (error) {
      if (!this.webhookFailed)
        process.stderr.write(`postern: the webhook could not be told: ${(error as Error).message}\n`);
      this.webhookFailed = true;
    }
  }

  private line(text: string): void {
    this.eraseBlock();
    process.stdout.write(`${text}\n`);
  }

  private eraseBlock(): void {
    if (this.blockLines > 0) process.stdout.write(`\x1b[${this.blockLines}A\x1b[0J`);
    this.blockLines = 0;
  }
}

/** Leaves no timer behind that would keep the process alive. */
async function pause(ms: number, interrupted: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<void>((resolve) => (timer = setTimeout(resolve, Math.max(0, ms))));
  await Promise.race([interrupted, over]);
  clearTimeout(timer);
}

function readHistory(file: string | undefined): ReturnType<typeof parseHistory> {
  if (file === undefined) return [];
  try {
    return parseHistory(readFileSync(file, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
