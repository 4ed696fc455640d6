/**
 * Ends a server whose owner has died. Each server has a tiny shell beside it that reads from a pipe which only the owner
 * holds open: one line says "all is over, go"; the end of the pipe without it says that the owner is gone, killed with
 * SIGKILL perhaps, and the shell then signals the server.
 *
 * Invariant: the watchdog is dismissed as soon as its process has exited, so it never signals a reused process id while
 * the owner lives.
 */
import { type ChildProcess, spawn } from 'node:child_process';

export interface Watchdog {
  /** The watched process has exited, or shall outlive its owner. */
  dismiss(): void;
}

export interface WatchdogOptions {
  readonly pid: number;
  /** INT is a fast shutdown of PostgreSQL, QUIT an immediate one. */
  readonly signal: 'INT' | 'QUIT' | 'KILL';
  /** A directory to remove when the process is gone: for servers that nobody needs afterwards. */
  readonly removeDirectory?: string | undefined;
}

// $1 process, $2 signal, $3 directory to remove. Detached and deaf to the terminal's signals, so that Ctrl-C in the
// owner's terminal can't end it before the owner.
const SCRIPT = `
trap '' INT TERM HUP QUIT
if read -r line; then exit 0; fi
kill -s "$2" "$1" 2>/dev/null
[ -n "$3" ] || exit 0
tries=0
while kill -0 "$1" 2>/dev/null && [ $tries -lt 300 ]; do sleep 0.1; tries=$((tries + 1)); done
rm -rf "$3"
`;

export function startWatchdog(options: WatchdogOptions): Watchdog {
  const shell: ChildProcess = spawn(
    '/bin/sh',
    ['-c', SCRIPT, 'postern-watchdog', String(options.pid), options.signal, options.removeDirectory ?? ''],
    { detached: true, cwd: '/', stdio: ['pipe', 'ignore', 'ignore'], env: { PATH: '/usr/bin:/bin' } },
  );
  // A shell that can't start or has been ended by someone is no reason to fail: it is the second line of defence.
  shell.on('error', () => {});
  shell.stdin?.on('error', () => {});
  shell.unref();
  (shell.stdin as unknown as { unref?: () => void } | null)?.unref?.();
  return {
    dismiss: () => {
      shell.stdin?.end('done\n');
    },
  };
}
