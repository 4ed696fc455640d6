/**
 * The directory of an embedded cluster, kept between runs:
 *
 *   cluster.json   the nodes, their ports, and whether each one's data directory has been made
 *   password       of the roles postgres and app on every node; readable by the owner alone
 *   lock           who runs it now
 *   node1/ …       PostgreSQL data directories, with node1.log …
 *
 * Invariant: a node marked as made is never made again: a directory that has gone missing is an error, not a fresh start.
 */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { EmbeddedFailure } from './failure.ts';
import type { Installation } from './installation.ts';
import { STAGING_MARK } from './server.ts';

const FORMAT = 1;
const CLUSTER_FILE = 'cluster.json';
const PASSWORD_FILE = 'password';

export interface NodeEntry {
  readonly name: string;
  port: number | undefined;
  isMade: boolean;
}

export interface ClusterFile {
  readonly format: typeof FORMAT;
  readonly postgresqlMajorVersion: number;
  readonly nodes: NodeEntry[];
}

/** Makes the directory if need be, and proves that it can be written. True: it was made now. */
export async function makeDirectory(directory: string): Promise<boolean> {
  try {
    const first = await fs.mkdir(directory, { recursive: true, mode: 0o711 });
    const probe = path.join(directory, `.probe-${process.pid}`);
    await fs.writeFile(probe, '');
    await fs.rm(probe);
    return first !== undefined;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const why =
      code === 'EACCES' || code === 'EPERM'
        ? 'permission denied'
        : code === 'EROFS'
          ? 'the file system is read-only'
          : code === 'ENOTDIR' || code === 'EEXIST'
            ? 'there is a file of that name'
            : message;
    throw new EmbeddedFailure(
      'directory',
      `cannot write in ${directory}: ${why}; choose another directory with --data`,
    );
  }
}

/** The cluster that the directory holds; undefined: it is empty. Throws if it holds anything else. */
export async function readCluster(directory: string): Promise<ClusterFile | undefined> {
  const file = path.join(directory, CLUSTER_FILE);
  let text: string;
  try {
    text = await fs.readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
      throw new EmbeddedFailure('directory', `cannot read ${file}: ${(error as Error).message}`);
    }
    const foreign = (await fs.readdir(directory)).filter((name) => !name.startsWith('lock'));
    if (foreign.length === 0) return undefined;
    throw new EmbeddedFailure(
      'directory',
      `${directory} holds something else (${foreign.slice(0, 3).join(', ')}), not a cluster made by "postern up": choose another directory with --data`,
    );
  }
  try {
    const parsed = JSON.parse(text) as ClusterFile;
    if (parsed.format === FORMAT && Array.isArray(parsed.nodes)) return parsed;
  } catch {
    // Said below.
  }
  throw new EmbeddedFailure(
    'directory',
    `${file} was not written by this version of Postern: choose another directory with --data`,
  );
}

export async function writeCluster(directory: string, cluster: ClusterFile): Promise<void> {
  await writeAtomically(path.join(directory, CLUSTER_FILE), `${JSON.stringify(cluster, null, 2)}\n`);
}

/** A cluster that is not there yet. */
export function newCluster(nodeCount: number, installation: Installation): ClusterFile {
  return {
    format: FORMAT,
    postgresqlMajorVersion: installation.majorVersion,
    nodes: Array.from({ length: nodeCount }, (_, index) => ({
      name: `node${index + 1}`,
      port: undefined,
      isMade: false,
    })),
  };
}

/** The answer to "another version's data", before anything is touched. */
export async function checkVersions(
  directory: string,
  cluster: ClusterFile,
  installation: Installation,
): Promise<void> {
  for (const node of cluster.nodes) {
    if (!node.isMade) continue;
    const data = path.join(directory, node.name);
    let found: string;
    try {
      found = (await fs.readFile(path.join(data, 'PG_VERSION'), 'utf8')).trim();
    } catch (error) {
      throw new EmbeddedFailure(
        'directory',
        `the data of ${node.name} cannot be read (${(error as Error).message}): bring ${data} back, or choose another directory with --data`,
      );
    }
    if (found !== String(installation.majorVersion)) {
      throw new EmbeddedFailure(
        'other-version',
        `${data} was made by PostgreSQL ${found} and this is PostgreSQL ${installation.version}: run it with the version of Postern that made it, or choose another directory with --data`,
      );
    }
  }
}

/** Half-made data directories of a run that was killed; only the holder of the lock may call this. */
export async function removeHalfMade(directory: string, cluster: ClusterFile): Promise<void> {
  for (const name of await fs.readdir(directory)) {
    const node = cluster.nodes.find((each) => name.startsWith(`${each.name}${STAGING_MARK}`));
    if (node !== undefined) await fs.rm(path.join(directory, name), { recursive: true, force: true });
  }
  for (const node of cluster.nodes) {
    if (!node.isMade) await fs.rm(path.join(directory, node.name), { recursive: true, force: true });
  }
}

/** The cluster's password, made on the first run. */
export async function clusterPassword(directory: string, isNew: boolean): Promise<string> {
  const file = path.join(directory, PASSWORD_FILE);
  try {
    const password = (await fs.readFile(file, 'utf8')).trim();
    if (password !== '') return password;
  } catch {
    // Said below, or made.
  }
  if (!isNew) {
    throw new EmbeddedFailure(
      'directory',
      `${file} is missing or unreadable, and without it nobody can log in: bring it back, or choose another directory with --data`,
    );
  }
  // Letters and digits only: it stands in connection strings that people copy.
  const password = randomBytes(18).toString('hex');
  await writeAtomically(file, `${password}\n`);
  return password;
}

async function writeAtomically(file: string, text: string): Promise<void> {
  const draft = `${file}.${process.pid}`;
  const handle = await fs.open(draft, 'w', 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await fs.rename(draft, file);
}
