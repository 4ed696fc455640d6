import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { formatScramVerifier, makeScramVerifier } from '../wire/scram.ts';
import { readConfig } from './config.ts';

const directory = mkdtempSync(join(tmpdir(), 'postern-config-auth-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const write = (name: string, text: string) => writeFileSync(join(directory, name), text);

function read(config: Record<string, unknown>, environment: NodeJS.ProcessEnv = {}) {
  const nodes = [{ name: 'n1', dsn: 'postgres://postern@10.0.0.1/app' }];
  write('postern.yaml', JSON.stringify({ database: 'app', nodes, ...config }));
  return readConfig(join(directory, 'postern.yaml'), environment);
}

const verifier = formatScramVerifier(await makeScramVerifier({ password: 'secret', salt: randomBytes(16) }));
write('password', 'open sesame\n');
write('empty', '\n');
write('verifier', `${verifier}\n`);
write('users.txt', `"dora" "secret"\n"ann" "older"\n`);
write('pg_hba.conf', 'local all all peer\nhostssl all all all scram-sha-256\n');
write('pg_ident.conf', 'people "CN=Ann" ann\n');

describe('who may log in', () => {
  it('is read from files and the environment', () => {
    const { users, authentication } = read(
      {
        users: [
          { name: 'ann', password_file: 'password' },
          { name: 'ann', password_env: 'ANN_BEFORE' },
          { name: 'bob', verifier_file: 'verifier' },
          { name: 'carl', trust: true },
        ],
        users_file: 'users.txt',
        hba_file: 'pg_hba.conf',
        ident_file: 'pg_ident.conf',
        authentication: { from_nodes: true, auth_query: 'SELECT usename, passwd FROM lookup($1)' },
      },
      { ANN_BEFORE: 'before' },
    );
    const told = users.map(({ name, password, secrets }) => [
      name,
      password,
      secrets?.map((secret) => (secret.kind === 'password' ? secret.password : secret.kind)),
    ]);
    expect(told).toEqual([
      ['carl', undefined, undefined],
      ['ann', undefined, ['open sesame', 'before']],
      ['bob', undefined, ['scram']],
      ['dora', undefined, ['secret']],
      ['ann', undefined, ['older']],
    ]);
    expect(authentication).toMatchObject({
      ...{ fromNodes: true, authQuery: 'SELECT usename, passwd FROM lookup($1)' },
      rules: expect.stringContaining('hostssl'),
      ident: expect.stringContaining('people'),
    });
  });

  it('is told within the file as well', () => {
    expect(
      read({ authentication: { from_nodes: true }, hba: 'host all all all reject' }).authentication,
    ).toEqual({
      ...{ fromNodes: true, authQuery: undefined },
      ...{ rules: 'host all all all reject', rulesName: 'hba' },
    });
  });

  it.each<[string, Record<string, unknown>, string]>([
    ['nobody', {}, 'nobody may log in'],
    [
      'two ways at once',
      { users: [{ name: 'a', trust: true, password_file: 'password' }] },
      'exactly one of',
    ],
    ['none', { users: [{ name: 'a' }] }, 'exactly one of'],
    [
      'trust and a password',
      {
        users: [
          { name: 'a', trust: true },
          { name: 'a', password_file: 'password' },
        ],
      },
      'user "a" is listed with trust and with a password',
    ],
    [
      'trust, and a password in the file',
      { users: [{ name: 'ann', trust: true }], users_file: 'users.txt' },
      'user "ann" is listed with trust, and with a password in users_file',
    ],
    [
      'a file that is empty',
      { users: [{ name: 'a', password_file: 'empty' }] },
      'empty, the password file of user "a", is empty',
    ],
    [
      'a file that is not there',
      { users: [{ name: 'a', password_file: 'absent' }] },
      'the password file of user "a": absent',
    ],
    [
      'a variable that is not there',
      { users: [{ name: 'a', password_env: 'X' }] },
      'the environment has no X',
    ],
    ['no verifier', { users: [{ name: 'a', verifier_file: 'password' }] }, 'holds no SCRAM-SHA-256 verifier'],
    ['a users’ file that is not there', { users_file: 'absent' }, 'cannot read users_file: absent'],
    [
      'a wrong rule',
      { users_file: 'users.txt', hba: '\nhost all all all trusted' },
      'hba, line 2: "trusted" is no method',
    ],
    [
      'rules twice',
      { users_file: 'users.txt', hba: '', hba_file: 'pg_hba.conf' },
      'give hba or hba_file, not both',
    ],
    ['a wrong map', { users_file: 'users.txt', ident: 'x' }, 'ident, line 1: a line has three words'],
    [
      'auth_query alone',
      { users_file: 'users.txt', authentication: { auth_query: 'SELECT $1' } },
      'goes with from_nodes',
    ],
    [
      'auth_query for nobody',
      { authentication: { from_nodes: true, auth_query: 'SELECT 1' } },
      'must have $1',
    ],
  ])('%s', (_, config, message) => {
    expect(() => read(config)).toThrow(message);
    expect(() => read(config)).not.toThrow(/open sesame|secret/);
  });
});
