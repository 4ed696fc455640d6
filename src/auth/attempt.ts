/**
 * One login, from the rule that decides to the role that is let in.
 *
 *   challenge ──▶ proof (checkScram | checkPassword | checkMd5, unless nothing is asked) ──▶ finish()
 *        any of them ──▶ PosternError in PostgreSQL's words; `reason` says more, for the log alone
 *
 * Invariant: finish() throws unless what the challenge asks for has been proved.
 */
import { timingSafeEqual } from 'node:crypto';
import type { Credential } from '../backend/credential.ts';
import { assert } from '../base/assert.ts';
import { objectError, type PosternError } from '../base/errors.ts';
import { md5Response } from '../wire/md5-password.ts';
import { finishScramServer, type ScramServerState, type ScramVerifier } from '../wire/scram.ts';
import { keysOfProof } from '../wire/scram-keys.ts';
import type { HbaMethod } from './hba-rules.ts';
import type { RoleAnswer } from './role-lookup.ts';

export type Challenge =
  | { readonly kind: 'nothing' }
  /** All with the salt and iterations of the first. Which of them are of passwords that the configuration has. */
  | {
      readonly kind: 'scram';
      readonly verifiers: readonly ScramVerifier[];
      readonly isKnown: readonly boolean[];
    }
  /** undefined: no answer will be right. */
  | { readonly kind: 'md5'; readonly hash: string | undefined }
  | { readonly kind: 'password'; readonly check: (password: string) => Promise<boolean> };

/** What is known of a role at its login; `unknown`: home could not be asked, and the role is listed. */
export type RoleState = RoleAnswer | 'unknown';

export interface AttemptFacts {
  readonly user: string;
  readonly method: Exclude<HbaMethod, 'reject'>;
  readonly challenge: Challenge;
  readonly role: RoleState;
  readonly isExpired: boolean;
  /** Why nothing that the client proves will be right; for the log. */
  readonly reason: string | undefined;
  /** Why the client's certificate doesn't do for this role; undefined: it does, or is not asked for. */
  readonly certificateMisfit: string | undefined;
}

export class Attempt {
  readonly user: string;
  readonly method: AttemptFacts['method'];
  readonly challenge: Challenge;
  /** For the log: what the client is not told. */
  reason: string | undefined;
  /** Learnt by the proof. */
  #credential: Credential | undefined;
  #isProved: boolean;
  readonly #facts: AttemptFacts;

  constructor(facts: AttemptFacts) {
    this.#facts = facts;
    this.user = facts.user;
    this.method = facts.method;
    this.challenge = facts.challenge;
    this.reason = facts.reason;
    this.#isProved = facts.challenge.kind === 'nothing';
  }

  /** Which role it is for; undefined: home could not be asked, or has none of this name. */
  get roleId(): string | undefined {
    const { role } = this.#facts;
    return role === 'unknown' ? undefined : role?.id;
  }

  /** As pg_hba.conf names it. */
  get methodUsed(): AttemptFacts['method'] {
    const { kind } = this.challenge;
    if (kind === 'nothing') return this.method;
    return kind === 'scram' ? 'scram-sha-256' : kind;
  }

  /** The server-final message. Throws 28P01 for a wrong proof. */
  checkScram(state: ScramServerState, clientFinal: string): string {
    const { challenge } = this;
    assert(challenge.kind === 'scram', 'SCRAM was not asked for');
    let serverFinal: string | undefined;
    // All of them are tried, so that it takes as long for each.
    for (const [i, verifier] of challenge.verifiers.entries()) {
      const stateOfOne = { ...state, verifier };
      const signature = finishScramServer(stateOfOne, clientFinal);
      if (signature === undefined) continue;
      serverFinal = signature;
      if (challenge.isKnown[i]) continue;
      const keys = keysOfProof(stateOfOne, clientFinal);
      if (keys) this.#credential = { kind: 'scramKeys', ...keys };
    }
    if (serverFinal === undefined) throw this.#failed('the password is wrong');
    this.#isProved = true;
    return serverFinal;
  }

  async checkPassword(password: string): Promise<void> {
    const { challenge } = this;
    assert(challenge.kind === 'password', 'no password was asked for');
    if (password === '') throw objectError('28P01', 'empty password returned by client');
    if (!(await challenge.check(password)) || this.#facts.isExpired)
      throw this.#failed('the password is wrong');
    this.#credential = { kind: 'password', password };
    this.#isProved = true;
  }

  checkMd5(salt: Buffer, response: string): void {
    const { challenge } = this;
    assert(challenge.kind === 'md5', 'no md5 was asked for');
    if (response === '') throw objectError('28P01', 'empty password returned by client');
    const { hash } = challenge;
    const [expected, given] = [Buffer.from(md5Response(hash ?? '', salt)), Buffer.from(response)];
    const isRight = given.length === expected.length && timingSafeEqual(given, expected);
    if (!isRight || hash === undefined) throw this.#failed('the password is wrong');
    this.#credential = { kind: 'md5Hash', hash };
    this.#isProved = true;
  }

  /** The role may come in; what its proof has taught. Throws 28000. */
  finish(): Credential | undefined {
    const { role, certificateMisfit } = this.#facts;
    assert(this.#isProved, 'a login that has proved nothing');
    if (certificateMisfit !== undefined) throw this.#failed(certificateMisfit);
    this.reason = undefined;
    if (role === undefined) throw objectError('28000', `role "${this.user}" does not exist`);
    if (role !== 'unknown' && !role.canLogIn)
      throw objectError('28000', `role "${this.user}" is not permitted to log in`);
    return this.#credential;
  }

  #failed(reason: string): PosternError {
    this.reason ??= reason;
    return this.method === 'cert'
      ? objectError('28000', `certificate authentication failed for user "${this.user}"`)
      : objectError('28P01', `password authentication failed for user "${this.user}"`);
  }
}
