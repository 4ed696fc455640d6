/**
 * Every metric of a router, by name: what it counts, its labels, and how the figures of several processes become one. The names are
 * part of what Postern promises: one that is here keeps its meaning. docs/reference/metrics.md lists the same (a test compares them).
 *
 * Labels have few values: nodes, states, SQLSTATEs. Never a role, an address or a text.
 */

interface MetricDefinition {
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  readonly labels: readonly string[];
  /** Of the same name and labels in several processes; default: their sum. */
  readonly together?: 'sum' | 'max' | 'min';
}

function counter(help: string, ...labels: string[]): MetricDefinition {
  return { type: 'counter', help, labels };
}

function gauge(help: string, ...labels: string[]): MetricDefinition {
  return { type: 'gauge', help, labels };
}

function most(help: string, ...labels: string[]): MetricDefinition {
  return { type: 'gauge', help, labels, together: 'max' };
}

function least(help: string, ...labels: string[]): MetricDefinition {
  return { type: 'gauge', help, labels, together: 'min' };
}

const METRIC_TABLE = {
  // The router and its processes.
  postern_build_info: most(
    'Always 1; the labels say which Postern this is, and on which Node.js.',
    'version',
    'node_version',
  ),
  postern_workers: most('Processes that serve clients: how many there should be, and how many do.', 'state'),
  postern_process_start_time_seconds: gauge(
    'When the process was started, in seconds since 1970.',
    'process',
  ),
  postern_process_cpu_seconds_total: counter('Processor time that the process has used.', 'process'),
  postern_process_resident_bytes: gauge('Memory of the process.', 'process'),
  postern_process_heap_bytes: gauge('Memory that objects of the process are in.', 'process'),
  postern_event_loop_delay_seconds: gauge(
    'By how much timers of the process came late since the last time this was asked: the 50th and 99th percentile.',
    ...['process', 'quantile'],
  ),
  postern_router_slot: most('Its number among the routers of the cluster; 0: it is not registered.'),
  postern_register_silent_seconds: most('How long ago home has answered the register of routers.'),
  postern_map_epoch: least('Of the map that statements are planned by.'),
  postern_map_age_seconds: most('How long ago the map was known to be the catalog’s.'),

  // Clients.
  postern_clients: gauge('Clients that are logged in.'),
  postern_logins_under_way: gauge('Clients that are not logged in yet.'),
  postern_logins_dropped_total: counter(
    'Connections that were closed before they had logged in: evicted, so that others can; refused, since there were too many.',
    'reason',
  ),
  postern_clients_queued: gauge('Clients that have proven who they are and wait for a place.'),
  postern_admissions_total: counter(
    'Clients that asked for a place: admitted, or refused for the limit of all clients, the role, the database or the tenant.',
    'result',
  ),
  postern_timeouts_total: counter(
    'Time-outs of sessions that have struck: idle, idle_in_transaction, statement, stalled.',
    'timeout',
  ),
  postern_logins_total: counter('Clients that have logged in.', 'method'),
  postern_role_lookups_total: counter('Queries to the home node for roles that log in.'),
  postern_role_lookup_failures_total: counter('Those that it did not answer.'),
  postern_logins_refused_total: counter('Clients that were not let in.', 'sql_state'),
  postern_sessions_ended_total: counter(
    'Sessions that have ended; sql_state: 00000 by the client, else of what it was told.',
    'sql_state',
  ),
  postern_handovers_total: counter(
    'Sessions that went from one process of the router to another, at a restart: sent by the old one, taken by the new one.',
    'direction',
  ),
  postern_cancels_total: counter(
    'Cancel requests: for a session of the process that got it, sent to other routers, received from them, dropped as unknown or too many, refused as false or repeated.',
    'result',
  ),

  // LISTEN, outside of transactions.
  postern_notification_channels: gauge('Channels that sessions listen to.'),
  postern_notifications_total: counter('Notifications for sessions, each as often as there were sessions.'),
  postern_notification_gaps_total: counter(
    'How often sessions that listen were ended since they may have missed some.',
  ),

  // TLS with clients.
  postern_tls_handshakes_total: counter('Handshakes of TLS with clients: ok, failed.', 'result'),
  postern_tls_certificates_refused_total: counter('Certificates of clients that were not valid.'),
  postern_tls_certificate_expiry_seconds: least(
    'When the certificate that clients are shown runs out, in seconds since 1970.',
  ),
  postern_tls_reloads_total: counter(
    'Loads of changed certificate files; failed: they could not be used, and the old ones are.',
    'result',
  ),

  // Connections to nodes.
  postern_backends: gauge('Connections to a node: idle, lent, opening.', 'node', 'state'),
  postern_backends_max: gauge('So many there may be, of all processes together.', 'node'),
  postern_backend_waiters: gauge('Statements that wait for a connection.', 'node'),
  postern_backend_wait_seconds: {
    type: 'histogram',
    help: 'How long those have waited that had to.',
    labels: ['node'],
  },
  postern_backends_opened_total: counter('Connections that were opened.', 'node'),
  postern_backend_failures_total: counter('Connections that could not be opened.', 'node'),

  // Health of nodes, as the process sees it.
  postern_node_usable: least('1: statements go there. 0: what needs the node is refused at once.', 'node'),
  postern_node_state: most('1 for the state that the node is in, as some process sees it.', 'node', 'state'),
  postern_node_ping_seconds: most('What the last ping took that was answered.', 'node'),
  postern_node_pings_failed_total: counter('Pings that failed, or were not answered in time.', 'node'),
  postern_node_cuts_total: counter('How often connections to a node that said nothing were cut.', 'node'),
  postern_node_promotions_total: counter('How often another host was found to be the primary.', 'node'),

  // Statements and transactions.
  postern_statements_total: counter('Statements that were answered, by how they were placed.', 'placement'),
  postern_statement_errors_total: counter('Those that have failed.', 'placement'),
  postern_statement_seconds_total: counter('Time from when they were sent to their answer.', 'placement'),
  postern_batches_total: counter('Commits that several writes have shared, or pipelines of them.', 'kind'),
  postern_batch_members_total: counter('Writes in them.', 'kind'),
  postern_batch_retries_total: counter('Writes that were carried out alone after all.', 'kind'),
  postern_distributed_transactions: gauge('Open transactions on several nodes.'),
  postern_commits_one_phase_total: counter(
    'Commits of transactions with branches that wrote on one node at most.',
  ),
  postern_commits_two_phase_total: counter('Commits over several nodes.'),
  postern_commits_rolled_back_total: counter('COMMITs over several nodes that ended in a rollback.'),
  postern_commits_unknown_total: counter('Clients that were told 08007.'),
  postern_commits_unconfirmed_total: counter('COMMITs told with a warning, before a node had confirmed.'),
  postern_lost_parts_total: counter('Parts that were decided to commit and are gone: an operator’s matter.'),
  postern_recovered_commits_total: counter('Prepared transactions that recovery has committed.'),
  postern_recovered_rollbacks_total: counter('Prepared transactions that recovery has rolled back.'),
  postern_cleaning_queue: gauge('Decisions and marks that wait for their cleaning.'),
  postern_prepared_transactions: most(
    'Prepared transactions of the cluster of a second or older; absent before the first look.',
  ),
  postern_prepared_oldest_seconds: most('Age of the oldest of them.'),
  postern_nodes_unreachable: most('Nodes that recovery could not ask at its last look.'),
  postern_bypass_logins_total: counter('Sessions that were logged in at a node, and not through a router.'),
  postern_deadlock_victims_total: counter('Deadlocks over nodes that were ended.'),
  postern_consistent_reads_total: counter('Reads over nodes whose snapshots agree.'),
  postern_decision_holds_total: counter('How often decisions were held back for them.'),
} as const satisfies Record<string, MetricDefinition>;

export type MetricName = keyof typeof METRIC_TABLE;

export const METRICS: Readonly<Record<MetricName, MetricDefinition>> = METRIC_TABLE;
