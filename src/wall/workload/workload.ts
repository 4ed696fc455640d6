/**
 * What the load generator does over and over: a transaction of one or more statements, with values drawn for each
 * transaction. A workload is plain data, so that it can be sent to worker threads and stand in a report; a new one is a
 * function here that returns such an object, and no code elsewhere.
 *
 * In every text, `{schema}` stands for the place of the workload's tables: `postern_wall.` when a measurement makes them itself,
 * empty when they are found by search_path (an existing table, or one behind the router).
 */

export interface Workload {
  readonly name: string;
  /** Statements that make its tables in an empty schema, each sent by itself. */
  readonly setup: readonly string[];
  readonly variables: readonly Variable[];
  /** One transaction, in order; several statements that belong together say BEGIN and COMMIT themselves. */
  readonly statements: readonly WorkloadStatement[];
}

/** A whole number drawn afresh for each transaction, evenly from `min` to `max`, both included; within ±2^53. */
export interface Variable {
  readonly name: string;
  readonly type: 'int4' | 'int8';
  readonly min: number;
  readonly max: number;
}

export interface WorkloadStatement {
  /** $1, $2, … are its parameters; no other `$` and digit may stand in it, not within quotes either. */
  readonly text: string;
  /** The variables' names, $1 first. */
  readonly parameters: readonly string[];
}

/** The write of the wall's text: one durable row. */
export function eventsWorkload(): Workload {
  return {
    name: 'events',
    setup: [
      'CREATE TABLE {schema}events (id bigserial PRIMARY KEY, ts timestamptz DEFAULT now(), payload text)',
    ],
    variables: [],
    statements: [{ text: "INSERT INTO {schema}events (payload) VALUES ('x')", parameters: [] }],
  };
}

/** One row's counter by its key, drawn evenly from `rows`. */
export function countersWorkload(options: { rows: number }): Workload {
  return {
    name: 'counters',
    setup: [
      'CREATE TABLE {schema}counters (id bigint PRIMARY KEY, n bigint NOT NULL DEFAULT 0) WITH (fillfactor = 50)',
      `INSERT INTO {schema}counters (id) SELECT generate_series(1, ${options.rows})`,
      'ANALYZE {schema}counters',
    ],
    variables: [{ name: 'id', type: 'int8', min: 1, max: options.rows }],
    statements: [{ text: 'UPDATE {schema}counters SET n = n + 1 WHERE id = $1', parameters: ['id'] }],
  };
}

/** Puts the place of the tables into a text; `schema` is empty or ends in a dot. */
export function withSchema(text: string, schema: string): string {
  return text.replaceAll('{schema}', schema);
}
