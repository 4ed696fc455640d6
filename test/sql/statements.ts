/** Statements of an application over the tables of world.ts, made by chance: each of a kind, with its values apart. */
import type { SeededRandom } from '../tpc/random.ts';
import { READS } from './reads.ts';
import {
  CODES,
  id,
  LABELS,
  type Makers,
  money,
  NAMES,
  no,
  pick,
  SENSORS,
  Template,
  TIERS,
} from './values.ts';
import { WRITES } from './writes.ts';

export interface Generated {
  readonly kind: string;
  readonly text: string;
  readonly values: readonly unknown[];
  /** The order of the rows is decided by the statement. */
  readonly ordered: boolean;
}

const BASIC: Makers = {
  'insert keyed': (r, t) =>
    `INSERT INTO accounts (id, name, balance, tier, currency) VALUES (${id(r, t)}, ${pick(r, t, NAMES, 'text')}, ${money(r, t)},
     ${pick(r, t, TIERS, 'tone')}, ${pick(r, t, CODES, 'char(3)')})`,
  'insert keyed returning': (r, t) =>
    `INSERT INTO accounts (id, name) VALUES (${id(r, t)}, ${pick(r, t, NAMES, 'text')}) RETURNING *`,
  'upsert keyed': (r, t) =>
    `INSERT INTO accounts AS a (id, name, balance) VALUES (${id(r, t)}, ${pick(r, t, NAMES, 'text')}, ${money(r, t)})
     ON CONFLICT (id) DO UPDATE SET balance = a.balance + excluded.balance RETURNING id, balance`,
  'insert order': (r, t) =>
    `INSERT INTO orders (account_id, no, label, total, at, tags, doc) VALUES (${id(r, t)}, ${no(r, t)}, ${pick(r, t, LABELS, 'text')},
     ${money(r, t)}, ${t.of('2026-03-01 10:00:00+00', 'timestamptz')}, ${t.of('{a,"b c"}', 'text[]')}, ${t.of('{"k": [1, null]}', 'jsonb')})`,
  'insert several': (r, t) =>
    `INSERT INTO readings VALUES ${[1, 2, 3].map(() => `(${pick(r, t, SENSORS, 'text')}, ${t.of(r.between(1, 40), 'int')}, ${t.of(r.between(-50, 50) / 4, 'float8')})`).join(', ')} ON CONFLICT DO NOTHING`,
  'insert several accounts': (r, t) =>
    `INSERT INTO accounts (id, name) VALUES (${id(r, t)}, 'bulk'), (${id(r, t)}, 'bulk'), (${id(r, t)}, 'bulk') ON CONFLICT (id) DO NOTHING`,
  'insert select': (r, t) =>
    `INSERT INTO notes (account_id, no, author, body) SELECT account_id, no + 10, 'app', 'public ' || coalesce(label, '-') FROM orders
     WHERE account_id = ${id(r, t)} ON CONFLICT DO NOTHING`,
  'insert select over nodes': (r, t) =>
    `INSERT INTO readings SELECT 'total', account_id::int, sum(total)::float8 FROM orders GROUP BY account_id HAVING sum(total) > ${money(r, t)} ON CONFLICT DO NOTHING`,
  'insert reference': (r, t) =>
    `INSERT INTO currencies VALUES (${t.of(`C${r.between(10, 30)}`, 'char(3)')}, ${t.of(`money ${r.between(1, 12)}`, 'text')}, ${t.of(r.between(-1, 9), 'numeric')})`,
  'update keyed': (r, t) =>
    `UPDATE accounts SET balance = taxed(balance, ${t.of(r.between(-1, 3) / 10, 'numeric')}) WHERE id = ${id(r, t)} RETURNING id, balance`,
  'update over nodes': (r, t) =>
    `UPDATE orders SET total = total + ${t.of(r.between(1, 5), 'numeric')} WHERE label = ${pick(r, t, ['RED', 'X'], 'text')}`,
  'update from colocated': (r, t) =>
    `UPDATE orders o SET label = a.name FROM accounts a WHERE a.id = o.account_id AND o.account_id = ${id(r, t)} AND o.no > ${no(r, t)}`,
  'update key': (r, t) =>
    `UPDATE readings SET sensor = ${pick(r, t, SENSORS, 'text')} WHERE sensor = ${pick(r, t, SENSORS, 'text')} AND n = ${t.of(r.between(1, 40), 'int')}`,
  'update label (trigger)': (r, t) =>
    `UPDATE orders SET label = ${pick(r, t, LABELS, 'text')} WHERE account_id = ${id(r, t)} RETURNING label`,
  'update reference': (r, t) =>
    `UPDATE currencies SET rate = rate + ${t.of(r.between(0, 3), 'numeric')} WHERE code = ${pick(r, t, CODES, 'char(3)')}`,
  'delete keyed (cascade)': (r, t) => `DELETE FROM accounts WHERE id = ${id(r, t)}`,
  'delete over nodes': (r, t) => `DELETE FROM orders WHERE total < ${t.of(r.between(-10, 20), 'numeric')}`,
  'delete using': (r, t) =>
    `DELETE FROM notes n USING accounts a WHERE a.id = n.account_id AND a.balance < ${money(r, t)} AND n.no > 12`,
  'delete reference': (r, t) =>
    `DELETE FROM currencies WHERE code = ${pick(r, t, [...CODES, 'C11', 'C12'], 'char(3)')}`,
  'merge keyed': (r, t) =>
    `MERGE INTO accounts a USING (SELECT ${id(r, t)} AS id) s ON a.id = s.id WHEN MATCHED THEN UPDATE SET rank = rank + 1
     WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, 'merged')`,
  'single insert': (r, t) =>
    `INSERT INTO settings VALUES (${t.of(`k${r.between(1, 8)}`, 'text')}, ${pick(r, t, NAMES, 'text')}) ON CONFLICT (key) DO UPDATE SET value = excluded.value`,
  'single region': (r, t) => `INSERT INTO regions (name) VALUES (${t.of(`r${r.between(1, 9)}`, 'text')})`,
  'single town': (r, t) =>
    `INSERT INTO towns (region_id, name) SELECT id, ${t.of(`t${r.between(1, 99)}`, 'text')} FROM regions WHERE name = ${t.of(`r${r.between(1, 9)}`, 'text')}`,
  'single cascade': (r, t) => `DELETE FROM regions WHERE name = ${t.of(`r${r.between(1, 9)}`, 'text')}`,
  'read keyed': (r, t) => `SELECT * FROM accounts WHERE id = ${id(r, t)}`,
  'read keyed join!': (r, t) =>
    `SELECT a.name, c.name AS currency, o.no, o.total, o.tags, o.doc FROM accounts a JOIN currencies c ON c.code = a.currency
     LEFT JOIN orders o ON o.account_id = a.id WHERE a.id = ${id(r, t)} ORDER BY o.no`,
  'read window keyed!': (r, t) =>
    `SELECT no, total, sum(total) OVER (ORDER BY no), rank() OVER (ORDER BY total DESC NULLS LAST, no) FROM orders WHERE account_id = ${id(r, t)} ORDER BY no`,
  'read over nodes!': (r, t) =>
    `SELECT id, name, balance, tier FROM accounts WHERE balance > ${money(r, t)} ORDER BY balance DESC, id LIMIT 7`,
  'read over nodes': (r, t) =>
    `SELECT id, upper(name) FROM accounts WHERE tier = ${pick(r, t, TIERS, 'tone')} OR rank > ${no(r, t)}`,
  'aggregate!': () =>
    'SELECT tier, count(*), sum(balance), min(name), max(opened), avg(rank) FROM accounts GROUP BY tier ORDER BY tier',
  'aggregate having!': (r, t) =>
    `SELECT account_id, count(*) AS n, max(total) FROM orders GROUP BY account_id HAVING count(*) > ${t.of(r.between(0, 2), 'bigint')} ORDER BY n DESC, account_id`,
  'distinct aggregate': () =>
    "SELECT count(DISTINCT label), string_agg(DISTINCT label, ',' ORDER BY label) FROM orders",
  'grouping sets!': () =>
    'SELECT currency, tier, count(*) FROM accounts GROUP BY CUBE (currency, tier) ORDER BY currency NULLS FIRST, tier NULLS FIRST, count(*)',
  'colocated join over nodes!': (r, t) =>
    `SELECT a.id, a.name, count(o.no), coalesce(sum(o.total), 0) FROM accounts a LEFT JOIN orders o ON o.account_id = a.id
     WHERE a.id < ${id(r, t)} GROUP BY a.id, a.name ORDER BY a.id`,
  'join off the key!': () =>
    'SELECT a.id, r.sensor, r.n FROM accounts a JOIN readings r ON r.n = a.id ORDER BY 1, 2, 3',
  'join with single!': () =>
    "SELECT a.id, s.value FROM accounts a JOIN settings s ON s.key = 'k' || a.id ORDER BY a.id",
  'window over nodes!': () =>
    'SELECT id, balance, row_number() OVER (PARTITION BY tier ORDER BY balance DESC, id) FROM accounts ORDER BY id',
  'cte!': (r, t) =>
    `WITH big AS (SELECT account_id, sum(total) AS s FROM orders GROUP BY account_id HAVING sum(total) > ${money(r, t)})
     SELECT a.name, big.s FROM big JOIN accounts a ON a.id = big.account_id ORDER BY big.s, a.id`,
  'recursive!': () =>
    `WITH RECURSIVE up (id) AS (SELECT min(id) FROM accounts UNION ALL SELECT a.id FROM accounts a JOIN up ON a.id = up.id + 1)
     SELECT id FROM up ORDER BY id`,
  'set operation!': () => 'SELECT id FROM accounts EXCEPT SELECT account_id FROM orders ORDER BY 1',
  'exists!': (r, t) =>
    `SELECT id FROM accounts a WHERE NOT EXISTS (SELECT FROM orders o WHERE o.account_id = a.id AND o.total > ${money(r, t)}) ORDER BY id`,
  'scalar subquery!': () =>
    'SELECT id FROM accounts WHERE balance > (SELECT avg(balance) FROM accounts) ORDER BY id',
  'lateral!': () =>
    `SELECT a.id, last.no FROM accounts a CROSS JOIN LATERAL (SELECT no FROM orders o WHERE o.account_id = a.id ORDER BY no DESC LIMIT 1) last ORDER BY a.id`,
  'distinct on!': () => 'SELECT DISTINCT ON (tier) tier, id FROM accounts ORDER BY tier, balance DESC, id',
  'view keyed': (r, t) => `SELECT * FROM rich WHERE id = ${id(r, t)}`,
  'view over nodes!': () => 'SELECT id, name, double FROM rich ORDER BY id',
  'view aggregate!': (r, t) =>
    `SELECT account_id, n, total FROM order_totals WHERE n > ${t.of(r.between(0, 2), 'bigint')} ORDER BY account_id`,
  'view single!': () => 'SELECT region, town FROM places ORDER BY 1, 2',
  'function call': (r, t) =>
    `SELECT twice(${money(r, t)}), taxed(${money(r, t)}, ${t.of(r.between(-1, 3) / 10, 'numeric')})`,
  'read reference!': () => 'SELECT * FROM currencies ORDER BY code',
  'read locked': (r, t) => `SELECT id, balance FROM accounts WHERE id = ${id(r, t)} FOR UPDATE`,
  'notes insert (policy)': (r, t) =>
    `INSERT INTO notes (account_id, no, body) VALUES (${id(r, t)}, ${no(r, t)}, ${t.of(r.pick(['public', 'private']), 'text')})`,
  'notes foreign (policy)': (r, t) =>
    `INSERT INTO notes (account_id, no, author) VALUES (${id(r, t)}, ${no(r, t)}, 'nobody')`,
  'notes read (policy)': (r, t) => `SELECT * FROM notes WHERE account_id = ${id(r, t)}`,
  'notes count (policy)': () => 'SELECT count(*), count(DISTINCT author) FROM notes',
  'notes update (policy)': (r, t) =>
    `UPDATE notes SET body = ${t.of('public now', 'text')} WHERE no = ${no(r, t)}`,
  'notes delete (policy)': (r, t) => `DELETE FROM notes WHERE account_id = ${id(r, t)} AND no < ${no(r, t)}`,
  'column right': (r, t) => `SELECT total FROM orders WHERE account_id = ${id(r, t)}`,
  'column without right': (r, t) => `SELECT label FROM orders WHERE account_id = ${id(r, t)}`,
  'no such column': () => 'SELECT nothing FROM accounts WHERE id = 1',
  'division by zero': (r, t) => `SELECT 1 / (rank - 7) FROM accounts WHERE id = ${id(r, t)}`,
};

const MAKERS: Makers = { ...BASIC, ...READS, ...WRITES };
const KINDS = Object.keys(MAKERS);

/** What a clerk sends, mostly. */
const CLERKS = KINDS.filter((kind) => /policy|right|read keyed|view|reference/.test(kind));

export function generate(random: SeededRandom, user: string): Generated {
  const kind = random.pick(user === 'clerk' && random.between(1, 10) > 2 ? CLERKS : KINDS);
  const t = new Template(random.between(0, 1) === 1);
  const text = MAKERS[kind]!(random, t);
  return { kind: kind.replace('!', ''), text, values: t.values, ordered: kind.endsWith('!') };
}
