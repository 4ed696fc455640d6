/** The rows of a query over several buckets, for a statement that carries it: COPY (query) TO. */
import type { ScatterRead } from '../plan/scatter-read.ts';
import { BindView } from '../wire/frontend.ts';
import type { Conversation } from './conversation.ts';
import type { ClientStatement, PreparedExecution } from './prepared-execution.ts';
import type { RowsListener } from './rows-in-order.ts';
import type { ScatteredStatements } from './scattered.ts';
import { type ScatteredPortal, type ScatteredRun, scatterOf } from './scattered-run.ts';

/** A Bind message with two empty names, no values, and one format for all columns. */
const BINDS = [0, 1].map((format) => Buffer.from([0, 0, 0, 0, 0, 0, 0, 1, 0, format]));

export class CarriedQueries {
  readonly #c: Conversation;
  readonly #execution: PreparedExecution;
  readonly #scattered: Pick<ScatteredStatements, 'carryOut' | 'answerMerged'>;

  constructor(
    conversation: Conversation,
    execution: PreparedExecution,
    scattered: Pick<ScatteredStatements, 'carryOut' | 'answerMerged'>,
  ) {
    this.#c = conversation;
    this.#execution = execution;
    this.#scattered = scattered;
  }

  /** Its RowDescription, or NoData. */
  async describe(text: string): Promise<Buffer> {
    return (await this.#statementOf(text)).described!.rows;
  }

  /** Gives its command tag. */
  async read(text: string, isBinary: boolean, rows: RowsListener): Promise<string> {
    const statement = await this.#statementOf(text);
    const { plan } = statement.cached;
    const [only] = plan.statements;
    if (only!.refusal) throw only!.refusal;
    const { scatter, table, suppliedIds } = scatterOf(only!.placement);
    const buffer = BINDS[isBinary ? 1 : 0]!;
    const view = new BindView().read({ buffer, bodyStart: 0, end: buffer.length });
    const portal: ScatteredPortal = { statement, view, buffer, done: false };
    const described = statement.described!;
    return await this.#scattered.carryOut(
      scatter,
      { plan, statement: only!, table, described, portal, suppliedIds },
      rows,
    );
  }

  /** The parts of one whose rows are those of its parts, as the caller has written them. Gives the sum of their tags. */
  async readParts(run: ScatteredRun, read: ScatterRead, rows: RowsListener): Promise<string> {
    return await this.#scattered.answerMerged(run, read, rows);
  }

  async #statementOf(text: string): Promise<ClientStatement> {
    const cached = this.#c.plan(text);
    const statement: ClientStatement = { name: '', text, oids: [], cached, described: undefined };
    await this.#execution.describeKeyed(statement);
    return statement;
  }
}
