/**
 * A statement that may change values of unique constraints off the shard key (lookup/SPEC.md): around its pieces on each node goes
 * what lets the triggers note and what reads their notes, in the same write; when all pieces are done, the sum of the notes is carried
 * over to where the values are kept, on branches of the same transaction.
 *
 *   pieces run ──notes of all nodes──▶ summed ──▶ tables of the lookups changed ──▶ the statement is done
 *                                                  └─ 23505, told as of the user's constraint: the statement has failed
 */

import type { BackendConnection } from '../backend/connection.ts';
import { ask } from '../backend/internal-query.ts';
import { rowFrames } from '../backend/row-frames.ts';
import { assert } from '../base/assert.ts';
import { CARRY_LOOKUPS, DRAIN_LOOKUPS, KEEP_UNIQUE_SCOPE } from '../catalog/lookup-objects.ts';
import { COMMIT_SCHEMA, LEAF_SCHEMA, type Lookup, leafName, type ShardedTable } from '../catalog/map.ts';
import { bucketsOf } from '../execute/route.ts';
import { inOrder } from '../execute/scatter.ts';
import { changeText, type LookupChange, type LookupChanges, NotedChanges } from '../lookup/changes.ts';
import { quoteQualified } from '../pg/identifier.ts';
import { OID } from '../pg/oid.ts';
import { ServerError } from '../platform/control-connection.ts';
import { readDataRowText } from '../wire/backend.ts';
import { BindView, bindTail, textBindFrame } from '../wire/frontend.ts';
import type { Conversation } from './conversation.ts';
import type { BoundPiece } from './pieces.ts';
import type { PieceRunner } from './row-transfer.ts';
import type { RowsListener } from './rows-in-order.ts';

const KEEP = `SELECT ${COMMIT_SCHEMA}.keep_unique($1, $2)`;

interface OwnedLookup {
  readonly owner: ShardedTable;
  readonly lookup: Lookup;
}

export class LookupWrites {
  readonly #c: Conversation;
  readonly #noted = new NotedChanges();

  constructor(conversation: Conversation) {
    this.#c = conversation;
  }

  /** Before rows are copied to a node. */
  async open(connection: BackendConnection): Promise<void> {
    await ask(connection, CARRY_LOOKUPS);
  }

  /** Behind the last of them. */
  async close(connection: BackendConnection): Promise<void> {
    for (const [portion] of await ask(connection, DRAIN_LOOKUPS)) this.#noted.add(portion ?? '[]');
  }

  /** Runs pieces with the router's own around those of each node. Gives the tags of the pieces. */
  async around(
    bound: readonly BoundPiece[],
    rows: RowsListener,
    run: (bound: readonly BoundPiece[], rows: RowsListener) => Promise<readonly string[]>,
  ): Promise<readonly string[]> {
    const { pieces, origins } = this.#wrapped(bound);
    const tags = await run(pieces, {
      onRows: (index, buffer, start, end) => {
        const origin = origins[index]!;
        if (origin >= 0) rows.onRows(origin, buffer, start, end);
        else if (origin === DRAIN)
          for (const frame of rowFrames(buffer, start, end))
            this.#noted.add(readDataRowText(frame)[0] ?? '[]');
      },
    });
    const own: string[] = [];
    for (const [index, origin] of origins.entries()) if (origin >= 0) own[origin] = tags[index]!;
    return own;
  }

  #wrapped(bound: readonly BoundPiece[]): { pieces: BoundPiece[]; origins: number[] } {
    const pieces: BoundPiece[] = [];
    const origins: number[] = [];
    for (const nodeId of new Set(bound.map((piece) => piece.nodeId))) {
      pieces.push(this.#own(nodeId, CARRY_LOOKUPS, []));
      origins.push(CARRY);
      for (const [index, piece] of bound.entries()) {
        if (piece.nodeId !== nodeId) continue;
        pieces.push(piece);
        origins.push(index);
      }
      pieces.push(this.#own(nodeId, DRAIN_LOOKUPS, []));
      origins.push(DRAIN);
    }
    return { pieces, origins };
  }

  /** Carries over what was noted, when the statement's own pieces are done. */
  async keep(runner: PieceRunner): Promise<void> {
    if (this.#noted.isEmpty) return;
    const kept = await this.#kept();
    // What is signed names the backend.
    const connections = await this.#c.lease.branches.enlist([...new Set(kept.map(({ nodeId }) => nodeId))]);
    const signer = this.#c.state.context.ddl?.signer;
    assert(signer, 'a router with a catalog can sign');
    const pieces = kept.map(({ nodeId, text }) => {
      const connection = connections.get(nodeId);
      assert(connection, 'each node has a branch');
      const target = { nodeId, processId: connection.processId, transactionId: KEEP_UNIQUE_SCOPE };
      return this.#own(nodeId, KEEP, [text, signer.sign(text, target)]);
    });
    await runner.runBound(pieces, { writes: true }, { onRows() {} }).catch((error: unknown) => {
      throw inUsersTerms(error, kept);
    });
  }

  /** In the order of nodes and buckets, as all statements work on them. */
  async #kept(): Promise<readonly KeptChange[]> {
    const owned = this.#lookups();
    const byId = new Map([...owned].map(([id, { lookup }]) => [id, lookup]));
    const { removed, added } = this.#changes(byId);
    const places = await this.#places([...removed, ...added]);
    const kept: KeptChange[] = [];
    for (const { owner, lookup } of owned.values()) {
      const own = [...places].flatMap(([change, bucket]) => (change.lookup === lookup ? bucket : []));
      for (const bucket of inOrder(owner, own)) {
        const here = (change: LookupChange) =>
          change.lookup === lookup && places.get(change) === bucket ? [change.values] : [];
        const { nodeId, generation } = owner.buckets[bucket]!;
        const name = leafName(lookup.table.name, bucket, generation);
        const leaf = quoteQualified(LEAF_SCHEMA, name);
        const values = { removed: removed.flatMap(here), added: added.flatMap(here) };
        kept.push({ owner, lookup, nodeId, name, text: changeText({ lookup, leaf, ...values }) });
      }
    }
    return kept;
  }

  #changes(byId: ReadonlyMap<number, Lookup>): LookupChanges {
    try {
      return this.#noted.changes(byId);
    } catch (error) {
      void this.#c.state.context.catalog.refresh().catch(() => {});
      throw error;
    }
  }

  #lookups(): ReadonlyMap<number, OwnedLookup> {
    const found = new Map<number, OwnedLookup>();
    for (const tables of this.#c.map.tables.values())
      for (const owner of tables.values())
        for (const lookup of owner.lookups ?? []) found.set(lookup.id, { owner, lookup });
    return found;
  }

  /** The bucket of each change, by its first value. */
  async #places(changes: readonly LookupChange[]): Promise<ReadonlyMap<LookupChange, number>> {
    const places = new Map<LookupChange, number>();
    const byLookup = new Map<Lookup, LookupChange[]>();
    for (const change of changes) {
      const list = byLookup.get(change.lookup);
      if (list) list.push(change);
      else byLookup.set(change.lookup, [change]);
    }
    for (const [{ table }, list] of byLookup) {
      const sources = list.map(({ first }) => ({ kind: 'literal', text: first }) as const);
      const buckets = await bucketsOf(table, sources, { bind: undefined, ids: [] }, (text) =>
        this.#c.askAnyNode(text),
      );
      for (const [i, change] of list.entries()) places.set(change, buckets[i]!);
    }
    return places;
  }

  #own(nodeId: number, text: string, values: readonly string[]): BoundPiece {
    const frame = textBindFrame(values);
    const parameterOids = values.map(() => OID.text);
    return {
      ...{ nodeId, text, parameterOids, leaf: undefined },
      shared: this.#c.state.context.statements.get(text, parameterOids, ''),
      tail: bindTail(new BindView().read(frame), frame.buffer, undefined).bytes,
    };
  }
}

const CARRY = -1;
const DRAIN = -2;

/** A change of one table of a lookup. */
interface KeptChange extends OwnedLookup {
  readonly nodeId: number;
  /** Of the table. */
  readonly name: string;
  readonly text: string;
}

/** The value is in another row, whatever the node: told as PostgreSQL tells it of the user's constraint. */
function inUsersTerms(error: unknown, kept: readonly KeptChange[]): unknown {
  if (!(error instanceof ServerError) || error.sqlState !== '23505') return error;
  const change = kept.find(({ name }) => name === error.fields.get('t'));
  if (!change) return error;
  const { owner, lookup } = change;
  const fields = new Map(error.fields);
  fields.set('M', `duplicate key value violates unique constraint "${lookup.name}"`);
  fields.set('s', owner.schema).set('t', owner.name).set('n', lookup.name);
  fields.delete('W');
  return new ServerError(error.nodeName, fields);
}
