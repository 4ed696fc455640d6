/**
 * `postern doctor` over a real cluster that is damaged by hand, in one way after the other: each is found, and what the finding says
 * to run makes the cluster whole again, so that the next look finds nothing.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ExamineOptions, examine } from '../../src/doctor/examine.ts';
import type { Examination, Finding } from '../../src/doctor/finding.ts';
import { reportText } from '../../src/doctor/report.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';

let cluster: TestCluster;
const nodes: pg.Client[] = [];
let client: pg.Client;
let admin: pg.Client;

beforeAll(async () => {
  cluster = await startTestCluster({
    nodes: 3,
    durable: true,
    settings: { max_prepared_transactions: '50' },
  });
  for (const server of cluster.servers) nodes.push(await connected(server.dsn({ database: 'app' })));
  client = await connected(cluster.dsn());
  admin = await connected(cluster.dsn('postgres'));
  await admin.query('CREATE ROLE reader LOGIN');
  await admin.query('CREATE ROLE team');
  await admin.query('GRANT team TO reader');
  await admin.query(`ALTER ROLE reader PASSWORD 'a secret'`);
  for (const text of [
    `CREATE TYPE mood AS ENUM ('low', 'mid', 'high')`,
    'CREATE DOMAIN amount AS numeric CONSTRAINT positive CHECK (VALUE > 0)',
    'CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT n * 2 $$',
    'CREATE SCHEMA side',
    `CREATE TABLE accounts (id bigint PRIMARY KEY, name text NOT NULL, feeling mood, owed amount, UNIQUE (id, name))
       WITH (postern.door = 'sharded', postern.key = 'id', postern.buckets = 6)`,
    `CREATE TABLE entries (account_id bigint REFERENCES accounts (id), n serial, at timestamptz DEFAULT now(),
       note text CHECK (note <> ''), email text UNIQUE, PRIMARY KEY (account_id, n))
       WITH (postern.door = 'sharded', postern.key = 'account_id', postern.colocate_with = 'accounts')`,
    'CREATE INDEX entries_at ON entries (at)',
    'GRANT SELECT, INSERT ON entries TO reader',
    `CREATE TABLE side."Odd Table" ("The Key" text PRIMARY KEY, v int)
       WITH (postern.door = 'sharded', postern.key = 'The Key', postern.buckets = 3)`,
    `CREATE TABLE rates (currency text PRIMARY KEY, rate numeric DEFAULT 1) WITH (postern.door = 'reference')`,
    'GRANT SELECT ON rates TO reader',
    `INSERT INTO accounts SELECT n, 'name ' || n FROM generate_series(1, 60) n`,
    // Read through the mesh.
    'SELECT count(*) FROM accounts a JOIN accounts b ON a.name < b.name',
    `INSERT INTO rates VALUES ('EUR', 1), ('USD', 1.1)`,
  ])
    await client.query(text);
  for (let n = 1; n <= 12; n++)
    await client.query(`INSERT INTO entries (account_id, note, email) VALUES ($1, 'x', $2)`, [n, `${n}@a`]);
});

afterAll(async () => {
  await client?.end();
  await admin?.end();
  for (const node of nodes) await node.end();
  await cluster?.stop();
});

async function connected(dsn: string): Promise<pg.Client> {
  const opened = new pg.Client(dsn);
  opened.on('error', () => {});
  await opened.connect();
  return opened;
}

async function look(options: Partial<ExamineOptions> = {}): Promise<Examination> {
  const { routerOptions } = cluster;
  const found = await examine({
    ...{ nodes: routerOptions.nodes, home: routerOptions.home, users: ['app', 'reader'] },
    ...{ connectionsPerNode: 20, allowed: ['postgres'], preparedSeconds: 0, ...options },
  });
  expect(found).toBeDefined();
  return found!;
}

function bad({ findings }: Examination): readonly Finding[] {
  return findings.filter(({ severity }) => severity !== 'note');
}

/** As a person would: on the node that is named, or through the router. */
async function carryOut(findings: readonly Finding[]): Promise<void> {
  for (const { remedies } of findings)
    for (const { at, node, text } of remedies) {
      if (at === 'machine') continue;
      const throughRouter = text.startsWith('ALTER ROLE') ? admin : client;
      const on = at === 'router' ? throughRouter : nodes[Number(node!.slice(1)) - 1]!;
      await on.query(text.replace("'…'", "'a secret'"));
    }
}

/** Names that are the same in every run. */
async function leafOn(node: number, table: string, place = 0): Promise<string> {
  const { rows } = await nodes[node]!.query(
    `SELECT relname FROM pg_class WHERE relnamespace = 'postern_leaves'::regnamespace AND relkind = 'r'
       AND relname ~ $1 ORDER BY relname`,
    [`^${table}_b\\d+_g\\d+$`],
  );
  return rows[place]!.relname;
}

it('finds nothing in a cluster that is whole, and says what it has looked at', async () => {
  const examination = await look({ deep: true });
  expect(reportText({ ...examination, findings: bad(examination) })).toContain('Nothing found.');
  expect(examination.looked.join('\n')).toContain(
    '3 sharded tables with 15 leaves, 1 reference table, 1 lookup',
  );
  expect(examination.unread.map(({ what }) => what)).toEqual(['free disk space']);
});

describe('finds damage, and what it says to run mends it', () => {
  const damages: readonly {
    /** Those of one group are done at once. */
    readonly group: string;
    readonly what: string;
    readonly node: number;
    readonly sql: (leaf: (table: string, place?: number) => Promise<string>) => Promise<string> | string;
    readonly message: RegExp;
    readonly deep?: boolean;
  }[] = [
    {
      group: 'parts of leaves',
      what: 'an index of a leaf dropped',
      node: 1,
      sql: async (leaf) =>
        `DROP INDEX postern_leaves.${(await leaf('entries')).replace('entries', 'entries_at')}`,
      message: /index entries_at is missing/,
    },
    {
      group: 'parts of leaves',
      what: 'an index of a leaf too many',
      node: 2,
      sql: async (leaf) => `CREATE INDEX mine ON postern_leaves.${await leaf('entries')} (note)`,
      message: /index mine is there/,
    },
    {
      group: 'parts of leaves',
      what: 'an index that is not valid',
      node: 1,
      sql: async (leaf) =>
        `UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'postern_leaves.${(await leaf('entries', 1)).replace('entries', 'entries_at')}'::regclass`,
      message: /index entries_at is not valid/,
    },
    {
      group: 'parts of leaves',
      what: 'a primary key of a leaf dropped',
      node: 1,
      sql: async (leaf) => {
        const name = await leaf('entries');
        return `ALTER TABLE postern_leaves.${name} DROP CONSTRAINT ${name.replace('entries', 'entries_pkey')}`;
      },
      message: /constraint entries_pkey is missing/,
    },
    {
      group: 'parts of leaves',
      what: 'a CHECK of a leaf dropped',
      node: 1,
      sql: async (leaf) =>
        `ALTER TABLE postern_leaves.${await leaf('entries')} DROP CONSTRAINT entries_note_check`,
      message: /constraint entries_note_check is missing/,
    },
    {
      group: 'leaves',
      what: 'the CHECK of the bucket dropped',
      node: 0,
      sql: async (leaf) =>
        `ALTER TABLE postern_leaves.${await leaf('accounts')} DROP CONSTRAINT postern_bucket`,
      message: /CHECK postern_bucket is missing/,
    },
    {
      group: 'leaves',
      what: 'the CHECK of the bucket of another one',
      node: 2,
      sql: async (leaf) =>
        `ALTER TABLE postern_leaves.${await leaf('accounts')} DROP CONSTRAINT postern_bucket;
         ALTER TABLE postern_leaves.${await leaf('accounts')} ADD CONSTRAINT postern_bucket
           CHECK (satisfies_hash_partition('public.accounts'::regclass, 60, 3, id)) NOT VALID`,
      message: /CHECK postern_bucket is of another bucket/,
    },
    {
      group: 'parts of leaves',
      what: 'a foreign key of a leaf dropped',
      node: 1,
      sql: async (leaf) => {
        const name = await leaf('entries');
        return `ALTER TABLE postern_leaves.${name} DROP CONSTRAINT ${name.replace('entries', 'entries_account_id_fkey')}`;
      },
      message: /foreign key entries_account_id_fkey is missing/,
    },
    {
      group: 'parts of leaves',
      what: 'a column of a leaf changed',
      node: 1,
      sql: async (leaf) =>
        `ALTER TABLE postern_leaves.${await leaf('entries')} ALTER COLUMN note TYPE varchar(100), ALTER COLUMN note SET NOT NULL, ALTER COLUMN at DROP DEFAULT`,
      message: /column (note|at) is not as the other leaves/,
    },
    {
      group: 'parts of leaves',
      what: 'a column of a leaf too many',
      node: 1,
      sql: async (leaf) => `ALTER TABLE postern_leaves.${await leaf('entries')} ADD COLUMN extra int`,
      message: /column extra is there/,
    },
    {
      group: 'parts of leaves',
      what: 'a privilege on a leaf revoked, another granted',
      node: 1,
      sql: async (leaf) =>
        `REVOKE SELECT ON postern_leaves.${await leaf('entries')} FROM reader; GRANT DELETE ON postern_leaves.${await leaf('entries')} TO PUBLIC`,
      message: /privilege (SELECT of reader is missing|DELETE of PUBLIC is there)/,
    },
    {
      group: 'parts of leaves',
      what: 'row-level security and owner of a leaf',
      node: 2,
      sql: async (leaf) =>
        `ALTER TABLE postern_leaves.${await leaf('entries')} ENABLE ROW LEVEL SECURITY; ALTER TABLE postern_leaves.${await leaf('entries')} OWNER TO postgres`,
      message: /property (row-level security|owner) is not as/,
    },
    {
      group: 'parts of leaves',
      what: 'a trigger of a lookup dropped',
      node: 1,
      sql: async (leaf) => {
        const name = await leaf('entries');
        return `DO $$ DECLARE t name; BEGIN FOR t IN SELECT tgname FROM pg_trigger WHERE tgrelid = 'postern_leaves.${name}'::regclass AND NOT tgisinternal LIMIT 1
          LOOP EXECUTE format('DROP TRIGGER %I ON postern_leaves.${name}', t); END LOOP; END $$`;
      },
      message: /trigger .* is missing/,
    },
    {
      group: 'leaves',
      what: 'a leaf renamed',
      node: 1,
      sql: async (leaf) => `ALTER TABLE postern_leaves.${await leaf('accounts')} RENAME TO accounts_old`,
      message: /it is called accounts_old there/,
    },
    {
      group: 'leaves',
      what: 'a leaf dropped',
      node: 1,
      sql: async (leaf) => `DROP TABLE postern_leaves."${await leaf('Odd Table')}"`,
      message: /its rows are gone/,
    },
    {
      group: 'leaves',
      what: 'a table among the leaves',
      node: 2,
      sql: () => 'CREATE TABLE postern_leaves.left_over_b1_g99 (a int)',
      message: /the catalog knows no such bucket/,
    },
    {
      group: 'leaves',
      what: 'a record of a leaf deleted',
      node: 2,
      sql: async (leaf) =>
        `DELETE FROM postern_internal.local_leaves WHERE leaf = 'postern_leaves.${await leaf('accounts')}'::regclass`,
      message: /the node has no record of it/,
    },
    {
      group: 'faces',
      what: 'a face without an index and with a column too many',
      node: 1,
      sql: () => 'DROP INDEX entries_at; ALTER TABLE entries ADD COLUMN extra int',
      message: /index entries_at is missing|column extra is there/,
    },
    {
      group: 'faces',
      what: 'a face renamed',
      node: 2,
      sql: () => 'ALTER TABLE accounts RENAME TO akkounts',
      message: /it is called public.akkounts there/,
    },
    {
      group: 'faces',
      what: 'a face dropped',
      node: 1,
      sql: () => 'DROP TABLE side."Odd Table" CASCADE',
      message: /it is not there: new leaves/,
    },
    {
      group: 'faces',
      what: 'a privilege on a face',
      node: 0,
      sql: () => 'GRANT SELECT ON accounts TO reader',
      message: /there are privileges on it/,
    },
    {
      group: 'copies and lookups',
      what: 'rows of a copy that differ',
      node: 2,
      sql: () =>
        `ALTER TABLE rates DISABLE TRIGGER postern_guard; UPDATE rates SET rate = 2 WHERE currency = 'USD'; ALTER TABLE rates ENABLE TRIGGER postern_guard`,
      message: /its rows are not home's/,
    },
    {
      group: 'copies and lookups',
      what: 'the guard of a copy gone',
      node: 1,
      sql: () => 'DROP TRIGGER postern_guard ON rates',
      message: /its guard is missing/,
    },
    {
      group: 'copies and lookups',
      what: 'the primary key of a copy gone',
      node: 1,
      sql: () => 'ALTER TABLE rates DROP CONSTRAINT rates_pkey',
      message: /constraint rates_pkey is missing/,
    },
    {
      group: 'copies and lookups',
      what: 'an entry of a lookup deleted',
      node: 1,
      deep: true,
      sql: async (leaf) => `DELETE FROM postern_leaves.${await leaf('entries_email_key_lookup')}`,
      message: /its entries are not those of the rows/,
    },
    {
      group: 'the table of a lookup',
      what: 'a table of a lookup dropped',
      node: 1,
      sql: async (leaf) => `DROP TABLE postern_leaves.${await leaf('entries_email_key_lookup')}`,
      message: /its table is not there/,
    },
    {
      group: 'a role',
      what: 'a role missing',
      node: 2,
      sql: () => 'REVOKE ALL ON ALL TABLES IN SCHEMA postern_leaves, public FROM reader; DROP ROLE reader',
      message: /it is on n1, and not there/,
    },
    {
      group: 'settings, roles and objects',
      what: 'attributes, membership and password of a role',
      node: 1,
      sql: () =>
        `ALTER ROLE reader CREATEDB VALID UNTIL '2020-01-01'; REVOKE team FROM reader; ALTER ROLE reader PASSWORD NULL`,
      message: /attributes are not as|expires at another|no member of team|password on n1, and none/,
    },
    {
      group: 'settings, roles and objects',
      what: 'settings of a role and of the database',
      node: 1,
      sql: () =>
        `ALTER ROLE reader SET search_path = side, public; ALTER DATABASE app SET "TimeZone" = 'Asia/Tokyo'`,
      message: /it is (set there, and not on n1|Asia\/Tokyo there)/,
    },
    {
      group: 'settings, roles and objects',
      what: 'settings of the server',
      node: 2,
      sql: () => `ALTER SYSTEM SET datestyle = 'German'`,
      message: /it is .* there, and .* on n1/,
    },
    {
      group: 'settings, roles and objects',
      what: 'a label of an enum too few',
      node: 2,
      sql: () => `DELETE FROM pg_enum WHERE enumtypid = 'mood'::regtype AND enumlabel = 'mid'`,
      message: /it is not as on n1/,
    },
    {
      group: 'settings, roles and objects',
      what: 'a constraint of a domain dropped',
      node: 1,
      sql: () => 'ALTER DOMAIN amount DROP CONSTRAINT positive',
      message: /it is not as on n1/,
    },
    {
      group: 'settings, roles and objects',
      what: 'a function that does something else',
      node: 1,
      sql: () =>
        'CREATE OR REPLACE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT n * 3 $$',
      message: /it does something else there/,
    },
    {
      group: 'settings, roles and objects',
      what: 'the role of the mesh may not read',
      node: 2,
      sql: () => `DO $$ BEGIN EXECUTE (SELECT format('REVOKE pg_read_all_data FROM %I; ALTER ROLE %1$I NOLOGIN', rolname) FROM pg_roles
        WHERE rolname ~ '^postern_mesh_'); END $$`,
      message: /it may not log in, or not read/,
    },
    {
      group: 'objects of home',
      what: 'an extension missing',
      node: 0,
      sql: () => 'CREATE EXTENSION citext',
      message: /it is on n1, and not there/,
    },
    {
      group: 'objects of home',
      what: 'a schema missing',
      node: 0,
      sql: () => 'CREATE SCHEMA lonely',
      message: /it is on n1, and not there/,
    },
    {
      group: 'settings, roles and objects',
      what: 'a prepared transaction of somebody else',
      node: 2,
      sql: () => `BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'of somebody else'`,
      message: /it is none of Postern’s/,
    },
  ];

  it.each([...new Set(damages.map(({ group }) => group))])('%s', async (group) => {
    const done = damages.filter((damage) => damage.group === group);
    const deep = done.some((damage) => damage.deep);
    for (const { node, sql } of done) {
      await nodes[node]!.query(await sql((table, place) => leafOn(node, table, place)));
      await nodes[node]!.query('SELECT pg_reload_conf()');
    }
    let examination = await look({ deep });
    expect(reportText(examination)).not.toMatch(/SCRAM|a secret/);
    for (const { what, node, message } of done) {
      const told = examination.findings.filter((finding) => message.test(finding.message));
      expect(told, `${what}:\n${reportText(examination)}`).not.toEqual([]);
      // What home has too many is missing on the others; entries of a lookup are those of all nodes together.
      const where = group === 'objects of home' ? 'n2' : damageIsOfAll(message) ? undefined : `n${node + 1}`;
      expect(told.map((finding) => finding.node)).toContain(where);
    }
    // What a face lacks, for one, is needed by its leaves: the next look says the rest.
    for (let round = 0; round < 3 && relevant(examination).length > 0; round++) {
      await carryOut(relevant(examination));
      examination = await look({ deep });
    }
    expect(reportText({ ...examination, findings: relevant(examination) })).toContain('Nothing found.');
  });

  function damageIsOfAll(message: RegExp): boolean {
    return message.source.includes('entries are not');
  }

  /** Verifiers made on each node have salts of their own. */
  function relevant({ findings }: Examination): readonly Finding[] {
    return findings.filter(({ message }) => !message.includes('another verifier'));
  }
});

describe('the command', () => {
  const scratch = mkdtempSync(join(tmpdir(), 'postern-doctor-'));
  const config = join(scratch, 'postern.yaml');
  afterAll(() => rmSync(scratch, { recursive: true, force: true }));

  async function doctor(...args: string[]): Promise<{ status: number; out: string; err: string }> {
    const run = promisify(execFile)(process.execPath, ['dist/cli/main.js', 'doctor', ...args]);
    return run.then(
      ({ stdout, stderr }) => ({ status: 0, out: stdout, err: stderr }),
      ({ code, stdout, stderr }) => ({ status: code, out: stdout, err: stderr }),
    );
  }

  it('ends with 0 when nothing is found, and writes JSON', async () => {
    const { nodes, home, database } = cluster.routerOptions;
    // JSON is YAML.
    writeFileSync(
      config,
      JSON.stringify({
        ...{ nodes, home, database, users: [{ name: 'app', trust: true }] },
        bypass: { allow: ['postgres', 'app'] },
      }),
    );
    const file = join(scratch, 'found.json');
    const { status, out, err } = await doctor('-c', config, '--json', file);
    expect(err).toBe('');
    expect(out).toContain('Looked at:');
    expect(status).toBe(0);
    expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({ format: 1, notLookedAt: [{}, {}] });
  });

  it('ends with 3 when something is, and tells of one node alone', async () => {
    await nodes[1]!.query('CREATE TABLE postern_leaves.stray (a int)');
    const all = await doctor('-c', config, '--json', '-');
    expect(all.status).toBe(3);
    expect(JSON.parse(all.out).findings[0]).toMatchObject({
      ...{ topic: 'leaves', severity: 'warning', node: 'n2', object: 'table postern_leaves.stray' },
      remedies: [{ at: 'node', node: 'n2', text: 'DROP TABLE "postern_leaves"."stray"' }],
    });
    expect((await doctor('-c', config, '--node', 'n3')).status).toBe(0);
    await nodes[1]!.query('DROP TABLE postern_leaves.stray');
  });

  it.each<[string, string[], number, RegExp]>([
    ['without a configuration', [], 2, /required option/],
    ['with one that is not there', ['-c', 'no.yaml'], 1, /cannot read no.yaml/],
    [
      'of a node that is not there',
      ['-c', config, '--node', 'n9'],
      1,
      /there is no node "n9".*The nodes are: n1, n2, n3/,
    ],
    [
      'with a file that can not be written',
      ['-c', config, '--json', '/nowhere/x'],
      1,
      /cannot write .nowhere.x: there is no such directory/,
    ],
  ])('is refused %s', async (_, args, status, message) => {
    const ended = await doctor(...args);
    expect(ended.status).toBe(status);
    expect(ended.err).toMatch(message);
    expect(ended.err.trim().split('\n')).toHaveLength(1);
  });

  it('looks at the others while a node is down, and at what is left while home is', async () => {
    await cluster.servers[2]!.stop();
    const { status, out } = await doctor('-c', config);
    expect(status).toBe(3);
    expect(out).toMatch(/^ERROR {2}n3: node n3: it could not be asked/);
    expect(out).toContain('2 servers: versions');
    expect(out).toContain('Found: 1 error');
    await cluster.servers[0]!.stop();
    const homeless = await look();
    expect(homeless.findings.map(({ node }) => node)).toEqual(['n1', 'n3']);
    expect(homeless.unread.map(({ what }) => what)).toContain('all that is compared with the home node');
    await cluster.servers[1]!.stop();
    const nobody = await doctor('-c', config);
    expect(nobody.err).toMatch(/^postern: no node could be asked/);
    expect(nobody.status).toBe(1);
  });
});
