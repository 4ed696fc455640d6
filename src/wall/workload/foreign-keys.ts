/**
 * The expensive transaction: a customer's recent orders read through three joins, and an order placed whose row is checked
 * against five other tables. It costs the server about twenty times the CPU of the `events` insert, and writes little
 * more, so it meets the ceiling of the CPU long before that of the WAL.
 */
import { scriptVariables, type Workload } from './workload.ts';

const CUSTOMERS_PER_SCALE = 2_000;
const PRODUCTS_PER_SCALE = 1_000;
const WAREHOUSES = 10;
const CARRIERS = 5;
const CURRENCIES = 20;
/** As many as there are from the start, so that a transaction costs the same at the end of a measurement as at its beginning. */
const RECENT_ORDERS = 50;

const SCRIPT = `\\set customer random(1, :customers)
\\set product random(1, :products)
\\set warehouse random(1, ${WAREHOUSES})
\\set carrier random(1, ${CARRIERS})
\\set currency random(1, ${CURRENCIES})
\\set quantity random(1, 9)
BEGIN;
SELECT p.name, w.city, c.name, sum(o.quantity * p.price)
  FROM (SELECT * FROM {schema}orders WHERE customer_id = :customer ORDER BY id DESC LIMIT ${RECENT_ORDERS}) AS o
  JOIN {schema}products p ON p.id = o.product_id
  JOIN {schema}warehouses w ON w.id = o.warehouse_id
  JOIN {schema}carriers c ON c.id = o.carrier_id
  GROUP BY p.name, w.city, c.name ORDER BY 4 DESC;
INSERT INTO {schema}orders (customer_id, product_id, warehouse_id, carrier_id, currency_id, quantity)
  VALUES (:customer, :product, :warehouse, :carrier, :currency, :quantity);
COMMIT;
`;

export function foreignKeysWorkload(options: { scale: number }): Workload {
  const customers = CUSTOMERS_PER_SCALE * options.scale;
  const products = PRODUCTS_PER_SCALE * options.scale;
  const table = (name: string, columns: string, rows: string): string[] => [
    `CREATE TABLE {schema}${name} (id int PRIMARY KEY, ${columns})`,
    `INSERT INTO {schema}${name} ${rows}`,
    `ANALYZE {schema}${name}`,
  ];
  return {
    name: 'foreign-keys',
    description:
      'A query with three joins over a customer’s recent orders, and one insert with five foreign keys to check: much CPU, little WAL.',
    reads: true,
    writes: { rows: 1, bytes: 40 },
    setup: [
      ...table(
        'customers',
        'name text',
        `SELECT id, 'customer ' || id FROM generate_series(1, ${customers}) AS id`,
      ),
      ...table(
        'products',
        'name text, price int',
        `SELECT id, 'product ' || id, 1 + id % 100 FROM generate_series(1, ${products}) AS id`,
      ),
      ...table(
        'warehouses',
        'city text',
        `SELECT id, 'city ' || id FROM generate_series(1, ${WAREHOUSES}) AS id`,
      ),
      ...table(
        'carriers',
        'name text',
        `SELECT id, 'carrier ' || id FROM generate_series(1, ${CARRIERS}) AS id`,
      ),
      ...table(
        'currencies',
        'code text',
        `SELECT id, 'C' || id FROM generate_series(1, ${CURRENCIES}) AS id`,
      ),
      `CREATE TABLE {schema}orders (
         id bigserial PRIMARY KEY, customer_id int NOT NULL, product_id int NOT NULL, warehouse_id int NOT NULL,
         carrier_id int NOT NULL, currency_id int NOT NULL, quantity int NOT NULL, placed_at timestamptz DEFAULT now())`,
      `INSERT INTO {schema}orders (customer_id, product_id, warehouse_id, carrier_id, currency_id, quantity)
         SELECT 1 + n % ${customers}, 1 + n * 7 % ${products}, 1 + n % ${WAREHOUSES}, 1 + n % ${CARRIERS},
                1 + n % ${CURRENCIES}, 1 + n % 9
           FROM generate_series(1::bigint, ${customers * RECENT_ORDERS}) AS n`,
      'CREATE INDEX ON {schema}orders (customer_id, id)',
      // Keys are added to full tables: checking them once is faster than row by row.
      ...[
        ['customer_id', 'customers'],
        ['product_id', 'products'],
        ['warehouse_id', 'warehouses'],
        ['carrier_id', 'carriers'],
        ['currency_id', 'currencies'],
      ].map(
        ([column, target]) =>
          `ALTER TABLE {schema}orders ADD FOREIGN KEY (${column}) REFERENCES {schema}${target}`,
      ),
      'ANALYZE {schema}orders',
    ],
    variables: { ...scriptVariables(options.scale), customers, products },
    transactions: [{ name: 'order', weight: 1, script: SCRIPT }],
  };
}
