/**
 * Thousands of clients that are connected to a router and say nothing. They stand in a process of their own
 * (idle-client.program.ts), so that neither the generator nor the bench itself has their sockets.
 */
import { execFileSync, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { endWithBench, outputMatching, type RunningProcess, stopChild } from './child.ts';
import type { Endpoint } from './point.ts';

export interface IdleClients {
  readonly count: number;
  /** By how much the router's resident memory grew for each, with what their logins left to be collected. */
  readonly routerBytesEach: number;
  /** False once one of them was disconnected. */
  areConnected(): boolean;
  stop(): Promise<void>;
}

const PROGRAM = fileURLToPath(new URL('./idle-client.program.ts', import.meta.url));
/** Above the clients' own sockets: those of the busy clients, of servers, and what a process always has open. */
const FILES_BESIDE = 1_000;

/** Rejects with what the machine lacks if it can't have them. */
export async function connectIdleClients(options: {
  router: RunningProcess;
  endpoint: Endpoint;
  count: number;
}): Promise<IdleClients> {
  const { router, endpoint, count } = options;
  // Its workers are there since it listens, and have a limit of their own each.
  for (const pid of processTree(router.pid)) allowOpenFiles(pid, count + FILES_BESIDE);
  const before = residentBytes(router.pid);
  const child = spawn(
    process.execPath,
    [...process.execArgv, PROGRAM, String(endpoint.port), endpoint.user, endpoint.database, String(count)],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  endWithBench(child);
  // It has its own process's limit by birth; node raises the soft one to the hard one.
  allowOpenFiles(child.pid!, count + FILES_BESIDE);
  await outputMatching(child, /holding \d+/, `the program with ${count} idle clients`);
  return {
    count,
    routerBytesEach: (residentBytes(router.pid) - before) / count,
    areConnected: () => child.exitCode === null && child.signalCode === null,
    stop: () => stopChild(child),
  };
}

/** Raises the limit of a running process if it is too low, which takes root above its hard limit. */
function allowOpenFiles(pid: number, wanted: number): void {
  const limit = readOpenFilesMax(readFileSync(`/proc/${pid}/limits`, 'latin1'));
  if (limit >= wanted) return;
  try {
    execFileSync('prlimit', ['--pid', String(pid), `--nofile=${wanted}:${wanted}`], { stdio: 'pipe' });
  } catch {
    throw new Error(`a process may open ${limit} files here, and ${wanted} are needed (ulimit -n)`);
  }
}

/** The soft limit in /proc/PID/limits. */
export function readOpenFilesMax(text: string): number {
  const limit = /^Max open files +(\S+)/m.exec(text)?.[1];
  return limit === 'unlimited' ? Number.POSITIVE_INFINITY : Number(limit ?? 0);
}

/** Of the process and its workers: it is they who hold the clients. */
function residentBytes(root: number): number {
  let kibibytes = 0;
  for (const pid of processTree(root))
    kibibytes += Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? 0);
  return kibibytes * 1024;
}

function processTree(pid: number): number[] {
  const children = readdirSync(`/proc/${pid}/task`)
    .flatMap((thread) => readFileSync(`/proc/${pid}/task/${thread}/children`, 'latin1').split(' '))
    .filter((child) => child !== '');
  return [pid, ...children.flatMap((child) => processTree(Number(child)))];
}
