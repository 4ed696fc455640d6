/** What the router logs in with at a node, as a client's role. It is a secret: it stands in no error and no log line. */
import type { ScramKeys } from '../wire/scram-keys.ts';

export type Credential =
  /** The node has to trust the router for this role. */
  | { readonly kind: 'none' }
  | { readonly kind: 'password'; readonly password: string }
  /** As pg_authid and PgBouncer store it: `md5` and 32 hexadecimal digits. Enough for a node that asks for md5. */
  | { readonly kind: 'md5Hash'; readonly hash: string }
  /** Of a client's own proof, or of a password: enough for each node whose verifier has the same salt and iterations. */
  | ({ readonly kind: 'scramKeys' } & ScramKeys);

export const NO_CREDENTIAL: Credential = { kind: 'none' };
