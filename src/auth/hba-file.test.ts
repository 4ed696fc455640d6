import { describe, expect, it } from 'vitest';
import { parseHba } from './hba-file.ts';
import { matchRule } from './hba-rules.ts';
import { parseAddress, parseNetwork } from './ip-network.ts';

const ownNetworks = [parseNetwork('192.168.7.9/24')!];
const parse = (text: string) => parseHba({ file: 'pg_hba.conf', text, ownNetworks });

interface Client {
  address?: string;
  encrypted?: boolean;
  database?: string;
  user?: string;
  groups?: readonly string[];
}

/** The line that decides, and its method. */
function decide(text: string, client: Client = {}): string {
  const rule = matchRule(parse(text).rules, {
    address: parseAddress(client.address ?? '10.0.0.1'),
    encrypted: client.encrypted ?? false,
    database: client.database ?? 'app',
    user: client.user ?? 'ann',
    groups: new Set(client.groups ?? []),
  });
  return rule ? `${rule.line} ${rule.method}` : 'none';
}

describe('rules', () => {
  it.each<[string, string, Client, string]>([
    ['the first that fits decides', 'host all all all reject\nhost all all all trust', {}, '1 reject'],
    ['none', 'host all bob all trust', {}, 'none'],
    [
      'comments and blank lines',
      '# host all all all trust\n\n  \nhost all all all trust # all',
      {},
      '4 trust',
    ],
    ['a line that goes on', 'host all all \\\n all trust\nhost all all all reject', {}, '1 trust'],
    ['hostssl without TLS', 'hostssl all all all trust', {}, 'none'],
    ['hostssl with TLS', 'hostssl all all all trust', { encrypted: true }, '1 trust'],
    ['hostnossl with TLS', 'hostnossl all all all trust', { encrypted: true }, 'none'],
    ['hostnossl without', 'hostnossl all all all trust', {}, '1 trust'],
    ['hostnogssenc is host', 'hostnogssenc all all all trust', {}, '1 trust'],
    ['a database', 'host app all all trust', {}, '1 trust'],
    ['another one', 'host crm all all trust', {}, 'none'],
    ['a list of them', 'host crm,app all all trust', {}, '1 trust'],
    ['a list with blanks', 'host crm, app all all trust', {}, '1 trust'],
    ['sameuser', 'host sameuser all all trust', { user: 'app' }, '1 trust'],
    ['sameuser of another', 'host sameuser all all trust', {}, 'none'],
    ['samerole', 'host samerole all all trust', { groups: ['app'] }, '1 trust'],
    ['samegroup', 'host samegroup all all trust', {}, 'none'],
    ['replication fits none', 'host replication all all trust', { database: 'replication' }, 'none'],
    ['"all" is a name', 'host "all" all all trust', {}, 'none'],
    ['"all" is that name', 'host "all" all all trust', { database: 'all' }, '1 trust'],
    ['names with blanks and quotes', 'host all "a b","x""y" all trust', { user: 'x"y' }, '1 trust'],
    ['names keep their case', 'host all Ann all trust', {}, 'none'],
    ['a group', 'host all +crew all trust', { groups: ['crew'] }, '1 trust'],
    ['a role is a member of itself', 'host all +ann all trust', {}, '1 trust'],
    ['a stranger to the group', 'host all +crew all trust', { groups: ['staff'] }, 'none'],
    ['a quoted plus is a name', 'host all "+crew" all trust', { groups: ['crew'] }, 'none'],
    ['a plus before quotes is a group', 'host all +"my crew" all trust', { groups: ['my crew'] }, '1 trust'],
    ['a network', 'host all all 10.0.0.0/8 trust', {}, '1 trust'],
    ['an address of another network', 'host all all 10.0.0.0/8 trust', { address: '11.0.0.1' }, 'none'],
    ['a mask', 'host all all 10.0.0.0 255.0.0.0 trust', {}, '1 trust'],
    ['IPv6', 'host all all fd00::/8 trust', { address: 'fd12::1' }, '1 trust'],
    ['IPv4 within IPv6', 'host all all 10.0.0.0/8 trust', { address: '::ffff:10.9.9.9' }, '1 trust'],
    ['IPv4 written as IPv6', 'host all all ::ffff:10.0.0.0/104 trust', {}, '1 trust'],
    ['0.0.0.0/0 is no IPv6', 'host all all 0.0.0.0/0 trust', { address: 'fd12::1' }, 'none'],
    ['samehost', 'host all all samehost trust', { address: '192.168.7.9' }, '1 trust'],
    ['samehost of a neighbour', 'host all all samehost trust', { address: '192.168.7.8' }, 'none'],
    ['samenet', 'host all all samenet trust', { address: '192.168.7.8' }, '1 trust'],
    [
      'options',
      'hostssl all all all scram-sha-256 clientcert=verify-ca',
      { encrypted: true },
      '1 scram-sha-256',
    ],
  ])('%s', (_, text, client, expected) => expect(decide(text, client)).toBe(expected));

  it('of certificates', () => {
    const [cert, both, named] = parse(
      'hostssl all all all cert\nhostssl all all all md5 clientcert=verify-full\nhostssl all all all cert map=people clientname=DN',
    ).rules;
    expect(cert).toMatchObject({ clientCertificate: 'verify-full', clientName: 'CN', map: undefined });
    expect(both).toMatchObject({ method: 'md5', clientCertificate: 'verify-full' });
    expect(named).toMatchObject({ clientName: 'DN', map: 'people' });
  });

  it('that hold for no router are passed over, and told', () => {
    const { rules, notes } = parse('local all all peer\nhostgssenc all all all gss\nhost all all all trust');
    expect(rules).toHaveLength(1);
    expect(notes).toEqual([
      'pg_hba.conf, line 1: passed over, the router listens on no Unix socket',
      "pg_hba.conf, line 2: passed over, no connection of the router's is encrypted by GSSAPI",
    ]);
  });

  it.each([
    ['host all all', 'the line ends before the address'],
    ['host all all all', 'the line ends before the method'],
    ['hots all all all trust', '"hots" is no type of connection: host, hostssl, hostnossl'],
    ['include other.conf', '"include" is not supported: put all rules into one file'],
    ['host all all all trusted', '"trusted" is no method: trust, reject, scram-sha-256, md5, password, cert'],
    [
      'host all all all ldap',
      'method "ldap" is not supported: with "password" over TLS the home node checks it',
    ],
    ['host all all db.example.org trust', '"db.example.org" is no address: host names are not supported'],
    ['host all all 10.0.0.1 trust', '"trust" is no mask for 10.0.0.1 (write 10.0.0.1/32 for one address)'],
    ['host all all 10.0.0.0/40 trust', '"10.0.0.0/40" is no network'],
    ['host all all "all" trust', '"all" is no address'],
    ['host all all "samehost" trust', '"samehost" is no address'],
    ['host all "/^a" all reject', '"/^a": regular expressions are not supported'],
    ['host all all ::ffff:10.0.0.0/24 trust', '"::ffff:10.0.0.0/24" is no network'],
    ['hostssl all all all password ldapbindpasswd=hush', 'the option ldapbindpasswd is none of'],
    ['host all @file all trust', '"@file": a file of names is not supported'],
    ['host all /^a all trust', '"/^a": regular expressions are not supported'],
    ['host all all all cert', 'method "cert" is for hostssl alone'],
    ['host all all all md5 clientcert=verify-ca', '"clientcert" is for hostssl alone'],
    ['hostssl all all all cert clientcert=verify-ca', 'method "cert" always means clientcert=verify-full'],
    ['hostssl all all all trust map=x', '"map" is for method "cert" alone'],
    ['hostssl all all all trust clientcert=1', 'the option clientcert is none of'],
    ['host all "ann all all trust', 'a quote is not closed'],
    ['host all ann, all', 'the line ends before the address'],
    [', host', 'nothing stands before a comma'],
    ['host all ann ,bob all trust', 'nothing stands before a comma'],
    ['host all all all md5 trust', 'what stands behind the method is none of'],
    ['host all all all trust\u00a0', 'a quote is not closed'],
    ['host all ann,,bob all trust', 'nothing stands before a comma'],
    ['host,hostssl all all all trust', 'the type of connection is a single word'],
  ])('%s', (line, message) => {
    expect(() => parse(`\n${line}`)).toThrow(`pg_hba.conf, line 2: ${message}`);
  });
});
