/** What this router's process has done for transactions, as plain numbers: counted since its start, or as they are now. */
export class TransactionMetrics {
  /** Commits with at most one node written: nothing is added to them. */
  committedOnePhase = 0;
  committedTwoPhase = 0;
  /** Of commits over several branches: rolled back instead. */
  rolledBack = 0;
  /** Clients that were told 08007. */
  outcomeUnknown = 0;
  /** Parts that had been prepared and decided to commit, and are gone. Anything but 0 is an operator's matter. */
  lostParts = 0;
  /** Commits told as such while a node had not confirmed. */
  unconfirmed = 0;
  recoveredCommit = 0;
  recoveredRollback = 0;
  cleaned = 0;
  /** Commits that are under way now, or still have something to do after their answer. */
  underWay = 0;
  /** Decisions and marks of this process that wait for their cleaning. */
  cleaningQueued = 0;
  /** Prepared transactions of the cluster of a second or older, at the last look; undefined: this process doesn't look. */
  preparedFound: number | undefined = undefined;
  /** Age of the oldest of them. */
  preparedOldestMs = 0;
  /** Nodes that could not be asked at the last look. */
  nodesUnreachable = 0;
}
