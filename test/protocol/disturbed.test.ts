/** Cancel requests, clients that vanish, servers that die, and what the others notice: nothing. */
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { type Message, RawClient, run, sendCancel } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';

let cluster: TestCluster;
let bucketNode: Map<number, number>;

beforeAll(async () => {
  cluster = await startTestCluster({ connectionsPerNode: 2 });
  const client = await connect();
  await client.query('CREATE TABLE h (id int PRIMARY KEY, n int)');
  await client.query('INSERT INTO h VALUES (1, 0), (2, 0)');
  await client.query(
    `CREATE TABLE k (id int8 PRIMARY KEY, n int) WITH (postern.door = 'sharded', postern.key = 'id')`,
  );
  bucketNode = new Map();
  for (let id = 1; id <= 20; id++) {
    await client.query(`INSERT INTO k VALUES (${id}, 0)`);
  }
  for (const [i, server] of cluster.servers.entries()) {
    const admin = await RawClient.connect({ port: server.port, user: 'postgres' });
    const leaves = await admin.query(
      "SELECT relname FROM pg_class WHERE relnamespace = 'postern_leaves'::regnamespace AND relkind = 'r'",
    );
    for (const line of leaves.filter((one) => one.startsWith('Row '))) {
      for (const row of await admin.query(`SELECT id FROM postern_leaves.${line.slice(4)}`))
        if (row.startsWith('Row ')) bucketNode.set(Number(row.slice(4)), i);
    }
    admin.end();
  }
  client.end();
});
afterAll(() => cluster?.stop());

async function connect(): Promise<RawClient> {
  return RawClient.connect({ port: cluster.port });
}

/** Closed with its test. */
async function client(): Promise<RawClient> {
  const one = await connect();
  onTestFinished(() => one.end());
  return one;
}

/** A key whose rows are on the server with this index. */
function keyOn(server: number): number {
  for (const [id, at] of bucketNode) if (at === server) return id;
  throw new Error(`no key on server ${server}`);
}

/** Waits for a condition on a server, as the server sees it. */
async function until(server: number, condition: string): Promise<void> {
  const deadline = performance.now() + 10_000;
  for (;;) {
    const [row] = await cluster.servers[server]!.query(`SELECT (${condition}) AS met`);
    if (row?.met) return;
    if (performance.now() > deadline) throw new Error(`never met: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const running = (text: string): string =>
  `SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'app' AND state = 'active' AND query LIKE '%${text}%' AND pid <> pg_backend_pid()`;
const CLEAN = `SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle'`;

describe('a cancel request', () => {
  it('cancels what runs, and the session goes on', async () => {
    const one = await client();
    one.send(['query', 'SELECT pg_sleep(100) /* runs */']);
    await until(0, running('runs'));
    await sendCancel(cluster.port, one.processId, one.secretKey);
    const lines = await one.readUntil(/^Ready/);
    expect(lines.slice(-2)).toEqual([
      'Error ERROR C=57014 M=canceling statement due to user request',
      'Ready I',
    ]);
    expect(await one.query('SELECT 1')).toContain('Row 1');
  });

  it('cancels what waits for a backend', async () => {
    const holders = [await client(), await client()];
    for (const holder of holders) {
      await holder.query('BEGIN');
      await holder.query('SELECT count(*) FROM h');
    }
    const one = await client();
    one.send(['query', 'UPDATE h SET n = n + 100 WHERE id = 2']);
    // Nothing on a server shows that it waits; the request is repeated until it has been heard.
    let answered = false;
    const answer = one.readUntil(/^Ready/).then((lines) => {
      answered = true;
      return lines;
    });
    while (!answered) {
      await sendCancel(cluster.port, one.processId, one.secretKey);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await answer).toEqual([
      'Error ERROR C=57014 M=canceling statement due to user request',
      'Ready I',
    ]);
    for (const holder of holders) await holder.query('COMMIT');
    expect(await one.query('SELECT n FROM h WHERE id = 2')).toContain('Row 0');
  });

  it('does nothing to an idle session, nor to whoever has its last backend, nor with a wrong key', async () => {
    const idle = await client();
    await idle.query('SELECT 1');
    const busy = await client();
    busy.send(['query', "SELECT 'done' FROM pg_sleep(0.5) /* undisturbed */"]);
    await until(0, running('undisturbed'));
    await sendCancel(cluster.port, idle.processId, idle.secretKey);
    await sendCancel(cluster.port, busy.processId, idle.secretKey);
    await sendCancel(cluster.port, busy.processId, Buffer.alloc(4));
    expect(await busy.readUntil(/^Ready/)).toContain('Row done');
    expect(await idle.query('SELECT 1')).toContain('Row 1');
  });

  it('fails the transaction that it hits', async () => {
    const one = await client();
    await one.query('BEGIN');
    one.send(['query', 'SELECT pg_sleep(100) /* in block */']);
    await until(0, running('in block'));
    await sendCancel(cluster.port, one.processId, one.secretKey);
    expect((await one.readUntil(/^Ready/)).at(-1)).toBe('Ready E');
    expect(await one.query('COMMIT')).toEqual(['Complete ROLLBACK', 'Ready I']);
  });
});

describe('a client that vanishes', () => {
  it.each<[string, Message[]]>([
    [
      'in a transaction',
      [
        ['query', 'BEGIN'],
        ['query', 'UPDATE h SET n = 99 WHERE id = 1'],
      ],
    ],
    ['in a pipeline without Sync', [...run('UPDATE h SET n = 99 WHERE id = 1'), ['flush']]],
    [
      'in a COPY',
      [
        ['query', 'COPY h FROM STDIN'],
        ['copyData', '50\t1\n'],
      ],
    ],
  ])('%s leaves nothing behind', async (_name, messages) => {
    const one = await connect();
    one.send(...messages);
    await one.readUntil(/^(Complete UPDATE|CopyIn)/);
    one.socket.destroy();
    await until(0, CLEAN);
    const other = await client();
    expect(await other.query('UPDATE h SET n = n WHERE id IN (1, 50)')).toContain('Complete UPDATE 1');
    expect(await other.query('SELECT n FROM h WHERE id = 1')).toContain('Row 0');
  });

  it('in the middle of a query frees its backend and its locks', async () => {
    const one = await connect();
    await one.query('BEGIN');
    await one.query('UPDATE h SET n = 99 WHERE id = 1');
    one.send(['query', 'SELECT pg_sleep(100) /* abandoned */']);
    await until(0, running('abandoned'));
    one.socket.destroy();
    await until(0, CLEAN);
    const other = await client();
    expect(await other.query('UPDATE h SET n = n WHERE id = 1')).toContain('Complete UPDATE 1');
  });

  it('having said goodbye has what it sent before carried out', async () => {
    const one = await connect();
    one.send(
      ['query', 'UPDATE h SET n = 7 WHERE id = 2'],
      ...run('UPDATE h SET n = n + 1 WHERE id = 2'),
      ['sync'],
      ['terminate'],
    );
    await one.readToEnd();
    const other = await client();
    expect(await other.query('SELECT n FROM h WHERE id = 2')).toContain('Row 8');
  });

  it('with a goodbye in the middle of a pipeline has it undone', async () => {
    const one = await connect();
    one.send(...run('UPDATE h SET n = 9 WHERE id = 2'), ['terminate']);
    await one.readToEnd();
    const other = await client();
    expect(await other.query('SELECT n FROM h WHERE id = 2')).toContain('Row 8');
  });
});

describe('a server that dies', () => {
  beforeEach(async () => {
    await until(0, CLEAN);
  });

  it('takes its statement and its transaction along, and the sessions go on', async () => {
    const id = keyOn(1);
    const inStatement = await client();
    const inTransaction = await client();
    const elsewhere = await client();
    await inTransaction.query('BEGIN');
    expect(await inTransaction.query(`UPDATE k SET n = 1 WHERE id = ${id}`)).toContain('Complete UPDATE 1');
    inStatement.send(['query', `SELECT pg_sleep(100), n FROM k WHERE id = ${id} /* dies */`]);
    await until(1, running('dies'));
    cluster.servers[1]!.kill();
    const lines = await inStatement.readUntil(/^Ready/);
    expect(lines.at(-1)).toBe('Ready I');
    expect(lines.at(-2)).toMatch(/^Error ERROR C=(08006|08007) /);
    const next = await inTransaction.query(`SELECT n FROM k WHERE id = ${id}`);
    expect(next.at(-1)).toBe('Ready E');
    expect(next[0]).toMatch(/^Error ERROR C=(25P02|08006) /);
    expect(await inTransaction.query('COMMIT')).toEqual(['Complete ROLLBACK', 'Ready I']);
    // The node is away: said at once, without a hang, and the other node works.
    const away = await inStatement.query(`SELECT n FROM k WHERE id = ${id}`);
    expect(away[0]).toMatch(/^Error ERROR C=(08001|57P03) /);
    expect(away.at(-1)).toBe('Ready I');
    expect(
      (await inStatement.exchange([...run('SELECT n FROM k WHERE id = $1', [String(id)]), ['sync']])).at(-1),
    ).toBe('Ready I');
    expect(await elsewhere.query(`SELECT n FROM k WHERE id = ${keyOn(0)}`)).toContain('Row 0');
    await cluster.servers[1]!.restart();
    const deadline = performance.now() + 10_000;
    let back: string[] = [];
    while (!back.includes('Row 0') && performance.now() < deadline)
      back = await inStatement.query(`SELECT n FROM k WHERE id = ${id}`);
    expect(back).toContain('Row 0');
    expect(await inTransaction.query(`UPDATE k SET n = 2 WHERE id = ${id}`)).toContain('Complete UPDATE 1');
  });
});

describe('backends that are fewer than clients', () => {
  it('have the statements prepared that their clients use', async () => {
    const clients = await Promise.all(Array.from({ length: 6 }, () => client()));
    for (const [i, one] of clients.entries())
      await one.exchange([
        ['parse', 'mine', `SELECT ${i}::int + n FROM h WHERE id = $1`],
        ['parse', 'key', 'SELECT n, id FROM k WHERE id = $1'],
        ['sync'],
      ]);
    for (let round = 0; round < 20; round++) {
      await Promise.all(
        clients.map(async (one, i) => {
          const lines = await one.exchange(
            [
              ['bind', '', 'mine', ['1']],
              ['execute', ''],
              ['sync'],
              ['bind', '', 'key', [String(i + 1)]],
              ['execute', ''],
              ['sync'],
            ],
            2,
          );
          expect(lines).toContain(`Row ${i}`);
          expect(lines.some((line) => new RegExp(`^Row \\d+\\|${i + 1}$`).test(line))).toBe(true);
        }),
      );
    }
  });

  it('take a change of a table under a prepared statement as PostgreSQL does, or better', async () => {
    const one = await client();
    const other = await client();
    await one.query('CREATE TABLE changing (id int, v text)');
    await one.query("INSERT INTO changing VALUES (1, 'x')");
    await one.exchange([['parse', 's', 'SELECT * FROM changing WHERE id = $1'], ['sync']]);
    expect(await one.exchange([['bind', '', 's', ['1']], ['execute', ''], ['sync']])).toContain('Row 1|x');
    await other.query('ALTER TABLE changing ADD COLUMN more int DEFAULT 5');
    const first = await one.exchange([['bind', '', 's', ['1']], ['execute', ''], ['sync']]);
    expect(
      first.some((line) => line === 'Row 1|x|5' || line.includes('cached plan must not change result type')),
    ).toBe(true);
    expect(await one.exchange([['bind', '', 's', ['1']], ['execute', ''], ['sync']])).toContain('Row 1|x|5');
    // Whoever prepares it now never sees an error of a plan that is not its own.
    for (let i = 0; i < 4; i++) {
      const fresh = await client();
      expect(
        await fresh.exchange([...run('SELECT * FROM changing WHERE id = $1', ['1']), ['sync']]),
      ).toContain('Row 1|x|5');
    }
  });

  it('take a change that was made past the router with one error at most', async () => {
    const clients = await Promise.all(Array.from({ length: 4 }, () => client()));
    const prepared: Message[] = [['bind', '', 's'], ['execute', ''], ['sync']];
    await clients[0]!.query('CREATE TABLE changed_elsewhere AS SELECT 1 AS id');
    for (const one of clients) {
      await one.exchange([['parse', 's', 'SELECT * FROM changed_elsewhere'], ['sync']]);
    }
    // All backends have it.
    for (let i = 0; i < 10; i++) await Promise.all(clients.map((one) => one.exchange(prepared)));
    const direct = await RawClient.connect({ port: cluster.servers[0]!.port });
    await direct.query('ALTER TABLE changed_elsewhere ADD COLUMN more int DEFAULT 5');
    direct.end();
    await clients[0]!.exchange(prepared);
    for (let i = 0; i < 10; i++) {
      const answers = await Promise.all(clients.map((one) => one.exchange(prepared)));
      for (const lines of answers) expect(lines).toContain('Row 1|5');
    }
    const fresh = await client();
    expect(await fresh.exchange([...run('SELECT * FROM changed_elsewhere'), ['sync']])).toContain('Row 1|5');
  });

  it('read the literals of a text under the settings of the client that sends it', async () => {
    const berlin = await client();
    const tokyo = await client();
    await berlin.query("SET TimeZone = 'Europe/Berlin'");
    await tokyo.query("SET TimeZone = 'Asia/Tokyo'");
    const text = "SELECT extract(epoch FROM timestamptz '2024-06-01 00:00')::int";
    const ask = async (one: RawClient): Promise<string> => {
      const lines = await one.exchange([['parse', '', text], ['bind', '', ''], ['execute', ''], ['sync']]);
      return lines.find((line) => line.startsWith('Row'))!;
    };
    for (let round = 0; round < 5; round++) {
      expect(await ask(berlin)).toBe('Row 1717192800');
      expect(await ask(tokyo)).toBe('Row 1717167600');
    }
    // Neither does a setting of one transaction reach into the next.
    await berlin.query('BEGIN');
    await berlin.query("SET LOCAL TimeZone = 'UTC'");
    expect(await ask(berlin)).toBe('Row 1717200000');
    await berlin.query('COMMIT');
    expect(await ask(berlin)).toBe('Row 1717192800');
    expect(await ask(tokyo)).toBe('Row 1717167600');
  });

  it('find the tables of the search_path of the client that sends it', async () => {
    const [a, b] = [await client(), await client()];
    for (const [one, name, type] of [
      [a, 'tenant_a', 'int'],
      [b, 'tenant_b', 'text'],
    ] as const) {
      await one.query(`CREATE SCHEMA ${name}`);
      await one.query(`SET search_path = ${name}`);
      await one.query(`CREATE TABLE things (id ${type})`);
      await one.query(`INSERT INTO things VALUES ('7')`);
    }
    const messages: Message[] = [...run('SELECT * FROM things WHERE id = $1', ['7']), ['sync']];
    for (let round = 0; round < 5; round++) {
      expect(await a.exchange(messages)).toContain('Columns id:23/1/0');
      expect(await b.exchange(messages)).toContain('Columns id:25/1/0');
    }
    const prepared: Message[] = [['bind', '', 's', ['7']], ['describe', 'P', ''], ['execute', ''], ['sync']];
    await a.exchange([['parse', 's', 'SELECT * FROM things WHERE id::text = $1'], ['sync']]);
    expect(await a.exchange(prepared)).toContain('Columns id:23/1/0');
    await a.query('SET search_path = tenant_b');
    expect(await a.exchange(prepared)).toContain('Columns id:25/1/0');
  });
});

describe('settings made in a transaction before its node is known', () => {
  it('go with it, and the session has its own afterwards', async () => {
    const one = await client();
    const asked = `SELECT current_setting('app.a'), current_setting('app.b') FROM k WHERE id = ${keyOn(1)}`;
    await one.query('BEGIN');
    await one.query("SET app.a = 'session'");
    await one.query("SET LOCAL app.b = 'local'");
    expect(await one.query(asked)).toContain('Row session|local');
    await one.query('COMMIT');
    expect(await one.query(asked)).toContain('Row session|');
  });

  it('keep it where it is if one hides another', async () => {
    const one = await client();
    await one.query('BEGIN');
    await one.query("SET app.a = 'session'");
    await one.query("SET LOCAL app.a = 'local'");
    expect((await one.query(`SELECT n FROM k WHERE id = ${keyOn(1)}`))[0]).toMatch(/^Error ERROR C=0A000/);
    await one.query('ROLLBACK');
    await one.query('BEGIN');
    await one.query("SET app.a = 'session'");
    await one.query("SET LOCAL app.a = 'local'");
    expect(await one.query(`SELECT current_setting('app.a') FROM k WHERE id = ${keyOn(0)}`)).toContain(
      'Row local',
    );
    await one.query('COMMIT');
    expect(await one.query("SELECT current_setting('app.a')")).toContain('Row session');
  });
});

describe('RESET', () => {
  it('goes back to the start-up value of the client, in the middle of a pipeline too', async () => {
    const parameters = { TimeZone: 'Asia/Tokyo' };
    const routed = await RawClient.connect({ port: cluster.port, parameters });
    const direct = await RawClient.connect({ port: cluster.servers[0]!.port, parameters });
    const shown = run('SHOW TimeZone');
    const S: Message = ['sync'];
    const scripts: Message[][] = [
      [...run("SET TimeZone = 'UTC'"), ...run('RESET TimeZone'), ...shown, S],
      [
        ...run("SET TimeZone = 'UTC'"),
        S,
        ...run('RESET TimeZone'),
        ...shown,
        ...run('SELECT 1'),
        S,
        ...shown,
        S,
      ],
      [
        ...run("SET TimeZone = 'UTC'"),
        S,
        ...run('RESET TimeZone'),
        ...run('SELECT 1/0'),
        ...shown,
        S,
        ...shown,
        S,
      ],
      [...run('SELECT 1/0'), ...run('RESET TimeZone'), S, ...shown, S],
      [...run('BEGIN'), ...run('RESET TimeZone'), ...shown, ...run('ROLLBACK'), ...shown, S],
      [...run('SELECT 1'), ...run('RESET TimeZone'), ['query', 'SHOW TimeZone'], S, ...shown, S],
    ];
    for (const script of scripts) {
      for (const end of ['COMMIT', 'ROLLBACK']) {
        const within: Message[] = [['query', 'BEGIN'], ...script, ['query', end], ...shown, S];
        for (const messages of [script, within]) {
          const lines = await Promise.all([routed, direct].map((one) => one.play(messages)));
          const [heard, expected] = lines.map((all) => all.filter((line) => !line.startsWith('Parameter')));
          expect([messages, heard]).toEqual([messages, expected]);
        }
      }
    }
    for (const one of [routed, direct]) one.end();
  });
});

describe('router commands', () => {
  it('are taken in the extended protocol', async () => {
    const one = await client();
    const made = await one.exchange([
      ...run(`CREATE TABLE made (id int8 PRIMARY KEY) WITH (postern.door = 'sharded', postern.key = 'id')`),
      ['sync'],
    ]);
    expect(made).toEqual(['ParseComplete', 'BindComplete', 'NoData', 'Complete CREATE TABLE', 'Ready I']);
    await one.query('CREATE TABLE later (id int8 PRIMARY KEY)');
    const distributed = await one.exchange([
      ...run("SELECT create_distributed_table('later', 'id')"),
      ['sync'],
    ]);
    expect(distributed.at(-2)).toBe('Complete SELECT 1');
    expect(distributed[2]).toMatch(/^Columns create_distributed_table:/);
    const dropped = await one.exchange([...run('SELECT 1'), ...run('DROP TABLE made'), ['sync']]);
    expect(dropped.at(-2)).toBe('Complete DROP TABLE');
    expect((await one.exchange([...run('DROP TABLE made'), ['sync']])).at(-2)).toMatch(/C=42P01/);
  });
});
