/**
 * One branch of a client's transaction while DDL runs on it (ddl-run.ts): the client's own texts, questions about PostgreSQL's
 * catalogs, and statements that the router signs.
 *
 * Invariant: search_path is changed for this transaction alone, and is the client's own again after restore().
 */
import type { BackendConnection } from '../backend/connection.ts';
import { ask } from '../backend/internal-query.ts';
import { parameterText, queryRows } from '../backend/typed-query.ts';
import { assert } from '../base/assert.ts';
import { COMMIT_SCHEMA } from '../catalog/map.ts';
import type { StatementSigner } from '../catalog/signed-statements.ts';
import type { SqlConnection } from '../ddl/context.ts';
import type { DdlBranch } from '../ddl/world.ts';
import { quoteLiteral } from '../pg/identifier.ts';
import { ServerError } from '../platform/control-connection.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { BindView, bindTailOf, textBindFrame } from '../wire/frontend.ts';
import type { LeafTarget } from './leaf-errors.ts';
import { type BoundPiece, RunningPieces } from './pieces.ts';

const NO_VALUES = textBindFrame([]);
/** Of a Bind without values. */
export const NO_VALUES_TAIL = bindTailOf(new BindView().read(NO_VALUES), NO_VALUES.buffer, []);

/** What search_path is while the router asks PostgreSQL's catalogs. */
const CATALOG_PATH = 'pg_catalog';

/** Of the router's own, around one DDL statement. */
const SAVEPOINT = 'postern_ddl';

export interface DdlText {
  readonly text: string;
  /** It names this leaf: errors are told in the user's names. */
  readonly leaf?: LeafTarget | undefined;
}

export interface DdlBranchOptions {
  readonly connection: BackendConnection;
  readonly signer: StatementSigner;
  /** How long an attempt waits for a lock; the client's own lock_timeout if that is shorter. */
  readonly lockTimeoutMs: number;
  /** Pieces begin to run: they can be canceled. */
  readonly onRunning: (pieces: RunningPieces) => void;
  readonly onNotice: (reader: FrameReader) => void;
}

export class BranchOfDdl implements DdlBranch {
  readonly nodeId: number;
  readonly nodeName: string;
  readonly connection: BackendConnection;
  /** The client's own lock_timeout; 0: none. */
  clientLockTimeoutMs = 0;
  readonly #o: DdlBranchOptions;
  #clientPath = '';
  #path = '';
  #transactionId = '';

  constructor(options: DdlBranchOptions) {
    this.#o = options;
    this.connection = options.connection;
    this.nodeId = options.connection.address.nodeId;
    this.nodeName = options.connection.address.nodeName;
  }

  /** Begins an attempt: to be ended by release(), or by undo() and another one. */
  async begin(): Promise<void> {
    const { lockTimeoutMs } = this.#o;
    const [row] = await ask(
      this.connection,
      `SAVEPOINT ${SAVEPOINT};
       SELECT s.setting, pg_catalog.current_setting('search_path'), pg_catalog.pg_current_xact_id()::text,
         pg_catalog.set_config('lock_timeout', CASE WHEN s.setting::int BETWEEN 1 AND ${lockTimeoutMs} THEN s.setting
           ELSE '${lockTimeoutMs}' END, true)
       FROM pg_catalog.pg_settings s WHERE s.name = 'lock_timeout'`,
    );
    assert(row, 'lock_timeout is a setting');
    this.clientLockTimeoutMs = Number(row[0]);
    this.#clientPath = row[1] ?? '';
    this.#path = this.#clientPath;
    this.#transactionId = row[2] ?? '';
  }

  async query<Row extends object>(text: string, values?: readonly unknown[]): Promise<Row[]> {
    if (this.#path !== CATALOG_PATH) {
      await ask(this.connection, setPath(CATALOG_PATH));
      this.#path = CATALOG_PATH;
    }
    return await queryRows<Row>(this.connection, text, values);
  }

  /** The rows of a question, as texts, by the client's own search_path. */
  async texts(text: string): Promise<(string | null)[][]> {
    if (this.#path !== this.#clientPath) await ask(this.connection, setPath(this.#clientPath));
    this.#path = this.#clientPath;
    return await ask(this.connection, text);
  }

  async run(texts: readonly string[], searchPath?: string): Promise<void> {
    await this.carryOut(
      texts.map((text) => ({ text })),
      searchPath,
    );
  }

  /** Texts as the client, in order, in one write. Gives their command tags. */
  async carryOut(texts: readonly DdlText[], searchPath = this.#clientPath): Promise<readonly string[]> {
    const pieces = texts.map(({ text, leaf }) => this.#piece(text, leaf));
    // What leaves have to say, the face says in the user's names.
    const ofLeaves = texts.some(({ leaf }) => leaf);
    const switches = this.#path !== searchPath;
    if (switches) pieces.unshift(this.#piece(setPath(searchPath), undefined));
    this.#path = searchPath;
    const running = new RunningPieces(new Map([[this.nodeId, this.connection]]), pieces, {
      onRows() {},
      onNotice: ofLeaves ? () => {} : this.#o.onNotice,
      onMissingLeaf() {},
    });
    this.#o.onRunning(running);
    const tags = await running.done;
    return switches ? tags.slice(1) : tags;
  }

  /** As carryOut(), but an error of one of these SQLSTATEs is undone here, and given. */
  async tryOut(
    texts: readonly DdlText[],
    tolerated: readonly string[],
  ): Promise<readonly string[] | ServerError> {
    const path = this.#path;
    await ask(this.connection, 'SAVEPOINT postern_step');
    try {
      const tags = await this.carryOut(texts);
      await ask(this.connection, 'RELEASE SAVEPOINT postern_step');
      return tags;
    } catch (error) {
      if (!(error instanceof ServerError) || !tolerated.includes(error.sqlState)) throw error;
      await ask(this.connection, 'ROLLBACK TO SAVEPOINT postern_step; RELEASE SAVEPOINT postern_step');
      this.#path = path;
      return error;
    }
  }

  readonly postern: SqlConnection = {
    nodeName: '',
    query: async <Row extends object>(text: string, values: readonly unknown[] = []) => {
      if (/^\s*SELECT\b/i.test(text)) {
        const rows = `SELECT coalesce(json_agg(q), '[]') FROM (${withValues(text, values)}) q`;
        return await this.signedValue<Row[]>(rows);
      }
      await this.signed(text, values);
      return [];
    },
  };

  async signed(statement: string, values: readonly unknown[] = []): Promise<void> {
    await this.#signed(withValues(statement, values), false);
  }

  async signedValue<T>(statement: string): Promise<T> {
    return (await this.#signed(statement, true)) as T;
  }

  async #signed(statement: string, returns: boolean): Promise<unknown> {
    const target = {
      nodeId: this.nodeId,
      processId: this.connection.processId,
      transactionId: this.#transactionId,
    };
    const signature = this.#o.signer.sign(statement, target);
    const [row] = await queryRows<{ result: unknown }>(
      this.connection,
      `SELECT ${COMMIT_SCHEMA}.carry_out($1, $2, $3) AS result`,
      [statement, returns, signature],
    );
    return row?.result;
  }

  /** The statement is done: what it was run under is the client's own again. */
  async release(): Promise<void> {
    const settings = [
      `pg_catalog.set_config('search_path', ${quoteLiteral(this.#clientPath)}, true)`,
      `pg_catalog.set_config('lock_timeout', '${this.clientLockTimeoutMs}', true)`,
    ];
    await ask(this.connection, `SELECT ${settings.join(', ')}; RELEASE SAVEPOINT ${SAVEPOINT}`);
  }

  /** All of the attempt is undone, and its locks are let go. */
  async undo(): Promise<void> {
    await ask(this.connection, `ROLLBACK TO SAVEPOINT ${SAVEPOINT}; RELEASE SAVEPOINT ${SAVEPOINT}`);
  }

  #piece(text: string, leaf: LeafTarget | undefined): BoundPiece {
    const { nodeId } = this;
    return { nodeId, text, shared: undefined, parameterOids: [], tail: NO_VALUES_TAIL, leaf };
  }
}

/** Values as literals in the places of $1, $2, …. */
function withValues(text: string, values: readonly unknown[]): string {
  if (values.length === 0) return text;
  return text.replaceAll(/\$(\d+)/g, (_, number: string) => {
    const value = parameterText(values[Number(number) - 1]);
    return value === null ? 'NULL' : quoteLiteral(value);
  });
}

function setPath(path: string): string {
  return `SELECT pg_catalog.set_config('search_path', ${quoteLiteral(path)}, true)`;
}
