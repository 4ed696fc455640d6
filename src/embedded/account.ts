/**
 * Who runs the servers. PostgreSQL refuses to run as root, so root's servers run as an unprivileged account of the
 * machine; anyone else's run as themselves.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

export interface Account {
  readonly uid: number;
  readonly gid: number;
}

/** The conventional ids of "nobody" where the machine names none. */
const NOBODY: Account = { uid: 65534, gid: 65534 };

/** The account that servers run under, or undefined: as the current user. */
export function serverAccount(): Account | undefined {
  if (process.getuid?.() !== 0) return undefined;
  return accountNamed('postgres') ?? accountNamed('nobody') ?? NOBODY;
}

function accountNamed(name: string): Account | undefined {
  let passwd: string;
  try {
    passwd = readFileSync('/etc/passwd', 'utf8');
  } catch {
    return undefined;
  }
  for (const line of passwd.split('\n')) {
    const fields = line.split(':');
    const uid = Number(fields[2]);
    const gid = Number(fields[3]);
    if (fields[0] === name && uid > 0 && gid > 0) return { uid, gid };
  }
  return undefined;
}

/** What spawn() takes to run a program under the account. */
export function spawnIdentity(account: Account | undefined): { uid?: number; gid?: number } {
  return account === undefined ? {} : { uid: account.uid, gid: account.gid };
}

/**
 * Whether the account can enter a directory or run a program. Asked of the kernel, by a process under that account:
 * every directory above counts, and so do access control lists, which no look at the mode bits tells.
 */
export function canExecute(path: string, account: Account | undefined): boolean {
  const result = spawnSync('/bin/sh', ['-c', 'test -x "$0"', path], {
    ...spawnIdentity(account),
    cwd: '/',
    stdio: 'ignore',
  });
  return result.status === 0;
}
