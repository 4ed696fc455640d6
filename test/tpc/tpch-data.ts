/**
 * TPC-H's schema and a small population: the columns, value domains and correlations that its 22 queries ask for, with far
 * fewer rows than scale factor 1 (TPC Benchmark H, sections 1.4 and 4.2). The same rows in each run.
 */
import { SeededRandom } from './random.ts';

/** In an order in which each one's references are there. */
export const TPCH_TABLES: Readonly<Record<string, string>> = {
  region: 'r_regionkey int PRIMARY KEY, r_name char(25) NOT NULL, r_comment varchar(152)',
  nation:
    'n_nationkey int PRIMARY KEY, n_name char(25) NOT NULL, n_regionkey int NOT NULL, n_comment varchar(152)',
  supplier:
    's_suppkey int PRIMARY KEY, s_name char(25) NOT NULL, s_address varchar(40) NOT NULL, s_nationkey int NOT NULL, ' +
    's_phone char(15) NOT NULL, s_acctbal numeric(15,2) NOT NULL, s_comment varchar(101) NOT NULL',
  part:
    'p_partkey int PRIMARY KEY, p_name varchar(55) NOT NULL, p_mfgr char(25) NOT NULL, p_brand char(10) NOT NULL, ' +
    'p_type varchar(25) NOT NULL, p_size int NOT NULL, p_container char(10) NOT NULL, p_retailprice numeric(15,2) NOT NULL, ' +
    'p_comment varchar(23) NOT NULL',
  partsupp:
    'ps_partkey int NOT NULL, ps_suppkey int NOT NULL, ps_availqty int NOT NULL, ps_supplycost numeric(15,2) NOT NULL, ' +
    'ps_comment varchar(199) NOT NULL, PRIMARY KEY (ps_partkey, ps_suppkey)',
  customer:
    'c_custkey int PRIMARY KEY, c_name varchar(25) NOT NULL, c_address varchar(40) NOT NULL, c_nationkey int NOT NULL, ' +
    'c_phone char(15) NOT NULL, c_acctbal numeric(15,2) NOT NULL, c_mktsegment char(10) NOT NULL, c_comment varchar(117) NOT NULL',
  orders:
    'o_orderkey int PRIMARY KEY, o_custkey int NOT NULL, o_orderstatus char(1) NOT NULL, o_totalprice numeric(15,2) NOT NULL, ' +
    'o_orderdate date NOT NULL, o_orderpriority char(15) NOT NULL, o_clerk char(15) NOT NULL, o_shippriority int NOT NULL, ' +
    'o_comment varchar(79) NOT NULL',
  lineitem:
    'l_orderkey int NOT NULL, l_partkey int NOT NULL, l_suppkey int NOT NULL, l_linenumber int NOT NULL, ' +
    'l_quantity numeric(15,2) NOT NULL, l_extendedprice numeric(15,2) NOT NULL, l_discount numeric(15,2) NOT NULL, ' +
    'l_tax numeric(15,2) NOT NULL, l_returnflag char(1) NOT NULL, l_linestatus char(1) NOT NULL, l_shipdate date NOT NULL, ' +
    'l_commitdate date NOT NULL, l_receiptdate date NOT NULL, l_shipinstruct char(25) NOT NULL, l_shipmode char(10) NOT NULL, ' +
    'l_comment varchar(44) NOT NULL, PRIMARY KEY (l_orderkey, l_linenumber)',
};

/** The tables that are whole on every node, and the key of each of the others with the table that it is kept beside. */
export const TPCH_REFERENCES = ['region', 'nation', 'supplier'];
export const TPCH_SHARDED: readonly { table: string; key: string; beside: string }[] = [
  { table: 'part', key: 'p_partkey', beside: 'none' },
  { table: 'partsupp', key: 'ps_partkey', beside: 'part' },
  { table: 'customer', key: 'c_custkey', beside: 'none' },
  { table: 'orders', key: 'o_orderkey', beside: 'none' },
  { table: 'lineitem', key: 'l_orderkey', beside: 'orders' },
];

const SUPPLIERS = 40;
const PARTS = 300;
const CUSTOMERS = 200;
const ORDERS = 1800;

const REGIONS = ['AFRICA', 'AMERICA', 'ASIA', 'EUROPE', 'MIDDLE EAST'];
/** With the region of each. */
const NATIONS: readonly [string, number][] = [
  ['ALGERIA', 0],
  ['ARGENTINA', 1],
  ['BRAZIL', 1],
  ['CANADA', 1],
  ['EGYPT', 4],
  ['ETHIOPIA', 0],
  ['FRANCE', 3],
  ['GERMANY', 3],
  ['INDIA', 2],
  ['INDONESIA', 2],
  ['IRAN', 4],
  ['IRAQ', 4],
  ['JAPAN', 2],
  ['JORDAN', 4],
  ['KENYA', 0],
  ['MOROCCO', 0],
  ['MOZAMBIQUE', 0],
  ['PERU', 1],
  ['CHINA', 2],
  ['ROMANIA', 3],
  ['SAUDI ARABIA', 4],
  ['VIETNAM', 2],
  ['RUSSIA', 3],
  ['UNITED KINGDOM', 3],
  ['UNITED STATES', 1],
];
const COLOURS = ['almond', 'azure', 'brown', 'coral', 'forest', 'green', 'ivory', 'lemon', 'navy', 'plum'];
const TYPES: readonly (readonly string[])[] = [
  ['STANDARD', 'SMALL', 'MEDIUM', 'LARGE', 'ECONOMY', 'PROMO'],
  ['ANODIZED', 'BURNISHED', 'PLATED', 'POLISHED', 'BRUSHED'],
  ['TIN', 'NICKEL', 'BRASS', 'STEEL', 'COPPER'],
];
const CONTAINERS: readonly (readonly string[])[] = [
  ['SM', 'LG', 'MED', 'JUMBO', 'WRAP'],
  ['CASE', 'BOX', 'BAG', 'JAR', 'PKG', 'PACK', 'CAN', 'DRUM'],
];
const SEGMENTS = ['AUTOMOBILE', 'BUILDING', 'FURNITURE', 'MACHINERY', 'HOUSEHOLD'];
const PRIORITIES = ['1-URGENT', '2-HIGH', '3-MEDIUM', '4-NOT SPECIFIED', '5-LOW'];
const INSTRUCTIONS = ['DELIVER IN PERSON', 'COLLECT COD', 'NONE', 'TAKE BACK RETURN'];
const MODES = ['REG AIR', 'AIR', 'RAIL', 'SHIP', 'TRUCK', 'MAIL', 'FOB'];
const WORDS = [
  'quick',
  'special',
  'pending',
  'requests',
  'Customer',
  'Complaints',
  'final',
  'deposits',
  'sleep',
];

const FIRST_DAY = Date.UTC(1992, 0, 1);
/** The last order date leaves 151 days for what is shipped after it. */
const LAST_ORDER_DAY = 2405;
/** Before it everything has been shipped: 1995-06-17. */
const CURRENT_DAY = 1263;

/** null is NULL. */
export type Row = readonly (string | number | null)[];

/** The rows of each table, in the order of its columns. */
export function tpchRows(seed = 1): Readonly<Record<string, readonly Row[]>> {
  const random = new SeededRandom(seed);
  const comment = () => `${random.pick(WORDS)} ${random.pick(WORDS)} ${random.pick(WORDS)}`;
  const money = (min: number, max: number) => (random.between(min * 100, max * 100) / 100).toFixed(2);
  const phone = (nation: number) =>
    `${nation + 10}-${random.between(100, 999)}-${random.between(100, 999)}-${random.between(1000, 9999)}`;
  const region = REGIONS.map((name, key): Row => [key, name, comment()]);
  const nation = NATIONS.map(([name, regionKey], key): Row => [key, name, regionKey, comment()]);
  const supplier = keys(SUPPLIERS).map((key): Row => {
    const nationKey = random.between(0, NATIONS.length - 1);
    const text = key % 9 === 0 ? 'Customer final Complaints' : comment();
    return [key, name('Supplier', key), comment(), nationKey, phone(nationKey), money(-999, 9999), text];
  });
  const prices = new Map<number, number>();
  const part = keys(PARTS).map((key): Row => {
    const price = 90_000 + ((key * 37) % 20_001) + 100 * (key % 1000);
    prices.set(key, price);
    const maker = random.between(1, 5);
    return [
      key,
      `${random.pick(COLOURS)} ${random.pick(COLOURS)}`,
      `Manufacturer#${maker}`,
      `Brand#${maker}${random.between(1, 5)}`,
      TYPES.map((syllables) => random.pick(syllables)).join(' '),
      random.between(1, 50),
      CONTAINERS.map((syllables) => random.pick(syllables)).join(' '),
      (price / 100).toFixed(2),
      random.pick(WORDS),
    ];
  });
  const supplierOf = (partKey: number, n: number) => ((partKey + n * 11) % SUPPLIERS) + 1;
  const partsupp = keys(PARTS).flatMap((key) =>
    [0, 1, 2, 3].map(
      (n): Row => [key, supplierOf(key, n), random.between(1, 9999), money(1, 1000), comment()],
    ),
  );
  const customer = keys(CUSTOMERS).map((key): Row => {
    const nationKey = random.between(0, NATIONS.length - 1);
    const segment = random.pick(SEGMENTS);
    return [
      key,
      name('Customer', key),
      comment(),
      nationKey,
      phone(nationKey),
      money(-999, 9999),
      segment,
      comment(),
    ];
  });
  const orders: Row[] = [];
  const lineitem: Row[] = [];
  for (const key of keys(ORDERS)) {
    const orderDay = random.between(0, LAST_ORDER_DAY - 151);
    // A third of the customers have no orders, as in the specification.
    const customerKey = random.between(1, Math.floor((CUSTOMERS * 2) / 3));
    let total = 0;
    let open = 0;
    // A few orders are large ones.
    const large = key % 60 === 0;
    const lines = large ? 7 : random.between(1, 7);
    for (let line = 1; line <= lines; line++) {
      const partKey = random.between(1, PARTS);
      const quantity = large ? random.between(45, 50) : random.between(1, 50);
      const price = quantity * prices.get(partKey)!;
      const discount = random.between(0, 10);
      const tax = random.between(0, 8);
      const shipDay = orderDay + random.between(1, 121);
      const receiptDay = shipDay + random.between(1, 30);
      const isOpen = shipDay > CURRENT_DAY;
      if (isOpen) open++;
      total += (price * (100 + tax) * (100 - discount)) / 10_000;
      lineitem.push([
        ...[key, partKey, supplierOf(partKey, random.between(0, 3)), line],
        ...[quantity, (price / 100).toFixed(2), (discount / 100).toFixed(2), (tax / 100).toFixed(2)],
        receiptDay <= CURRENT_DAY ? random.pick(['R', 'A']) : 'N',
        isOpen ? 'O' : 'F',
        ...[day(shipDay), day(orderDay + random.between(30, 90)), day(receiptDay)],
        ...[random.pick(INSTRUCTIONS), random.pick(MODES), comment()],
      ]);
    }
    const status = open === 0 ? 'F' : open === lines ? 'O' : 'P';
    orders.push([
      ...[key, customerKey, status, (total / 100).toFixed(2), day(orderDay), random.pick(PRIORITIES)],
      ...[name('Clerk', random.between(1, 20)), 0, comment()],
    ]);
  }
  return { region, nation, supplier, part, partsupp, customer, orders, lineitem };
}

function keys(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i + 1);
}

function name(kind: string, key: number): string {
  return `${kind}#${String(key).padStart(9, '0')}`;
}

function day(number: number): string {
  return new Date(FIRST_DAY + number * 86_400_000).toISOString().slice(0, 10);
}

/** INSERT statements of some hundred rows each. */
export function insertTexts(table: string, rows: readonly Row[]): string[] {
  const texts: string[] = [];
  for (let at = 0; at < rows.length; at += 500) {
    const values = rows.slice(at, at + 500).map((row) => `(${row.map(literal).join(', ')})`);
    texts.push(`INSERT INTO ${table} VALUES ${values.join(', ')}`);
  }
  return texts;
}

function literal(value: string | number | null): string {
  if (value === null) return 'NULL';
  return typeof value === 'number' ? String(value) : `'${value}'`;
}
