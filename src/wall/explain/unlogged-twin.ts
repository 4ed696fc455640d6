/**
 * Unlogged copies of the tables that a workload makes for itself, in a schema beside theirs.
 *
 * Invariant: the schema is made and dropped only under the lock of measurements, which the caller holds (MeasuredServer's
 * schema is there), and dropped only if its comment says that this program made it; what a killed run left is cleared away.
 */
import type { ProbeConnection } from '../server/probe-connection.ts';
import { type Workload, withSchema } from '../workload/workload.ts';

const SCHEMA = 'postern_wall_unlogged';
const COMMENT = 'made by postern wall explain, which drops it again when it ends';

export class UnloggedTwin {
  readonly schema = `${SCHEMA}.`;
  private readonly connection: ProbeConnection;

  private constructor(connection: ProbeConnection) {
    this.connection = connection;
  }

  /** The twin, or why there is none. */
  static async make(
    connection: ProbeConnection,
    workload: Workload,
    signal: AbortSignal | undefined,
  ): Promise<UnloggedTwin | { missing: string }> {
    const statements = unloggedSetup(workload.setup);
    if (statements === undefined) return { missing: 'the workload makes no tables of its own' };
    const twin = new UnloggedTwin(connection);
    try {
      if (!(await twin.drop()))
        return { missing: `there is a schema "${SCHEMA}" that this program did not make` };
      await connection.rows(`CREATE SCHEMA ${SCHEMA}`);
      await connection.rows(`COMMENT ON SCHEMA ${SCHEMA} IS '${COMMENT}'`);
      for (const statement of statements) {
        signal?.throwIfAborted();
        await connection.rows(withSchema(statement, twin.schema));
      }
    } catch (error) {
      await twin.drop().catch(() => {});
      signal?.throwIfAborted();
      return { missing: error instanceof Error ? error.message : String(error) };
    }
    return twin;
  }

  /** False: the schema is somebody else's. */
  async drop(): Promise<boolean> {
    const [row] = await this.connection.rows(
      `SELECT obj_description(oid, 'pg_namespace') AS comment FROM pg_catalog.pg_namespace WHERE nspname = $1`,
      [SCHEMA],
    );
    if (row === undefined) return true;
    // A run that was killed between the two statements that make it has left it empty and without a comment.
    if (row.comment !== COMMENT) return false;
    await this.connection.rows(`DROP SCHEMA ${SCHEMA} CASCADE`);
    return true;
  }
}

/** Undefined: there is no table to make unlogged. */
export function unloggedSetup(setup: readonly string[]): string[] | undefined {
  let tables = 0;
  const statements = setup.map((statement) =>
    statement.replace(/^(\s*CREATE\s+)(TABLE\b)/i, (_, create: string, table: string) => {
      tables++;
      return `${create}UNLOGGED ${table}`;
    }),
  );
  return tables === 0 ? undefined : statements;
}
