/**
 * What can't be in a transaction (CREATE INDEX CONCURRENTLY and its kin on tables that have a door) is carried out as a job: a list
 * of units, each of one node, that stands in the catalog until all of it is done, so that it can be completed after a crash
 * (SPEC.md, Outside of transactions).
 *
 * Invariant: a job is worked on by one session at a time, and no two on the same table: whoever works on one holds the advisory
 * session lock of its table on home.
 * Invariant: a unit is noted as done after it is.
 */
import { assert } from '../base/assert.ts';
import { objectError } from '../base/errors.ts';
import { INTERNAL_SCHEMA, JOB_LOCK_CLASS } from '../catalog/schema.ts';
import { type ControlConnection, ServerError } from '../platform/control-connection.ts';

export interface JobUnit {
  readonly nodeId: number;
  readonly text: string;
  /** The leaf that it is about. */
  readonly leaf?: { readonly tableId: number; readonly bucket: number } | undefined;
  /** What takes it back, if another unit fails. */
  readonly undo?: string | undefined;
}

export interface JobSpec {
  /** As the client has sent it: the same text again goes on with the job. */
  readonly statement: string;
  readonly role: string;
  readonly searchPath: string;
  readonly tag: string;
  /** The table that it works on; 0: several, or none that has a door. */
  readonly tableId: number;
  readonly units: readonly JobUnit[];
}

export interface Job extends JobSpec {
  readonly id: number;
  /** It was begun by somebody who has not come to its end. */
  readonly resumed: boolean;
  /** Indexes of units. */
  readonly done: ReadonlySet<number>;
  noteDone(index: number): Promise<void>;
  /** It is over: completed, or taken back. */
  end(): Promise<void>;
  /** Nobody works on it any more. */
  release(): Promise<void>;
}

interface JobRow {
  readonly id: number;
  readonly role: string;
  readonly search_path: string;
  readonly statement: string;
  readonly tag: string;
  readonly table_id: number;
  readonly units: readonly JobUnit[];
  readonly done: readonly number[];
}

/** Records a new job, or takes one over that was begun with the same text by the same role. `home`: a connection of its own. */
export async function openJob(home: ControlConnection, spec: JobSpec): Promise<Job> {
  await lockTable(home, spec.tableId);
  const known = await readJobs(home, 'role = $1 AND statement = $2 AND table_id = $3', [
    spec.role,
    spec.statement,
    spec.tableId,
  ]);
  const [row] = known.length > 0 ? known : [await insertJob(home, spec)];
  assert(row, 'a job is there or made');
  return jobOf(home, row, known.length > 0);
}

/** Takes an unfinished job over; undefined: it is over. */
export async function reopenJob(home: ControlConnection, id: number): Promise<Job | undefined> {
  const [before] = await readJobs(home, 'job_id = $1', [id]);
  if (!before) return undefined;
  await lockTable(home, before.table_id);
  const [row] = await readJobs(home, 'job_id = $1', [id]);
  return row && jobOf(home, row, true);
}

export async function unfinishedJobs(home: ControlConnection, role: string): Promise<readonly number[]> {
  const rows = await readJobs(home, 'role = $1', [role]);
  return rows.map(({ id }) => id);
}

async function lockTable(home: ControlConnection, tableId: number): Promise<void> {
  try {
    await home.query(`SELECT pg_advisory_lock(${JOB_LOCK_CLASS}, $1::int4)`, [tableId]);
  } catch (error) {
    if (!(error instanceof ServerError) || error.sqlState !== '55P03') throw error;
    throw objectError(
      '55006',
      'another session is working on the indexes of this table',
      'Try again when it has ended. SELECT * FROM postern.unfinished_ddl tells what is under way.',
    );
  }
}

async function readJobs(
  home: ControlConnection,
  where: string,
  values: readonly unknown[],
): Promise<JobRow[]> {
  return await home.query<JobRow>(
    `SELECT job_id AS id, role::text AS role, search_path, statement, tag, table_id, units, done
     FROM ${INTERNAL_SCHEMA}.ddl_jobs WHERE ${where} ORDER BY job_id`,
    values,
  );
}

async function insertJob(home: ControlConnection, spec: JobSpec): Promise<JobRow> {
  const [row] = await home.query<{ id: number }>(
    `INSERT INTO ${INTERNAL_SCHEMA}.ddl_jobs (role, search_path, statement, tag, table_id, units)
     VALUES ($1, $2, $3, $4, $5, $6::jsonb) RETURNING job_id AS id`,
    [spec.role, spec.searchPath, spec.statement, spec.tag, spec.tableId, JSON.stringify(spec.units)],
  );
  assert(row, 'INSERT … RETURNING gives a row');
  const { role, searchPath, statement, tag, tableId, units } = spec;
  return { id: row.id, role, search_path: searchPath, statement, tag, table_id: tableId, units, done: [] };
}

function jobOf(home: ControlConnection, row: JobRow, resumed: boolean): Job {
  const { id, role, statement, tag, units } = row;
  return {
    ...{ id, role, statement, tag, units, resumed },
    searchPath: row.search_path,
    tableId: row.table_id,
    done: new Set(row.done),
    noteDone: async (index) => {
      await home.query(`UPDATE ${INTERNAL_SCHEMA}.ddl_jobs SET done = done || $2::int4 WHERE job_id = $1`, [
        id,
        index,
      ]);
    },
    end: async () => {
      await home.query(`DELETE FROM ${INTERNAL_SCHEMA}.ddl_jobs WHERE job_id = $1`, [id]);
    },
    release: () => home.close(),
  };
}
