/** Reads of every kind over the tables of world.ts: what bucket by bucket, by merging and by the mesh has to be told alike. */
import { DAYS, id, type Makers, money, NAMES, no, pick, SENSORS, TENANTS, TIERS } from './values.ts';

export const READS: Makers = {
  'full join!': (r, t) =>
    `SELECT a.id, o.account_id, o.no FROM accounts a FULL JOIN orders o ON o.account_id = a.id AND o.total > ${money(r, t)} ORDER BY 1 NULLS FIRST, 2, 3`,
  'right join!': (r, t) =>
    `SELECT o.account_id, o.no, a.name FROM orders o RIGHT JOIN accounts a ON a.id = o.account_id WHERE a.rank >= ${no(r, t)} ORDER BY a.id, o.no`,
  'full join off the key!': () =>
    'SELECT a.id, r.sensor, r.n FROM accounts a FULL JOIN readings r ON r.n = a.id ORDER BY 1, 2, 3',
  'natural join!': () =>
    'SELECT account_id, no, label, body FROM orders NATURAL JOIN notes ORDER BY account_id, no',
  'join using!': () =>
    'SELECT account_id, o.no, n.no FROM orders o LEFT JOIN notes n USING (account_id) ORDER BY 1, 2, 3',
  'self join!': () =>
    'SELECT a.id, b.id FROM accounts a JOIN accounts b ON b.id = a.id + 1 WHERE a.tier IS NOT DISTINCT FROM b.tier ORDER BY 1, 2',
  'three tables!': (r, t) =>
    `SELECT a.id, c.name, count(o.no), count(n.no) FROM accounts a JOIN currencies c ON c.code = a.currency LEFT JOIN orders o ON o.account_id = a.id
     LEFT JOIN notes n ON n.account_id = a.id AND n.no = o.no WHERE a.balance < ${money(r, t)} GROUP BY a.id, c.name ORDER BY a.id`,
  'not in with nulls!': () =>
    'SELECT id FROM accounts WHERE rank NOT IN (SELECT CASE WHEN no > 4 THEN NULL ELSE no END FROM orders) ORDER BY id',
  'not in list!': (r, t) =>
    `SELECT id FROM accounts WHERE id NOT IN (${id(r, t)}, ${id(r, t)}, ${t.of(r.pick([null, 3, 4]), 'bigint')}) ORDER BY id`,
  'in list!': (r, t) =>
    `SELECT id, name FROM accounts WHERE id IN (${id(r, t)}, ${id(r, t)}, ${id(r, t)}) ORDER BY id`,
  'any array!': (r, t) =>
    `SELECT id, name FROM accounts WHERE id = ANY (ARRAY[${id(r, t)}, ${id(r, t)}, NULL]) ORDER BY id`,
  'any parameter array!': (r, t) =>
    `SELECT account_id, no FROM orders WHERE account_id = ANY (${t.of(`{${r.between(1, 9)},${r.between(1, 30)},NULL}`, 'bigint[]')}) ORDER BY 1, 2`,
  'empty array!': (_r, t) => `SELECT id FROM accounts WHERE id = ANY (${t.of('{}', 'bigint[]')}) ORDER BY id`,
  'key is null!': () => 'SELECT k, v FROM loose WHERE k IS NULL ORDER BY v',
  'key equals null!': (_r, t) => `SELECT k, v FROM loose WHERE k = ${t.of(null, 'int')} ORDER BY v`,
  'null keys!': () => 'SELECT k, v FROM loose ORDER BY k DESC NULLS LAST, v',
  'null group!': () => 'SELECT k, count(*), count(v), count(k) FROM loose GROUP BY k ORDER BY k NULLS FIRST',
  'in subquery!': (r, t) =>
    `SELECT id FROM accounts WHERE id IN (SELECT account_id FROM orders WHERE no = ${no(r, t)}) ORDER BY id`,
  'correlated off the key!': () =>
    'SELECT id, (SELECT count(*) FROM readings r WHERE r.n = a.id) FROM accounts a ORDER BY id',
  'correlated on the key!': () =>
    'SELECT id, (SELECT max(total) FROM orders o WHERE o.account_id = a.id), ARRAY(SELECT no FROM orders o WHERE o.account_id = a.id ORDER BY no) FROM accounts a ORDER BY id',
  'exists or!': (r, t) =>
    `SELECT id FROM accounts a WHERE balance > ${money(r, t)} OR EXISTS (SELECT FROM orders o WHERE o.account_id = a.id) ORDER BY id`,
  'lateral left!': () =>
    'SELECT a.id, l.s FROM accounts a LEFT JOIN LATERAL (SELECT sum(total) AS s FROM orders o WHERE o.account_id = a.id AND o.no > 2) l ON true ORDER BY a.id',
  'lateral off the key!': (r, t) =>
    `SELECT a.id, l.sensor FROM accounts a JOIN LATERAL (SELECT sensor FROM readings r WHERE r.n >= a.id ORDER BY n, sensor LIMIT ${t.of(r.between(0, 2), 'bigint')}) l ON true ORDER BY 1, 2`,
  'values join!': (r, t) =>
    `SELECT v.x, a.name FROM (VALUES (${id(r, t)}, 'p'), (${id(r, t)}, 'q')) v (x, y) LEFT JOIN accounts a ON a.id = v.x ORDER BY v.y`,
  'series join!': () =>
    'SELECT g, count(a.id) FROM generate_series(1, 8) g LEFT JOIN accounts a ON a.rank = g GROUP BY g ORDER BY g',
  'filter!': (r, t) =>
    `SELECT count(*) FILTER (WHERE balance > ${money(r, t)}), sum(balance) FILTER (WHERE tier = 'low'), avg(rank) FILTER (WHERE id < 0), bool_and(balance > 0) FILTER (WHERE rank = 7) FROM accounts`,
  'aggregate of none!': () =>
    'SELECT count(*), sum(balance), max(name), avg(rank), bool_or(true) FROM accounts WHERE id < 0',
  'group of none!': () => 'SELECT tier, count(*) FROM accounts WHERE id < 0 GROUP BY tier',
  'having without group': (r, t) =>
    `SELECT count(*) FROM accounts HAVING count(*) > ${t.of(r.between(0, 40), 'bigint')}`,
  'order in aggregate!': () =>
    "SELECT array_agg(id ORDER BY balance DESC, id), string_agg(name, '|' ORDER BY name DESC, id), (array_agg(rank ORDER BY id))[1] FROM accounts",
  'ordered set!': () =>
    'SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY balance), mode() WITHIN GROUP (ORDER BY rank) FROM accounts',
  'json aggregate!': () =>
    'SELECT tier, json_agg(id ORDER BY id), jsonb_object_agg(id, name ORDER BY id) FROM accounts GROUP BY tier ORDER BY tier',
  'statistics!': () =>
    'SELECT round(stddev(balance), 6), round(var_pop(balance), 6), count(DISTINCT tier) FROM accounts',
  'group by key!': () =>
    'SELECT account_id, array_agg(no ORDER BY no), count(DISTINCT label) FROM orders GROUP BY account_id ORDER BY account_id',
  'rollup!': () =>
    'SELECT tier, currency, count(*), grouping(tier, currency) FROM accounts GROUP BY ROLLUP (tier, currency) ORDER BY 4, 1 NULLS FIRST, 2 NULLS FIRST',
  'grouping sets of none!': () =>
    'SELECT tier, currency, count(*) FROM accounts WHERE id < 0 GROUP BY GROUPING SETS ((tier), (currency), ()) ORDER BY 1, 2, 3',
  'group by expression!': () =>
    'SELECT id % 3 AS m, sum(balance), min(name), max(tier) FROM accounts GROUP BY m HAVING sum(rank) > 7 ORDER BY m DESC',
  'group by ordinal!': () => 'SELECT upper(name), count(*) FROM accounts GROUP BY 1 ORDER BY 2 DESC, 1',
  'distinct!': () => 'SELECT DISTINCT tier, currency FROM accounts ORDER BY tier NULLS FIRST, currency',
  'distinct over text!': () => 'SELECT DISTINCT name FROM accounts ORDER BY name',
  'distinct limit!': (r, t) =>
    `SELECT DISTINCT rank FROM accounts ORDER BY rank LIMIT ${t.of(r.between(0, 3), 'bigint')} OFFSET ${t.of(r.between(0, 3), 'bigint')}`,
  'limit offset!': (r, t) =>
    `SELECT id, name FROM accounts ORDER BY name COLLATE "C" DESC, id LIMIT ${t.of(r.pick([null, 0, 1, 5]), 'bigint')} OFFSET ${t.of(r.between(0, 12), 'bigint')}`,
  'limit negative': (_r, t) => `SELECT id FROM accounts ORDER BY id LIMIT ${t.of(-1, 'bigint')}`,
  'with ties!': (r, t) =>
    `SELECT rank, count(*) OVER (PARTITION BY rank) FROM accounts ORDER BY rank FETCH FIRST ${t.of(r.between(1, 4), 'bigint')} ROWS WITH TIES`,
  'order by text!': () => 'SELECT name, id FROM accounts ORDER BY name, id',
  'order by text lower!': () =>
    'SELECT id, label FROM orders o JOIN accounts a ON a.id = o.account_id ORDER BY lower(label) NULLS FIRST, id, no',
  'order by enum!': () => 'SELECT tier, id FROM accounts ORDER BY tier DESC NULLS LAST, id',
  'order by alias!': () => 'SELECT -balance AS balance, id FROM accounts ORDER BY balance, id',
  'order by hidden!': () => 'SELECT name FROM accounts ORDER BY balance * -1, id DESC',
  'order by jsonb!': () => 'SELECT j, k FROM edges ORDER BY j NULLS FIRST, k, num, f::text, ts, v5',
  'order by array!': () => 'SELECT arr, tx, k FROM edges ORDER BY arr, tx DESC, k, num, f::text, ts, v5',
  'order by numeric!': () => 'SELECT num, k FROM edges ORDER BY num DESC, num::text, k',
  'order by float!': () => 'SELECT f, f4, k FROM edges ORDER BY f, f::text, f4::text, k',
  'order by timestamp!': () => 'SELECT ts, d, iv, k FROM edges ORDER BY ts, d, iv, iv::text, k',
  'order by bytes!': () => 'SELECT b, u, k FROM edges ORDER BY b NULLS FIRST, u, k',
  'group by float!': () => "SELECT f = 0, count(*), sum(f4) = 'NaN' FROM edges GROUP BY f = 0 ORDER BY 1",
  'min and max of edges!': () =>
    'SELECT trim_scale(min(num)), trim_scale(max(num)), min(f) + 0, max(f) + 0, min(ts), max(ts), min(d), max(d), max(v5), min(arr), max(arr) FROM edges',
  'sum of edges!': () =>
    "SELECT sum(num), avg(num), sum(k), avg(k), sum(iv), avg(iv), count(j), sum(f) = 'NaN' FROM edges",
  'distinct edges!': () =>
    'SELECT count(DISTINCT num), count(DISTINCT f), count(DISTINCT ts), count(DISTINCT j), count(DISTINCT arr) FROM edges',
  'group by edges!': () => 'SELECT j::text, count(*) FROM edges GROUP BY j::text ORDER BY 1',
  'distinct numeric!': () => 'SELECT DISTINCT trim_scale(num) AS n FROM edges WHERE num <> 1.5 ORDER BY n',
  'all of edges': () => 'SELECT * FROM edges',
  'casts!': (r, t) =>
    `SELECT k::text::numeric, num::text, f::text, ts AT TIME ZONE 'Asia/Kolkata', d + 1, iv * 2, arr[1], tx || 'z', j -> 'a', j #>> '{a,0}', v5::char(2) FROM edges WHERE k = ${no(r, t)} ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10`,
  'cast that fails': (r, t) => `SELECT k, v5::int FROM edges WHERE k > ${no(r, t)}`,
  overflow: () => 'SELECT id, (id + 2147483640)::int FROM accounts',
  'window sum!': () =>
    'SELECT account_id, no, sum(total) OVER (PARTITION BY account_id ORDER BY no ROWS 1 PRECEDING), lag(no) OVER (PARTITION BY account_id ORDER BY no) FROM orders ORDER BY 1, 2',
  'window named!': () =>
    'SELECT id, rank() OVER w, first_value(name) OVER w FROM accounts WINDOW w AS (ORDER BY balance DESC, id) ORDER BY id',
  'window of aggregate!': () =>
    'SELECT tier, sum(sum(balance)) OVER (ORDER BY tier), count(*) FROM accounts GROUP BY tier ORDER BY tier',
  'union!': () =>
    "SELECT id::text AS x FROM accounts UNION SELECT sensor FROM readings UNION ALL SELECT 'x' ORDER BY x",
  'union all limit!': (r, t) =>
    `(SELECT id, name FROM accounts ORDER BY id LIMIT 3) UNION ALL (SELECT account_id, label FROM orders ORDER BY account_id, no LIMIT ${no(r, t)}) ORDER BY 1, 2`,
  'intersect keyed!': (r, t) =>
    `SELECT no FROM orders WHERE account_id = ${id(r, t)} INTERSECT SELECT no FROM notes WHERE account_id = ${id(r, t)} ORDER BY no`,
  'union of tenants!': () => 'SELECT tenant, n FROM plots UNION SELECT sensor, n FROM readings ORDER BY 1, 2',
  'cte twice!': () =>
    'WITH x AS (SELECT id, rank FROM accounts) SELECT a.id, b.id FROM x a JOIN x b ON a.rank = b.rank AND a.id < b.id ORDER BY 1, 2',
  'cte random!': () =>
    'WITH x AS MATERIALIZED (SELECT random() AS r FROM accounts) SELECT count(*), bool_and(a.r = b.r) FROM x a JOIN x b USING (r)',
  'cte shadows!': () => 'WITH accounts AS (SELECT 1 AS id) SELECT * FROM accounts',
  'subquery in from!': () =>
    'SELECT s.m, count(*) FROM (SELECT id % 4 AS m, balance FROM accounts ORDER BY id LIMIT 9) s GROUP BY s.m ORDER BY s.m',
  'subquery in limit!': () => 'SELECT id FROM accounts ORDER BY id LIMIT (SELECT count(*) / 2 FROM settings)',
  'row comparison!': (r, t) =>
    `SELECT id, rank FROM accounts WHERE (rank, id) > (${no(r, t)}, ${id(r, t)}) ORDER BY 1`,
  'whole row!': () => 'SELECT a FROM accounts a WHERE id < 9 ORDER BY id',
  'row to json!': (r, t) => `SELECT row_to_json(o) FROM orders o WHERE account_id = ${id(r, t)} ORDER BY no`,
  'star of join!': (r, t) =>
    `SELECT * FROM accounts a JOIN orders o ON o.account_id = a.id WHERE a.id = ${id(r, t)} ORDER BY o.no`,
  'no columns': () => 'SELECT FROM accounts WHERE id < 5',
  'duplicate names!': () => 'SELECT id, id AS id, name AS id FROM accounts ORDER BY accounts.id',
  'case and coalesce!': (r, t) =>
    `SELECT id, CASE tier WHEN 'low' THEN 1 WHEN 'mid' THEN 2 END, coalesce(tier::text, ${pick(r, t, NAMES, 'text')}), nullif(rank, 7), greatest(rank, id) FROM accounts ORDER BY id`,
  'between!': (r, t) =>
    `SELECT day, seq, amount FROM ledger WHERE day BETWEEN ${pick(r, t, DAYS, 'date')} AND ${pick(r, t, DAYS, 'date')} ORDER BY 1, 2`,
  'ledger keyed!': (r, t) => `SELECT * FROM ledger WHERE day = ${pick(r, t, DAYS, 'date')} ORDER BY seq`,
  'ledger ranges!': (r, t) =>
    `SELECT day, sum(amount), bool_and(ok) FROM ledger WHERE day >= ${pick(r, t, DAYS, 'date')} GROUP BY day ORDER BY day`,
  'ledger months!': () => "SELECT date_trunc('month', day) AS m, count(*) FROM ledger GROUP BY m ORDER BY m",
  'plots keyed!': (r, t) =>
    `SELECT tenant, n, body FROM plots WHERE tenant = ${pick(r, t, TENANTS, 'text')} ORDER BY n`,
  'plots some!': (r, t) =>
    `SELECT tenant, n FROM plots WHERE tenant IN (${pick(r, t, TENANTS, 'text')}, ${pick(r, t, TENANTS, 'text')}) ORDER BY 1, 2`,
  'plots groups!': () =>
    'SELECT tenant, count(*), max(body) FROM plots GROUP BY tenant ORDER BY tenant COLLATE "C"',
  'ledger with plots!': () =>
    'SELECT l.day, p.tenant FROM ledger l JOIN plots p ON p.n = l.seq ORDER BY 1, 2, p.n, l.seq',
  'people by email!': (r, t) =>
    `SELECT id, email FROM people WHERE email = ${t.of(`p${r.between(1, 12)}@x`, 'text')} ORDER BY id`,
  'people and boss!': () =>
    'SELECT p.id, b.email FROM people p LEFT JOIN people b ON b.id = p.boss ORDER BY p.id',
  'people tree!': () =>
    'WITH RECURSIVE t AS (SELECT id, 0 AS depth FROM people WHERE boss IS NULL UNION SELECT p.id, depth + 1 FROM people p JOIN t ON t.id = p.boss WHERE depth < 5) SELECT * FROM t ORDER BY 1, 2',
  'tickets count!': () => 'SELECT count(*), count(DISTINCT id) FROM tickets',
  'locked over nodes': (r, t) => `SELECT id, balance FROM accounts WHERE rank > ${no(r, t)} FOR UPDATE`,
  'locked join': (r, t) =>
    `SELECT a.id, o.no FROM accounts a JOIN orders o ON o.account_id = a.id WHERE a.tier = ${pick(r, t, TIERS, 'tone')} FOR SHARE OF a SKIP LOCKED`,
  'locked ordered!': () => 'SELECT id FROM accounts ORDER BY id LIMIT 3 FOR UPDATE',
  'locked reference!': (_r, _t) => `SELECT code FROM currencies WHERE code = 'EUR' FOR SHARE`,
  'reference with single!': () =>
    "SELECT c.code, s.value FROM currencies c LEFT JOIN settings s ON s.key = 'k' || length(c.name) ORDER BY 1, 2",
  'system column': (r, t) => `SELECT ctid IS NULL, xmin IS NULL FROM accounts WHERE id = ${id(r, t)}`,
  tableoid: (r, t) => `SELECT tableoid::regclass FROM accounts WHERE id = ${id(r, t)}`,
  'wrong column over nodes': () => 'SELECT id, nonesuch FROM accounts WHERE rank > 1',
  'wrong type': (_r, t) => `SELECT id FROM accounts WHERE id = ${t.of('abc', 'text')}`,
  'key as numeric!': (r, t) =>
    `SELECT id FROM accounts WHERE id = ${t.of(r.between(2, 20) / 2, 'numeric')} ORDER BY id`,
  'key as float!': (r, t) =>
    `SELECT id FROM accounts WHERE id = ${t.of(r.between(2, 20) / 2, 'float8')} ORDER BY id`,
  'key as text literal!': (r) =>
    `SELECT id FROM accounts WHERE id = '${r.pick(['7', ' 8 ', '0x9', '1_0', '+5', '007'])}' ORDER BY id`,
  'key too large!': (r) =>
    `SELECT id FROM accounts WHERE id = ${r.pick(['99999999999999999999', '1e3', '3.0', '-1', '9223372036854775807'])} ORDER BY id`,
  'key twice!': (r, t) => `SELECT id FROM accounts WHERE id = ${id(r, t)} AND id = ${id(r, t)} ORDER BY id`,
  'key in expression!': (r, t) => `SELECT id FROM accounts WHERE id = ${id(r, t)} + 1 ORDER BY id`,
  'text key with spaces!': (r) =>
    `SELECT sensor, n FROM readings WHERE sensor = ${r.pick(["'a '", "'a'::char(5)", "E'\\x61'", "U&'K\\00fcche'", "'a'::name", '$$b$$'])} ORDER BY n`,
  'date key forms!': (r) =>
    `SELECT day, seq FROM ledger WHERE day = ${r.pick(["'2026-02-14'", "'14 Feb 2026'", "'2026-02-14'::timestamp", "DATE '20260214'", "'2026-02-13'::date + 1", "'2026-02-14 00:00:01'::timestamp"])} ORDER BY seq`,
  'or of keys!': (r, t) => `SELECT id FROM accounts WHERE id = ${id(r, t)} OR id = ${id(r, t)} ORDER BY id`,
  'false!': () => 'SELECT id FROM accounts WHERE false ORDER BY id',
  tablesample: () => 'SELECT count(*) >= 0 FROM accounts TABLESAMPLE BERNOULLI (100)',
  only: () => 'SELECT count(*) FROM ONLY accounts',
  table: () => 'TABLE readings',
  'unnest!': () => 'SELECT account_id, no, t FROM orders, unnest(tags) t ORDER BY 1, 2, 3',
  'rows from!': () =>
    'SELECT account_id, no, x, i FROM orders o, ROWS FROM (unnest(o.tags)) WITH ORDINALITY u (x, i) ORDER BY 1, 2, 4',
  'srf in select!': () => 'SELECT id, generate_series(1, 2) AS g FROM accounts WHERE id < 7 ORDER BY id, g',
  'text search!': (_r, t) =>
    `SELECT id FROM accounts WHERE name ILIKE ${t.of('%a%', 'text')} OR name ~ '^[BC]' ORDER BY id`,
  'join sensors!': (r, t) =>
    `SELECT r.sensor, r.n, p.n FROM readings r JOIN plots p ON p.tenant = r.sensor WHERE r.sensor = ${pick(r, t, SENSORS, 'text')} ORDER BY 1, 2, 3`,
};
