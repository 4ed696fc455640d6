import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { formatScramVerifier, makeScramVerifier } from '../wire/scram.ts';
import { parseUsersFile } from './users-file.ts';

const verifierOf = async (password: string, salt = randomBytes(16)) =>
  formatScramVerifier(await makeScramVerifier({ password, salt }));

describe('the users’ file', () => {
  it('holds passwords, verifiers and hashes', async () => {
    const verifier = await verifierOf('s');
    const users = parseUsersFile(
      `; a comment\n# another\n"ann" "open ""sesame"""\n"b""ob" "${verifier}"\n  "carl"  "md5${'0'.repeat(32)}" "ignored"\n"nobody" ""\n`,
      'users.txt',
    );
    expect(users.map(({ name }) => name)).toEqual(['ann', 'b"ob', 'carl', 'nobody']);
    expect(users.map(({ secrets }) => secrets!.map(({ kind }) => kind))).toEqual([
      ['password'],
      ['scram'],
      ['md5'],
      [],
    ]);
    expect(users[0]!.secrets![0]).toEqual({ kind: 'password', password: 'open "sesame"' });
  });

  it('may list a name twice, while its password is changed', () => {
    const [ann] = parseUsersFile('"ann" "new"\n"ann" "old"\n', 'users.txt');
    expect(ann!.secrets).toEqual([
      { kind: 'password', password: 'new' },
      { kind: 'password', password: 'old' },
    ]);
  });

  it('takes two verifiers of one salt alone', async () => {
    const salt = randomBytes(16);
    const [first, second, other] = await Promise.all([
      verifierOf('a', salt),
      verifierOf('b', salt),
      verifierOf('b'),
    ]);
    expect(parseUsersFile(`"ann" "${first}"\n"ann" "${second}"`, 'users.txt')[0]!.secrets).toHaveLength(2);
    expect(() => parseUsersFile(`"ann" "${first}"\n"ann" "${other}"`, 'users.txt')).toThrow(
      'users.txt, line 2: another verifier of this name has another salt',
    );
  });

  it.each([
    ['ann secret', 'a line is "name" "password", each in double quotes'],
    ['"ann"', 'a line is "name" "password"'],
    ['"ann" "SCRAM-SHA-256$4096:secret"', 'it begins as a SCRAM-SHA-256 verifier does, and is none'],
  ])('says where %s is wrong, and not what stands there', (line, message) => {
    const parse = () => parseUsersFile(`\n${line}`, 'users.txt');
    expect(parse).toThrow(`users.txt, line 2: ${message}`);
    expect(parse).not.toThrow('secret');
  });
});
