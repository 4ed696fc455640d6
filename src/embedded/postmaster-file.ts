/**
 * A data directory's postmaster.pid (documentation: "Database File Layout"): which server runs there, and whether it is
 * ready. It outlives a server that was killed, and in a container that started again its process id may by now be
 * anybody's, so what runs is told by the process's working directory, which for PostgreSQL is its data directory.
 */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';

const FILE = 'postmaster.pid';
const LEFTOVER_FAST_MS = 30_000;
const LEFTOVER_IMMEDIATE_MS = 10_000;

export interface PostmasterFile {
  readonly pid: number;
  /** The identifier of the System V shared memory segment, once there is one. */
  readonly sharedMemoryId: number | undefined;
  /** "starting", "ready", "stopping", …; undefined before the server has got that far. */
  readonly status: string | undefined;
}

export async function readPostmasterFile(dataDirectory: string): Promise<PostmasterFile | undefined> {
  let text: string;
  try {
    text = await fs.readFile(path.join(dataDirectory, FILE), 'utf8');
  } catch {
    return undefined;
  }
  const lines = text.split('\n');
  const pid = Number(lines[0]);
  if (!Number.isInteger(pid) || pid <= 0) return undefined;
  const memory = Number(lines[6]?.trim().split(/\s+/)[1]);
  return {
    pid,
    sharedMemoryId: Number.isInteger(memory) ? memory : undefined,
    status: lines[7]?.trim() || undefined,
  };
}

/** Shuts down a server that an owner who died has left running on this directory. */
export async function endLeftover(dataDirectory: string): Promise<void> {
  const file = await readPostmasterFile(dataDirectory);
  if (file === undefined || !(await runsIn(file.pid, dataDirectory))) return;
  if (await endsAfter(file.pid, 'SIGINT', { dataDirectory, timeoutMs: LEFTOVER_FAST_MS })) return;
  if (await endsAfter(file.pid, 'SIGQUIT', { dataDirectory, timeoutMs: LEFTOVER_IMMEDIATE_MS })) return;
  throw new Error(
    `process ${file.pid} still runs in ${dataDirectory} and does not end: end it, then try again`,
  );
}

async function endsAfter(
  pid: number,
  signal: NodeJS.Signals,
  wait: { dataDirectory: string; timeoutMs: number },
): Promise<boolean> {
  try {
    process.kill(pid, signal);
  } catch {
    return true;
  }
  const deadline = Date.now() + wait.timeoutMs;
  while (Date.now() < deadline) {
    if (!(await runsIn(pid, wait.dataDirectory))) return true;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  return false;
}

/**
 * PostgreSQL refuses to start while the process id in postmaster.pid is alive, whoever it is. The file goes if no
 * process at all works in the directory: then neither a server nor one of its children is left.
 */
export async function removeStalePostmasterFile(dataDirectory: string): Promise<void> {
  const file = await readPostmasterFile(dataDirectory);
  if (file === undefined || !isAlive(file.pid) || process.platform !== 'linux') return;
  for (const entry of await fs.readdir('/proc')) {
    if (/^\d+$/.test(entry) && (await runsIn(Number(entry), dataDirectory))) return;
  }
  await fs.rm(path.join(dataDirectory, FILE), { force: true });
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

async function runsIn(pid: number, dataDirectory: string): Promise<boolean> {
  if (process.platform === 'linux') {
    try {
      return (await fs.readlink(`/proc/${pid}/cwd`)) === (await fs.realpath(dataDirectory));
    } catch {
      return false;
    }
  }
  const listed = spawnSync('ps', ['-o', 'command=', '-p', String(pid)], { encoding: 'utf8' });
  return listed.status === 0 && listed.stdout.includes('postgres') && listed.stdout.includes(dataDirectory);
}
