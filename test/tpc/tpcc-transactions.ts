/**
 * TPC-C's five transactions (TPC Benchmark C, sections 2.4 to 2.8) as an application sends them: statement by statement, with
 * parameters, in BEGIN … COMMIT. What is chosen by chance comes from `random`, so that two servers can be sent the same.
 */
import type pg from 'pg';
import type { SeededRandom } from './random.ts';
import { CUSTOMERS, DISTRICTS, ITEMS, lastName, WAREHOUSES } from './tpcc-data.ts';

/** What a transaction answers its terminal, to be compared. */
export type Outcome = readonly unknown[];

interface Terminal {
  readonly client: pg.Client;
  readonly random: SeededRandom;
  /** The time that is written: of no server's clock, so that it is the same on all. */
  readonly now: string;
}

const TRANSACTIONS = { newOrder, payment, orderStatus, delivery, stockLevel };
export type TransactionName = keyof typeof TRANSACTIONS;

/** The mix of section 5.2.3, in percent. */
export function chooseTransaction(random: SeededRandom): TransactionName {
  const at = random.between(1, 100);
  if (at <= 45) return 'newOrder';
  if (at <= 88) return 'payment';
  if (at <= 92) return 'orderStatus';
  return at <= 96 ? 'delivery' : 'stockLevel';
}

/** Runs one in a transaction of its own, again after an error that says so (40001, 40P01). */
export async function runTransaction(name: TransactionName, terminal: Terminal): Promise<Outcome> {
  const { client } = terminal;
  await client.query('BEGIN');
  try {
    const outcome = await TRANSACTIONS[name](terminal);
    await client.query(outcome[0] === 'rolled back' ? 'ROLLBACK' : 'COMMIT');
    return outcome;
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  }
}

async function rowsOf(client: pg.Client, text: string, values: readonly unknown[]): Promise<unknown[][]> {
  const result = await client.query({ text, values: [...values], rowMode: 'array' });
  return result.rows as unknown[][];
}

async function newOrder({ client, random, now }: Terminal): Promise<Outcome> {
  const warehouse = random.between(1, WAREHOUSES);
  const district = random.between(1, DISTRICTS);
  const customer = random.between(1, CUSTOMERS);
  const count = random.between(5, 15);
  // One in a hundred has an item that doesn't exist, and is rolled back.
  const isBroken = random.between(1, 100) === 1;
  const lines = Array.from({ length: count }, (_, i) => ({
    item: isBroken && i === count - 1 ? ITEMS + 1 : random.between(1, ITEMS),
    supplier: random.between(1, 100) === 1 ? random.between(1, WAREHOUSES) : warehouse,
    quantity: random.between(1, 10),
  }));
  const [[discount] = []] = await rowsOf(
    client,
    `SELECT c_discount, c_last, c_credit, w_tax FROM warehouse JOIN customer ON c_w_id = w_id
     WHERE w_id = $1 AND c_d_id = $2 AND c_id = $3`,
    [warehouse, district, customer],
  );
  const [[order] = []] = await rowsOf(
    client,
    `UPDATE district SET d_next_o_id = d_next_o_id + 1 WHERE d_w_id = $1 AND d_id = $2
     RETURNING d_next_o_id - 1, d_tax`,
    [warehouse, district],
  );
  const isLocal = lines.every(({ supplier }) => supplier === warehouse) ? 1 : 0;
  await client.query('INSERT INTO orders VALUES ($1, $2, $3, $4, $5, NULL, $6, $7)', [
    ...[warehouse, district, order, customer, now, count, isLocal],
  ]);
  await client.query('INSERT INTO new_order (no_w_id, no_d_id, no_o_id) VALUES ($1, $2, $3)', [
    ...[warehouse, district, order],
  ]);
  const amounts: unknown[] = [];
  for (const [i, { item, supplier, quantity }] of lines.entries()) {
    const [found] = await rowsOf(client, 'SELECT i_price, i_name FROM item WHERE i_id = $1', [item]);
    if (!found) return ['rolled back', order];
    const [stock] = await rowsOf(
      client,
      'SELECT s_quantity, s_dist FROM stock WHERE s_w_id = $1 AND s_i_id = $2 FOR UPDATE',
      [supplier, item],
    );
    const left = Number(stock![0]) - quantity;
    await client.query(
      `UPDATE stock SET s_quantity = $3, s_ytd = s_ytd + $4, s_order_cnt = s_order_cnt + 1,
         s_remote_cnt = s_remote_cnt + $5 WHERE s_w_id = $1 AND s_i_id = $2`,
      [supplier, item, left >= 10 ? left : left + 91, quantity, supplier === warehouse ? 0 : 1],
    );
    const [line] = await rowsOf(
      client,
      `INSERT INTO order_line VALUES ($1, $2, $3, $4, $5, $6, NULL, $7::int, $7::int * $8::numeric, $9) RETURNING ol_amount`,
      [warehouse, district, order, i + 1, item, supplier, quantity, found[0], stock![1]],
    );
    amounts.push(line![0]);
  }
  return ['new order', order, discount, ...amounts];
}

async function payment({ client, random, now }: Terminal): Promise<Outcome> {
  const warehouse = random.between(1, WAREHOUSES);
  const district = random.between(1, DISTRICTS);
  // 15% of the customers pay at another warehouse than their own.
  const isRemote = random.between(1, 100) > 85;
  const home = isRemote ? random.between(1, WAREHOUSES) : warehouse;
  const homeDistrict = isRemote ? random.between(1, DISTRICTS) : district;
  const amount = (random.between(100, 500_000) / 100).toFixed(2);
  const byName = random.between(1, 100) <= 60;
  const number = random.between(1, CUSTOMERS);
  await client.query('UPDATE warehouse SET w_ytd = w_ytd + $2 WHERE w_id = $1', [warehouse, amount]);
  await client.query('UPDATE district SET d_ytd = d_ytd + $3 WHERE d_w_id = $1 AND d_id = $2', [
    ...[warehouse, district, amount],
  ]);
  const customer = byName
    ? await customerByName(client, [home, homeDistrict, lastName(number % 10)])
    : number;
  const [paid] = await rowsOf(
    client,
    `UPDATE customer SET c_balance = c_balance - $4, c_ytd_payment = c_ytd_payment + $4, c_payment_cnt = c_payment_cnt + 1,
       c_data = CASE WHEN c_credit = 'BC' THEN left(format('%s %s %s %s|%s', $1::int, $2::int, $3::int, $5::int, c_data), 500)
         ELSE c_data END
     WHERE c_w_id = $1 AND c_d_id = $2 AND c_id = $3 RETURNING c_balance, c_credit, left(c_data, 20)`,
    [home, homeDistrict, customer, amount, warehouse],
  );
  await client.query('INSERT INTO history VALUES ($1, $2, $3, $4, $5, $6, $7, $8)', [
    ...[customer, homeDistrict, home, district, warehouse, now, amount, `w${warehouse} d${district}`],
  ]);
  return ['payment', customer, ...paid!];
}

/** The one in the middle, by first name. */
async function customerByName(client: pg.Client, of: readonly unknown[]): Promise<unknown> {
  const found = await rowsOf(
    client,
    'SELECT c_id FROM customer WHERE c_w_id = $1 AND c_d_id = $2 AND c_last = $3 ORDER BY c_first, c_id',
    of,
  );
  return found[Math.ceil(found.length / 2) - 1]![0];
}

async function orderStatus({ client, random }: Terminal): Promise<Outcome> {
  const of = [random.between(1, WAREHOUSES), random.between(1, DISTRICTS)];
  const customer = await customerByName(client, [...of, lastName(random.between(0, 9))]);
  const [order] = await rowsOf(
    client,
    `SELECT o_id, o_carrier_id, c_balance FROM orders
       JOIN customer ON c_w_id = o_w_id AND c_d_id = o_d_id AND c_id = o_c_id
     WHERE o_w_id = $1 AND o_d_id = $2 AND o_c_id = $3 ORDER BY o_id DESC LIMIT 1`,
    [...of, customer],
  );
  if (!order) return ['order status', customer];
  const lines = await rowsOf(
    client,
    `SELECT ol_i_id, ol_supply_w_id, ol_quantity, ol_amount FROM order_line
     WHERE ol_w_id = $1 AND ol_d_id = $2 AND ol_o_id = $3 ORDER BY ol_number`,
    [...of, order[0]],
  );
  return ['order status', customer, ...order, ...lines.flat()];
}

async function delivery({ client, random, now }: Terminal): Promise<Outcome> {
  const warehouse = random.between(1, WAREHOUSES);
  const carrier = random.between(1, 10);
  const delivered: unknown[] = [];
  for (let district = 1; district <= DISTRICTS; district++) {
    const [oldest] = await rowsOf(
      client,
      `DELETE FROM new_order WHERE no_w_id = $1 AND no_d_id = $2 AND no_o_id =
         (SELECT min(no_o_id) FROM new_order WHERE no_w_id = $1 AND no_d_id = $2) RETURNING no_o_id`,
      [warehouse, district],
    );
    if (!oldest) continue;
    const of = [warehouse, district, oldest[0]];
    const [order] = await rowsOf(
      client,
      'UPDATE orders SET o_carrier_id = $4 WHERE o_w_id = $1 AND o_d_id = $2 AND o_id = $3 RETURNING o_c_id',
      [...of, carrier],
    );
    await client.query(
      'UPDATE order_line SET ol_delivery_d = $4 WHERE ol_w_id = $1 AND ol_d_id = $2 AND ol_o_id = $3',
      [...of, now],
    );
    const [sum] = await rowsOf(
      client,
      'SELECT sum(ol_amount) FROM order_line WHERE ol_w_id = $1 AND ol_d_id = $2 AND ol_o_id = $3',
      of,
    );
    await client.query(
      `UPDATE customer SET c_balance = c_balance + $4, c_delivery_cnt = c_delivery_cnt + 1
       WHERE c_w_id = $1 AND c_d_id = $2 AND c_id = $3`,
      [warehouse, district, order![0], sum![0]],
    );
    delivered.push(oldest[0], sum![0]);
  }
  return ['delivery', ...delivered];
}

async function stockLevel({ client, random }: Terminal): Promise<Outcome> {
  const [[low] = []] = await rowsOf(
    client,
    `SELECT count(DISTINCT s_i_id) FROM district
       JOIN order_line ON ol_w_id = d_w_id AND ol_d_id = d_id AND ol_o_id BETWEEN d_next_o_id - 20 AND d_next_o_id - 1
       JOIN stock ON s_w_id = ol_w_id AND s_i_id = ol_i_id
     WHERE d_w_id = $1 AND d_id = $2 AND s_quantity < $3`,
    [random.between(1, WAREHOUSES), random.between(1, DISTRICTS), random.between(10, 20)],
  );
  return ['stock level', low];
}
