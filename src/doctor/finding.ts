/**
 * What postern doctor has to say: one thing that is not as it should be, what it is held against, and what to run.
 *
 * Invariant: a finding holds no password, no verifier and no value of a user's row.
 */

export type Severity = 'error' | 'warning' | 'note';

/** Each has a section of this name in docs/guide/doctor.md. */
export type Topic =
  | 'nodes'
  | 'settings'
  | 'clocks'
  | 'roles'
  | 'objects'
  | 'tables'
  | 'leaves'
  | 'references'
  | 'lookups'
  | 'transactions'
  | 'mesh'
  | 'routers'
  | 'logins';

export interface Remedy {
  /**
   * `router`: SQL from a client of any router. `node`: SQL on that node itself, in its database, as the role that Postern has
   * there. `machine`: something to be done that is no SQL.
   */
  readonly at: 'router' | 'node' | 'machine';
  readonly node?: string;
  readonly text: string;
}

export interface Finding {
  readonly topic: Topic;
  readonly severity: Severity;
  /** Undefined: it is of the cluster as a whole. */
  readonly node: string | undefined;
  readonly object: string;
  readonly message: string;
  /** What is there, and what should be, in PostgreSQL's words. */
  readonly found?: string | undefined;
  readonly expected?: string | undefined;
  readonly advice?: string | undefined;
  /** In order. */
  readonly remedies: readonly Remedy[];
}

/** What could not be looked at, and so says nothing. */
export interface Unread {
  readonly what: string;
  readonly node: string | undefined;
  readonly why: string;
}

export interface Examination {
  readonly findings: readonly Finding[];
  readonly unread: readonly Unread[];
  /** What was looked at, in words with numbers. */
  readonly looked: readonly string[];
}

const RANK: Readonly<Record<Severity, number>> = { error: 0, warning: 1, note: 2 };

/** The worst first; findings of one severity stay in the order in which they have to be mended. */
export function bySeverity(findings: readonly Finding[]): readonly Finding[] {
  return findings
    .map((finding, place) => ({ finding, place }))
    .sort((a, b) => RANK[a.finding.severity] - RANK[b.finding.severity] || a.place - b.place)
    .map(({ finding }) => finding);
}

export function docsOf(topic: Topic): string {
  return `docs/guide/doctor.md#${topic}`;
}

export function onNode(node: string, ...texts: readonly string[]): readonly Remedy[] {
  return texts.map((text) => ({ at: 'node', node, text }));
}

export function throughRouter(...texts: readonly string[]): readonly Remedy[] {
  return texts.map((text) => ({ at: 'router', text }));
}
