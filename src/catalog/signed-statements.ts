/**
 * Statements of the router's own inside a client's transaction, with the rights of Postern's role on that node: a client's
 * backend has logged in as the client's role, and what DDL writes into the catalog has to commit with the rest of it.
 *
 * `postern_commit.carry_out(statement, returns, signature)` belongs to Postern's role and carries out what is signed with the node's key,
 * which routers alone can derive (from the cluster's key) and nobody but that role can read on the node.
 *
 * Invariant: a signature is good for one statement, in one transaction of one backend of one node: HMAC-SHA256 (RFC 2104) over
 * all of these. Who finds one (in pg_stat_activity, in a log) can at most repeat it in the very transaction that it was made for.
 */
import { createHmac } from 'node:crypto';
import { COMMIT_SCHEMA } from './map.ts';

/** Of SHA-256, as RFC 2104 names them. */
const BLOCK_BYTES = 64;
const INNER_BYTE = 0x36;
const OUTER_BYTE = 0x5c;

/** A node has all of this if it has this. */
export const NEWEST_SIGNED_OBJECT = `${COMMIT_SCHEMA}.carry_out(text,boolean,text)`;

export interface SignedFor {
  readonly nodeId: number;
  readonly processId: number;
  /** pg_current_xact_id() there. */
  readonly transactionId: string;
}

export interface StatementSigner {
  /** Hexadecimal. */
  sign(statement: string, target: SignedFor): string;
}

export function createSigner(clusterId: string, clusterKey: Buffer): StatementSigner {
  const keys = new Map<number, Buffer>();
  return {
    sign(statement, { nodeId, processId, transactionId }) {
      let key = keys.get(nodeId);
      if (!key) {
        key = nodeKey(clusterKey, nodeId);
        keys.set(nodeId, key);
      }
      const message = [clusterId, nodeId, processId, transactionId, statement].join('\n');
      return createHmac('sha256', key).update(message).digest('hex');
    },
  };
}

function nodeKey(clusterKey: Buffer, nodeId: number): Buffer {
  return createHmac('sha256', clusterKey).update(`statements of node ${nodeId}`).digest();
}

/** What the node keeps of its key, so that its own sha256() is all that it needs. */
export function keyPads(
  clusterKey: Buffer,
  nodeId: number,
): { readonly inner: Buffer; readonly outer: Buffer } {
  const key = nodeKey(clusterKey, nodeId);
  const pad = (byte: number) =>
    Buffer.from(Array.from({ length: BLOCK_BYTES }, (_, i) => (key[i] ?? 0) ^ byte));
  return { inner: pad(INNER_BYTE), outer: pad(OUTER_BYTE) };
}

/** `returns`: the first row has one column, which is JSON. */
export function signedObjects(internalSchema: string): string {
  return `
CREATE TABLE IF NOT EXISTS ${internalSchema}.local_key (
  one bool PRIMARY KEY DEFAULT true CHECK (one),
  inner_pad bytea NOT NULL,
  outer_pad bytea NOT NULL
);
REVOKE ALL ON ${internalSchema}.local_key FROM PUBLIC;
CREATE OR REPLACE FUNCTION ${COMMIT_SCHEMA}.carry_out(statement text, returns bool, signature text) RETURNS json
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '10s' SET jit = off AS $body$
DECLARE
  expected text;
  result json;
BEGIN
  SELECT encode(sha256(k.outer_pad || sha256(k.inner_pad || convert_to(concat_ws(E'\\n', n.cluster_id, n.node_id,
      pg_backend_pid(), pg_current_xact_id(), carry_out.statement), 'UTF8'))), 'hex')
    INTO expected FROM ${internalSchema}.local_key k, ${internalSchema}.local_node n;
  IF expected IS NULL OR expected <> carry_out.signature THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'this statement is not signed by a router of this cluster';
  END IF;
  IF carry_out.returns THEN EXECUTE carry_out.statement INTO result;
  ELSE EXECUTE carry_out.statement;
  END IF;
  RETURN result;
END $body$;
GRANT EXECUTE ON FUNCTION ${COMMIT_SCHEMA}.carry_out(text, bool, text) TO PUBLIC;`;
}
