/**
 * What the load generator does over and over: transactions, each a script in pgbench's format, with values drawn for each
 * run. A workload is plain data, so that it can be sent to worker threads and stand in a report; a new one is a function
 * that returns such an object, and no code elsewhere.
 *
 * In every text, `{schema}` stands for the place of the workload's tables: `postern_wall.` when a measurement makes them itself,
 * empty when they are found by search_path (an existing table, or one behind the router).
 */
import { parseScript } from './pgbench-script.ts';

export interface Workload {
  readonly name: string;
  /** What a transaction does and writes, in a sentence or two. */
  readonly description: string;
  /** Has statements that only read. */
  readonly reads: boolean;
  /** Undefined: not known (a script of the user's). */
  readonly writes: WorkloadWrites | undefined;
  /** Statements that make its tables in an empty schema, each sent by itself. */
  readonly setup: readonly string[];
  /** What the scripts find set; `client_id` comes by itself. */
  readonly variables: Readonly<Record<string, number | string>>;
  /** Each run of a client is one of these, drawn by weight. */
  readonly transactions: readonly Transaction[];
}

/** Of one transaction, on average over the mix. */
export interface WorkloadWrites {
  /** Inserted, updated and deleted. */
  readonly rows: number;
  /** Of the rows' values, roughly: without headers, indexes and WAL. */
  readonly bytes: number;
}

export interface Transaction {
  readonly name: string;
  /** Above 0; its share is this over the sum of all. */
  readonly weight: number;
  /** Statements that belong together say BEGIN and COMMIT themselves. */
  readonly script: string;
}

/** pgbench draws its seeds; here they are fixed, so that the same keys are hot in each measurement. */
const SEED_DEFAULT = 5432;

/** The variables that pgbench sets by itself. */
export function scriptVariables(scale: number): Record<string, number> {
  return { scale, default_seed: SEED_DEFAULT, random_seed: SEED_DEFAULT };
}

/** A workload of the user's own script. Throws PosternError (22023) with `name` and the line for one that can't be run. */
export function workloadFromScript(
  text: string,
  options: {
    /** A file's name, say. */
    readonly name: string;
    readonly setup?: readonly string[];
    readonly scale?: number;
    /** As pgbench's -D. */
    readonly variables?: Readonly<Record<string, number | string>>;
  },
): Workload {
  const { name, setup = [], scale = 1, variables = {} } = options;
  parseScript(text, name);
  return {
    name,
    description: `The script ${name}.`,
    reads: true,
    writes: undefined,
    setup,
    variables: { ...scriptVariables(scale), ...variables },
    transactions: [{ name, weight: 1, script: text }],
  };
}

/** The write of the wall's text: one durable row. */
export function eventsWorkload(): Workload {
  return {
    name: 'events',
    description: 'One insert of a small row with a key from a sequence: the cheapest durable write there is.',
    reads: false,
    writes: { rows: 1, bytes: 17 },
    setup: [
      'CREATE TABLE {schema}events (id bigserial PRIMARY KEY, ts timestamptz DEFAULT now(), payload text)',
    ],
    variables: scriptVariables(1),
    transactions: [
      { name: 'insert', weight: 1, script: "INSERT INTO {schema}events (payload) VALUES ('x');\n" },
    ],
  };
}

/** One row's counter by its key, drawn evenly from `rows`. */
export function countersWorkload(options: { rows: number }): Workload {
  return {
    name: 'counters',
    description: `One update of a counter by its key, drawn evenly from ${options.rows} rows.`,
    reads: false,
    writes: { rows: 1, bytes: 16 },
    setup: [
      'CREATE TABLE {schema}counters (id bigint PRIMARY KEY, n bigint NOT NULL DEFAULT 0) WITH (fillfactor = 50)',
      `INSERT INTO {schema}counters (id) SELECT generate_series(1, ${options.rows})`,
      'ANALYZE {schema}counters',
    ],
    variables: scriptVariables(1),
    transactions: [
      {
        name: 'update',
        weight: 1,
        script: `\\set id random(1, ${options.rows})\nUPDATE {schema}counters SET n = n + 1 WHERE id = :id;\n`,
      },
    ],
  };
}

/** Puts the place of the tables into a text; `schema` is empty or ends in a dot. */
export function withSchema(text: string, schema: string): string {
  return text.replaceAll('{schema}', schema);
}
