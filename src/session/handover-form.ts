/**
 * What goes from one process to another with a client's connection, as JSON (HANDOVER.md). A field that a new version adds, changes
 * or drops makes a new HANDOVER_VERSION: sessions go only between processes of the same one.
 */
import type { ClientIdentity } from '../observe/client-log.ts';
import type { PackedSequences } from './sequence-memory.ts';

export const HANDOVER_VERSION = 1;

type Pairs = readonly (readonly [string, string])[];

export interface PackedStatement {
  readonly name: string;
  readonly text: string;
  readonly oids: readonly number[];
  /** The RowDescription or NoData frame that the client may know, in base64. */
  readonly shown?: string | undefined;
}

/** What a session knows of itself. */
export interface PackedState {
  readonly user: string;
  readonly tenant?: string | undefined;
  readonly defaults: Pairs;
  readonly settings: Pairs;
  readonly loginSearchPath: string;
  readonly searchPath: string;
  readonly told: Pairs;
  readonly statements: readonly PackedStatement[];
  readonly sequences: PackedSequences;
  readonly log: ClientIdentity;
  /** Base64: in front of whatever is read next. */
  readonly unread: string;
}

/** And what its listener knows of it. */
export interface HandedSession {
  readonly id: number;
  /** Base64. */
  readonly secretKey: string;
  /** What nodes ask of this role, where only the old process knows it. A secret, as the key is: neither is ever written down. */
  readonly credential?: string | undefined;
  readonly state: PackedState;
}
