/**
 * An order transaction mix like TPC-C's, simplified: its five transactions by its weights over its nine tables, with a
 * tenth of its rows, ten lines to each order, customers found by number, and no waiting between transactions. Its figures
 * are not TPC-C results and can't be compared with any.
 *
 * Each new order takes its number from its district's row, and each payment adds to its warehouse's row: with few
 * warehouses these rows are what the clients wait for.
 * Source: TPC Benchmark C, Standard Specification, revision 5.11, clause 2.
 */
import { scriptVariables, type Workload } from './workload.ts';

const DISTRICTS = 10;
const CUSTOMERS_PER_DISTRICT = 300;
const ITEMS = 10_000;
const LINES = 10;
/** Those of the orders at the start that are not delivered yet. */
const UNDELIVERED_FROM = 211;

const numbers = Array.from({ length: LINES }, (_, index) => index + 1);
const lineItems = `ARRAY[${numbers.map((n) => `:item${n}`).join(', ')}]::int[]`;
const DRAW_PLACE = `\\set w random(1, :warehouses)
\\set d random(1, ${DISTRICTS})
`;
const DRAW_CUSTOMER = `\\set c random(1, ${CUSTOMERS_PER_DISTRICT})
`;

const NEW_ORDER = `${DRAW_PLACE}${DRAW_CUSTOMER}${numbers.map((n) => `\\set item${n} random(1, ${ITEMS})\n`).join('')}\\set quantity random(1, 10)
BEGIN;
SELECT w.tax, c.discount, c.credit FROM {schema}warehouse w JOIN {schema}customer c ON c.w_id = w.id
  WHERE w.id = :w AND c.d_id = :d AND c.id = :c;
UPDATE {schema}district SET next_order_id = next_order_id + 1 WHERE w_id = :w AND id = :d
  RETURNING next_order_id - 1 AS o \\gset
INSERT INTO {schema}orders (w_id, d_id, id, c_id, line_count) VALUES (:w, :d, :o, :c, ${LINES});
INSERT INTO {schema}new_order (w_id, d_id, o_id) VALUES (:w, :d, :o);
UPDATE {schema}stock SET quantity = quantity - :quantity + CASE WHEN quantity < :quantity + 10 THEN 91 ELSE 0 END,
    year_to_date = year_to_date + :quantity, order_count = order_count + 1
  WHERE w_id = :w AND i_id = ANY (${lineItems});
INSERT INTO {schema}order_line (w_id, d_id, o_id, number, i_id, quantity, amount, info)
  SELECT :w, :d, :o, line.number, i.id, :quantity, :quantity * i.price, left(i.data, 24)
    FROM unnest(${lineItems}) WITH ORDINALITY AS line (i_id, number) JOIN {schema}item i ON i.id = line.i_id;
COMMIT;
`;

const PAYMENT = `${DRAW_PLACE}${DRAW_CUSTOMER}\\set amount random(1, 5000)
BEGIN;
UPDATE {schema}warehouse SET year_to_date = year_to_date + :amount WHERE id = :w;
UPDATE {schema}district SET year_to_date = year_to_date + :amount WHERE w_id = :w AND id = :d;
UPDATE {schema}customer SET balance = balance - :amount, payments = payments + 1
  WHERE w_id = :w AND d_id = :d AND id = :c;
INSERT INTO {schema}history (w_id, d_id, c_id, amount) VALUES (:w, :d, :c, :amount);
COMMIT;
`;

const ORDER_STATUS = `${DRAW_PLACE}${DRAW_CUSTOMER}BEGIN;
SELECT name, balance FROM {schema}customer WHERE w_id = :w AND d_id = :d AND id = :c;
SELECT l.i_id, l.quantity, l.amount, l.delivered_at
  FROM {schema}order_line l
  WHERE l.w_id = :w AND l.d_id = :d
    AND l.o_id = (SELECT max(id) FROM {schema}orders WHERE w_id = :w AND d_id = :d AND c_id = :c);
COMMIT;
`;

/** The oldest order of each district, if another delivery has not taken it. */
const DELIVERY = `\\set w random(1, :warehouses)
\\set carrier random(1, 10)
WITH taken AS (
  DELETE FROM {schema}new_order n
    USING (SELECT d.id AS d_id, (SELECT min(o_id) FROM {schema}new_order WHERE w_id = d.w_id AND d_id = d.id) AS o_id
             FROM {schema}district d WHERE d.w_id = :w) AS oldest
    WHERE n.w_id = :w AND n.d_id = oldest.d_id AND n.o_id = oldest.o_id
    RETURNING n.d_id, n.o_id
), shipped AS (
  UPDATE {schema}orders o SET carrier_id = :carrier FROM taken
    WHERE o.w_id = :w AND o.d_id = taken.d_id AND o.id = taken.o_id
    RETURNING o.d_id, o.c_id, o.id
), stamped AS (
  UPDATE {schema}order_line l SET delivered_at = now() FROM taken
    WHERE l.w_id = :w AND l.d_id = taken.d_id AND l.o_id = taken.o_id
    RETURNING l.d_id, l.o_id, l.amount
)
UPDATE {schema}customer c SET balance = c.balance + bill.amount, deliveries = deliveries + 1
  FROM (SELECT s.d_id, s.c_id, sum(t.amount) AS amount
          FROM shipped s JOIN stamped t ON t.d_id = s.d_id AND t.o_id = s.id GROUP BY s.d_id, s.c_id) AS bill
  WHERE c.w_id = :w AND c.d_id = bill.d_id AND c.id = bill.c_id;
`;

const STOCK_LEVEL = `${DRAW_PLACE}\\set threshold random(10, 20)
SELECT count(DISTINCT s.i_id)
  FROM {schema}district d
  JOIN {schema}order_line l ON l.w_id = d.w_id AND l.d_id = d.id
    AND l.o_id >= d.next_order_id - 20 AND l.o_id < d.next_order_id
  JOIN {schema}stock s ON s.w_id = d.w_id AND s.i_id = l.i_id
  WHERE d.w_id = :w AND d.id = :d AND s.quantity < :threshold;
`;

export function tpccWorkload(options: { scale: number }): Workload {
  const warehouses = options.scale;
  const places = `generate_series(1, ${warehouses}) AS w, generate_series(1, ${DISTRICTS}) AS d`;
  const orders = `${places}, generate_series(1, ${CUSTOMERS_PER_DISTRICT}) AS o`;
  const tables = 'warehouse district customer orders new_order order_line item stock'.split(' ');
  return {
    name: 'tpcc',
    description: `A mix like TPC-C's, simplified: 45% new orders, 43% payments, 4% each of order status, delivery and stock level; ${warehouses} warehouses of ${DISTRICTS} districts. Not comparable with TPC-C results.`,
    reads: true,
    // 23 rows of a new order, 4 of a payment, up to 130 of a delivery.
    writes: { rows: 17, bytes: 1400 },
    setup: [
      'CREATE TABLE {schema}warehouse (id int PRIMARY KEY, name text, tax int, year_to_date bigint) WITH (fillfactor = 10)',
      'CREATE TABLE {schema}district (w_id int, id int, name text, tax int, year_to_date bigint, next_order_id int, PRIMARY KEY (w_id, id)) WITH (fillfactor = 10)',
      'CREATE TABLE {schema}customer (w_id int, d_id int, id int, name text, credit text, discount int, balance bigint, payments int, deliveries int, data text, PRIMARY KEY (w_id, d_id, id)) WITH (fillfactor = 80)',
      'CREATE TABLE {schema}history (w_id int, d_id int, c_id int, amount int, paid_at timestamptz DEFAULT now())',
      'CREATE TABLE {schema}orders (w_id int, d_id int, id int, c_id int, line_count int, carrier_id int, entered_at timestamptz DEFAULT now(), PRIMARY KEY (w_id, d_id, id))',
      'CREATE TABLE {schema}new_order (w_id int, d_id int, o_id int, PRIMARY KEY (w_id, d_id, o_id))',
      'CREATE TABLE {schema}order_line (w_id int, d_id int, o_id int, number int, i_id int, quantity int, amount int, info text, delivered_at timestamptz, PRIMARY KEY (w_id, d_id, o_id, number))',
      'CREATE TABLE {schema}item (id int PRIMARY KEY, name text, price int, data text)',
      'CREATE TABLE {schema}stock (w_id int, i_id int, quantity int, year_to_date bigint, order_count int, data text, PRIMARY KEY (w_id, i_id)) WITH (fillfactor = 80)',
      `INSERT INTO {schema}warehouse SELECT w, 'warehouse ' || w, w % 20, 0 FROM generate_series(1, ${warehouses}) AS w`,
      `INSERT INTO {schema}district SELECT w, d, 'district ' || d, d, 0, ${CUSTOMERS_PER_DISTRICT + 1} FROM ${places}`,
      `INSERT INTO {schema}customer SELECT w, d, c, 'customer ' || c, CASE c % 10 WHEN 0 THEN 'BC' ELSE 'GC' END, c % 50, 0, 0, 0, repeat(md5(c::text), 8)
         FROM ${places}, generate_series(1, ${CUSTOMERS_PER_DISTRICT}) AS c`,
      `INSERT INTO {schema}item SELECT i, 'item ' || i, 1 + i % 100, md5(i::text) FROM generate_series(1, ${ITEMS}) AS i`,
      `INSERT INTO {schema}stock SELECT w, i, 10 + (w + i) % 91, 0, 0, md5(i::text) FROM generate_series(1, ${warehouses}) AS w, generate_series(1, ${ITEMS}) AS i`,
      `INSERT INTO {schema}orders SELECT w, d, o, o, ${LINES}, CASE WHEN o < ${UNDELIVERED_FROM} THEN 1 + o % 10 END FROM ${orders}`,
      `INSERT INTO {schema}new_order SELECT w, d, o FROM ${orders} WHERE o >= ${UNDELIVERED_FROM}`,
      `INSERT INTO {schema}order_line SELECT w, d, o, n, 1 + (o * 31 + n * 977) % ${ITEMS}, 5, 100, 'at the start', CASE WHEN o < ${UNDELIVERED_FROM} THEN now() END
         FROM ${orders}, generate_series(1, ${LINES}) AS n`,
      'CREATE INDEX ON {schema}orders (w_id, d_id, c_id, id)',
      ...tables.map((table) => `ANALYZE {schema}${table}`),
    ],
    variables: { ...scriptVariables(warehouses), warehouses },
    transactions: [
      { name: 'new-order', weight: 45, script: NEW_ORDER },
      { name: 'payment', weight: 43, script: PAYMENT },
      { name: 'order-status', weight: 4, script: ORDER_STATUS },
      { name: 'delivery', weight: 4, script: DELIVERY },
      { name: 'stock-level', weight: 4, script: STOCK_LEVEL },
    ],
  };
}
