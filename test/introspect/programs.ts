/** PostgreSQL's own client programs, where the machine has them. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';
import { isVersionInstalled } from '../support/servers.ts';

const DIRECTORY = '/usr/lib/postgresql/15/bin';
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024;

/** psql, pg_dump and pg_restore 15, and a server that they know. */
export async function programsAreThere(): Promise<boolean> {
  return existsSync(`${DIRECTORY}/pg_dump`) && (await isVersionInstalled(15));
}

export interface ProgramResult {
  readonly stdout: string;
  readonly stderr: string;
  readonly status: number;
}

/** Never rejects for what the program says. */
export async function runProgram(
  name: 'psql' | 'pg_dump' | 'pg_restore',
  args: readonly string[],
): Promise<ProgramResult> {
  try {
    const options = { timeout: 50_000, maxBuffer: OUTPUT_BYTES_MAX, env: { ...process.env, LC_ALL: 'C' } };
    const { stdout, stderr } = await promisify(execFile)(`${DIRECTORY}/${name}`, [...args], options);
    return { stdout, stderr, status: 0 };
  } catch (error) {
    const { stdout = '', stderr = '', code } = error as { stdout?: string; stderr?: string; code?: unknown };
    if (typeof code !== 'number') throw error;
    return { stdout, stderr, status: code };
  }
}

/** Of psql, without its own start-up file. Throws if it says anything about an error. */
export async function psql(dsn: string, ...commands: string[]): Promise<string> {
  const args = commands.flatMap((command) => ['-c', command]);
  const { stdout, stderr } = await runProgram('psql', ['-X', '-A', '-v', 'ON_ERROR_STOP=1', dsn, ...args]);
  if (/error/i.test(stderr)) throw new Error(stderr);
  return stdout;
}
