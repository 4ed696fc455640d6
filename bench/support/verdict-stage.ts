/** A server whose disk, CPU, links and clients can each be made the bottleneck, one after the other, while it runs. */
import pg from 'pg';
import { serverAccount } from '../../src/embedded/account.ts';
import { CpuQuota, findCpuController } from '../../src/embedded/cpu-quota.ts';
import { embeddedInstallation } from '../../src/embedded/installation.ts';
import { ScratchServer } from '../../src/embedded/scratch.ts';
import { makeSlownessFile, type Slowness, setSlowness, slowDiskInstallation } from './slow-disk.ts';
import { SlowWire } from './slow-wire.ts';

const SETTINGS: Readonly<Record<string, string>> = {
  max_connections: '300',
  shared_buffers: '256MB',
  max_wal_size: '8GB',
  checkpoint_timeout: '1h',
  // A new segment that is filled with zeros would be a write of 16 MB on the slow disk.
  wal_init_zero: 'off',
  // More would hold all that a short window writes, and let it run as if the disk were fast.
  wal_buffers: '1MB',
  wal_keep_size: '1GB',
};
const SETTING_TIMEOUT_MS = 10_000;

export class VerdictStage {
  /** What this machine lacks, and so can't be made a bottleneck. */
  readonly missing: readonly string[];
  readonly server: ScratchServer;
  readonly hasSlowDisk: boolean;
  readonly quota: CpuQuota | undefined;
  private readonly admin: pg.Client;
  private readonly removeDisk: () => void;
  private standbys: ScratchServer[] = [];
  private standbyWire: SlowWire | undefined;

  private constructor(parts: {
    missing: readonly string[];
    server: ScratchServer;
    hasSlowDisk: boolean;
    quota: CpuQuota | undefined;
    admin: pg.Client;
    removeDisk: () => void;
  }) {
    this.missing = parts.missing;
    this.server = parts.server;
    this.hasSlowDisk = parts.hasSlowDisk;
    this.quota = parts.quota;
    this.admin = parts.admin;
    this.removeDisk = parts.removeDisk;
  }

  static async start(): Promise<VerdictStage> {
    const stock = await embeddedInstallation(serverAccount());
    const slow = slowDiskInstallation(stock);
    const controller = findCpuController();
    const hasSlowDisk = 'installation' in slow;
    const removeDisk = hasSlowDisk ? slow.remove : () => {};
    try {
      const server = await ScratchServer.start({
        settings: SETTINGS,
        installation: hasSlowDisk ? slow.installation : stock,
      });
      makeSlownessFile(server.dataDirectory);
      let quota: CpuQuota | undefined;
      if ('directory' in controller) {
        quota = new CpuQuota({
          directory: controller.directory,
          name: 'verdicts',
          share: Number.POSITIVE_INFINITY,
        });
        quota.add(server.pid);
      }
      const admin = new pg.Client({ connectionString: dsnOf(server.port) });
      admin.on('error', () => {});
      await admin.connect();
      const missing = [
        ...(hasSlowDisk ? [] : [slow.missing]),
        ...('missing' in controller ? [controller.missing] : []),
      ];
      return new VerdictStage({ missing, server, hasSlowDisk, quota, admin, removeDisk });
    } catch (error) {
      removeDisk();
      throw error;
    }
  }

  get dsn(): string {
    return dsnOf(this.server.port);
  }

  slowDisk(slowness: Slowness): void {
    setSlowness(this.server.dataDirectory, slowness);
  }

  slowStandbys(slowness: Slowness): void {
    for (const standby of this.standbys) setSlowness(standby.dataDirectory, slowness);
  }

  async query(text: string): Promise<void> {
    await this.admin.query(text);
  }

  /** So many standbys behind one wire, of which commits wait for all. */
  async synchronousStandbys(count: number): Promise<SlowWire> {
    this.standbyWire ??= await SlowWire.open(this.server.port);
    while (this.standbys.length < count) {
      const name = `standby_${this.standbys.length + 1}`;
      this.standbys.push(
        await this.server.startStandby({ name, settings: SETTINGS, upstreamPort: this.standbyWire.port }),
      );
    }
    const names = this.standbys.slice(0, count).map((_, index) => `standby_${index + 1}`);
    await this.waitForNames(`${count} (${names.join(', ')})`, count);
    return this.standbyWire;
  }

  /** Everything as fast as it is; standbys stream on, and nobody waits for them. */
  async release(): Promise<void> {
    if (this.hasSlowDisk) this.slowDisk({});
    this.slowStandbys({});
    this.quota?.set(Number.POSITIVE_INFINITY);
    if (this.standbyWire !== undefined) {
      this.standbyWire.bytesPerSecond = Number.POSITIVE_INFINITY;
      this.standbyWire.delayMs = 0;
      await this.waitForNames('', 0);
    }
  }

  async stop(): Promise<void> {
    await this.admin.end().catch(() => {});
    // Stopped last, since its standbys stream from it.
    for (const standby of this.standbys) await standby.stop();
    await this.standbyWire?.close();
    await this.server.stop();
    this.quota?.remove();
    this.removeDisk();
  }

  private async waitForNames(names: string, count: number): Promise<void> {
    await this.admin.query(`ALTER SYSTEM SET synchronous_standby_names = '${names}'`);
    await this.admin.query('SELECT pg_reload_conf()');
    const deadline = Date.now() + SETTING_TIMEOUT_MS;
    for (;;) {
      const { rows } = await this.admin.query(
        `SELECT count(*)::int AS n FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')`,
      );
      if (rows[0].n === count) return;
      if (Date.now() > deadline)
        throw new Error(`${count} synchronous standbys were wanted, ${rows[0].n} came`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

export function dsnOf(port: number): string {
  return `postgres://postgres@127.0.0.1:${port}/postgres`;
}
