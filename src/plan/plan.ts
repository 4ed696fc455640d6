/**
 * What a statement is and where it may go: the vocabulary between sql/ (text to facts), plan/ (facts and map to plan) and
 * session/ (which carries plans out). All of it is immutable and cached by text, search_path and epoch.
 */
import type { PosternError } from '../base/errors.ts';
import type { Lookup, ReferenceTable, ShardedTable } from '../catalog/map.ts';
import type { CopyPlacement } from './copy.ts';
import type { DdlChange } from './ddl/change.ts';
import type { CoalesceOption } from './door-options.ts';
import type { ExplainPlacement } from './explain.ts';
import type { LookupRead } from './lookup-reads.ts';
import type { UniqueSpec } from './lookups.ts';
import type { PlacementOptions } from './placement-options.ts';
import type { ReferenceWritePlacement } from './reference-write.ts';
import type { RoleChanges } from './role-passwords.ts';
import type { Scatter, ScatteredPlacement } from './scatter.ts';
import type { SequenceUse } from './sequences.ts';

/** A replacement in the client's own text; offsets are UTF-8 byte offsets into the whole query string. */
export interface Edit {
  readonly start: number;
  readonly end: number;
  readonly replacement: EditReplacement;
}

export type EditReplacement =
  /** Fixed text. */
  | { readonly kind: 'text'; readonly text: string }
  /** The quoted, qualified name of the leaf of `table` for the statement's bucket; `alias` is appended as ` AS "alias"` if set. */
  | { readonly kind: 'leaf'; readonly table: ShardedTable; readonly alias: string | undefined }
  /** The quoted name that an object of the face (a constraint, an index) has on the leaf. */
  | { readonly kind: 'leafObject'; readonly table: ShardedTable; readonly name: string }
  /** A fresh id for `table.columns[column]`, written as a literal (simple protocol) or bound as parameter (extended). */
  | { readonly kind: 'id'; readonly idIndex: number };

/** An id that the router has to supply: for a sequence column that the INSERT leaves out, one per row; or for a call of VALUES. */
export interface SuppliedId {
  readonly table: ShardedTable;
  /** Of lastval(): empty. */
  readonly column: string;
  /** The call that it stands for; undefined: none. */
  readonly call?: 'nextval' | 'currval' | 'lastval';
}

/** Where the value of a shard key comes from. */
export type KeySource =
  /** A literal of the text; null is SQL NULL. */
  | { readonly kind: 'literal'; readonly text: string | null }
  /** $n, 0-based; `castTo` is the type name of an explicit cast around it, if any. */
  | { readonly kind: 'parameter'; readonly index: number; readonly castTo: string | undefined }
  /** An id that the router supplies: index into the statement's `suppliedIds`. */
  | { readonly kind: 'suppliedId'; readonly idIndex: number };

/** Where a statement goes. */
export type Placement =
  /** Names no table that lives anywhere in particular: any node will do (SELECT 1, SHOW, SET). */
  | { readonly kind: 'anywhere' }
  /** FETCH, MOVE, CLOSE: where the cursor of this name is. */
  | { readonly kind: 'cursor'; readonly name: string }
  /** Home node: tables without a door, catalogs, DDL, functions. */
  | { readonly kind: 'home' }
  /** What is in a schema that lives on this node alone. */
  | { readonly kind: 'node'; readonly nodeId: number }
  /** Reads tables that are on every node, and no other: any node will do, and the one that the transaction is on is best. */
  | { readonly kind: 'reference' }
  | ReferenceWritePlacement
  /** COPY of or to several buckets, or to all copies of a table. */
  | CopyPlacement
  /** EXPLAIN of a query: each of its nodes explains its part. */
  | ExplainPlacement
  /** DDL: on all nodes, in the client's transaction. */
  | { readonly kind: 'everywhere'; readonly change: DdlChange }
  /** One bucket. Every source must hash to the same bucket of `table`; all sharded tables of the statement are colocated. */
  | {
      readonly kind: 'keyed';
      readonly table: ShardedTable;
      readonly keys: readonly KeySource[];
      readonly suppliedIds: readonly SuppliedId[];
      /** How it is carried out if the keys fall into several buckets; undefined: it is refused then. */
      readonly several: Scatter | undefined;
      /** The key is read first, where unique values are kept; `keys` is empty, and `several` says how all buckets are asked instead. */
      readonly lookup?: LookupRead;
    }
  /** Several buckets, or all of them: taken apart when the values are known. */
  | ScatteredPlacement;

/** What a statement does to the session that sends it, beside its own result. */
export type SessionEffect =
  | { readonly kind: 'begin'; readonly readOnly: boolean }
  | { readonly kind: 'commit'; readonly chain: boolean }
  | { readonly kind: 'rollback'; readonly chain: boolean }
  | { readonly kind: 'savepoint'; readonly name: string }
  | { readonly kind: 'releaseSavepoint'; readonly name: string }
  | { readonly kind: 'rollbackToSavepoint'; readonly name: string }
  /** NOTIFY, pg_notify(): PostgreSQL prepares no transaction that has done it. */
  | { readonly kind: 'notify' }
  /** SET CONSTRAINTS ALL. */
  | { readonly kind: 'constraints'; readonly deferred: boolean }
  | { readonly kind: 'declareCursor'; readonly name: string; readonly hold: boolean }
  /** `name` undefined: all of them. */
  | { readonly kind: 'closeCursor'; readonly name: string | undefined }
  /**
   * SET / RESET name / set_config(literal name): the value of `names` (lower case) changes, for the session or (`local`) this
   * transaction. `reset`: RESET name or SET name TO DEFAULT.
   */
  | {
      readonly kind: 'set';
      readonly names: readonly string[];
      readonly local: boolean;
      readonly reset: boolean;
    }
  | { readonly kind: 'resetAll' }
  /** A set_config whose name is not a literal: anything may have changed. */
  | { readonly kind: 'setMany' }
  | { readonly kind: 'discardAll' }
  /** SQL-level PREPARE / EXECUTE / DEALLOCATE. */
  | { readonly kind: 'sqlPrepare' }
  /** `channel` undefined: all of them. */
  | { readonly kind: 'listen'; readonly channel: string }
  | { readonly kind: 'unlisten'; readonly channel: string | undefined }
  /** The session needs a backend of its own from now on; `reason` is for logs and views. */
  | { readonly kind: 'pin'; readonly reason: string }
  | { readonly kind: 'ddl' };

/** Functions of Postern that the router itself carries out: SELECT postern.f(...), SELECT create_distributed_table(...). */
export type RouterCommand =
  /** postern.reset_statements() */
  | { readonly kind: 'resetStatements'; readonly functionName: string }
  /** SELECT postern.resume_ddl(): completes what could not be in a transaction, and was cut short. */
  | { readonly kind: 'resumeDdl'; readonly functionName: string }
  | {
      readonly kind: 'createShardedTable';
      /** The CREATE TABLE text without postern.* options and with its trailing clauses free for PARTITION BY. */
      readonly schema: string | undefined;
      readonly name: string;
      readonly ifNotExists: boolean;
      readonly createText: string;
      readonly key: string;
      /** Undefined: that of the table it is colocated with, or by hash. */
      readonly placement: PlacementOptions | undefined;
      /** Names of the nodes of the buckets that have bounds or values, in order; undefined: in turn. */
      readonly nodes: readonly string[] | undefined;
      /** A table as the user wrote it, or 'none'; undefined: with those whose keys are of the same type and placed alike. */
      readonly colocateWith: string | undefined;
      /** Unique constraints off the key, which `createText` is without; absent: none. */
      readonly uniques?: readonly UniqueSpec[];
      readonly coalesce: CoalesceOption | undefined;
    }
  | {
      readonly kind: 'distributeTable';
      /** As the user wrote it: maybe qualified, maybe quoted. */
      readonly relation: string;
      readonly key: string;
      /** Undefined: that of the table it is colocated with, or by hash. */
      readonly placement: PlacementOptions | undefined;
      /** Names of the nodes of the buckets that have bounds or values, in order; undefined: in turn. */
      readonly nodes: readonly string[] | undefined;
      /** A table as the user wrote it, or 'none'; undefined: with those whose keys are of the same type and placed alike. */
      readonly colocateWith: string | undefined;
      /** Undefined: as the table was before. */
      readonly coalesce: CoalesceOption | undefined;
      /** The column name of the one-row, one-column void result; undefined: it was ALTER TABLE … SET, which has no result. */
      readonly functionName: string | undefined;
    }
  /** A unique constraint off the shard key. */
  | {
      readonly kind: 'addLookup';
      readonly table: ShardedTable;
      readonly spec: UniqueSpec;
      readonly tag: string;
      readonly ifNotExists: boolean;
    }
  | {
      readonly kind: 'dropLookup';
      readonly table: ShardedTable;
      readonly lookup: Lookup;
      readonly tag: string;
    }
  | {
      readonly kind: 'createReferenceTable';
      readonly schema: string | undefined;
      readonly name: string;
      readonly ifNotExists: boolean;
      /** The CREATE TABLE text without postern.* options. */
      readonly createText: string;
    }
  | {
      readonly kind: 'makeReferenceTable';
      /** As the user wrote it: maybe qualified, maybe quoted. */
      readonly relation: string;
      /** As of `distributeTable`. */
      readonly functionName: string | undefined;
    }
  /** Back to one plain table on home. As of `makeReferenceTable`. */
  | { readonly kind: 'unshardTable'; readonly relation: string; readonly functionName: string | undefined }
  /** A key gets a bucket of its own on the node of this name. */
  | {
      readonly kind: 'pinTenant';
      readonly relation: string;
      /** The key, as text. */
      readonly tenant: string;
      readonly node: string;
      readonly functionName: string;
    }
  /** All tables of the schema live on one node, under their own names; `node` undefined: the one with the fewest. */
  | {
      readonly kind: 'distributeSchema';
      readonly schema: string;
      readonly node: string | undefined;
      readonly functionName: string;
    }
  | { readonly kind: 'undistributeSchema'; readonly schema: string; readonly functionName: string }
  | {
      readonly kind: 'dropTables';
      readonly tables: readonly (ShardedTable | ReferenceTable)[];
      readonly cascade: boolean;
    }
  /** A table without a door, made together with its switch of write coalescing. */
  | {
      readonly kind: 'createCoalescing';
      readonly schema: string | undefined;
      readonly name: string;
      readonly ifNotExists: boolean;
      /** The CREATE TABLE text without postern.* options. */
      readonly createText: string;
      readonly coalesce: CoalesceOption;
    }
  | {
      readonly kind: 'setCoalescing';
      /** As the user wrote it: maybe qualified, maybe quoted. */
      readonly relation: string;
      readonly ifExists: boolean;
      readonly coalesce: CoalesceOption;
      /** As of `distributeTable`. */
      readonly functionName: string | undefined;
    }
  /** SELECT postern.outcome('token'). */
  | {
      readonly kind: 'tellOutcome';
      readonly token: string;
      /** The column that the client gets. */
      readonly functionName: string;
    }
  /** SELECT postern.refresh_statistics(). */
  | { readonly kind: 'refreshStatistics'; readonly functionName: string };

/** A write of one relation that may share a transaction with others, if its table allows it (execute/write-facts.ts). */
export interface WriteFacts {
  readonly kind: 'insert' | 'update' | 'delete';
  /** As written. */
  readonly schema: string | undefined;
  readonly name: string;
  /** Set when the statement is keyed. */
  readonly table: ShardedTable | undefined;
  readonly returning: boolean;
  readonly onConflict: boolean;
  /** VALUES has more than one row. */
  readonly multiRow: boolean;
  /** UPDATE and DELETE: 0-based indexes of the parameters that every touched row's columns equal: they tell which row it is. */
  readonly rowParameters: readonly number[];
  /**
   * What it uses by name, to be held against what users have defined: functions (`lower`), operators (`=`), attributes, which
   * may be functions too (`.total`), and types (`type mood`).
   */
  readonly names: readonly string[];
  /** INSERT … VALUES without ON CONFLICT, of one row that may stand in one VALUES with rows of other clients. */
  readonly valuesOnly: boolean;
  /**
   * UPDATE without RETURNING, WHERE nothing but `column = $n`, of columns that it doesn't set: several clients' may be one
   * UPDATE that joins their values (coalesce/multi-row.ts).
   */
  readonly updatesByKey: boolean;
  /** It may share a backend with others' writes, and no transaction. Known when the table is (execute/write-facts.ts). */
  readonly apart?: boolean;
  /** Byte range of that row with its parentheses in the query string; −1 if not `valuesOnly`. */
  readonly valuesStart: number;
  readonly valuesEnd: number;
}

export interface Uses {
  /** Relations, operators, and types (`type mood`), without their schemas. */
  readonly names: readonly string[];
  /** It may do more with them than read. */
  readonly writes: boolean;
}

export interface StatementPlan {
  /** Byte range of this statement in the query string (without the semicolon). */
  readonly start: number;
  readonly end: number;
  readonly placement: Placement;
  readonly effects: readonly SessionEffect[];
  readonly edits: readonly Edit[];
  /** Can only read: may be sent again if a connection dies before its answer. */
  readonly readOnly: boolean;
  /** Must not be put inside a transaction block by the router: it can't run there (VACUUM, CREATE DATABASE, …) or may commit (CALL, DO). */
  readonly outsideTransaction: boolean;
  /** Reads what an earlier statement left in its session: currval, lastval (session/sequences.ts). */
  readonly needsPinBefore: boolean;
  /** It may change values of unique constraints off the shard key: what its nodes note is carried over (lookup/SPEC.md). */
  readonly keepsLookups?: boolean;
  /** What it does with sequences by name, if it goes to no leaf. */
  readonly sequences?: SequenceUse | undefined;
  /** COPY … FROM STDIN / TO STDOUT. */
  readonly copy: 'in' | 'out' | undefined;
  /**
   * Names of functions it calls that are not PostgreSQL's own known-harmless ones, as folded by the parser, maybe qualified.
   * A DO block counts as one with the name "do".
   */
  readonly unknownFunctions: readonly string[];
  /** What it uses by name that may lead to functions which it does not name (execute/stateful-relations.ts). */
  readonly uses: Uses;
  /** Highest $n in the text (0: none). */
  readonly parameterCount: number;
  readonly command: RouterCommand | undefined;
  /** Undefined: needs a transaction to itself, whatever its table says. */
  readonly write: WriteFacts | undefined;
  /** PostgreSQL would take it and Postern does not: what to answer. */
  readonly refusal: PosternError | undefined;
}

/** The plan of a whole query string: one or more statements, or none (an empty query). */
export interface QueryPlan {
  readonly text: string;
  readonly statements: readonly StatementPlan[];
  /** libpg-query could not parse it: let a server say so in its own words (home node, text unchanged). */
  readonly unparsed: boolean;
  readonly roles?: RoleChanges | undefined;
}
