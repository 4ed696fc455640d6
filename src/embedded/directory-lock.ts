/**
 * One owner at a time for a directory: a file that names the owning process by its id and the moment it started, so that
 * a lock left by a killed owner is known as stale even when its process id is in use again.
 *
 * Invariant: the file appears with its content (it is linked into place), so nobody ever reads half a lock.
 */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { EmbeddedFailure } from './failure.ts';

const FILE = 'lock';
const TAKEOVER_TRIES = 5;

export interface DirectoryLock {
  release(): Promise<void>;
}

export async function lockDirectory(directory: string): Promise<DirectoryLock> {
  const file = path.join(directory, FILE);
  const own = `${process.pid} ${await startedAt(process.pid)}\n`;
  const draft = `${file}.${process.pid}`;
  await fs.writeFile(draft, own);
  try {
    for (let attempt = 0; attempt < TAKEOVER_TRIES; attempt += 1) {
      if (await linked(draft, file)) return { release: () => release(file, own) };
      const held = await contentOf(file);
      if (held === undefined) continue;
      const [pid = '', ...rest] = held.trimEnd().split(' ');
      if ((await startedAt(Number(pid))) === rest.join(' ')) {
        throw new EmbeddedFailure(
          'directory-locked',
          `${directory} is in use by another "postern up" (process ${pid}): end that one, or choose another directory with --data`,
        );
      }
      await removeStale(file, held);
    }
  } finally {
    await fs.rm(draft, { force: true });
  }
  throw new EmbeddedFailure('directory-locked', `${directory} is being taken by another "postern up"`);
}

async function linked(draft: string, file: string): Promise<boolean> {
  try {
    await fs.link(draft, file);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** Of two that find the same stale lock, the slower must not remove the lock that the faster has just made. */
async function removeStale(file: string, stale: string): Promise<void> {
  const aside = `${file}.stale.${process.pid}`;
  try {
    await fs.rename(file, aside);
  } catch {
    return;
  }
  if ((await contentOf(aside)) !== stale) await fs.link(aside, file).catch(() => {});
  await fs.rm(aside, { force: true });
}

async function release(file: string, own: string): Promise<void> {
  if ((await contentOf(file)) === own) await fs.rm(file, { force: true });
}

async function contentOf(file: string): Promise<string | undefined> {
  return fs.readFile(file, 'utf8').catch(() => undefined);
}

/** When a process started, as text that is equal only for the same process; undefined: there is no such process. */
async function startedAt(pid: number): Promise<string | undefined> {
  if (!Number.isInteger(pid) || pid <= 0) return undefined;
  if (process.platform !== 'linux') {
    const listed = spawnSync('ps', ['-o', 'lstart=', '-p', String(pid)], { encoding: 'utf8' });
    return listed.status === 0 ? listed.stdout.trim() : undefined;
  }
  const stat = await contentOf(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  // The program's name, in parentheses, may hold blanks; field 22 is the twentieth after it (man 5 proc).
  const ticks = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  const boot = (await contentOf('/proc/sys/kernel/random/boot_id'))?.trim() ?? '';
  return `${ticks} ${boot}`;
}
