/**
 * Files of certificates and keys, read when they are needed and again when they have changed: a rotated certificate is used by
 * the next connection, without a restart.
 *
 * Invariant: no error of this file holds anything of a file's content. A private key that others may read is not used.
 */
import { readFileSync, type Stats, statSync } from 'node:fs';
import { invalidParameter } from '../base/errors.ts';

interface Known {
  readonly stamp: string;
  readonly content: Buffer;
}

const FILE_BYTES_MAX = 1024 * 1024;
const FILES_MAX = 1_000;
const known = new Map<string, Known>();

/** Changes whenever the file does: its times, its size and which file it is. Undefined: it can't be looked at. */
export function fileStamp(file: string): string | undefined {
  try {
    return stampOf(statSync(file));
  } catch {
    return undefined;
  }
}

/** @param what what it is of, for the error: `the certificate of tls.certificate_file` */
export function readTlsFile(file: string, what: string): Buffer {
  return load(file, what, () => {});
}

/**
 * The same for a private key, with the rules of PostgreSQL's server: it belongs to the user that runs this, with no rights for
 * others (0600), or to root with none but reading for its group (0640).
 */
export function readKeyFile(file: string, what: string): Buffer {
  return load(file, what, (stats) => {
    const isRoots = stats.uid === 0;
    const isOwn = process.getuid === undefined || stats.uid === process.getuid();
    if (!isOwn && !isRoots)
      throw invalidParameter(`${what} "${file}" must belong to the user that runs this, or to root`);
    if ((stats.mode & (isRoots ? 0o037 : 0o077)) !== 0)
      throw invalidParameter(
        `${what} "${file}" may be read by others`,
        isRoots ? `Run: chmod 0600 (or 0640) ${file}` : `Run: chmod 0600 ${file}`,
      );
  });
}

function load(file: string, what: string, check: (stats: Stats) => void): Buffer {
  let stats: Stats;
  try {
    stats = statSync(file);
  } catch (error) {
    throw unreadable(file, what, error);
  }
  if (!stats.isFile() || stats.size > FILE_BYTES_MAX)
    throw invalidParameter(`${what} "${file}" is not a file of at most 1 MB`);
  check(stats);
  const stamp = stampOf(stats);
  const before = known.get(file);
  if (before?.stamp === stamp) return before.content;
  try {
    const content = readFileSync(file);
    if (known.size >= FILES_MAX) known.clear();
    known.set(file, { stamp, content });
    return content;
  } catch (error) {
    throw unreadable(file, what, error);
  }
}

function stampOf(stats: Stats): string {
  return `${stats.dev}:${stats.ino}:${stats.size}:${stats.mtimeMs}:${stats.ctimeMs}`;
}

function unreadable(file: string, what: string, error: unknown): Error {
  const { code } = error as NodeJS.ErrnoException;
  const why =
    code === 'ENOENT' ? 'there is no such file' : code === 'EACCES' ? 'permission denied' : String(code);
  return invalidParameter(`cannot read ${what} "${file}": ${why}`);
}
