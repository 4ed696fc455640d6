/** Writes of every kind over the tables of world.ts: to one bucket, to many, to all copies, and what has to fail alike. */
import {
  CODES,
  DAYS,
  id,
  type Maker,
  type Makers,
  money,
  NAMES,
  no,
  pick,
  SENSORS,
  TENANTS,
  TIERS,
} from './values.ts';

const EDGES: Readonly<Record<string, readonly (string | null)[]>> = {
  numeric: [
    'NaN',
    'Infinity',
    '-Infinity',
    '1.5',
    '1.50',
    '-0',
    '1e-20',
    '123456789012345678901234567890.5',
    null,
  ],
  float8: ['NaN', 'Infinity', '-Infinity', '-0', '0', '1e-300', '0.1', '1.7976931348623157e308', null],
  real: ['NaN', '-0', '0.1', '3.4e38', '1e-44', null],
  timestamptz: [
    'infinity',
    '-infinity',
    '0044-03-15 00:00:00+00 BC',
    '2026-01-01 00:00:00.000001+00',
    '294276-12-31 23:59:59+00',
    null,
  ],
  date: ['infinity', '-infinity', '0001-01-01 BC', '2026-02-28', '5874897-12-31', null],
  interval: ['1 mon -1 day', '30 days', '720:00:00', '-00:00:00.000001', '178000000 years', null],
  'int[]': ['{}', '{1,NULL,3}', '{{1,2},{3,4}}', '[0:1]={7,8}', null],
  'text[]': ['{}', '{NULL,"NULL",""}', '{"a,b","c\\"d"}', null],
  jsonb: ['null', '[]', '{}', '"a"', '1.0', '1.00', '{"b":1,"a":[2]}', '{"a":1,"bb":2}', 'true', null],
  bytea: ['\\x', '\\x00ff', '\\xDEADBEEF', null],
  uuid: ['00000000-0000-0000-0000-000000000000', 'FFFFFFFF-ffff-ffff-ffff-ffffffffffff', null],
};
const edge =
  (type: string): Maker =>
  (r, t) =>
    pick(r, t, EDGES[type]!, type);
const edgeRow: Maker = (r, t) =>
  `(${t.of(r.pick([1, 2, 3, 4, 5, 6, null]), 'int')}, ${['numeric', 'float8', 'real', 'timestamptz', 'date', 'interval', 'int[]', 'text[]', 'jsonb', 'bytea', 'uuid'].map((type) => edge(type)(r, t)).join(', ')}, ${t.of(r.pick(['', 'a', 'abcde', 'ab   ', null]), 'text')})`;

const email: Maker = (r, t) => t.of(r.pick([`p${r.between(1, 12)}@x`, null]), 'text');
const day: Maker = (r, t) => pick(r, t, DAYS, 'date');
const tenant: Maker = (r, t) => pick(r, t, TENANTS, 'text');
const reading: Maker = (r, t) =>
  `(${pick(r, t, SENSORS, 'text')}, ${t.of(r.between(1, 40), 'int')}, ${t.of(r.between(-50, 50) / 4, 'float8')})`;

export const WRITES: Makers = {
  'insert edges': (r, t) => `INSERT INTO edges VALUES ${edgeRow(r, t)}, ${edgeRow(r, t)}`,
  'insert edges returning': (r, t) =>
    `INSERT INTO edges VALUES ${edgeRow(r, t)}, ${edgeRow(r, t)} RETURNING *`,
  'delete edges': (r, t) => `DELETE FROM edges WHERE num > ${edge('numeric')(r, t)} RETURNING *`,
  'update edges': (r, t) =>
    `UPDATE edges SET f = -f, num = num * 2, arr = arr || 9 WHERE k = ${no(r, t)} RETURNING k, f, num, arr`,
  'edges too long': (r, t) => `UPDATE edges SET v5 = ${t.of('abcdef', 'text')} WHERE k < ${no(r, t)}`,
  'edges key': (r, t) => `UPDATE edges SET k = ${t.of(r.pick([1, 5, 9, null]), 'int')} WHERE k = ${no(r, t)}`,
  'insert null key': (r, t) =>
    `INSERT INTO loose VALUES (${t.of(r.pick([null, 1, 2]), 'int')}, ${t.of(r.pick(['n', 'm', null]), 'text')})`,
  'update null key': (_r, t) => `UPDATE loose SET v = 'null' WHERE k IS NULL AND v = ${t.of('n', 'text')}`,
  'delete null key': () => 'DELETE FROM loose WHERE k = NULL',
  'delete loose': (r, t) =>
    `DELETE FROM loose WHERE k = ${t.of(r.between(1, 2), 'int')} OR k IS NULL RETURNING k, v`,
  'move to null': () => 'UPDATE loose SET k = nullif(k, 2)',
  'insert returning many!': (r, t) =>
    `INSERT INTO readings VALUES ${reading(r, t)}, ${reading(r, t)}, ${reading(r, t)} RETURNING sensor, n, value * 2 AS double`,
  'upsert many': (r, t) =>
    `INSERT INTO readings AS x VALUES ${reading(r, t)}, ${reading(r, t)}, ${reading(r, t)} ON CONFLICT (sensor, n) DO UPDATE SET value = x.value + excluded.value WHERE x.value < 5 RETURNING *`,
  'upsert named': (r, t) =>
    `INSERT INTO readings VALUES ${reading(r, t)}, ${reading(r, t)} ON CONFLICT ON CONSTRAINT readings_pkey DO UPDATE SET value = excluded.value`,
  'upsert no target': (r, t) => `INSERT INTO readings VALUES ${reading(r, t)} ON CONFLICT (n) DO NOTHING`,
  'insert with cte': (r, t) =>
    `WITH v (s, n) AS (VALUES (${pick(r, t, SENSORS, 'text')}, ${no(r, t)})) INSERT INTO readings SELECT s, n, 0 FROM v ON CONFLICT DO NOTHING RETURNING *`,
  'insert default values': () => 'INSERT INTO orders DEFAULT VALUES',
  'insert null in key': (_r, t) => `INSERT INTO accounts (id, name) VALUES (${t.of(null, 'bigint')}, 'x')`,
  'insert expression key': (r, t) =>
    `INSERT INTO accounts (id, name) VALUES (${id(r, t)} + 0, 'sum') ON CONFLICT DO NOTHING`,
  'insert text key': (r) =>
    `INSERT INTO accounts (id, name) VALUES ('${r.between(1, 30)}', 'quoted') ON CONFLICT DO NOTHING`,
  'insert too many values': () => "INSERT INTO readings VALUES ('a', 1, 2, 3)",
  'insert range': (r, t) =>
    `INSERT INTO ledger VALUES (${day(r, t)}, ${no(r, t)}, ${money(r, t)}, true), (${day(r, t)}, ${no(r, t)}, ${money(r, t)}, NULL) ON CONFLICT (day, seq) DO UPDATE SET amount = excluded.amount RETURNING day, seq`,
  'insert list': (r, t) =>
    `INSERT INTO plots VALUES (${tenant(r, t)}, ${no(r, t)}, 'b'), (${tenant(r, t)}, ${no(r, t)}, 'c') ON CONFLICT DO NOTHING`,
  'insert list returning': (r, t) =>
    `INSERT INTO plots VALUES (${tenant(r, t)}, ${no(r, t)}, 'x') RETURNING *`,
  'move range': (r, t) =>
    `UPDATE ledger SET day = ${day(r, t)} WHERE day = ${day(r, t)} AND seq = ${no(r, t)} RETURNING *`,
  'shift ranges': (r, t) =>
    `UPDATE ledger SET day = day + 100 WHERE seq = ${no(r, t)} AND day < '2026-03-01'`,
  'move list': (r, t) =>
    `UPDATE plots SET tenant = ${tenant(r, t)} WHERE tenant = ${tenant(r, t)} AND n > ${no(r, t)}`,
  'delete range': (r, t) =>
    `DELETE FROM ledger WHERE day > ${day(r, t)} AND amount < 0 RETURNING day, seq, amount`,
  'insert person': (r, t) =>
    `INSERT INTO people (id, email, boss) VALUES (${id(r, t)}, ${email(r, t)}, ${id(r, t)}) RETURNING id`,
  'insert people': (r, t) =>
    `INSERT INTO people (id, email) VALUES (${id(r, t)}, ${email(r, t)}), (${id(r, t)}, ${email(r, t)})`,
  'upsert person': (r, t) =>
    `INSERT INTO people (id, email) VALUES (${id(r, t)}, ${email(r, t)}) ON CONFLICT (id) DO UPDATE SET email = excluded.email`,
  'upsert by email': (r, t) =>
    `INSERT INTO people (id, email) VALUES (${id(r, t)}, ${email(r, t)}) ON CONFLICT (email) DO NOTHING`,
  'upsert any': (r, t) =>
    `INSERT INTO people (id, email) VALUES (${id(r, t)}, ${email(r, t)}) ON CONFLICT DO NOTHING`,
  'change email': (r, t) =>
    `UPDATE people SET email = ${email(r, t)} WHERE id = ${id(r, t)} RETURNING id, email`,
  'change by email': (r, t) =>
    `UPDATE people SET boss = ${id(r, t)} WHERE email = ${email(r, t)} RETURNING id`,
  'delete people': (r, t) =>
    `DELETE FROM people WHERE email = ${email(r, t)} OR id = ${id(r, t)} RETURNING email`,
  'move person': (r, t) => `UPDATE people SET id = ${id(r, t)} WHERE id = ${id(r, t)}`,
  'insert ticket': (r, t) =>
    `INSERT INTO tickets (title, owner) VALUES (${pick(r, t, NAMES, 'text')}, ${id(r, t)}) RETURNING title, id > 0 AS ok`,
  'insert tickets!': (r, t) =>
    `INSERT INTO tickets (title, owner) VALUES ('x', ${id(r, t)}), ('y', ${id(r, t)}), ('z', DEFAULT) RETURNING title, owner`,
  'insert tickets from': (r, t) =>
    `INSERT INTO tickets (title, owner) SELECT name, id FROM accounts WHERE id < ${id(r, t)}`,
  'delete tickets': (r, t) => `DELETE FROM tickets WHERE owner = ${id(r, t)} RETURNING title`,
  'update tickets': (r, t) => `UPDATE tickets SET title = title || '!' WHERE owner > ${id(r, t)}`,
  'update from reference': (r, t) =>
    `UPDATE accounts a SET balance = round(balance * c.rate, 2) FROM currencies c WHERE c.code = a.currency AND c.code = ${pick(r, t, CODES, 'char(3)')} AND a.balance BETWEEN 0 AND 100 RETURNING a.id, c.name`,
  'update from values': (r, t) =>
    `UPDATE accounts a SET rank = v.r FROM (VALUES (${id(r, t)}, ${no(r, t)}), (${id(r, t)}, ${no(r, t)})) v (i, r) WHERE a.id = v.i AND a.id <> 9`,
  'update from single': () =>
    "UPDATE accounts a SET rank = length(s.value) FROM settings s WHERE s.key = 'k' || a.id",
  'update from other group': (r, t) =>
    `UPDATE accounts a SET rank = 1 FROM readings d WHERE d.n = a.id AND d.sensor = ${pick(r, t, SENSORS, 'text')}`,
  'update with subquery': (r, t) =>
    `UPDATE accounts a SET rank = (SELECT count(*) FROM orders o WHERE o.account_id = a.id) WHERE a.id > ${id(r, t)} RETURNING id, rank`,
  'update with total': () =>
    'UPDATE accounts SET rank = 1 WHERE balance > (SELECT avg(balance) FROM accounts)',
  'update several columns': (r, t) =>
    `UPDATE accounts SET (rank, tier) = (${no(r, t)}, ${pick(r, t, TIERS, 'tone')}) WHERE id = ${id(r, t)} RETURNING *`,
  'update row from select': (r, t) =>
    `UPDATE accounts SET (rank, name) = (SELECT max(no), 'm' FROM orders WHERE account_id = id) WHERE id < ${id(r, t)}`,
  'update default': (r, t) =>
    `UPDATE accounts SET balance = DEFAULT, rank = DEFAULT WHERE rank < ${no(r, t)} RETURNING id, balance, rank`,
  'update check': (r, t) => `UPDATE accounts SET balance = -100001 WHERE rank > ${no(r, t)}`,
  'update length': (r, t) => `UPDATE accounts SET name = name || name WHERE id > ${id(r, t)}`,
  'update primary key': (r, t) => `UPDATE orders SET no = no + 1 WHERE account_id = ${id(r, t)}`,
  'update foreign key': (r, t) =>
    `UPDATE accounts SET currency = ${pick(r, t, CODES, 'char(3)')} WHERE rank >= ${no(r, t)}`,
  'update in list': (r, t) =>
    `UPDATE accounts SET rank = rank + 1 WHERE id IN (${id(r, t)}, ${id(r, t)}, ${t.of(null, 'bigint')}) RETURNING id, rank`,
  'update key of referenced': (r, t) => `UPDATE accounts SET id = ${id(r, t)} WHERE id = ${id(r, t)}`,
  'update key to itself': (r, t) =>
    `UPDATE readings SET sensor = sensor, value = value + 1 WHERE n = ${no(r, t)}`,
  'update key over nodes': (r, t) =>
    `UPDATE readings SET sensor = sensor || 'x' WHERE n = ${t.of(r.between(1, 40), 'int')} AND length(sensor) < 12`,
  'update returning expression': (r, t) =>
    `UPDATE orders SET total = total * 2 WHERE total < ${money(r, t)} AND total > 0 RETURNING account_id + no AS s, total::text`,
  'delete returning': (r, t) => `DELETE FROM readings WHERE n = ${t.of(r.between(1, 40), 'int')} RETURNING *`,
  'delete using reference': (r, t) =>
    `DELETE FROM accounts a USING currencies c WHERE c.code = a.currency AND c.rate > 100 AND a.rank > ${no(r, t)} RETURNING a.id`,
  'delete in subquery': (r, t) =>
    `DELETE FROM orders o WHERE NOT EXISTS (SELECT FROM accounts a WHERE a.id = o.account_id AND a.balance < ${money(r, t)}) AND no = 6`,
  'delete in select': () => 'DELETE FROM readings WHERE n IN (SELECT length(value) FROM settings)',
  'delete all loose': () => 'DELETE FROM loose WHERE v IS NULL',
  'with insert keyed': (r, t) =>
    `WITH i AS (INSERT INTO orders (account_id, no) SELECT id, 9 FROM accounts WHERE id = ${id(r, t)} ON CONFLICT DO NOTHING RETURNING account_id, no) SELECT * FROM i`,
  'with update': (r, t) =>
    `WITH u AS (UPDATE accounts SET rank = rank + 1 WHERE id = ${id(r, t)} RETURNING id, rank) SELECT u.rank FROM u`,
  'with delete, insert': (r, t) =>
    `WITH d AS (DELETE FROM readings WHERE sensor = ${pick(r, t, SENSORS, 'text')} RETURNING *) INSERT INTO settings SELECT 'k' || n, sensor FROM d LIMIT 1 ON CONFLICT DO NOTHING`,
  'with writes over nodes': () => 'WITH d AS (DELETE FROM loose RETURNING k) SELECT count(*), sum(k) FROM d',
  'with two writes': () =>
    'WITH a AS (UPDATE settings SET value = value RETURNING key), b AS (INSERT INTO regions (name) SELECT key FROM a ON CONFLICT DO NOTHING RETURNING name) SELECT count(*) >= 0 FROM b',
  'insert from with': (r, t) =>
    `WITH s AS (SELECT account_id, max(no) AS m FROM orders GROUP BY account_id) INSERT INTO notes (account_id, no, author, body) SELECT account_id, m + ${t.of(r.between(20, 30), 'int')}, 'app', 'max' FROM s ON CONFLICT DO NOTHING`,
  'insert select window': () =>
    "INSERT INTO readings SELECT 'w', row_number() OVER (ORDER BY balance, id), 0 FROM accounts ON CONFLICT DO NOTHING RETURNING n",
  'insert select join': () =>
    'INSERT INTO readings SELECT c.name, a.rank, 1 FROM accounts a JOIN currencies c ON c.code = a.currency WHERE a.id < 6 ON CONFLICT DO NOTHING',
  'insert select limit': (r, t) =>
    `INSERT INTO loose SELECT id, name FROM accounts ORDER BY id LIMIT ${no(r, t)} RETURNING *`,
  'insert select same bucket': (r, t) =>
    `INSERT INTO orders (account_id, no, total) SELECT account_id, no + 3, total FROM orders WHERE account_id = ${id(r, t)} RETURNING account_id, no, total`,
  'insert single from sharded': (r, t) =>
    `INSERT INTO settings SELECT 'k' || id, name FROM accounts WHERE id < ${no(r, t)} ON CONFLICT (key) DO UPDATE SET value = excluded.value RETURNING *`,
  'insert reference from sharded': () =>
    "INSERT INTO currencies SELECT 'Q' || min(id), 'q', 1 FROM accounts ON CONFLICT DO NOTHING",
  'update single from sharded': () =>
    "UPDATE settings SET value = a.name FROM accounts a WHERE settings.key = 'k' || a.id AND a.id = 5",
  'update reference from self': () =>
    "UPDATE currencies c SET rate = d.rate + 1 FROM currencies d WHERE d.code = c.code AND c.code = 'JPY' RETURNING c.code, c.rate",
  'upsert reference': (r, t) =>
    `INSERT INTO currencies VALUES (${pick(r, t, ['EUR', 'USD', 'JPY', 'CHF'], 'char(3)')}, ${t.of(`u${r.between(1, 5)}`, 'text')}, 2) ON CONFLICT (code) DO UPDATE SET rate = currencies.rate + 1 RETURNING code, rate`,
  'delete reference used': () => "DELETE FROM currencies WHERE code IN ('EUR', 'CHF')",
  'truncate loose': (r) => (r.between(1, 3) === 1 ? 'TRUNCATE loose' : 'TRUNCATE edges, loose'),
  'select into': (r) => `SELECT id, name INTO TEMP made_${r.between(1, 99_999)} FROM accounts WHERE id < 12`,
  'merge over nodes': () =>
    'MERGE INTO accounts a USING (SELECT account_id, count(*) AS n FROM orders GROUP BY account_id) o ON o.account_id = a.id WHEN MATCHED THEN UPDATE SET rank = o.n',
};
