/**
 * Schemas, extensions, types and functions of a node against home's, which were all made through the router, or should have been: tables
 * with a door are made of them on every node.
 */
import { quoteIdentifier, quoteLiteral, quoteQualified } from '../pg/identifier.ts';
import { type Finding, onNode } from './finding.ts';
import type { FunctionFacts, ServerFacts } from './server-facts.ts';

/** `placed`: schemas that live, whole, on a node of their own. */
export function compareObjects(
  server: ServerFacts,
  home: ServerFacts,
  placed: ReadonlySet<string>,
): readonly Finding[] {
  if (server.node === home.node) return [];
  return [
    ...compareSchemas(server, home, placed),
    ...compareExtensions(server, home),
    ...compareTypes(server, home, placed),
    ...compareFunctions(server, home),
  ];
}

function compareSchemas(
  server: ServerFacts,
  home: ServerFacts,
  placed: ReadonlySet<string>,
): readonly Finding[] {
  const found = new Map(server.schemas.map((schema) => [schema.name, schema]));
  const roles = new Set(server.roles.map(({ name }) => name));
  const findings: Finding[] = [];
  for (const shall of home.schemas) {
    if (placed.has(shall.name)) continue;
    const object = `schema ${shall.name}`;
    const name = quoteIdentifier(shall.name);
    const is = found.get(shall.name);
    const grantable = shall.grants.filter(({ grantee }) => grantee === null || roles.has(grantee));
    const grants = (all: typeof shall.grants) =>
      all.map(
        ({ grantee, privilege }) =>
          `GRANT ${privilege} ON SCHEMA ${name} TO ${grantee === null ? 'PUBLIC' : quoteIdentifier(grantee)}`,
      );
    if (!is) {
      findings.push({
        ...{ topic: 'objects', severity: 'warning', node: server.node, object },
        message: `it is on ${home.node}, and not there`,
        remedies: onNode(
          server.node,
          `CREATE SCHEMA ${name} AUTHORIZATION ${quoteIdentifier(shall.owner)}`,
          ...grants(grantable),
        ),
      });
      continue;
    }
    const has = new Set(is.grants.map(({ grantee, privilege }) => `${grantee} ${privilege}`));
    const missing = grantable.filter(
      ({ grantee, privilege }) => !has.has(`${grantee} ${privilege}`) && grantee !== is.owner,
    );
    if (missing.length > 0)
      findings.push({
        ...{ topic: 'objects', severity: 'warning', node: server.node, object },
        message: `roles that may use it on ${home.node} may not there`,
        expected: missing
          .map(({ grantee, privilege }) => `${privilege} of ${grantee ?? 'PUBLIC'}`)
          .join(', '),
        remedies: onNode(server.node, ...grants(missing)),
      });
  }
  return findings;
}

function compareExtensions(server: ServerFacts, home: ServerFacts): readonly Finding[] {
  const found = new Map(server.extensions.map((extension) => [extension.name, extension]));
  const findings: Finding[] = [];
  const isSameMajor = majorOf(server) === majorOf(home);
  for (const { name, schema, version } of home.extensions) {
    const is = found.get(name);
    const object = `extension ${name}`;
    if (!is)
      findings.push({
        ...{ topic: 'objects', severity: 'warning', node: server.node, object },
        message: `it is on ${home.node}, and not there: tables that use its types can't be made there`,
        expected: version,
        remedies: onNode(
          server.node,
          `CREATE EXTENSION ${quoteIdentifier(name)} SCHEMA ${quoteIdentifier(schema)}`,
        ),
      });
    else if (is.version !== version)
      findings.push({
        ...{ topic: 'objects', severity: isSameMajor ? 'warning' : 'note', node: server.node, object },
        message: `it has another version than on ${home.node}`,
        ...{ found: is.version, expected: version },
        remedies: onNode(
          server.node,
          `ALTER EXTENSION ${quoteIdentifier(name)} UPDATE TO ${quoteLiteral(version)}`,
        ),
        ...(!isSameMajor && {
          advice: 'The servers have different versions, and so their own extensions do.',
        }),
      });
  }
  const expected = new Set(home.extensions.map(({ name }) => name));
  for (const { name } of server.extensions)
    if (!expected.has(name))
      findings.push({
        ...{ topic: 'objects', severity: 'note', node: server.node, object: `extension ${name}` },
        message: `it is there, and not on ${home.node}`,
        remedies: onNode(server.node, `DROP EXTENSION ${quoteIdentifier(name)}`),
      });
  return findings;
}

function compareTypes(
  server: ServerFacts,
  home: ServerFacts,
  placed: ReadonlySet<string>,
): readonly Finding[] {
  const found = new Map(server.types.map((type) => [`${type.schema}.${type.name}`, type]));
  const findings: Finding[] = [];
  for (const shall of home.types) {
    if (placed.has(shall.schema)) continue;
    const key = `${shall.schema}.${shall.name}`;
    const is = found.get(key);
    const object = `type ${key}`;
    if (!is)
      findings.push({
        ...{ topic: 'objects', severity: 'warning', node: server.node, object },
        message: `it is on ${home.node}, and not there`,
        expected: shall.text,
        remedies: onNode(server.node, shall.text),
      });
    else if (is.text !== shall.text)
      findings.push({
        ...{ topic: 'objects', severity: 'error', node: server.node, object },
        message: `it is not as on ${home.node}: the same value may be refused there, or sort otherwise`,
        ...{ found: is.text, expected: shall.text },
        ...mendType(server, home, shall),
      });
  }
  return findings;
}

/** What can be said in statements: labels that are missing, and constraints of domains. */
function mendType(
  server: ServerFacts,
  home: ServerFacts,
  { schema, name }: { readonly schema: string; readonly name: string },
): Pick<Finding, 'remedies' | 'advice'> {
  const isThis = (one: { readonly schema: string; readonly name: string }) =>
    one.schema === schema && one.name === name;
  const type = quoteQualified(schema, name);
  const byHand =
    'It has to be made anew there, and the columns that have it given the new one (ALTER TABLE … ALTER COLUMN … TYPE).';
  const [has, needs] = [server.enums.find(isThis)?.labels, home.enums.find(isThis)?.labels];
  if (has && needs) {
    const inOrder = needs.filter((label) => has.includes(label));
    if (inOrder.length !== has.length || inOrder.some((label, place) => label !== has[place]))
      return {
        remedies: [],
        advice: `It has labels that ${home.node} lacks, or in another order. ${byHand}`,
      };
    const texts = needs.flatMap((label, place) => {
      if (has.includes(label)) return [];
      const before = needs[place - 1];
      const after = needs.slice(place + 1).find((later) => has.includes(later));
      const where =
        before !== undefined
          ? ` AFTER ${quoteLiteral(before)}`
          : after !== undefined
            ? ` BEFORE ${quoteLiteral(after)}`
            : '';
      return [`ALTER TYPE ${type} ADD VALUE ${quoteLiteral(label)}${where}`];
    });
    return { remedies: onNode(server.node, ...texts) };
  }
  const [is, shall] = [server.domains.find(isThis), home.domains.find(isThis)];
  if (!is || !shall) return { remedies: [], advice: byHand };
  const same = (a: { name: string; definition: string }, b: { name: string; definition: string }) =>
    a.name === b.name && a.definition === b.definition;
  const texts = [
    ...is.constraints
      .filter((one) => !shall.constraints.some((other) => same(one, other)))
      .map((one) => `ALTER DOMAIN ${type} DROP CONSTRAINT ${quoteIdentifier(one.name)}`),
    ...shall.constraints
      .filter((one) => !is.constraints.some((other) => same(one, other)))
      .map((one) => `ALTER DOMAIN ${type} ADD CONSTRAINT ${quoteIdentifier(one.name)} ${one.definition}`),
  ];
  return texts.length > 0 ? { remedies: onNode(server.node, ...texts) } : { remedies: [], advice: byHand };
}

function compareFunctions(server: ServerFacts, home: ServerFacts): readonly Finding[] {
  const found = new Map(server.functions.map((one) => [one.identity, one]));
  const findings: Finding[] = [];
  for (const shall of home.functions) {
    const is = found.get(shall.identity);
    if (is?.digest === shall.digest) continue;
    const run = shall.definition === null ? [] : onNode(server.node, shall.definition.trimEnd());
    findings.push({
      ...{ topic: 'objects', node: server.node, object: `function ${shall.identity}`, remedies: run },
      severity: is ? 'error' : shall.mayBeOfOneNode || shall.kind === 'a' ? 'note' : 'warning',
      message: is
        ? `it does something else there than on ${home.node}`
        : `it is on ${home.node}, and not there${shall.mayBeOfOneNode ? ': which is as it should be if it names tables of that node alone' : ''}`,
      ...(shall.definition === null && { advice: 'Make the aggregate there by the statement that made it.' }),
      ...(is &&
        isOtherwiseMade(is, shall) && {
          advice: 'Drop it there first: it has other results or names of arguments.',
        }),
    });
  }
  return findings;
}

function isOtherwiseMade(is: FunctionFacts, shall: FunctionFacts): boolean {
  const head = (one: FunctionFacts) => /RETURNS [^\n]*/.exec(one.definition ?? '')?.[0];
  return is.kind !== shall.kind || head(is) !== head(shall);
}

function majorOf({ requirements }: ServerFacts): number {
  return Math.floor(requirements.versionNumber / 10_000);
}
