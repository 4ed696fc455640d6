import { randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import { md5Hash, md5Response } from '../wire/md5-password.ts';
import {
  answerServerFirst,
  checkServerFinal,
  formatScramVerifier,
  makeScramVerifier,
  startScramClient,
  startScramServer,
} from '../wire/scram.ts';
import {
  type AuthenticationOptions,
  Authenticator,
  type LoginRequest,
  verifierSource,
} from './authenticator.ts';
import { parseHba } from './hba-file.ts';
import { RoleLookup } from './role-lookup.ts';
import { parseStoredSecret } from './user-entry.ts';

const MOCK = Buffer.from('a secret of the cluster');
let verifier: string;
beforeAll(async () => {
  verifier = formatScramVerifier(await makeScramVerifier({ password: 'right', salt: randomBytes(16) }));
});

interface Role {
  password?: string;
  validForS?: string;
  canLogIn?: string;
  groups?: string[];
}

function authenticator(
  options: Partial<AuthenticationOptions> & { hba?: string },
  roles: Record<string, Role> | 'away' = { ann: {}, listed: {} },
): Authenticator {
  const { hba } = options;
  const all = {
    users: [],
    ...options,
    ...(hba !== undefined && { rules: parseHba({ file: 'hba', text: hba, ownNetworks: [] }).rules }),
  };
  return new Authenticator(all, {
    roles: new RoleLookup(verifierSource(all), {
      ask: async (_, [names]) => {
        if (roles === 'away') throw new Error('away');
        return (names as string[]).flatMap((name) => {
          const role = roles[name];
          if (!role) return [];
          const { canLogIn = 'true', validForS = null, groups = [], password = null } = role;
          return [[name, canLogIn, validForS, JSON.stringify(groups), password]];
        });
      },
      now: () => 0,
      after: () => ({ cancel: () => {} }),
    }),
    checkAtHome: async (user, password) => user === 'ann' && password === 'right',
    mockSecret: MOCK,
    now: () => 0,
  });
}

const request = (of: Partial<LoginRequest> = {}): LoginRequest => ({
  ...{ user: 'ann', database: 'app', address: '10.0.0.1', security: { encrypted: false } },
  ...of,
});

/** A whole login by SCRAM or md5, as a client makes it; what was learnt. */
async function logIn(auth: Authenticator, password: string, of: Partial<LoginRequest> = {}) {
  const attempt = await auth.begin(request(of));
  const { challenge } = attempt;
  if (challenge.kind === 'password') await attempt.checkPassword(password);
  if (challenge.kind === 'md5') {
    const salt = Buffer.from([1, 2, 3, 4]);
    attempt.checkMd5(salt, md5Response(md5Hash(attempt.user, password), salt));
  }
  if (challenge.kind === 'scram') {
    const client = startScramClient('client-nonce-of-18-bytes', {
      header: 'n,,',
      channelBinding: 'biws',
      isBound: false,
    });
    const { state, serverFirst } = startScramServer({
      verifier: challenge.verifiers[0]!,
      clientFirst: client.clientFirst,
      nonce: 'server-nonce',
    });
    const { state: proof, clientFinal } = await answerServerFirst(client.state, password, serverFirst);
    checkServerFinal(proof, attempt.checkScram(state, clientFinal));
  }
  return { attempt, release: auth.enter(attempt, attempt.finish()) };
}

const WRONG = { sqlState: '28P01', message: 'password authentication failed for user "ann"' };

describe('listed users', () => {
  it('log in with their password, and the router with it at the nodes', async () => {
    const auth = authenticator({ users: [{ name: 'ann', password: 'right' }] });
    await expect(logIn(auth, 'wrong')).rejects.toMatchObject(WRONG);
    await logIn(auth, 'right');
    expect(auth.credentialOf('ann')).toEqual({ kind: 'password', password: 'right' });
    // Another process has the same configuration.
    expect(auth.exportCredential('ann')).toBeUndefined();
  });

  it('may have two passwords, while one is changed; the first is used at the nodes', async () => {
    const secrets = [parseStoredSecret('new'), parseStoredSecret('old')];
    const auth = authenticator({ users: [{ name: 'ann', password: undefined, secrets }] });
    await logIn(auth, 'new');
    await logIn(auth, 'old');
    await expect(logIn(auth, 'older')).rejects.toMatchObject(WRONG);
    expect(auth.credentialOf('ann')).toEqual({ kind: 'password', password: 'new' });
  });

  it('of whom there is a verifier teach their keys, for as long as they are there', async () => {
    const secrets = [parseStoredSecret(verifier)];
    const auth = authenticator({ users: [{ name: 'ann', password: undefined, secrets }] });
    expect(auth.credentialOf('ann')).toEqual({ kind: 'none' });
    const one = await logIn(auth, 'right');
    const other = await logIn(auth, 'right');
    one.release();
    one.release();
    expect(auth.credentialOf('ann')).toMatchObject({ kind: 'scramKeys', iterations: 4096 });
    other.release();
    expect(auth.credentialOf('ann')).toEqual({ kind: 'none' });
  });

  it('of whom there is an md5 hash are asked for md5', async () => {
    const secrets = [parseStoredSecret(md5Hash('ann', 'right'))];
    const auth = authenticator({ users: [{ name: 'ann', password: undefined, secrets }] });
    await expect(logIn(auth, 'wrong')).rejects.toMatchObject(WRONG);
    const { attempt } = await logIn(auth, 'right');
    expect(attempt.methodUsed).toBe('md5');
    expect(auth.credentialOf('ann')).toMatchObject({ kind: 'md5Hash' });
  });

  it('without a secret never come in, whatever they say', async () => {
    const auth = authenticator({ users: [{ name: 'ann', password: undefined, secrets: [] }] });
    await expect(logIn(auth, '')).rejects.toMatchObject(WRONG);
  });

  it('come in while home is away; others hear that it is', async () => {
    const users = [{ name: 'ann', password: 'right' }];
    await logIn(authenticator({ users }, 'away'), 'right');
    const auth = authenticator({ users, fromNodes: true }, 'away');
    await logIn(auth, 'right');
    await expect(logIn(auth, 'right', { user: 'bob' })).rejects.toMatchObject({ sqlState: '57P03' });
  });

  it('are what a reload says', async () => {
    const auth = authenticator({ users: [{ name: 'ann', password: 'right' }] });
    auth.reload({ users: [{ name: 'ann', password: 'changed' }] });
    await expect(logIn(auth, 'right')).rejects.toMatchObject(WRONG);
    await logIn(auth, 'changed');
  });
});

describe('roles of the nodes', () => {
  it('log in with what home has of them', async () => {
    const auth = authenticator({ fromNodes: true }, { ann: { password: verifier } });
    await expect(logIn(auth, 'wrong')).rejects.toMatchObject(WRONG);
    await logIn(auth, 'right');
    expect(auth.credentialOf('ann')).toMatchObject({ kind: 'scramKeys' });
  });

  it('go to another process with their keys', async () => {
    const options = { fromNodes: true };
    const [old, next] = [authenticator(options, { ann: { password: verifier } }), authenticator(options)];
    await logIn(old, 'right');
    const release = next.adopt('ann', old.exportCredential('ann'));
    expect(next.credentialOf('ann')).toEqual(old.credentialOf('ann'));
    release();
    expect(next.credentialOf('ann')).toEqual({ kind: 'none' });
  });

  it('are asked for nothing of which home has nothing', async () => {
    const auth = authenticator(
      { users: [{ name: 'listed', password: 'x' }] },
      { ann: { password: verifier } },
    );
    await expect(logIn(auth, 'right')).rejects.toMatchObject(WRONG);
  });

  it.each<[string, Role | undefined, string]>([
    ['missing', undefined, 'the home node has no such role'],
    ['without a password', {}, 'no password is known of the role'],
    ['expired', { password: '', validForS: '0' }, "the role's VALID UNTIL has passed"],
  ])('that are %s are told no more than a wrong password', async (_, role, reason) => {
    const roles = role ? { ann: { ...role, ...(role.password === '' && { password: verifier }) } } : {};
    const auth = authenticator({ fromNodes: true }, roles as Record<string, Role>);
    const attempt = await auth.begin(request());
    expect(attempt.reason).toBe(reason);
    await expect(logIn(auth, 'right')).rejects.toMatchObject(WRONG);
  });

  it('that may not log in hear so once they have proved who they are', async () => {
    const auth = authenticator({ fromNodes: true }, { ann: { password: verifier, canLogIn: 'false' } });
    await expect(logIn(auth, 'wrong')).rejects.toMatchObject(WRONG);
    await expect(logIn(auth, 'right')).rejects.toMatchObject({
      sqlState: '28000',
      message: 'role "ann" is not permitted to log in',
    });
  });

  it('get the same salt each time, whether they are there or not, from all processes', async () => {
    const salts = async (user: string) => {
      const found = [];
      for (let i = 0; i < 2; i++) {
        const auth = authenticator({ users: [{ name: 'listed', password: 'x' }], fromNodes: true });
        const { challenge } = await auth.begin(request({ user }));
        if (challenge.kind === 'scram') found.push(challenge.verifiers[0]!.salt.toString('hex'));
      }
      return new Set(found);
    };
    expect((await salts('nobody')).size).toBe(1);
    expect((await salts('listed')).size).toBe(1);
  });

  it('may be checked by a password in the clear, at home', async () => {
    const auth = authenticator({ fromNodes: true, hba: 'hostssl all all all password' });
    const security = { encrypted: true };
    await expect(logIn(auth, 'wrong', { security })).rejects.toMatchObject(WRONG);
    await expect(logIn(auth, '', { security })).rejects.toMatchObject({
      message: 'empty password returned by client',
    });
    await logIn(auth, 'right', { security });
    expect(auth.credentialOf('ann')).toEqual({ kind: 'password', password: 'right' });
  });
});

describe('rules', () => {
  const users = [{ name: 'ann', password: 'right' }];
  const certificate = { commonName: 'ann', distinguishedName: 'CN=ann' };

  it.each<[string, string, Partial<LoginRequest>, string | undefined]>([
    ['trust', 'host all all all trust', {}, undefined],
    [
      'none',
      'host all bob all trust',
      {},
      'no pg_hba.conf entry for host "10.0.0.1", user "ann", database "app", no encryption',
    ],
    [
      'reject',
      'host all all all reject',
      { address: '::ffff:10.0.0.2', security: { encrypted: true } },
      'pg_hba.conf rejects connection for host "10.0.0.2", user "ann", database "app", SSL encryption',
    ],
    [
      'a password over a network',
      'host all all all password',
      {},
      'a password would be sent in the clear over a network',
    ],
    ['a password over loopback', 'host all all all password', { address: '::1' }, undefined],
    [
      'cert without one',
      'hostssl all all all cert',
      { security: { encrypted: true } },
      'connection requires a valid client certificate',
    ],
    ['cert', 'hostssl all all all cert', { security: { encrypted: true, certificate } }, undefined],
    [
      'cert of another',
      'hostssl all all all cert',
      { security: { encrypted: true, certificate: { ...certificate, commonName: 'bob' } } },
      'certificate authentication failed for user "ann"',
    ],
    [
      'clientcert=verify-full of another',
      'hostssl all all all scram-sha-256 clientcert=verify-full',
      { security: { encrypted: true, certificate: { ...certificate, commonName: 'bob' } } },
      'password authentication failed for user "ann"',
    ],
    [
      'clientcert=verify-ca of another',
      'hostssl all all all scram-sha-256 clientcert=verify-ca',
      { security: { encrypted: true, certificate: { ...certificate, commonName: 'bob' } } },
      undefined,
    ],
    ['a group', 'host all +crew all trust', {}, undefined],
    ['a role that is not listed', 'host all all all trust', { user: 'bob' }, 'role "bob" does not exist'],
  ])('%s', async (_, hba, of, message) => {
    const auth = authenticator({ users, hba }, { ann: { groups: ['crew'] }, bob: {} });
    const outcome = logIn(auth, 'right', of);
    if (message === undefined) await outcome;
    else await expect(outcome).rejects.toMatchObject({ message });
  });

  it('need home for groups', async () => {
    const auth = authenticator({ users, hba: 'host all +crew all trust' }, 'away');
    await expect(logIn(auth, 'right')).rejects.toMatchObject({ sqlState: '57P03' });
  });
});
