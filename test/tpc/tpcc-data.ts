/**
 * TPC-C's schema, sharded by warehouse, and a small population (TPC Benchmark C, sections 1.3 and 4.3): the tables, keys and
 * initial relations of the specification with fewer rows in each. The same rows in each run.
 */
import { SeededRandom } from './random.ts';
import type { Row } from './tpch-data.ts';

export const WAREHOUSES = 6;
export const DISTRICTS = 3;
export const CUSTOMERS = 30;
export const ITEMS = 100;

export const TPCC_TABLES: Readonly<Record<string, string>> = {
  item: 'i_id int PRIMARY KEY, i_im_id int, i_name varchar(24), i_price numeric(5,2), i_data varchar(50)',
  warehouse:
    'w_id int PRIMARY KEY, w_name varchar(10), w_street varchar(20), w_city varchar(20), w_state char(2), w_zip char(9), ' +
    'w_tax numeric(4,4), w_ytd numeric(12,2)',
  district:
    'd_w_id int, d_id int, d_name varchar(10), d_street varchar(20), d_city varchar(20), d_state char(2), d_zip char(9), ' +
    'd_tax numeric(4,4), d_ytd numeric(12,2), d_next_o_id int, PRIMARY KEY (d_w_id, d_id)',
  customer:
    'c_w_id int, c_d_id int, c_id int, c_first varchar(16), c_middle char(2), c_last varchar(16), c_since timestamptz, ' +
    'c_credit char(2), c_credit_lim numeric(12,2), c_discount numeric(4,4), c_balance numeric(12,2), ' +
    'c_ytd_payment numeric(12,2), c_payment_cnt int, c_delivery_cnt int, c_data varchar(500), ' +
    'PRIMARY KEY (c_w_id, c_d_id, c_id)',
  history:
    'h_c_id int, h_c_d_id int, h_c_w_id int, h_d_id int, h_w_id int, h_date timestamptz, h_amount numeric(6,2), h_data varchar(24)',
  orders:
    'o_w_id int, o_d_id int, o_id int, o_c_id int, o_entry_d timestamptz, o_carrier_id int, o_ol_cnt int, o_all_local int, ' +
    'PRIMARY KEY (o_w_id, o_d_id, o_id)',
  new_order: 'no_w_id int, no_d_id int, no_o_id int, PRIMARY KEY (no_w_id, no_d_id, no_o_id)',
  order_line:
    'ol_w_id int, ol_d_id int, ol_o_id int, ol_number int, ol_i_id int, ol_supply_w_id int, ol_delivery_d timestamptz, ' +
    'ol_quantity int, ol_amount numeric(6,2), ol_dist_info char(24), PRIMARY KEY (ol_w_id, ol_d_id, ol_o_id, ol_number)',
  stock:
    's_w_id int, s_i_id int, s_quantity int, s_dist char(24), s_ytd int, s_order_cnt int, s_remote_cnt int, s_data varchar(50), ' +
    'PRIMARY KEY (s_w_id, s_i_id)',
};

export const TPCC_INDEXES = [
  'CREATE INDEX customer_by_name ON customer (c_w_id, c_d_id, c_last, c_first)',
  'CREATE INDEX orders_by_customer ON orders (o_w_id, o_d_id, o_c_id, o_id)',
];

export const TPCC_REFERENCES = ['item'];
export const TPCC_SHARDED: readonly { table: string; key: string; beside: string }[] = [
  { table: 'warehouse', key: 'w_id', beside: 'none' },
  ...Object.entries({
    ...{ district: 'd_w_id', customer: 'c_w_id', history: 'h_w_id', orders: 'o_w_id' },
    ...{ new_order: 'no_w_id', order_line: 'ol_w_id', stock: 's_w_id' },
  }).map(([table, key]) => ({ table, key, beside: 'warehouse' })),
];

/** The specification's ten syllables (4.3.2.3). */
const SYLLABLES = ['BAR', 'OUGHT', 'ABLE', 'PRI', 'PRES', 'ESE', 'ANTI', 'CALLY', 'ATION', 'EING'];

export function lastName(number: number): string {
  return [Math.floor(number / 100) % 10, Math.floor(number / 10) % 10, number % 10]
    .map((digit) => SYLLABLES[digit])
    .join('');
}

const START = '2026-01-01 00:00:00+00';
const BACKORDERS_FROM = 21;

export function tpccRows(seed = 1): Readonly<Record<string, readonly Row[]>> {
  const random = new SeededRandom(seed);
  const rows: Record<string, Row[]> = Object.fromEntries(
    Object.keys(TPCC_TABLES).map((table) => [table, []]),
  );
  const price = (max: number) => (random.between(100, max * 100) / 100).toFixed(2);
  const data = () => (random.between(1, 10) === 1 ? 'an ORIGINAL part of it' : 'data of some length');
  const place = (): Row => ['Street 1', 'City', 'ST', '123411111'];
  for (let item = 1; item <= ITEMS; item++)
    rows.item!.push([item, random.between(1, 9999), `item ${item}`, price(100), data()]);
  for (let w = 1; w <= WAREHOUSES; w++) {
    // What the districts have taken is what the warehouse has taken (consistency condition 1).
    rows.warehouse!.push([w, `w${w}`, ...place(), '0.1000', (DISTRICTS * 30_000).toFixed(2)]);
    for (let item = 1; item <= ITEMS; item++)
      rows.stock!.push([w, item, random.between(10, 100), 'distribution information', 0, 0, 0, data()]);
    for (let d = 1; d <= DISTRICTS; d++) {
      rows.district!.push([w, d, `d${d}`, ...place(), '0.0500', '30000.00', CUSTOMERS + 1]);
      for (let c = 1; c <= CUSTOMERS; c++) {
        const credit = random.between(1, 10) === 1 ? 'BC' : 'GC';
        const discount = (random.between(0, 5000) / 10_000).toFixed(4);
        rows.customer!.push([
          ...[
            w,
            d,
            c,
            `first${random.between(1, 99)}`,
            'OE',
            lastName(c % 10),
            START,
            credit,
            '50000.00',
            discount,
          ],
          ...['-10.00', '10.00', 1, 0, 'customer data'],
        ]);
        rows.history!.push([c, d, w, d, w, START, '10.00', 'history']);
        const lines = random.between(5, 15);
        const isOpen = c >= BACKORDERS_FROM;
        rows.orders!.push([
          w,
          d,
          c,
          CUSTOMERS + 1 - c,
          START,
          isOpen ? null : random.between(1, 10),
          lines,
          1,
        ]);
        if (isOpen) rows.new_order!.push([w, d, c]);
        for (let line = 1; line <= lines; line++)
          rows.order_line!.push([
            ...[w, d, c, line, random.between(1, ITEMS), w, isOpen ? null : START, 5],
            ...[isOpen ? price(99) : '0.00', 'distribution information'],
          ]);
      }
    }
  }
  return rows;
}
