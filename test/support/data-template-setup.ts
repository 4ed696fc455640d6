/** The directory of data-template.ts, for as long as one run of the tests. Those that a killed run has left go with the next one. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { TEMPLATES_VARIABLE } from './data-template.ts';

const PREFIX = 'postern-templates-';

export function setup(): (() => void) | undefined {
  // Each project sets up; the first one does.
  if (process.env[TEMPLATES_VARIABLE] !== undefined) return undefined;
  removeLeftovers();
  const directory = path.join(os.tmpdir(), `${PREFIX}${process.pid}`);
  fs.mkdirSync(directory, { recursive: true });
  // The servers' own account has to pass through it.
  fs.chmodSync(directory, 0o711);
  process.env[TEMPLATES_VARIABLE] = directory;
  return () => fs.rmSync(directory, { recursive: true, force: true });
}

function removeLeftovers(): void {
  for (const name of fs.readdirSync(os.tmpdir())) {
    if (!name.startsWith(PREFIX) || isAlive(Number(name.slice(PREFIX.length)))) continue;
    fs.rmSync(path.join(os.tmpdir(), name), { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
