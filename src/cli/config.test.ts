import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readConfig } from './config.ts';

let directory = '';
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'postern-config-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const node = (dsn: string) => ({ nodes: [{ name: 'n1', dsn }] });

function read(extra: object) {
  const file = join(directory, 'postern.yaml');
  // JSON is YAML.
  const usual = {
    database: 'app',
    ...node('host=h user=u password=hush'),
    users: [{ name: 'app', trust: true }],
  };
  writeFileSync(file, JSON.stringify({ ...usual, ...extra }));
  return readConfig(file, {});
}

describe('a wrong value is one line that names its place, and no secret', () => {
  it.each([
    [{ limits: { clients: 0 } }, /limits\.clients: /],
    [{ limits: { roles: { report: 'x' } } }, /limits\.roles\.report: /],
    [{ limits: { queue: { wait: 10 } } }, /limits\.queue\.wait: must be a time with its unit/],
    [{ timeouts: { idle: '5m' } }, /timeouts\.idle: must be a time with its unit/],
    [{ timeouts: { idle: true } }, /timeouts\.idle: must be a time with its unit/],
    [{ timeouts: { stalled: '100d' } }, /timeouts\.stalled: must be less than 25d/],
    [{ timeouts: { login: 0 } }, /timeouts\.login: must be more than 0/],
    [{ timeouts: { keepalive: '1ms' } }, /timeouts\.keepalive: must be 1s or more/],
    [{ drain: { delay: [] } }, /drain\.delay: must be a time with its unit/],
    [{ health: { cut_after: '1s' } }, /health\.cut_after: must not be less than unresponsive_after/],
    [{ http: { port: 1 }, metrics: { port: 2 } }, /metrics: http and metrics are the same/],
    [{ log: { level: 'debug' } }, /log\.level: /],
    [{ bypass: { allow: 'backup' } }, /bypass\.allow: /],
    [{ workers: 121 }, /workers: /],
    [{ pool: 3 }, /Unrecognized key: "pool"/],
    [node('mysql://u:hush@h/app'), /node "n1": the connection string can't be read/],
    [node('postgres://u:hush@h/app?sslmod=verify-full'), /node "n1": .* none of libpq's/],
    [node('service=shop password=hush'), /node "n1": the connection string's service is not supported/],
    [
      node('postgres://u:hush@h/app?sslmode=verify-ca&sslrootcert=gone.crt'),
      /cannot read its sslrootcert .*gone\.crt: there is no such file/,
    ],
  ])('%j', (extra, message) => {
    expect(() => read(extra)).toThrow(message);
    expect(() => read(extra)).toThrow(/^(?!.*hush)[^\n]*$/);
  });
});

it('all that libpq knows may be said', () => {
  const dsn =
    'postgres://u@h/app?application_name=a&connect_timeout=3&target_session_attrs=primary&sslmode=require';
  expect(read(node(dsn)).nodes[0]?.dsn).toContain('connect_timeout=3');
});
