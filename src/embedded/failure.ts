/**
 * What can go wrong with embedded servers, each as one line for the person at the terminal that says what to do.
 * The kind is for code (a retry on another port), the message for people.
 */

export type EmbeddedFailureKind =
  | 'binaries-missing'
  | 'directory'
  | 'directory-locked'
  | 'other-version'
  | 'port-in-use'
  | 'server-died'
  | 'start-timeout'
  | 'cancelled';

export class EmbeddedFailure extends Error {
  readonly kind: EmbeddedFailureKind;
  /** The last lines of the server's log, where there are any. */
  readonly logTail: string | undefined;

  constructor(kind: EmbeddedFailureKind, message: string, logTail?: string) {
    super(message);
    this.name = 'EmbeddedFailure';
    this.kind = kind;
    this.logTail = logTail;
  }
}

/** The reason given by an aborted signal, always as this one kind. */
export function cancelled(): EmbeddedFailure {
  return new EmbeddedFailure('cancelled', 'stopped on request');
}
