/**
 * A PostgreSQL on a disk of chosen slowness: slow-disk.c is compiled with the machine's C compiler and preloaded by a
 * wrapper of `postgres`, so that servers are started as any other. How slow it is may change while they run.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Installation } from '../../src/embedded/installation.ts';

const SOURCE = fileURLToPath(new URL('slow-disk.c', import.meta.url));
const FILE = 'slow-disk';

export interface Slowness {
  /** Added to each flush of the WAL. */
  readonly syncMs?: number;
  /** Of the WAL; Infinity: as fast as it is. */
  readonly writtenBytesPerSecond?: number;
}

/** An installation whose servers read their slowness, or why there is none. */
export function slowDiskInstallation(
  installation: Installation,
): { installation: Installation; remove(): void } | { missing: string } {
  if (process.platform !== 'linux') return { missing: 'a library is preloaded on Linux only' };
  const directory = mkdtempSync(path.join(tmpdir(), 'postern-slow-disk-'));
  const remove = (): void => rmSync(directory, { recursive: true, force: true });
  // The servers' own account has to pass through it.
  chmodSync(directory, 0o755);
  const library = path.join(directory, 'slow-disk.so');
  const compiled = spawnSync('cc', ['-O2', '-shared', '-fPIC', '-o', library, SOURCE, '-ldl'], {
    encoding: 'utf8',
  });
  if (compiled.status !== 0) {
    remove();
    return { missing: `no C compiler: ${compiled.error?.message ?? compiled.stderr.split('\n')[0]}` };
  }
  for (const program of ['postgres', 'initdb']) {
    const preload = program === 'postgres' ? `LD_PRELOAD='${library}' ` : '';
    const wrapper = path.join(directory, program);
    writeFileSync(
      wrapper,
      `#!/bin/sh\n${preload}exec '${path.join(installation.binDirectory, program)}' "$@"\n`,
    );
    chmodSync(wrapper, 0o755);
  }
  return { installation: { ...installation, binDirectory: directory }, remove };
}

/** Of one server, at once; a standby made by copying it starts with the same and has its own from then on. */
export function setSlowness(dataDirectory: string, slowness: Slowness): void {
  const { syncMs = 0, writtenBytesPerSecond = Number.POSITIVE_INFINITY } = slowness;
  const numbers = Buffer.alloc(16);
  numbers.writeBigUInt64LE(BigInt(Math.round(syncMs * 1e6)), 0);
  numbers.writeBigUInt64LE(BigInt(Math.round(1e9 / writtenBytesPerSecond)), 8);
  const file = path.join(dataDirectory, FILE);
  // In place: the servers have it mapped.
  writeFileSync(file, numbers, { flag: 'r+', mode: 0o644 });
}

/** Before the server's first flush, or it is found at the next one. */
export function makeSlownessFile(dataDirectory: string): void {
  const file = path.join(dataDirectory, FILE);
  writeFileSync(file, Buffer.alloc(16));
  chmodSync(file, 0o644);
}
