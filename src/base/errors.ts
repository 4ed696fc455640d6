/**
 * The one catalogue of errors that Postern itself sends to a client. A server's own errors pass through byte for byte
 * and never become one of these. Each constructor's comment says whether sending the same thing again is right.
 */

export interface PosternErrorFields {
  readonly sqlState: string;
  readonly message: string;
  readonly detail?: string | undefined;
  readonly hint?: string | undefined;
  /** FATAL ends the session after the message; ERROR only the statement or transaction. */
  readonly severity?: 'ERROR' | 'FATAL' | undefined;
  /** 1-based character position in the client's own text, as in ErrorResponse field P. */
  readonly position?: number | undefined;
}

export class PosternError extends Error {
  readonly sqlState: string;
  readonly detail: string | undefined;
  readonly hint: string | undefined;
  readonly severity: 'ERROR' | 'FATAL';
  readonly position: number | undefined;

  constructor(fields: PosternErrorFields) {
    super(fields.message);
    this.name = 'PosternError';
    this.sqlState = fields.sqlState;
    this.detail = fields.detail;
    this.hint = fields.hint;
    this.severity = fields.severity ?? 'ERROR';
    this.position = fields.position;
  }
}

/** What PostgreSQL accepts and Postern does not (yet). Never retry; the hint names the way that works. */
export function notSupported(message: string, hint: string, detail?: string): PosternError {
  return new PosternError({ sqlState: '0A000', message, hint, detail });
}

/** The client broke the protocol. The session ends; a retry would only repeat it. */
export function protocolViolation(message: string, detail?: string): PosternError {
  return new PosternError({ sqlState: '08P01', message, detail, severity: 'FATAL' });
}

/** The client asks for a version of the protocol, or an extension of it, that Postern doesn't speak. Never retry. */
export function protocolNotSupported(message: string, detail?: string): PosternError {
  return new PosternError({ sqlState: '0A000', message, detail, severity: 'FATAL' });
}

/** Text that is not UTF-8; `bytes` as PostgreSQL writes them: "0xff 0x41". Not retryable unchanged. */
export function invalidByteSequence(bytes: string): PosternError {
  return new PosternError({
    sqlState: '22021',
    message: `invalid byte sequence for encoding "UTF8": ${bytes}`,
  });
}

/** A statement in a transaction that has already failed. Roll back, then retry the whole transaction. */
export function inFailedTransaction(): PosternError {
  return new PosternError({
    sqlState: '25P02',
    message: 'current transaction is aborted, commands ignored until end of transaction block',
  });
}

/** No backend connection became free in time. Nothing was sent: a retry is safe, later. */
export function tooManyConnections(message: string, hint?: string): PosternError {
  return new PosternError({ sqlState: '53300', message, hint });
}

/** A node can't be reached and nothing was sent to it. A retry is safe. */
export function cannotConnect(nodeName: string, cause: string): PosternError {
  return new PosternError({
    sqlState: '08001',
    message: `node "${nodeName}" cannot be reached: ${cause}`,
    hint: 'Postern connects again by itself.',
  });
}

/** A node stores another password, or another verifier of the same one, than the client has proved. No retry helps before it is changed. */
export function otherVerifier(nodeName: string, user: string): PosternError {
  return new PosternError({
    sqlState: '28P01',
    message: `node "${nodeName}": password authentication failed for user "${user}"`,
    detail: `That node's SCRAM verifier of the role is not the one by which the client has logged in.`,
    hint: `Give all nodes the same one: ALTER ROLE … PASSWORD through the router. A client that has logged in before the change logs in again.`,
  });
}

/** A node has answered nothing for some seconds, and nothing is sent to it. A retry is safe, once it answers. */
export function nodeUnresponsive(nodeName: string, since: string): PosternError {
  return new PosternError({
    sqlState: '08001',
    message: `node "${nodeName}" does not answer`,
    detail: `It has answered nothing since ${since}.`,
    hint: 'Postern asks it every second, and goes on when it answers.',
  });
}

/** The same error where there are other nodes, for a client to know. Others pass as they are. */
export function besideOtherNodes(error: unknown): unknown {
  if (!(error instanceof PosternError) || error.sqlState !== '08001') return error;
  const { sqlState, message, detail, severity } = error;
  const hint = 'Tables on other nodes are not affected. Postern connects again by itself.';
  return new PosternError({ sqlState, message, detail, severity, hint });
}

/** The connection to a node was lost and what ran there was undone with it. A retry of the transaction is safe. */
export function connectionLost(nodeName: string): PosternError {
  return new PosternError({
    sqlState: '08006',
    message: `the connection to node "${nodeName}" was lost`,
    detail: 'The transaction that ran there was not committed.',
    hint: 'Retry the transaction.',
  });
}

/**
 * The backend that a session had to itself is gone, after the outcome of its last transaction was told: nothing is said of that
 * here. The session is over; a new one is what helps.
 */
export function ownBackendLost(nodeName: string): PosternError {
  return new PosternError({
    severity: 'FATAL',
    sqlState: '57P01',
    message: `the session's own connection to node "${nodeName}" was lost`,
    detail: 'What the session kept there (temporary tables, locks, channels) is gone.',
    hint: 'Connect again.',
  });
}

/** The connection was lost while a commit may have been under way. NOT retryable: look before writing again. */
export function outcomeUnknown(nodeName: string): PosternError {
  return new PosternError({
    sqlState: '08007',
    message: `the connection to node "${nodeName}" was lost before its answer came: the outcome is unknown`,
    detail: 'The statement or transaction may have been committed, or not.',
    hint: 'Read the data back before you write again.',
  });
}

/**
 * The commit point of a transaction over several nodes was lost while it decided, and can't be asked now. NOT retryable: ask with
 * the token, once the node is back.
 */
export function decisionUnknown(nodeName: string, token: string): PosternError {
  return new PosternError({
    sqlState: '08007',
    message: `node "${nodeName}" was lost while it committed the transaction: the outcome is unknown`,
    detail: `The transaction is committed on all of its nodes, or on none. Its token is ${token}`,
    hint: `Ask later: SELECT postern.outcome('${token}')`,
  });
}

/** A bucket has moved and the transaction that names its old place can't follow. Retry the whole transaction. */
export function bucketMoved(table: string): PosternError {
  return new PosternError({
    sqlState: '40001',
    message: `could not serialize access: a bucket of table "${table}" has moved or was dropped`,
    hint: 'Retry the transaction.',
  });
}

/** Transactions wait for one another over several nodes, and this one was chosen to end it. Retry the whole transaction. */
export function deadlockDetected(detail: string): PosternError {
  return new PosternError({
    sqlState: '40P01',
    message: 'deadlock detected',
    detail,
    hint: 'Retry the transaction.',
  });
}

/** Snapshots that agree could not be opened on all nodes. Nothing was read; retry the transaction. */
export function consistentReadFailed(why: string): PosternError {
  return new PosternError({
    sqlState: '40001',
    message: `could not open snapshots on all nodes that agree: ${why}`,
    hint: 'Retry the transaction. Transactions that stay decided and prepared are listed in postern.prepared.',
  });
}

/** A name that must not exist already does, or the other way round; SQLSTATE as PostgreSQL would choose. */
export function objectError(sqlState: string, message: string, hint?: string): PosternError {
  return new PosternError({ sqlState, message, hint });
}

/** A value or option that Postern cannot use (22023). Not retryable unchanged. */
export function invalidParameter(message: string, hint?: string): PosternError {
  return new PosternError({ sqlState: '22023', message, hint });
}

/** The router shuts down. Retry on a new connection. */
export function shuttingDown(): PosternError {
  return new PosternError({
    sqlState: '57P01',
    message: 'terminating connection because the router is shutting down',
    severity: 'FATAL',
  });
}

/** Notifications may have been lost. Connect again, LISTEN, and look at what has changed meanwhile. */
export function listeningInterrupted(nodeName: string): PosternError {
  return new PosternError({
    sqlState: '57P01',
    message: 'terminating connection because notifications may have been lost',
    detail: `The router's connection to node "${nodeName}" that listens for its sessions was interrupted.`,
    hint: 'Connect again, LISTEN, and look at what has changed meanwhile.',
    severity: 'FATAL',
  });
}

/** A session that listens takes too little of what it is told. Connect again, as after listeningInterrupted(). */
export function tooManyNotifications(): PosternError {
  return new PosternError({
    sqlState: '57P01',
    message: 'terminating connection because too many notifications wait for it',
    hint: 'A connection that listens has to read what comes, and should have no long transactions.',
    severity: 'FATAL',
  });
}

/** The client's cancel request, while its statement still waited in the router. Nothing was sent. */
export function queryCanceled(): PosternError {
  return new PosternError({ sqlState: '57014', message: 'canceling statement due to user request' });
}

/**
 * More clients than the configuration allows, in PostgreSQL's words. `waitedMs` 0: there was no room to wait either. A retry is safe,
 * later.
 */
export function clientLimitReached(refusal: {
  readonly limit: 'clients' | 'role' | 'database' | 'tenant';
  readonly name: string;
  readonly max: number;
  readonly waitedMs: number;
}): PosternError {
  const { limit, name, max, waitedMs } = refusal;
  const message =
    limit === 'clients' ? 'sorry, too many clients already' : `too many connections for ${limit} "${name}"`;
  const waited = waitedMs > 0 ? `, and none has left within ${(waitedMs / 1_000).toFixed(1)} s` : '';
  return new PosternError({
    sqlState: '53300',
    message,
    detail: `The router lets in ${max}${waited}.`,
    severity: 'FATAL',
  });
}

/** Too many have not logged in yet, and this one has said least. A retry is safe. */
export function tooManyLogins(): PosternError {
  return new PosternError({
    sqlState: '53300',
    message: 'too many connections have not logged in yet',
    hint: 'Try again.',
    severity: 'FATAL',
  });
}

/** In PostgreSQL's words. What ran has not taken place; retry the transaction if its time-out may be longer. */
export function statementTimedOut(): PosternError {
  return new PosternError({ sqlState: '57014', message: 'canceling statement due to statement timeout' });
}

/** In PostgreSQL's words. Nothing was under way: connect again. */
export function idleTimedOut(): PosternError {
  return new PosternError({
    sqlState: '57P05',
    message: 'terminating connection due to idle-session timeout',
    severity: 'FATAL',
  });
}

/** In PostgreSQL's words. The transaction was rolled back; a new connection may run it again. */
export function idleInTransactionTimedOut(): PosternError {
  return new PosternError({
    sqlState: '25P03',
    message: 'terminating connection due to idle-in-transaction timeout',
    severity: 'FATAL',
  });
}

/** What only the start-up packet decides, in PostgreSQL's words. */
export function fixedAtStartUp(name: string): PosternError {
  return new PosternError({
    sqlState: '55P02',
    message: `parameter "${name}" cannot be set after connection start`,
  });
}
