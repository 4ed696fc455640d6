/** Roles of a node against home's: a client logs in as its own role on every node that its statements reach. */
import { quoteIdentifier, quoteLiteral } from '../pg/identifier.ts';
import { type Finding, onNode, throughRouter } from './finding.ts';
import type { RoleFacts, ServerFacts } from './server-facts.ts';

/** `users`: roles that the configuration lets in by name. */
export function compareRoles(
  server: ServerFacts,
  home: ServerFacts,
  users: readonly string[],
): readonly Finding[] {
  // Postern's own role may be another one on each node, and has other rights.
  const ownRoles = new Set([server.requirements.role, home.requirements.role]);
  const found = new Map(server.roles.map((role) => [role.name, role]));
  const findings: Finding[] = [];
  for (const shall of home.roles) {
    if (ownRoles.has(shall.name)) continue;
    const is = found.get(shall.name);
    if (!is) findings.push(missing(server, home, shall, users.includes(shall.name)));
    else findings.push(...differences(server, home, is, shall));
  }
  const expected = new Set(home.roles.map(({ name }) => name));
  for (const { name } of server.roles) {
    if (expected.has(name) || ownRoles.has(name)) continue;
    findings.push({
      ...{ topic: 'roles', severity: 'note', node: server.node, object: `role ${name}` },
      message: `it is there, and not on ${home.node}`,
      advice: 'If nobody needs it: REASSIGN OWNED BY it, DROP OWNED BY it, and then',
      remedies: onNode(server.node, `DROP ROLE ${quoteIdentifier(name)}`),
    });
  }
  return findings;
}

function missing(server: ServerFacts, home: ServerFacts, role: RoleFacts, isUser: boolean): Finding {
  const name = quoteIdentifier(role.name);
  const statements = [
    `CREATE ROLE ${name} ${role.attributes}`,
    ...(role.validUntil === null ? [] : [validUntilText(role)]),
    ...role.memberOf.map((one) => grantText(role, one)),
  ];
  return {
    ...{
      topic: 'roles',
      severity: isUser ? 'error' : 'warning',
      node: server.node,
      object: `role ${role.name}`,
    },
    message: `it is on ${home.node}, and not there: it can't log in there, and DDL that names it fails`,
    remedies: [...onNode(server.node, ...statements), ...passwordRemedy(role)],
    ...(hasPassword(role) && {
      advice: 'Set its password again, so that every node gets the same verifier.',
    }),
  };
}

function differences(
  server: ServerFacts,
  home: ServerFacts,
  is: RoleFacts,
  shall: RoleFacts,
): readonly Finding[] {
  const findings: Finding[] = [];
  const name = quoteIdentifier(shall.name);
  const add = (rest: Omit<Finding, 'topic' | 'node' | 'object'>) =>
    findings.push({ topic: 'roles', node: server.node, object: `role ${shall.name}`, ...rest });
  if (is.attributes !== shall.attributes)
    add({
      severity: 'warning',
      message: `its attributes are not as on ${home.node}`,
      ...{ found: is.attributes, expected: shall.attributes },
      remedies: onNode(
        server.node,
        `ALTER ROLE ${name} ${shall.attributes}${shall.attributes.includes('CONNECTION LIMIT') ? '' : ' CONNECTION LIMIT -1'}`,
      ),
    });
  if (is.validUntil !== shall.validUntil)
    add({
      severity: 'warning',
      message: `it expires at another moment than on ${home.node}`,
      ...{ found: is.validUntil ?? 'never', expected: shall.validUntil ?? 'never' },
      remedies: onNode(server.node, validUntilText(shall)),
    });
  const [has, needs] = [memberships(is), memberships(shall)];
  for (const one of shall.memberOf) {
    if (has.has(`${one.role} ${one.admin}`)) continue;
    const isWeaker = has.has(`${one.role} false`);
    add({
      severity: 'warning',
      message: isWeaker
        ? `it is no administrator of ${one.role} there, as it is on ${home.node}`
        : `it is no member of ${one.role} there, as it is on ${home.node}`,
      remedies: onNode(server.node, grantText(shall, one)),
    });
  }
  for (const one of is.memberOf) {
    if (needs.has(`${one.role} ${one.admin}`) || (!one.admin && needs.has(`${one.role} true`))) continue;
    const isStronger = needs.has(`${one.role} false`);
    const option = isStronger ? 'ADMIN OPTION FOR ' : '';
    add({
      severity: 'warning',
      message: isStronger
        ? `it is an administrator of ${one.role} there, and not on ${home.node}`
        : `it is a member of ${one.role} there, and not on ${home.node}`,
      remedies: onNode(server.node, `REVOKE ${option}${quoteIdentifier(one.role)} FROM ${name}`),
    });
  }
  if (is.passwordDigest !== undefined && shall.passwordDigest !== undefined)
    findings.push(...passwords(server, home, is, shall));
  return findings;
}

/** Verifiers of one password differ by their salt: only their being equal says something about the password. */
function passwords(
  server: ServerFacts,
  home: ServerFacts,
  is: RoleFacts,
  shall: RoleFacts,
): readonly Finding[] {
  if (is.passwordDigest === shall.passwordDigest || !shall.mayLogIn) return [];
  const [lacks, has] = [is.passwordDigest === null, shall.passwordDigest === null];
  const message = lacks
    ? `it has a password on ${home.node}, and none there`
    : has
      ? `it has a password there, and none on ${home.node}`
      : `its password has another verifier than on ${home.node}`;
  return [
    {
      ...{
        topic: 'roles',
        severity: lacks || has ? 'warning' : 'note',
        node: server.node,
        object: `role ${shall.name}`,
      },
      message,
      advice: has
        ? 'Either take it away there, or set it for all nodes through the router.'
        : 'Set it again through the router, which makes one verifier for all nodes. Logins that a router passes on by the verifier need it.',
      remedies: has
        ? onNode(server.node, `ALTER ROLE ${quoteIdentifier(shall.name)} PASSWORD NULL`)
        : passwordRemedy(shall),
    },
  ];
}

function hasPassword(role: RoleFacts): boolean {
  return role.mayLogIn && typeof role.passwordDigest === 'string';
}

function passwordRemedy(role: RoleFacts) {
  return hasPassword(role) ? throughRouter(`ALTER ROLE ${quoteIdentifier(role.name)} PASSWORD '…'`) : [];
}

function memberships(role: RoleFacts): ReadonlySet<string> {
  return new Set(
    role.memberOf.flatMap(({ role: name, admin }) =>
      admin ? [`${name} true`, `${name} false`] : [`${name} false`],
    ),
  );
}

function grantText(role: RoleFacts, to: { readonly role: string; readonly admin: boolean }): string {
  return `GRANT ${quoteIdentifier(to.role)} TO ${quoteIdentifier(role.name)}${to.admin ? ' WITH ADMIN OPTION' : ''}`;
}

function validUntilText({ name, validUntil }: RoleFacts): string {
  return `ALTER ROLE ${quoteIdentifier(name)} VALID UNTIL ${quoteLiteral(validUntil ?? 'infinity')}`;
}
