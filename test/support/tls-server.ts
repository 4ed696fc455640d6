/** Gives a test server certificates, and rules of its own for who may come in. */
import { chmodSync, chownSync, copyFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CertificateFiles } from './certificates.ts';
import type { TestServer } from './servers.ts';

/** Files are copied to where the server may read them. It serves TLS from the next connection on. */
export async function serveTls(
  server: TestServer,
  options: { readonly certificate: CertificateFiles; readonly clientCa?: string },
): Promise<void> {
  const place = (name: string, source: string): string => {
    const file = join(server.dataDir, name);
    copyFileSync(source, file);
    own(server, file);
    return file;
  };
  const files = {
    ssl_cert_file: place('tls.crt', options.certificate.certificate),
    ssl_key_file: place('tls.key', options.certificate.key),
    ...(options.clientCa !== undefined && { ssl_ca_file: place('tls-clients.crt', options.clientCa) }),
  };
  for (const [name, file] of Object.entries(files))
    await server.query(`ALTER SYSTEM SET ${name} = '${file}'`);
  await server.query('ALTER SYSTEM SET ssl = on');
  await reload(server);
}

/** `rules` in the place of the whole pg_hba.conf, but for the superuser `postgres`, whom the tests need. */
export async function admitBy(server: TestServer, rules: string): Promise<void> {
  const file = join(server.dataDir, 'pg_hba.conf');
  writeFileSync(file, `host all postgres 127.0.0.1/32 trust\n${rules}\n`);
  own(server, file);
  await reload(server);
  const wrong = await server.query(
    'SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL',
  );
  if (wrong.length > 0) throw new Error(`pg_hba.conf: ${JSON.stringify(wrong)}`);
}

function own(server: TestServer, file: string): void {
  const { uid, gid } = statSync(server.dataDir);
  if (process.getuid?.() === 0) chownSync(file, uid, gid);
  chmodSync(file, 0o600);
}

/** Resolves once new connections see it. */
async function reload(server: TestServer): Promise<void> {
  const [before] = await server.query('SELECT pg_conf_load_time()::text AS at');
  await server.query('SELECT pg_reload_conf()');
  for (let i = 0; i < 100; i++) {
    const [now] = await server.query('SELECT pg_conf_load_time()::text AS at');
    if (now!.at !== before!.at) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error('the server did not read its configuration again');
}
