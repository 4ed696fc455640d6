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
  /** Places beyond all limits on clients, for the role of the control path: somebody has to be able to look what is the matter. */
  reservedClients: 3,
  /** Clients that have logged in and wait for a place, and for how long. */
  queuedClientsMax: 1_000,
  clientQueueMs: 10_000,
  /** Clients that have not logged in yet: in all, and from one address (not loopback). Those beyond that say least have to go. */
  loginsMax: 1_000,
  loginsPerAddress: 200,
  /** A name of a tenant, as a client gives it at its start. */
  tenantLengthMax: 200,
  /** How often all sessions are looked at for time-outs: by so much one may be late. */
  timeoutLookMs: 100,
  /** A client that takes none of its output for so long is closed. */
  clientStalledMs: 900_000,
  /** A client's connection is tried when it has been quiet for so long, and ten times after that, a second apart. */
  clientKeepAliveMs: 30_000,
  /** How long clients have to end their transactions when a router or a worker of it stops. */
  drainTimeoutMs: 30_000,
  /** Sessions that are to leave are looked at this often. */
  departureLookMs: 20,
  /** Between the first sessions that are handed to a process, so many of them. */
  handoverGapMs: 30,
  handoverSlowFirst: 30,
  /** Texts of prepared statements and unread bytes of a session that goes on in another process. */
  handoverBytesMax: 4 * 1024 * 1024,
  /** Roles of which a process remembers what home says of them, and names of which it says that there is no such role. */
  rolesKnownMax: 10_000,
  rolesMissingMax: 1_000,
  /** Names that may wait at once for home to be asked for them, at a login. */
  roleLookupsWaitingMax: 1_000,
  /** What a client may have the router hash a password by: half a second of a thread. */
  scramIterationsMax: 1_000_000,
  /** Passwords sent in the clear that are checked at once, each at the cost of a login at home or of a thread; and how many may wait. */
  passwordChecksMax: 4,
  passwordChecksWaitingMax: 1_000,
  /** A client that has not logged in by then is closed. */
  loginTimeoutMs: 60_000,
  /** How often each node is asked how it is, and by when its answer is due. */
  healthIntervalMs: 1_000,
  /** A node that has answered nothing for this long is sent nothing any more. */
  unresponsiveAfterMs: 3_000,
  /** What has waited this long for a node that answers nothing is given up. */
  cutAfterMs: 15_000,
  /** How long a router that starts waits for its home node. */
  startupMs: 30_000,
  /** TCP connect, login and first ReadyForQuery of a backend connection. */
  backendConnectTimeoutMs: 5_000,
  /** After a failed connect, others to the same node fail at once for this long. */
  backendConnectBackoffMs: 250,
  /** Backend connections to one node, over all roles. */
  connectionsPerNode: 20,
  /** Beyond all limits of a node: for questions of the router's own that somebody asks who holds a connection already. */
  briefConnections: 2,
  /** Connections of one router process to the mesh, each of which has one to every node. */
  meshConnections: 8,
  /** Portals and cursors over several nodes that one session reads in portions at once. */
  meshHoldingsMax: 4,
  /** Texts of statements that were joined for a mesh, and the characters of the longest that is kept. */
  meshTextsMax: 200,
  meshTextLengthMax: 20_000,
  /** How long a statement waits for a free backend connection. */
  acquireTimeoutMs: 30_000,
  /** How many may wait for one at once, per node. */
  acquireWaitersMax: 20_000,
  /** The part of them that one tenant leaves to others while there are any. */
  othersShare: 0.25,
  /** A role whose statement has been first in line for this long takes a connection from one that has more. */
  roleTurnMs: 50,
  /** An idle backend connection is closed after this. */
  backendIdleMs: 600_000,
  /** One beyond `connectionsPerNode`, which a transaction over several nodes has made necessary, after this. */
  besideIdleMs: 10_000,
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
  /** When a piece of a statement over several nodes has failed, the others are canceled after this. */
  siblingCancelAfterMs: 100,
  /** RETURNING rows of an INSERT over several buckets that are kept back to be given in the order of VALUES. */
  returnedRowsBytesMax: 16 * 1024 * 1024,
  /** Rows that one statement writes to a reference table: kept on their way from home to the other nodes. */
  referenceWriteBytesMax: 64 * 1024 * 1024,
  /** Rows, and about as many bytes, that a statement which moves rows between nodes holds at a time. */
  transferRowsMax: 1_000,
  transferBytes: 4 * 1024 * 1024,
  /** Rows of a COPY that wait in the router for their buckets' turn; beyond, its client is not read. */
  copyBufferBytesMax: 24 * 1024 * 1024,
  /** Rows of one bucket that go to its node together: a COPY of its own there. */
  copyChunkBytesMax: 512 * 1024,
  /** One row of it. */
  copyRowBytesMax: 256 * 1024 * 1024,
  /** When a row has failed, how long rows before it, on other nodes, may take to fail as well. */
  copySettleMs: 1_000,
  /** Literals of one simple statement that are lifted into parameters; a statement with more is sent as it came. */
  liftedValuesMax: 64,
  /** Shapes of lifted statements that one transaction remembers to have them judged at its end. */
  liftedShapesUnjudgedMax: 100,
  /** Elements of an IN list with lifted literals: each length is a shape of its own, and they must not flood the caches. */
  liftedListElementsMax: 8,
  /** Rows of a SELECT over several buckets that are kept to be sorted, grouped or cut. */
  gatheredBytesMax: 64 * 1024 * 1024,
  /** PREPARE TRANSACTION of one branch, with its deferred constraints. */
  prepareTimeoutMs: 60_000,
  /** The commit of the commit point, with its deferred constraints and its standbys. */
  decideTimeoutMs: 60_000,
  /** After the decision: how long a participant that can't be reached is tried before the client hears of it. */
  phaseTwoTimeoutMs: 10_000,
  /** How long a lost commit point is asked what it has decided before the client hears that it is unknown. */
  resolveTimeoutMs: 10_000,
  /** Pause between two tries to reach a node that has to hear the outcome of a transaction. */
  transactionRetryMs: 250,
  /** How often prepared transactions are looked for. */
  recoveryIntervalMs: 1_000,
  /** A prepared transaction of this age without a decision is rolled back, even if its router may live. */
  recoveryAfterMs: 10_000,
  /** How long recovery waits for the end of a commit point's backend, and for what it holds. */
  settleTimeoutMs: 2_000,
  /** Decisions and marks are cleaned away this long after every participant has confirmed the outcome. */
  cleaningDelayMs: 5_000,
  /** Transactions that wait for their cleaning: beyond, what is left of them is found by recovery instead. */
  cleaningQueueMax: 100_000,
  /** How long postern.outcome() can tell the outcome of a transaction. */
  outcomeRetentionMs: 24 * 3_600_000,
  /** Connections of the control path to one node for what transactions need beside their own. */
  transactionControlsPerNode: 4,
  /** How often what was counted of statements is written to home. */
  statementFlushIntervalMs: 5_000,
  /** How long a router that stops waits for the last of it. */
  statementStopMs: 1_000,
  /** Texts, as they were sent, that a process counts at once; and bytes of them. */
  statementCountersMax: 2_000,
  statementTextBytesMax: 8 * 1024 * 1024,
  /** Rows of postern.statements. */
  statementsKeptMax: 5_000,
  /** Losses that postern.prepared keeps. */
  lossesKeptMax: 1_000,
  /** How long a consistent read tries to hold back decisions, and waits for those that were made before. */
  decisionGateTimeoutMs: 5_000,
  /** How long it waits in one go for a commit that is under way; others queue up behind it. */
  decisionGateLockMs: 500,
  /**
   * How long DDL waits for a lock in one go: others wait behind it. Below PostgreSQL's deadlock_timeout (1 s), so that where it is part
   * of a deadlock it is DDL that gives way, and no client's write that is told of it.
   */
  ddlLockTimeoutMs: 800,
  /** For how long it tries again, and the pauses between two tries. */
  ddlRetryMs: 60_000,
  ddlPauseMsMin: 200,
  ddlPauseMsMax: 2_000,
  /** How long it holds decisions back for one that is still being carried out, before it lets go and waits without. */
  decisionGateSettleMs: 100,
  /** Opening snapshots or cursors; after this, decisions go on and the read fails. */
  decisionsHeldMs: 2_000,
  /** Channels that sessions of a process listen to together, and one of them. */
  notificationChannelsMax: 10_000,
  notificationChannelsOfSessionMax: 1_000,
  /** Notifications for a session that is in a transaction, or doesn't read; it is ended beyond. */
  notificationBytesMax: 4 * 1024 * 1024,
  /** How long the connections that listen are kept when nobody listens. */
  notificationIdleMs: 10_000,
  /** How often nodes that were away when sessions began to listen are looked for. */
  notificationRetryMs: 2_000,
  /** Connecting there, and each LISTEN. */
  notificationAnswerMs: 3_000,
} as const;
