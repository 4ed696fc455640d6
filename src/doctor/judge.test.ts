import { describe, expect, it, test } from 'vitest';
import { emptyMap } from '../catalog/map.ts';
import type { CatalogFacts } from './catalog-facts.ts';
import { judgeLogins } from './claims.ts';
import { compareObjects } from './compare-objects.ts';
import { compareRoles } from './compare-roles.ts';
import { bySeverity, type Finding } from './finding.ts';
import {
  compareNodes,
  compareServer,
  judgeCatalog,
  judgeMesh,
  judgeServers,
  judgeTransactions,
} from './judge-cluster.ts';
import { reportJson, reportText } from './report.ts';
import type { RoleFacts, ServerFacts, SessionFacts } from './server-facts.ts';
import { compareRoleSettings, compareSettings } from './setting-rules.ts';

const HOME: ServerFacts = {
  node: 'n1',
  requirements: {
    ...{
      node: 'n1',
      versionNumber: 180_004,
      version: '18.4',
      maxPreparedTransactions: 100,
      walLevel: 'logical',
    },
    ...{
      connectionsMax: 97,
      inRecovery: false,
      encoding: 'UTF8',
      postgresFdw: true,
      fsync: true,
      synchronousCommit: 'on',
    },
    ...{
      role: 'postern',
      superuser: true,
      mayReplicate: true,
      mayCreateInDatabase: true,
      mayCreateMesh: true,
      place: 'a',
    },
  },
  local: { clusterId: 'c', nodeId: 1, nodeName: 'n1' },
  database: 'app',
  settings: { TimeZone: 'UTC', full_page_writes: 'on', default_transaction_read_only: 'off' },
  fileSettings: {},
  ...{
    roleSettings: [],
    roles: [],
    schemas: [],
    extensions: [],
    types: [],
    enums: [],
    domains: [],
    functions: [],
  },
  sorting: { default: 'C', libc: '2.36', icu: '72' },
  ...{ prepared: [], slots: [], hasMesh: false, meshRoles: [], sessions: [], seesSessions: true },
  clock: { offsetMs: 3, boundMs: 1 },
};
const OTHER: ServerFacts = {
  ...{ ...HOME, node: 'n2', local: { clusterId: 'c', nodeId: 2, nodeName: 'n2' } },
  requirements: { ...HOME.requirements, node: 'n2', place: 'b' },
};
const CATALOG: CatalogFacts = {
  ...{
    clusterId: 'c',
    home: 'n1',
    map: emptyMap([], 1),
    unfinishedTables: [],
    unfinishedDdl: [],
    routers: [],
  },
  nodes: [
    { id: 1, name: 'n1' },
    { id: 2, name: 'n2' },
  ],
  ...{ cutNames: [], faceless: [] },
};
const ROLE: RoleFacts = {
  ...{
    name: 'app',
    attributes: 'LOGIN',
    validUntil: null,
    mayLogIn: true,
    memberOf: [],
    passwordDigest: 'd1',
  },
};

function told(findings: readonly Finding[]): readonly string[] {
  return findings.map(({ severity, object, message }) => `${severity} ${object}: ${message}`);
}

function statements(findings: readonly Finding[]): readonly string[] {
  return findings.flatMap(({ remedies }) => remedies.map(({ at, text }) => `${at}: ${text}`));
}

test('two nodes that are alike have no findings', () => {
  expect([
    ...compareServer(OTHER, HOME),
    ...compareSettings(OTHER, HOME),
    ...compareRoleSettings(OTHER, HOME),
    ...compareRoles(OTHER, HOME, ['app']),
    ...compareObjects(OTHER, HOME, new Set()),
    ...compareNodes({ names: ['n1', 'n2'], home: 'n1' }, CATALOG, [HOME, OTHER]),
    ...judgeTransactions(OTHER, 'c', 60),
    ...judgeCatalog(CATALOG, 60),
    ...judgeServers([HOME, OTHER], { perNode: 20, routers: 2 }),
    ...judgeMesh([HOME, OTHER], HOME, 'm'),
  ]).toEqual([]);
});

describe('servers', () => {
  const version = (versionNumber: number, text: string) => ({
    requirements: { ...OTHER.requirements, versionNumber, version: text },
  });
  it.each<[string, Partial<ServerFacts>, readonly RegExp[]]>([
    ['another major version', version(150_020, '15.20'), [/^warning version: it runs another major/]],
    ['another minor version', version(180_001, '18.1'), [/^note version: it runs another minor/]],
    [
      'another default collation',
      { sorting: { ...HOME.sorting, default: 'x' } },
      [/^warning collations \(of the database\)/],
    ],
    ['another version of ICU', { sorting: { ...HOME.sorting, icu: '71' } }, [/^note collations \(of ICU\)/]],
    [
      'a clock ahead',
      { clock: { offsetMs: 1_003, boundMs: 10 } },
      [/^warning clock: it is 1000 ms ahead of that of n1 \(± 11 ms\)/],
    ],
    ['a clock behind', { clock: { offsetMs: -30_000, boundMs: 10 } }, [/^warning clock: it is 30 s behind/]],
    ['a clock that may be right', { clock: { offsetMs: 1_003, boundMs: 600 } }, []],
    ['half a second', { clock: { offsetMs: 503, boundMs: 0 } }, []],
  ])('%s', (_, more, expected) => {
    const found = told(compareServer({ ...OTHER, ...more }, HOME));
    expect(found.length).toBe(expected.length);
    for (const [i, pattern] of expected.entries()) expect(found[i]).toMatch(pattern);
  });

  it('has the connections of all routers in mind', () => {
    expect(told(judgeServers([HOME], { perNode: 50, routers: 2 }))).toEqual([
      'warning server: it takes 97 connections, and this router may open 100',
    ]);
  });

  it('says how to set what a node lacks', () => {
    const bare = { ...OTHER.requirements, maxPreparedTransactions: 0, walLevel: 'replica', fsync: false };
    expect(statements(judgeServers([{ ...OTHER, requirements: bare }], { perNode: 20, routers: 1 }))).toEqual(
      [
        'node: ALTER SYSTEM SET fsync = on',
        'node: SELECT pg_reload_conf()',
        'node: ALTER SYSTEM SET max_prepared_transactions = 100',
        "node: ALTER SYSTEM SET wal_level = 'logical'",
      ],
    );
  });
});

test.each<[string, { names: readonly string[]; home: string }, Partial<ServerFacts>, RegExp]>([
  ['another home', { names: ['n1', 'n2'], home: 'n2' }, {}, /names another home/],
  ['a node that is not configured', { names: ['n1'], home: 'n1' }, {}, /the configuration lacks it/],
  ['a node that is new', { names: ['n1', 'n2', 'n3'], home: 'n1' }, {}, /^note node n3: .* it joins/],
  ['an empty server', { names: ['n1', 'n2'], home: 'n1' }, { local: null }, /nothing of Postern’s/],
  [
    'a server of another cluster',
    { names: ['n1', 'n2'], home: 'n1' },
    { local: { clusterId: 'x', nodeId: 2, nodeName: 'n2' } },
    /another node/,
  ],
])('nodes: %s', (_, configured, more, pattern) => {
  const found = told(compareNodes(configured, CATALOG, [HOME, { ...OTHER, ...more }]));
  expect(found).toEqual([expect.stringMatching(pattern)]);
});

describe('roles', () => {
  const run = (is: Partial<RoleFacts> | undefined, shall: Partial<RoleFacts> = {}) =>
    compareRoles(
      { ...OTHER, roles: is ? [{ ...ROLE, ...is }] : [] },
      { ...HOME, roles: [{ ...ROLE, ...shall }] },
      ['app'],
    );
  it.each<[string, Partial<RoleFacts> | undefined, Partial<RoleFacts>, readonly string[]]>([
    [
      'missing',
      undefined,
      { validUntil: '2030-01-01 00:00:00+00', memberOf: [{ role: 'team', admin: true }] },
      [
        'node: CREATE ROLE "app" LOGIN',
        `node: ALTER ROLE "app" VALID UNTIL '2030-01-01 00:00:00+00'`,
        'node: GRANT "team" TO "app" WITH ADMIN OPTION',
        `router: ALTER ROLE "app" PASSWORD '…'`,
      ],
    ],
    [
      'a limit too many',
      { attributes: 'LOGIN CONNECTION LIMIT 3' },
      {},
      ['node: ALTER ROLE "app" LOGIN CONNECTION LIMIT -1'],
    ],
    [
      'that expires',
      { validUntil: '2020-01-01 00:00:00+00' },
      {},
      [`node: ALTER ROLE "app" VALID UNTIL 'infinity'`],
    ],
    [
      'an administrator where home has a member',
      { memberOf: [{ role: 'team', admin: true }] },
      { memberOf: [{ role: 'team', admin: false }] },
      ['node: REVOKE ADMIN OPTION FOR "team" FROM "app"'],
    ],
    ['another verifier', { passwordDigest: 'd2' }, {}, [`router: ALTER ROLE "app" PASSWORD '…'`]],
    [
      'a password too many',
      { passwordDigest: 'd2' },
      { passwordDigest: null },
      ['node: ALTER ROLE "app" PASSWORD NULL'],
    ],
  ])('%s', (_, is, shall, expected) => {
    expect(statements(run(is, shall))).toEqual(expected);
  });

  it('says nothing of verifiers that it could not read, and nothing of Postern’s own role', () => {
    const unread = { name: 'app', attributes: 'LOGIN', validUntil: null, mayLogIn: true, memberOf: [] };
    expect(compareRoles({ ...OTHER, roles: [unread] }, { ...HOME, roles: [ROLE] }, [])).toEqual([]);
    expect(compareRoles(OTHER, { ...HOME, roles: [{ ...ROLE, name: 'postern' }] }, [])).toEqual([]);
  });
});

test.each<[string, Partial<ServerFacts>, Partial<ServerFacts>, readonly string[]]>([
  [
    'of the server',
    { settings: { ...HOME.settings, TimeZone: 'Asia/Tokyo' } },
    {},
    [`node: ALTER SYSTEM SET TimeZone = 'UTC'`, 'node: SELECT pg_reload_conf()'],
  ],
  [
    'a timeout of a file',
    { fileSettings: { idle_session_timeout: '1min', lock_timeout: '0' } },
    {},
    ['node: ALTER SYSTEM RESET idle_session_timeout', 'node: SELECT pg_reload_conf()'],
  ],
  [
    'of a role that is set there alone',
    { roles: [ROLE], roleSettings: [{ role: 'app', inDatabase: true, name: 'search_path', value: 'a, b' }] },
    {},
    ['node: ALTER ROLE "app" IN DATABASE "app" RESET "search_path"'],
  ],
  [
    'of the database, on home alone',
    {},
    { roleSettings: [{ role: null, inDatabase: true, name: 'search_path', value: '"$user", b' }] },
    ['node: ALTER DATABASE "app" SET "search_path" = "$user", b'],
  ],
  [
    'of a role that is missing there',
    {},
    { roleSettings: [{ role: 'app', inDatabase: false, name: 'my.setting', value: '1' }] },
    [],
  ],
])('settings %s', (_, more, home, expected) => {
  const [server, truth] = [
    { ...OTHER, ...more },
    { ...HOME, ...home },
  ];
  expect(statements([...compareSettings(server, truth), ...compareRoleSettings(server, truth)])).toEqual(
    expected,
  );
});

test.each<[string, readonly string[], readonly string[], readonly string[]]>([
  ['two labels missing', ['b'], ['a', 'b', 'c'], [`ADD VALUE 'a' BEFORE 'b'`, `ADD VALUE 'c' AFTER 'b'`]],
  ['all of them', [], ['a', 'b'], [`ADD VALUE 'a'`, `ADD VALUE 'b' AFTER 'a'`]],
  ['one too many', ['a', 'x'], ['a'], []],
  ['another order', ['b', 'a'], ['a', 'b'], []],
])('an enum with %s', (_, is, shall, expected) => {
  const facts = (labels: readonly string[]) => ({
    types: [{ schema: 's', name: 'e', text: labels.join() }],
    enums: [{ schema: 's', name: 'e', labels }],
  });
  const findings = compareObjects({ ...OTHER, ...facts(is) }, { ...HOME, ...facts(shall) }, new Set());
  expect(statements(findings)).toEqual(expected.map((text) => `node: ALTER TYPE "s"."e" ${text}`));
  expect(findings).toHaveLength(1);
});

test('prepared transactions and slots', () => {
  const prepared = (gid: string, ageSeconds: number) => ({ gid, owner: 'app', ageSeconds });
  const slot = { name: 's', kind: 'logical', active: false, keptBytes: 2e9, walStatus: 'extended' };
  const server = {
    ...OTHER,
    prepared: [
      prepared('postern:c:1', 61),
      prepared('postern:c:2', 59),
      prepared("it's", 299),
      prepared("it's", 301),
    ],
    slots: [slot, { ...slot, keptBytes: 10, walStatus: 'reserved' }, { ...slot, active: true }],
  };
  const findings = judgeTransactions(server, 'c', 60);
  expect(findings.map(({ severity }) => severity)).toEqual(['warning', 'warning', 'warning', 'note']);
  expect(statements(findings)).toEqual([
    'router: SELECT * FROM postern.prepared',
    "node: ROLLBACK PREPARED 'it''s'",
    "node: SELECT pg_drop_replication_slot('s')",
    "node: SELECT pg_drop_replication_slot('s')",
  ]);
});

test('half-made tables, DDL that is not complete, routers that are gone', () => {
  const found = judgeCatalog(
    {
      ...CATALOG,
      unfinishedTables: [
        { name: 'a', state: 'creating', isWorkedOn: false },
        { name: 'b', state: 'dropping', isWorkedOn: true },
      ],
      unfinishedDdl: [{ tableId: 1, statement: 'CREATE INDEX', role: 'app', ageSeconds: 90 }],
      routers: [
        { name: 'r1', version: '1', heartbeatSeconds: 1 },
        { name: 'r2', version: '2', heartbeatSeconds: 2 },
        { name: 'r3', version: '2', heartbeatSeconds: 99 },
      ],
    },
    60,
  );
  expect(found.map(({ severity, object }) => `${severity} ${object}`)).toEqual([
    'warning table a',
    'warning DDL of app',
    'note router r3',
    'note versions of routers',
  ]);
});

test('the role of the mesh, once there is a mesh', () => {
  const home = { ...HOME, hasMesh: true, meshRoles: [{ name: 'm', mayLogIn: true, readsAll: true }] };
  expect(statements(judgeMesh([home, OTHER], home, 'm'))).toEqual([
    expect.stringMatching('Restart the routers'),
  ]);
  const weak = { ...OTHER, meshRoles: [{ name: 'm', mayLogIn: false, readsAll: false }] };
  expect(statements(judgeMesh([home, weak], home, 'm'))).toEqual([
    `node: ALTER ROLE "m" LOGIN VALID UNTIL 'infinity'`,
    'node: GRANT pg_read_all_data TO "m"',
  ]);
});

test('logins that are older than any claim, together by role, address and application', () => {
  const session = (processId: number, ageSeconds: number): SessionFacts => ({
    ...{ processId, ageSeconds, startedAt: '', role: 'app', applicationName: 'psql', address: null },
  });
  const rules = { controlRole: 'postern', meshRole: 'm', allowed: new Set<string>(), claimed: new Set([3]) };
  const sessions = [session(1, 20), session(2, 20), session(3, 20), session(4, 10)];
  const findings = judgeLogins({ ...OTHER, sessions }, rules);
  expect(findings).toEqual([
    expect.objectContaining({
      message: '2 sessions are logged in there, and not through a router',
      found: 'from a Unix socket, application "psql", pid 1 and others',
    }),
  ]);
});

test('a report has the worst first, and says what to run, where', () => {
  const finding = (severity: Finding['severity'], object: string, more: Partial<Finding> = {}): Finding => ({
    ...{ topic: 'roles', node: 'n2', message: 'it is wrong', remedies: [] },
    ...{ severity, object, ...more },
  });
  const findings = bySeverity([
    finding('note', 'c'),
    finding('error', 'a', {
      found: 'x',
      expected: 'y',
      remedies: [{ at: 'node', node: 'n2', text: 'SELECT\n1' }],
    }),
    finding('warning', 'b', {
      node: undefined,
      advice: 'Be careful.',
      remedies: [{ at: 'router', text: 'SELECT 2' }],
    }),
  ]);
  const examination = {
    findings,
    looked: ['1 server'],
    unread: [{ what: 'disks', node: 'n1', why: 'no\nway' }],
  };
  expect(reportText(examination)).toBe(`ERROR  n2: a: it is wrong
  there:     x
  should be: y
  run on node n2:
    SELECT
    1;
  docs/guide/doctor.md#roles

WARNING  b: it is wrong
  Be careful.
  run through a router:
    SELECT 2;
  docs/guide/doctor.md#roles

NOTE  n2: c: it is wrong
  docs/guide/doctor.md#roles

Looked at:
  1 server

Not looked at:
  disks of node n1 (no way)

Found: 1 error, 1 warning, 1 note.
`);
  const json = JSON.parse(reportJson(examination));
  expect(json.findings.map(({ severity }: Finding) => severity)).toEqual(['error', 'warning', 'note']);
  expect(json.findings[0]).toMatchObject({ docs: 'docs/guide/doctor.md#roles', found: 'x', expected: 'y' });
  expect(reportText({ findings: [], looked: [], unread: [] })).toContain('Nothing found.');
});
