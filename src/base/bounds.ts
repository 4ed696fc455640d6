/**
 * Every bound of the router, by name: queues, sizes, waits. A bound that is reached gives an error with an SQLSTATE, never
 * silence. Those that a configuration may change are defaults here.
 */
export const BOUNDS = {
  /** A frame from a client. PostgreSQL's own limit is 1 GiB − 1. */
  clientFrameBytesMax: 256 * 1024 * 1024,
  /** A frame from a server: one row is at most 1 GiB. */
  serverFrameBytesMax: 1024 * 1024 * 1024 - 1,
  /** Clients at once. */
  clientsMax: 10_000,
  /** A client that has not logged in by then is closed. */
  loginTimeoutMs: 60_000,
  /** TCP connect, login and first ReadyForQuery of a backend connection. */
  backendConnectTimeoutMs: 5_000,
  /** After a failed connect, others to the same node fail at once for this long. */
  backendConnectBackoffMs: 250,
  /** Backend connections to one node, over all roles. */
  connectionsPerNode: 20,
  /** How long a statement waits for a free backend connection. */
  acquireTimeoutMs: 30_000,
  /** How many may wait for one at once, per node. */
  acquireWaitersMax: 20_000,
  /** A role whose statement has been first in line for this long takes a connection from one that has more. */
  roleTurnMs: 50,
  /** An idle backend connection is closed after this. */
  backendIdleMs: 600_000,
  /** What a client may have unread before its backend is paused. */
  clientUnsentBytesMax: 1024 * 1024,
  /** What a backend may have unread before its client is paused (COPY FROM STDIN, large parameters). */
  backendUnsentBytesMax: 1024 * 1024,
  /** Requests of one pipeline that a backend may owe answers to before its client is paused. */
  pendingRequestsMax: 10_000,
  /** Prepared statements kept on one backend connection. */
  preparedStatementsPerBackend: 1_000,
  /** Bytes of text of those. */
  preparedTextBytesPerBackend: 8 * 1024 * 1024,
  /** Named statements and portals of one client. */
  clientStatementsMax: 10_000,
  /** Bytes of text in the router's plan cache. */
  planCacheBytesMax: 64 * 1024 * 1024,
  /** A query string that the planner parses: a longer one is refused, and its values belong into parameters or COPY. */
  parsedTextBytesMax: 16 * 1024 * 1024,
  /** A parser instance whose memory (128 MiB when new, most of it untouched) has grown beyond this is replaced, since it never shrinks. */
  parserMemoryBytesMax: 256 * 1024 * 1024,
  /** Pairs that the settings-switch cache holds. */
  startupParameterBytesMax: 10_000,
  /** How long a statement that runs for a vanished client may go on before its backend is closed. */
  abandonedStatementMs: 5_000,
  /** A question that the router itself asks a node (describe, hash, settings). */
  internalQueryTimeoutMs: 10_000,
  /** Buckets of one sharded table. */
  bucketsMax: 1024,
  /** Backend connections that one group of coalesced writes uses at once. */
  coalescingLanes: 2,
  /** Members of one batch. */
  coalescingBatchMax: 64,
  /**
   * Backend connections that one group of pipelined writes uses at once. A commit that waits for its flush occupies one: fewer
   * than 12 cost throughput at 64 clients on a quick disk, 16 still did on a slow one; beyond that a quick one gained nothing.
   */
  pipelineLanes: 20,
  /** Writes that are sent together on one of them. */
  pipelineRunMax: 16,
  /** How long a batch or a pipelined write waits for a lock before the member runs alone; below deadlock_timeout (1 s). */
  coalescingLockTimeoutMs: 20,
  /** How long a member may run on a lane before it runs alone: others wait for it. */
  coalescingStatementTimeoutMs: 100,
  /** When somebody has waited this long for a backend connection, a lane gives its own back between two runs. */
  coalescingYieldMs: 50,
  /** What the answers that a lane keeps back until their commit may hold in memory. */
  coalescingCaptureBytesMax: 4 * 1024 * 1024,
  /** Tables (by name and search_path) of which it is kept whether their writes may be coalesced. */
  writeFactsTablesMax: 10_000,
  /** Literals of one simple statement that are lifted into parameters; a statement with more is sent as it came. */
  liftedValuesMax: 64,
  /** Shapes of lifted statements that one transaction remembers to have them judged at its end. */
  liftedShapesUnjudgedMax: 100,
  /** Elements of an IN list with lifted literals: each length is a shape of its own, and they must not flood the caches. */
  liftedListElementsMax: 8,
} as const;
