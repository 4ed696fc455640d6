/**
 * What a DDL statement does over the nodes: the vocabulary between plan/ddl (which decides it) and session/ddl-* (which carries
 * it out on branches of the client's transaction, all of one statement or nothing of it).
 *
 *   questions ──their answers──▶ steps(answers) ──▶ one step after the other, each on its nodes side by side
 *
 * Invariant: `steps` is a pure function of the answers. What it throws is the refusal of the statement.
 * Invariant: every name of a schema's object (index, constraint with an index, foreign key) that a step makes is written in its
 * text, so that all nodes and all leaves get the name that home has chosen.
 */
import type { ReferenceTable, ShardedTable } from '../../catalog/map.ts';
import type { EditReplacement } from '../plan.ts';

export interface DdlChange {
  /** The command tag that the client gets; undefined: that of the first text on the home node. */
  readonly tag: string | undefined;
  /**
   * `outside`: its steps can't be in a transaction (VACUUM, … CONCURRENTLY), and are carried out for themselves, in order. `locks`:
   * LOCK TABLE, which changes nothing (session/table-locks.ts).
   */
  readonly mode: 'transaction' | 'outside' | 'locks';
  /** Asked in the transaction, as the client, before the first step, and after its locks if the statement is tried again. */
  readonly questions: readonly DdlQuestion[];
  /** Called with one answer for each question. */
  readonly steps: (answers: readonly DdlAnswer[]) => readonly DdlStep[];
  /** Statements on reference tables: their guard is lifted on all nodes while the steps run. */
  readonly liftsGuard: boolean;
  /** SQLSTATEs with which it ends as if it had been carried out, and all of it is undone: EXCEPTION WHEN … THEN null. */
  readonly forgives?: readonly string[];
  /** A role, beside the client's own, that will own leaves: it needs CREATE on their schema. */
  readonly leafOwner: string | undefined;
}

/** A SELECT on PostgreSQL's own catalogs; all its columns are text. */
export interface DdlQuestion {
  readonly text: string;
  /** Undefined: the home node. */
  readonly nodeId: number | undefined;
}

/** Rows of values, as the server prints them. */
export type DdlAnswer = readonly (readonly (string | null)[])[];

export type DdlStep =
  /** A text as the client's role. `all`: on home first, then on all others. */
  | {
      readonly kind: 'text';
      readonly nodes: 'all' | 'home' | 'others';
      readonly text: string;
      /**
       * SQLSTATEs with which a node other than home may refuse it: what it names is only on home, or is there already. It is undone
       * there, and home's object stays.
       */
      readonly toleratedStates?: readonly string[];
      /** It changes what all databases of a server share (roles): sent once to a server that holds several nodes. */
      readonly oncePerServer?: boolean;
    }
  /** Once for each leaf of the table, on its node. */
  | { readonly kind: 'leaves'; readonly table: ShardedTable; readonly parts: readonly LeafTextPart[] }
  /**
   * Once on each node: before + the names of the leaves that it has of `tables`, and those in `others` (quoted, on each node)
   * and `homeOnly` (quoted, on home), with commas + after. Not sent where there are no names.
   */
  | {
      readonly kind: 'leafList';
      readonly tables: readonly ShardedTable[];
      readonly others: readonly string[];
      readonly homeOnly: readonly string[];
      readonly before: string;
      readonly after: string;
      /** Put behind each name, e.g. a list of columns. */
      readonly suffix: string;
    }
  /** Faces, leaves, copies, and their records, on all nodes. */
  | {
      readonly kind: 'dropTables';
      readonly tables: readonly (ShardedTable | ReferenceTable)[];
      readonly cascade: boolean;
    }
  /** On home, signed by the router. Sent behind all other steps of the transaction where that is possible. */
  | { readonly kind: 'catalog'; readonly change: CatalogChange };

/** A piece of a text for one leaf: as in a plan's edits, with rewrite.ts's textOfReplacement() for the leaf's bucket. */
export type LeafTextPart = string | Extract<EditReplacement, { kind: 'leaf' | 'leafObject' }>;

/** Every one of them adds one to the epoch. */
export type CatalogChange =
  /** Columns, views, or what else the map is read from have changed. */
  | { readonly kind: 'touch' }
  /** RENAME TO, SET SCHEMA; the leaves have been renamed by a step before. */
  | {
      readonly kind: 'renameTable';
      readonly tableId: number;
      readonly schema: string;
      readonly name: string;
    }
  /** Of a sharded table: it may be its key, or have ids. */
  | {
      readonly kind: 'renameColumn';
      readonly tableId: number;
      readonly from: string;
      readonly to: string;
    }
  /** Of a sharded table: its values come from the sequence that is its default now, up to `maxId`. */
  | {
      readonly kind: 'addIdColumn';
      readonly tableId: number;
      readonly column: string;
      readonly maxId: number;
    }
  /** Of a sharded table: the sequence of its ids was set, and those leased before are of no more use. */
  | { readonly kind: 'restartIds'; readonly tableId: number; readonly column: string }
  /** Of a sharded table: it may have had ids. */
  | { readonly kind: 'dropColumn'; readonly tableId: number; readonly column: string }
  /** A foreign key of leaves deletes or changes rows together with those of this table: its rows can't change buckets any more. */
  | { readonly kind: 'noteCascade'; readonly tableId: number }
  /** ALTER SCHEMA … RENAME: of all tables in it. */
  | { readonly kind: 'renameSchema'; readonly from: string; readonly to: string };

/** A change without questions. */
export function changeOf(
  steps: readonly DdlStep[],
  options: Partial<Omit<DdlChange, 'questions' | 'steps'>> = {},
): DdlChange {
  return changeAfter([], () => steps, options);
}

export function changeAfter(
  questions: readonly DdlQuestion[],
  steps: DdlChange['steps'],
  options: Partial<Omit<DdlChange, 'questions' | 'steps'>> = {},
): DdlChange {
  return {
    tag: undefined,
    mode: 'transaction',
    liftsGuard: false,
    leafOwner: undefined,
    ...options,
    questions,
    steps,
  };
}
