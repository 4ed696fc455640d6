import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { describeDsn, formatDsn, parseDsn, parseDsnOfOneServer } from './dsn.ts';

describe('parseDsn', () => {
  it('reads a whole URI', () => {
    const dsn = parseDsn(
      'postgresql://ann:s%40cret@db.example:5433/shop?sslmode=require&application_name=a%20b',
    );
    expect({ ...dsn, options: [...dsn.options] }).toEqual({
      host: 'db.example',
      port: 5433,
      hosts: [{ host: 'db.example', port: 5433 }],
      user: 'ann',
      password: 's@cret',
      database: 'shop',
      sslmode: 'require',
      options: [['application_name', 'a b']],
    });
  });

  it('reads pairs, with blanks, quotes and escapes', () => {
    const dsn = parseDsn(
      `host = /run/pg  port=6000 user='a b' password='it\\'s \\\\' dbname=x\\ y connect_timeout=3`,
    );
    expect(dsn).toMatchObject({
      host: '/run/pg',
      port: 6000,
      user: 'a b',
      password: "it's \\",
      database: 'x y',
    });
    expect([...dsn.options]).toEqual([['connect_timeout', '3']]);
  });

  it.each([
    ['postgres://', 'localhost', 5432],
    ['postgres://[::1]:7/d', '::1', 7],
    ['postgres://%2Frun%2Fpg/d', '/run/pg', 5432],
    ['postgres:///d?host=/tmp&port=6', '/tmp', 6],
    ['postgres://u:a@b@h/d', 'h', 5432],
    ['', 'localhost', 5432],
    ['host=h hostaddr=10.0.0.1', '10.0.0.1', 5432],
  ])('takes %s to %s port %i', (text, host, port) => {
    expect(parseDsn(text)).toMatchObject({ host, port });
  });

  it('takes what is not said from the environment, then from PostgreSQL’s defaults', () => {
    const env = {
      PGHOST: 'h',
      PGPORT: '7',
      PGUSER: 'u',
      PGPASSWORD: 'p',
      PGDATABASE: 'd',
      PGSSLMODE: 'disable',
    };
    expect(parseDsn('', env)).toMatchObject({
      host: 'h',
      port: 7,
      user: 'u',
      password: 'p',
      database: 'd',
      sslmode: 'disable',
    });
    expect(parseDsn('postgres://x:y@z:1/w', env)).toMatchObject({
      host: 'z',
      port: 1,
      user: 'x',
      password: 'y',
      database: 'w',
    });
    expect(parseDsn('user=ann')).toMatchObject({ database: 'ann', password: undefined, sslmode: undefined });
    expect(parseDsn('', {})).toMatchObject({ user: 'postgres', database: 'postgres' });
  });

  it.each([
    ['shop', 'neither'],
    ["host='x", 'neither'],
    ['postgres://h:99999/d', 'port'],
    ['postgres://h:x/d', 'port'],
    ['host=a,b port=1,2,3', '3 ports for 2 hosts'],
    ['host=a port=1,2', '2 ports for 1 host'],
    ['postgres://a:1,b:x/d', 'port'],
    ['postgres://a:1,b:2:3/d', 'brackets'],
    [`host=${'a,'.repeat(16)}`, 'more than 16'],
    ['postgres://::1/d', 'brackets'],
    ['postgres://u:50%@h/d', '%25'],
    ['postgres://h/d?sslmode=maybe', 'sslmode'],
    ['postgres://h/d?x', 'parameter'],
  ])('refuses %s', (text, reason) => {
    expect(() => parseDsn(text)).toThrow(reason);
  });

  it.each([
    ['postgres://a,b/d', ['a:5432', 'b:5432']],
    ['postgres://u:p@a:1,[::1]:2,c/d', ['a:1', '::1:2', 'c:5432']],
    ['postgres:///d?host=a,b&port=7', ['a:7', 'b:7']],
    ['host=a,/run/pg port=1,2', ['a:1', '/run/pg:2']],
    ["host='a, b,' port=7", ['a:7', 'b:7', 'localhost:7']],
  ])('reads the hosts of %s', (text, hosts) => {
    const dsn = parseDsn(text);
    expect(dsn.hosts.map(({ host, port }) => `${host}:${port}`)).toEqual(hosts);
    expect(dsn).toMatchObject(dsn.hosts[0]!);
    expect(() => parseDsnOfOneServer(text)).toThrow('several hosts');
  });

  it('writes what it reads', () => {
    const word = fc.string({ minLength: 1, unit: 'grapheme' }).filter((text) => !text.includes('\0'));
    const host = fc.record({
      host: fc.constantFrom('a', 'db.example', '::1', '/run/pg', '10.0.0.1'),
      port: fc.integer({ min: 1, max: 65_535 }),
    });
    const dsns = fc.record({
      hosts: fc.array(host, { minLength: 1, maxLength: 4 }),
      user: word,
      password: fc.option(word, { nil: undefined }),
      database: word,
      sslmode: fc.constantFrom(undefined, 'disable', 'verify-full'),
      options: fc.constant(new Map([['application_name', 'a&b=c %']])),
    });
    fc.assert(
      fc.property(dsns, (dsn) => {
        const whole = { ...dsn, ...dsn.hosts[0]! };
        expect(parseDsn(formatDsn(whole as Parameters<typeof formatDsn>[0]))).toEqual(whole);
      }),
    );
  });

  it('never repeats the text in an error', () => {
    for (const text of [
      'postgres://u:hunter2@h:bad/d',
      'postgres://u:hunter2%@h/d',
      'user=u password=hunter2 x',
    ]) {
      expect(() => parseDsn(text)).toThrow(expect.not.stringContaining('hunter2'));
    }
  });

  it('gives back whatever was percent-encoded into a URI or quoted into a pair', () => {
    const word = fc.string({ minLength: 1, unit: 'grapheme' }).filter((text) => !text.includes('\0'));
    fc.assert(
      fc.property(word, word, word, (user, password, database) => {
        const encode = encodeURIComponent;
        const quote = (text: string) => `'${text.replace(/['\\]/g, '\\$&')}'`;
        const expected = { user, password, database };
        expect(
          parseDsn(`postgres://${encode(user)}:${encode(password)}@h/${encode(database)}`),
        ).toMatchObject(expected);
        expect(
          parseDsn(`user=${quote(user)} password=${quote(password)} dbname=${quote(database)}`),
        ).toMatchObject(expected);
      }),
    );
  });

  it('describes itself without the password', () => {
    expect(describeDsn(parseDsn('postgres://u:hunter2@[::1]:7/d'))).toBe('u@[::1]:7/d');
    expect(describeDsn(parseDsn('postgres://u:hunter2@a,[::1]:7/d'))).toBe('u@a:5432,[::1]:7/d');
  });
});
