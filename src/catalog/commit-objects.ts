/**
 * What two-phase commit needs on every node (src/txn/SPEC.md): the tables of marks and decisions, and the two functions by
 * which a client's own backend writes them, since it logs in as the client's role, which has no right to the tables.
 *
 * Invariant: a row bears the role that PREPARE TRANSACTION records as owner, found by the server and not said by the caller:
 * nobody writes a mark or a decision in another role's name.
 * Invariant: a transaction that has written either one commits with `synchronous_commit` at `on` or above, whatever its
 * client has set.
 * Invariant: whoever decides holds the gate (src/txn/CONSISTENT-READS.md) in ROW EXCLUSIVE mode to the end of its commit.
 */

import { COMMIT_SCHEMA } from './map.ts';

/** A node has all of this if it has this: what a version adds is added behind the others. */
export const NEWEST_COMMIT_OBJECT = `${COMMIT_SCHEMA}.decide(uuid,int[],name)`;

/** The role that PREPARE TRANSACTION records: SECURITY DEFINER changes neither the setting nor the session's user. */
const OWNER = `who name := pg_catalog.current_setting('role');
BEGIN
  IF who = 'none' THEN who := session_user; END IF;
  IF pg_catalog.current_setting('synchronous_commit') IN ('off', 'local', 'remote_write') THEN
    PERFORM pg_catalog.set_config('synchronous_commit', 'on', true);
  END IF;`;

export function commitObjects(internalSchema: string): string {
  const head = 'LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp';
  return `
CREATE TABLE IF NOT EXISTS ${internalSchema}.transaction_marks (
  transaction_id uuid NOT NULL,
  owner name NOT NULL,
  commit_point int NOT NULL,
  participants int[] NOT NULL,
  xid xid8 NOT NULL,
  PRIMARY KEY (transaction_id, owner)
);
CREATE TABLE IF NOT EXISTS ${internalSchema}.decisions (
  transaction_id uuid NOT NULL,
  owner name NOT NULL,
  outcome text NOT NULL CHECK (outcome IN ('commit', 'abort')),
  participants int[] NOT NULL,
  xid xid8 NOT NULL,
  decided_at timestamptz NOT NULL,
  PRIMARY KEY (transaction_id, owner)
);
CREATE TABLE IF NOT EXISTS ${internalSchema}.decision_gate ();
CREATE SCHEMA IF NOT EXISTS ${COMMIT_SCHEMA};
REVOKE ALL ON SCHEMA ${COMMIT_SCHEMA} FROM PUBLIC;
GRANT USAGE ON SCHEMA ${COMMIT_SCHEMA} TO PUBLIC;
CREATE OR REPLACE FUNCTION ${COMMIT_SCHEMA}.mark(id uuid, commit_point int, participants int[]) RETURNS name
${head} AS $body$
DECLARE ${OWNER}
  INSERT INTO ${internalSchema}.transaction_marks VALUES (mark.id, who, mark.commit_point, mark.participants, pg_current_xact_id());
  RETURN who;
END $body$;
CREATE OR REPLACE FUNCTION ${COMMIT_SCHEMA}.decide(id uuid, participants int[], owner name) RETURNS name
${head} SET lock_timeout = '10s' AS $body$
DECLARE ${OWNER}
  IF who <> decide.owner THEN
    RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
      MESSAGE = 'the parts of this transaction ended under different roles',
      HINT = 'Set the role with SET ROLE, which reaches every node, and not inside a function.';
  END IF;
  LOCK TABLE ${internalSchema}.decision_gate IN ROW EXCLUSIVE MODE;
  INSERT INTO ${internalSchema}.decisions VALUES (decide.id, who, 'commit', decide.participants, pg_current_xact_id(), clock_timestamp());
  RETURN who;
END $body$;
GRANT EXECUTE ON FUNCTION ${COMMIT_SCHEMA}.mark(uuid, int, int[]) TO PUBLIC;
GRANT EXECUTE ON FUNCTION ${COMMIT_SCHEMA}.decide(uuid, int[], name) TO PUBLIC;`;
}
