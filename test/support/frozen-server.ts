/** A server that stands still, as one does whose machine hangs: its system goes on taking connections, and nothing answers. */
import { spawnSync } from 'node:child_process';
import type { TestServer } from './servers.ts';

export function freeze(server: Pick<TestServer, 'pid'>): void {
  signalAll(server.pid, 'SIGSTOP');
}

export function thaw(server: Pick<TestServer, 'pid'>): void {
  signalAll(server.pid, 'SIGCONT');
}

/** The postmaster first: it forks no more while its children are looked for. */
function signalAll(pid: number, signal: 'SIGSTOP' | 'SIGCONT'): void {
  process.kill(pid, signal);
  const children = spawnSync('ps', ['-o', 'pid=', '--ppid', String(pid)]).stdout.toString();
  for (const child of children.split(/\s+/).filter(Boolean)) {
    try {
      process.kill(Number(child), signal);
    } catch {
      // It has ended meanwhile.
    }
  }
}
