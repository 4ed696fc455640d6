import { expect, it } from 'vitest';
import { ClientLogs } from './client-log.ts';
import type { Log, LogFields } from './log.ts';

interface Line {
  readonly level: string;
  readonly message: string;
  readonly fields: LogFields;
}

function logs(options: { connections?: boolean } = {}) {
  const lines: Line[] = [];
  const clock = { ms: 1_700_000_000_000 };
  const write =
    (level: string) =>
    (message: string, fields: LogFields = {}) =>
      void lines.push({ level, message, fields });
  const log: Log = {
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
  };
  const clients = new ClientLogs({
    log,
    options: { connections: options.connections ?? true, statementsSlowerThanMs: 100 },
    processId: 0x1234,
    now: () => clock.ms,
    wallMs: () => clock.ms,
  });
  return { clients, lines, clock };
}

const WHO = { role: 'ann', database: 'shop', applicationName: 'web' };

it('has one id on all lines of a client', () => {
  const { clients, lines, clock } = logs();
  const ann = clients.open('10.0.0.1');
  const other = clients.open('10.0.0.2');
  ann.identify(WHO);
  clock.ms += 5;
  ann.loggedIn({ method: 'scram-sha-256', encryption: 'TLSv1.3' });
  clock.ms += 1_000;
  ann.slowStatement({ query: 'SELECT $1', durationMs: 250.4, rows: 1, failed: false });
  ann.left();
  ann.left({ sqlState: '57P01', message: 'and again' });
  other.refused(
    { sqlState: '28P01', message: 'password authentication failed for user "bob"' },
    'no such role',
  );
  other.left();
  expect(lines.map(({ message }) => message)).toEqual([
    'client logged in',
    'slow statement',
    'client left',
    'login refused',
  ]);
  expect(new Set(lines.slice(0, 3).map(({ fields }) => fields.connection))).toEqual(
    new Set(['6553f100.1234000001']),
  );
  expect(lines[3]!.fields.connection).toBe('6553f100.1234000002');
  expect(lines[0]!.fields).toMatchObject({
    ...{ role: 'ann', database: 'shop', address: '10.0.0.1', application_name: 'web' },
    ...{ method: 'scram-sha-256', encryption: 'TLSv1.3', duration_ms: 5 },
  });
  expect(lines[2]!.fields).toMatchObject({ duration_ms: 1_005 });
  expect(lines[3]!.fields).toMatchObject({ sql_state: '28P01', detail: 'no such role' });
});

it('keeps the id when a session goes to another process', () => {
  const { clients, lines } = logs();
  const before = clients.open('::1');
  before.identify(WHO);
  const identity = JSON.parse(JSON.stringify(before.identity()));
  before.handedOver();
  before.left();
  const after = logs();
  after.clients.adopt(identity).left({ sqlState: '57P01', message: 'bye' });
  expect(lines).toEqual([]);
  expect(after.lines[0]!.fields).toMatchObject({
    connection: before.identity().connection,
    sql_state: '57P01',
  });
  expect(after.lines[0]!.message).toBe('session ended');
  expect([...after.clients.counters.left]).toEqual([['57P01', 1]]);
});

it('writes of who comes and goes only if asked, and of refusals always', () => {
  const { clients, lines } = logs({ connections: false });
  const one = clients.open('::1');
  one.identify(WHO);
  one.loggedIn({ method: 'trust' });
  one.left();
  clients.open('::1').refused({ sqlState: '28000', message: 'no' });
  clients.reload({ connections: true, statementsSlowerThanMs: 1 });
  const two = clients.open('::1');
  two.identify(WHO);
  two.loggedIn({ method: 'trust' });
  expect(lines.map(({ message }) => message)).toEqual(['login refused', 'client logged in']);
});

it('is bounded under an attack, and says how many lines are not there', () => {
  const { clients, lines, clock } = logs();
  for (let i = 0; i < 10_000; i++) clients.open('::1').refused({ sqlState: '28P01', message: 'no' });
  expect(lines.length).toBe(200);
  clients.tick();
  expect(lines.at(-1)).toMatchObject({
    message: 'lines left out: login refused',
    fields: { lines_left_out: 9_800 },
  });
  clock.ms += 1_000;
  for (let i = 0; i < 100; i++) clients.open('::1').refused({ sqlState: '28P01', message: 'no' });
  expect(lines.length).toBe(251);
});

it('lets no name of a client make a line long, or look like another', () => {
  const { clients, lines } = logs();
  const log = clients.open(undefined);
  const long = 'x'.repeat(9_000);
  log.identify({ role: `a\u009b2Jb\u2028c\u202ed${long}`, database: long, applicationName: 'naïve\u007f' });
  log.refused({ sqlState: '28000', message: `role "a\u009b2J${long}" does not exist` });
  const { role, database, application_name: applicationName, reason } = lines[0]!.fields;
  expect(String(role).slice(0, 12)).toBe('a\ufffd2Jb\ufffdc\ufffddxxx');
  expect([String(role).length, String(database).length, String(reason).length]).toEqual([128, 128, 2_000]);
  expect(applicationName).toBe('naïve\ufffd');
  expect(String(reason).slice(0, 10)).toBe('role "a\ufffd2J');
});
