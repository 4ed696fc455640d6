/**
 * Data directories for test servers: initdb runs once for each version and kind of login, and servers get copies of what it
 * made (a tenth of a second rather than half a one, some hundreds of times in a run of all tests). Templates live as long as
 * the run: data-template-setup.ts makes and removes their directory, and names it in the environment. Without one, as in a
 * benchmark, initdb runs for each server.
 *
 * Invariant: a template gets its name only when it is whole, so that processes which make the same one at once don't mind.
 * Invariant: each copy is another cluster, as for initdb: its system identifier is its own.
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { type InitializeOptions, initializeServer } from '../../src/embedded/server.ts';

export const TEMPLATES_VARIABLE = 'POSTERN_TEST_TEMPLATES';

/** Bytes of the system identifier, at the head of pg_control, and where a WAL file has them (XLogLongPageHeaderData). */
const IDENTIFIER_BYTES = 8;
const IDENTIFIER_IN_WAL_AT = 24;
/** ControlFileData is never longer (PG_CONTROL_MAX_SAFE_SIZE). */
const CONTROL_BYTES_MAX = 512;
const WAL_FILE = /^[0-9A-F]{24}$/;

/** What initializeServer does, from a template where there may be some. */
export async function initializeFromTemplate(options: InitializeOptions): Promise<void> {
  const directory = process.env[TEMPLATES_VARIABLE];
  if (directory === undefined || options.durable) return initializeServer(options);
  const login = options.superuserPassword === undefined ? 'trust' : 'password';
  const { version } = options.installation;
  const template = path.join(directory, `${version}-${login}-${options.superuserPassword ?? ''}`);
  if (!existsSync(template)) await makeTemplate(template, options);
  await copyDirectory(template, options.dataDirectory);
  await giveIdentifier(options.dataDirectory);
}

async function makeTemplate(template: string, options: InitializeOptions): Promise<void> {
  const made = `${template}.${process.pid}.${randomBytes(4).toString('hex')}`;
  await initializeServer({ ...options, dataDirectory: made });
  await fs.rename(made, template).catch(async (error: NodeJS.ErrnoException) => {
    // Another process was quicker.
    if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
    await fs.rm(made, { recursive: true });
  });
}

async function copyDirectory(from: string, to: string): Promise<void> {
  const child = spawn('cp', ['-a', from, to], { stdio: ['ignore', 'ignore', 'inherit'] });
  const status = await new Promise((resolve, reject) => {
    child.once('close', resolve);
    child.once('error', reject);
  });
  if (status !== 0) throw new Error(`${from} could not be copied to ${to}`);
}

async function giveIdentifier(dataDirectory: string): Promise<void> {
  const identifier = randomBytes(IDENTIFIER_BYTES);
  const controlFile = path.join(dataDirectory, 'global/pg_control');
  const control = await fs.readFile(controlFile);
  const checksumAt = findChecksum(control);
  identifier.copy(control);
  control.writeUInt32LE(crc32c(control.subarray(0, checksumAt)), checksumAt);
  await writeOver(controlFile, control.subarray(0, CONTROL_BYTES_MAX), 0);
  const walDirectory = path.join(dataDirectory, 'pg_wal');
  for (const name of await fs.readdir(walDirectory))
    if (WAL_FILE.test(name)) await writeOver(path.join(walDirectory, name), identifier, IDENTIFIER_IN_WAL_AT);
}

/** The file keeps its owner and its mode. */
async function writeOver(file: string, bytes: Buffer, position: number): Promise<void> {
  const handle = await fs.open(file, 'r+');
  try {
    await handle.write(bytes, 0, bytes.length, position);
  } finally {
    await handle.close();
  }
}

/** The checksum is the last field, and where that is depends on the version: it is where it is right. */
function findChecksum(control: Buffer): number {
  for (let at = IDENTIFIER_BYTES; at < CONTROL_BYTES_MAX; at += 4) {
    const value = control.readUInt32LE(at);
    if (value !== 0 && value === crc32c(control.subarray(0, at))) return at;
  }
  throw new Error('no checksum in pg_control');
}

/** CRC-32C (RFC 3720, appendix B.4). */
function crc32c(bytes: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return ~crc >>> 0;
}
