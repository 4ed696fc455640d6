/**
 * What `postern up` shows: the same single-row inserts by the same clients, first on one primary directly, then through
 * the router on the `events` table sharded over all primaries, side by side, with a report in the cluster's directory.
 *
 * Boundary: both sweeps are the wall's (src/wall/measure/measure.ts), with the same role, protocol and lengths. The direct one
 * works in a schema of its own that it drops; `events` stays, as the first table of the user's cluster.
 */
import { writeFile } from 'node:fs/promises';
import * as path from 'node:path';
import pg from 'pg';
import { APPLICATION_ROLE, type ClusterNode, type EmbeddedCluster } from '../embedded/cluster.ts';
import { type MeasureOptions, measureWall } from '../wall/measure/measure.ts';
import type { SweepResult } from '../wall/measure/sweep.ts';
import { renderReport, reportJson } from '../wall/report/report.ts';
import { WallTable } from '../wall/report/table.ts';
import { eventsWorkload } from '../wall/workload/workload.ts';
import { ALL_PROCESSES, countOf, renderComparison, verdict } from './comparison.ts';

const HTML_FILE = 'wall.html';
const JSON_FILE = 'wall.json';

/** Two sweeps of the same nine points, to be set side by side: about two minutes, or about 40 seconds. */
const CLIENTS = [1, 2, 4, 8, 16, 32, 64, 128, 256];
const PACE = { warmupSeconds: 1, secondsPerPoint: 5 };
const QUICK_PACE = { warmupSeconds: 0.3, secondsPerPoint: 1.5 };

const CREATE_EVENTS = `CREATE TABLE events (id bigserial PRIMARY KEY, ts timestamptz DEFAULT now(), payload text)
  WITH (postern.door = 'sharded', postern.key = 'id')`;
const DUPLICATE_TABLE = '42P07';

export interface DemonstrationOptions {
  readonly cluster: EmbeddedCluster;
  /** The application's address: the router. */
  readonly routerDsn: string;
  readonly isQuick: boolean;
  /** Of each point, rather than what isQuick says. */
  readonly seconds: number | undefined;
  readonly signal: AbortSignal;
  readonly print: (line: string) => void;
}

export async function demonstrate(options: DemonstrationOptions): Promise<void> {
  const { cluster, routerDsn, print } = options;
  const [first] = cluster.nodes;
  print(`\nThe wall of one primary: INSERT INTO events, one durable row each, on ${first!.name} directly`);
  const direct = await sweep(options, { dsn: directDsn(cluster, first!), processes: processesOf([first!]) });

  await createEvents(routerDsn);
  print(
    `\nThe same clients through the router: events is sharded over ${countOf(cluster.nodes.length, 'primary', 'primaries')}`,
  );
  const routed = await sweep(options, {
    ...{ dsn: routerDsn, processes: processesOf(cluster.nodes) },
    setup: false,
  });
  await report(options, direct, routed);
}

async function sweep(
  options: DemonstrationOptions,
  target: Pick<MeasureOptions, 'dsn' | 'processes' | 'setup'>,
): Promise<SweepResult> {
  const table = new WallTable({
    write: (text) => process.stdout.write(text),
    isTerminal: process.stdout.isTTY === true,
  });
  try {
    return await measureWall({
      ...target,
      ...pace(options),
      workload: eventsWorkload(),
      clients: CLIENTS,
      protocol: 'prepared',
      // The servers are this program's own.
      allowTraffic: true,
      signal: options.signal,
      onProgress: (event) => table.tell(event),
    });
  } finally {
    table.end();
  }
}

function pace({ isQuick, seconds }: DemonstrationOptions): Pick<MeasureOptions, keyof typeof PACE> {
  const usual = isQuick ? QUICK_PACE : PACE;
  if (seconds === undefined) return usual;
  return { warmupSeconds: Math.min(usual.warmupSeconds, seconds), secondsPerPoint: seconds };
}

async function report(
  options: DemonstrationOptions,
  direct: SweepResult,
  routed: SweepResult,
): Promise<void> {
  const { cluster, print } = options;
  const primaries = cluster.nodes.length;
  const conclusion = verdict(direct.points, routed.points, { cores: direct.machine.cores, primaries });
  print(`\nSide by side\n${renderComparison(direct.points, routed.points)}\n\n${conclusion}`);
  const input = {
    title: 'One primary, and the same clients through Postern',
    curves: [
      { label: 'one primary', result: direct },
      { label: `Postern over ${countOf(primaries, 'primary', 'primaries')}`, result: routed },
    ],
    verdict: conclusion,
  };
  const html = path.join(cluster.directory, HTML_FILE);
  const json = path.join(cluster.directory, JSON_FILE);
  await Promise.all([writeFile(html, renderReport(input)), writeFile(json, reportJson(input))]);
  print(`\nThe chart is ${html}, the figures are ${json}`);
}

/** The application's role on both sides, so that both do the same work. */
function directDsn(cluster: EmbeddedCluster, node: ClusterNode): string {
  return cluster.dsn(node, { user: APPLICATION_ROLE });
}

/** Their CPU time stands in the JSON beside each point. */
function processesOf(nodes: readonly ClusterNode[]): Record<string, number> {
  return { ...Object.fromEntries(nodes.map((node) => [node.name, node.pid])), [ALL_PROCESSES]: process.pid };
}

/** A second run finds the table of the first. */
async function createEvents(routerDsn: string): Promise<void> {
  const client = new pg.Client({ connectionString: routerDsn });
  // A connection that is lost fails the statement under way; it need not end the process, too.
  client.on('error', () => {});
  await client.connect();
  try {
    await client.query(CREATE_EVENTS);
  } catch (error) {
    if ((error as { code?: string }).code !== DUPLICATE_TABLE) throw error;
  } finally {
    await client.end();
  }
}
