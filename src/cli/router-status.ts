/**
 * What a router's process tells of itself when it is asked: for /readyz and /metrics, which the first process serves for all of
 * its workers. Everything here is plain data: it goes between processes as JSON.
 */
import type { ProcessMetrics } from '../observe/counter-memory.ts';

/** How this process sees a node, in the words of health/SPEC.md. */
export interface NodeStatus {
  readonly node: string;
  readonly isHome: boolean;
  /** `unknown`: nobody has looked yet, or nobody looks (front mode). */
  readonly state: string;
  /** Can statements be sent there? */
  readonly usable: boolean;
  /** When it came to be in this state, ISO 8601; undefined: not known. */
  readonly since?: string | undefined;
  /** `read-only`, `full`, …: what else is to be known of it. */
  readonly notes: readonly string[];
}

export interface RouterStatus {
  /** Its place among the workers, from 0. */
  readonly worker: number;
  readonly processId: number;
  readonly version: string;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly isDraining: boolean;
  /** Logged in. */
  readonly clients: number;
  /** Of the map that it plans by; undefined: there is no catalog (front mode). */
  readonly epoch?: number | undefined;
  /** How long ago the map was known to be the catalog's, in ms; undefined: never, or there is no catalog. */
  readonly mapAgeMs?: number | undefined;
  /** Its slot in postern.routers; 0: it is not registered. */
  readonly slot: number;
  readonly nodes: readonly NodeStatus[];
}

/** What a process can be asked, by the first process as well as within it. */
export interface Answers {
  readonly status: RouterStatus;
  readonly metrics: ProcessMetrics;
}

export type Question = keyof Answers;
