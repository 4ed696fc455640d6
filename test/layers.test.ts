/**
 * The layers of ARCHITECTURE.md as a test over the real import statements: who may import whom, which folders may reach
 * the network, the file system and other processes, and what a file may not be. The rules are applied to a plain map of
 * path to text, so that the test below can also show them trees that they must refuse.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';

const LINES_MAX = 600;

/** From the ground up; a folder may import from those that it names, and from itself. A door is a folder of its own. */
const LAYERS: Readonly<Record<string, readonly string[]>> = {
  base: [],
  pg: ['base'],
  wire: ['base', 'pg'],
  observe: ['base'],
  admission: ['base'],
  platform: ['base', 'pg'],
  sql: ['base', 'pg'],
  copy: ['base', 'pg'],
  catalog: ['base', 'pg', 'platform'],
  health: ['base', 'pg', 'platform', 'catalog', 'observe'],
  auth: ['base', 'pg', 'wire', 'platform', 'backend', 'observe'],
  statements: ['base', 'pg', 'sql', 'platform', 'catalog'],
  plan: ['base', 'pg', 'sql', 'copy', 'catalog'],
  backend: ['base', 'pg', 'wire', 'platform', 'admission', 'health', 'observe'],
  txn: ['base', 'pg', 'wire', 'platform', 'catalog', 'backend'],
  ddl: ['base', 'pg', 'platform', 'catalog', 'plan', 'txn'],
  'doors/sharded': ['base', 'pg', 'platform', 'catalog', 'plan', 'ddl', 'lookup'],
  'doors/schema': ['base', 'pg', 'platform', 'catalog', 'ddl'],
  'doors/reference': ['base', 'pg', 'platform', 'catalog', 'plan', 'ddl'],
  lookup: ['base', 'pg', 'platform', 'catalog', 'plan', 'ddl'],
  coalesce: ['base', 'pg', 'wire', 'platform', 'sql', 'backend', 'admission'],
  mesh: ['base', 'pg', 'platform', 'catalog', 'backend', 'execute', 'observe'],
  execute: [
    ...[
      'base',
      'pg',
      'wire',
      'platform',
      'sql',
      'catalog',
      'plan',
      'backend',
      'txn',
      'ddl',
      'doors',
      'coalesce',
    ],
    ...['statements', 'health', 'observe'],
  ],
  session: [
    ...[
      'base',
      'pg',
      'wire',
      'platform',
      'sql',
      'copy',
      'catalog',
      'plan',
      'backend',
      'txn',
      'ddl',
      'lookup',
      'execute',
      'coalesce',
    ],
    ...['statements', 'auth', 'admission', 'health', 'observe'],
  ],
  introspect: ['base', 'pg', 'platform', 'sql', 'catalog', 'plan'],
  doctor: ['base', 'pg', 'wire', 'platform', 'catalog', 'plan', 'ddl', 'mesh', 'introspect'],
  // For applications, beside the router.
  client: ['base', 'pg', 'platform', 'catalog'],
  embedded: ['base', 'pg', 'platform'],
  wall: ['base', 'pg', 'wire', 'platform'],
  // Where everything is put together.
  cli: [
    ...['base', 'pg', 'wire', 'platform', 'sql', 'catalog', 'plan', 'backend', 'txn', 'doors', 'execute'],
    ...['lookup', 'mesh', 'introspect', 'ddl', 'statements', 'coalesce', 'session', 'embedded', 'wall'],
    ...['observe', 'admission', 'health', 'auth', 'doctor'],
  ],
};

/** What is outside of the process, and who may touch it: a folder, or one file of it. Types alone are `type Socket`. */
const OUTSIDE: readonly {
  modules: readonly string[];
  allowed: readonly string[];
  types?: readonly string[];
}[] = [
  {
    modules: ['net', 'tls', 'dgram', 'http', 'https'],
    // The session's listener is the door in; platform is the door out. The load generator measures without the router's code.
    allowed: ['platform', 'session/door.ts', 'session/listener.ts', 'embedded', 'wall'],
    types: ['backend', 'session'],
  },
  { modules: ['fs', 'fs/promises'], allowed: ['cli', 'embedded', 'wall', 'platform/tls-files.ts'] },
  { modules: ['child_process'], allowed: ['embedded'] },
  { modules: ['worker_threads'], allowed: ['wall'] },
  { modules: ['cluster'], allowed: ['cli'] },
  { modules: ['os'], allowed: ['cli', 'embedded', 'wall'] },
  {
    // The data path has a codec of its own; `pg` is for the control path and beside the router.
    modules: ['pg', 'pg-protocol', 'postgres'],
    allowed: ['platform', 'embedded', 'wall', 'cli/demonstration.ts', 'cli/exits-stage.ts'],
  },
];

/** What these may know of the world is what is passed in: a seeded simulation has to be able to drive them. */
const PURE = ['base', 'pg', 'wire', 'sql', 'plan'];
const IMPURE_NAMES = new Set(
  'setTimeout setInterval setImmediate queueMicrotask fetch process performance console'.split(' '),
);
const IMPURE_CALLS = new Set(['Date.now', 'Math.random']);

interface Import {
  readonly specifier: string;
  readonly typeOnly: boolean;
}

interface SourceFacts {
  readonly path: string;
  /** `plan`, `doors/sharded`. */
  readonly folder: string;
  readonly imports: readonly Import[];
  readonly exportsFromElsewhere: boolean;
  readonly impureNames: readonly string[];
  readonly waits: boolean;
  readonly lineCount: number;
}

function factsOf(file: string, text: string): SourceFacts {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.ES2023, true, ts.ScriptKind.TS);
  const imports: Import[] = [];
  const impureNames = new Set<string>();
  let exportsFromElsewhere = false;
  let waits = false;
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node) && ts.isStringLiteral(node.moduleSpecifier)) {
      imports.push({ specifier: node.moduleSpecifier.text, typeOnly: isTypeOnly(node.importClause) });
    } else if (
      ts.isExportDeclaration(node) &&
      node.moduleSpecifier &&
      ts.isStringLiteral(node.moduleSpecifier)
    ) {
      exportsFromElsewhere = true;
      imports.push({ specifier: node.moduleSpecifier.text, typeOnly: node.isTypeOnly });
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      const [argument] = node.arguments;
      const specifier = argument && ts.isStringLiteral(argument) ? argument.text : '(computed)';
      imports.push({ specifier, typeOnly: false });
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      imports.push({ specifier: node.argument.literal.getText().slice(1, -1), typeOnly: true });
    } else if (ts.isPropertyAccessExpression(node) && IMPURE_CALLS.has(node.getText())) {
      impureNames.add(node.getText());
    } else if (ts.isIdentifier(node) && IMPURE_NAMES.has(node.text) && isFreeName(node)) {
      impureNames.add(node.text);
    } else if (
      node.kind === ts.SyntaxKind.AsyncKeyword ||
      (ts.isIdentifier(node) && node.text === 'Promise')
    ) {
      waits = true;
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  const lineCount = source.getLineAndCharacterOfPosition(text.trimEnd().length).line + 1;
  const folder = folderOf(file);
  return {
    ...{ path: file, folder, imports, exportsFromElsewhere, waits, lineCount },
    impureNames: [...impureNames],
  };
}

/** `import type { A }` and `import { type A }`: neither exists at run time. */
function isTypeOnly(clause: ts.ImportClause | undefined): boolean {
  if (!clause) return false;
  if (clause.isTypeOnly) return true;
  const { name, namedBindings } = clause;
  if (name || !namedBindings || !ts.isNamedImports(namedBindings)) return false;
  return namedBindings.elements.length > 0 && namedBindings.elements.every((element) => element.isTypeOnly);
}

/** Not the `process` of `a.process` or `{ process: 1 }`. */
function isFreeName(node: ts.Identifier): boolean {
  const { parent } = node;
  if (ts.isPropertyAccessExpression(parent)) return parent.expression === node;
  return !(
    ts.isPropertyAssignment(parent) ||
    ts.isPropertySignature(parent) ||
    ts.isPropertyDeclaration(parent) ||
    ts.isMethodDeclaration(parent)
  );
}

/** `src/doors/sharded/leaf.ts` → `doors/sharded`; '' for a file right in src. */
function folderOf(file: string): string {
  const parts = file.split('/').slice(1, -1);
  return parts.slice(0, parts[0] === 'doors' ? 2 : 1).join('/');
}

function isTest(file: string): boolean {
  return file.endsWith('.test.ts');
}

/** One line for each rule that a file breaks; `files` holds path → text for all of src. */
function violations(files: ReadonlyMap<string, string>, packages: ReadonlySet<string>): string[] {
  const all = [...files].map(([file, text]) => factsOf(file, text));
  const code = all.filter((file) => !isTest(file.path));
  return [
    ...all.flatMap(shapeViolations),
    ...code.flatMap((file) => importViolations(file, packages)),
    ...code.flatMap(purityViolations),
    ...cycles(code).map((cycle) => `cycle: ${cycle.join(' → ')}`),
  ].sort();
}

function shapeViolations(file: SourceFacts): string[] {
  const found: string[] = [];
  if (!(file.folder in LAYERS)) found.push(`${file.path}: folder "${file.folder}" is not among the layers`);
  if (file.lineCount > LINES_MAX) found.push(`${file.path}: ${file.lineCount} lines, more than ${LINES_MAX}`);
  if (file.exportsFromElsewhere || path.basename(file.path) === 'index.ts') {
    found.push(`${file.path}: a barrel: whoever needs a thing imports the file that defines it`);
  }
  return found;
}

function importViolations(file: SourceFacts, packages: ReadonlySet<string>): string[] {
  const found: string[] = [];
  for (const { specifier, typeOnly } of file.imports) {
    const refuse = (why: string) => found.push(`${file.path}: imports ${specifier}${why}`);
    if (!specifier.startsWith('.')) {
      if (!mayUse(file, specifier, typeOnly)) refuse(', which is not for this layer');
      else if (!specifier.startsWith('node:') && !packages.has(packageOf(specifier))) {
        refuse(', which is not among the dependencies');
      }
      continue;
    }
    const target = path.posix.join(path.posix.dirname(file.path), specifier);
    const folder = folderOf(target);
    if (!target.startsWith('src/') || isTest(target)) refuse(', which is not part of the program');
    else if (folder !== file.folder && !mayImport(file.folder, folder))
      refuse(', which is no layer below it');
    else if (file.folder === 'plan' && folder === 'catalog' && target !== 'src/catalog/map.ts') {
      refuse(': of the catalog, the planner knows the map alone');
    }
  }
  return found;
}

function mayImport(from: string, to: string): boolean {
  const allowed = LAYERS[from] ?? [];
  return allowed.includes(to) || (to.startsWith('doors/') && allowed.includes('doors'));
}

function mayUse(file: SourceFacts, specifier: string, typeOnly: boolean): boolean {
  const name = specifier.replace(/^node:/, '');
  const within = (places: readonly string[]) =>
    places.some((place) => file.folder === place || file.path === `src/${place}`);
  const rule = OUTSIDE.find(({ modules }) => modules.includes(name));
  return !rule || within(rule.allowed) || (typeOnly && within(rule.types ?? []));
}

/** `libpg-query/wasm/x.js` → `libpg-query`; `@pgsql/types` stays. */
function packageOf(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

function purityViolations(file: SourceFacts): string[] {
  if (!PURE.includes(file.folder)) return [];
  const found = file.impureNames.map((name) => `${file.path}: uses ${name}; it has to be passed in`);
  if (file.folder === 'plan' && file.waits) found.push(`${file.path}: waits, and the planner never does`);
  return found;
}

/** Cycles of what is there at run time: a type that two files tell each other is no cycle. */
function cycles(files: readonly SourceFacts[]): string[][] {
  const next = new Map(
    files.map((file) => [
      file.path,
      file.imports
        .filter(({ specifier, typeOnly }) => !typeOnly && specifier.startsWith('.'))
        .map(({ specifier }) => path.posix.join(path.posix.dirname(file.path), specifier)),
    ]),
  );
  const found: string[][] = [];
  const done = new Set<string>();
  const walk = (file: string, trail: readonly string[]): void => {
    const at = trail.indexOf(file);
    if (at >= 0) found.push([...trail.slice(at), file]);
    if (at >= 0 || done.has(file)) return;
    for (const target of next.get(file) ?? []) walk(target, [...trail, file]);
    done.add(file);
  };
  for (const file of next.keys()) walk(file, []);
  return found;
}

function readTree(directory: string): Map<string, string> {
  const files = new Map<string, string>();
  for (const entry of fs.readdirSync(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.endsWith('.ts')) continue;
    const file = path.join(entry.parentPath, entry.name);
    files.set(path.relative('.', file).split(path.sep).join('/'), fs.readFileSync(file, 'utf8'));
  }
  return files;
}

function dependencies(): Set<string> {
  const manifest = JSON.parse(fs.readFileSync('package.json', 'utf8'));
  return new Set(Object.keys(manifest.dependencies));
}

describe('the layers', () => {
  const tree = readTree('src');

  it('hold in the source', () => {
    expect(tree.size).toBeGreaterThan(100);
    expect(violations(tree, dependencies())).toEqual([]);
  });

  it('name no folder that is not there', () => {
    const folders = new Set([...tree.keys()].map(folderOf));
    expect(Object.keys(LAYERS).filter((layer) => !folders.has(layer))).toEqual([]);
  });

  it.each<[string, Record<string, string>, RegExp]>([
    ['an import upwards', { 'src/wire/a.ts': "import { b } from '../session/b.ts';" }, /no layer below/],
    ['a type from above', { 'src/plan/a.ts': "import type { B } from '../backend/b.ts';" }, /no layer below/],
    ['an inline type', { 'src/plan/a.ts': "export let x: import('../backend/b.ts').B;" }, /no layer below/],
    ['a late import', { 'src/plan/a.ts': "const b = await import('../cli/b.ts');" }, /no layer below/],
    [
      'the session naming a door',
      { 'src/session/a.ts': "import '../doors/sharded/b.ts';" },
      /no layer below/,
    ],
    [
      'a planner that reads the catalog',
      { 'src/plan/a.ts': "import '../catalog/store.ts';" },
      /the map alone/,
    ],
    ['a planner that waits', { 'src/plan/a.ts': 'export async function f() {}' }, /never does/],
    ['a clock in the codec', { 'src/wire/a.ts': 'export const at = Date.now();' }, /uses Date.now/],
    ['a timer in the planner', { 'src/plan/a.ts': 'setTimeout(() => {}, 1);' }, /uses setTimeout/],
    ['the environment in pg', { 'src/pg/a.ts': 'export const u = process.env.PGUSER;' }, /uses process/],
    ['a socket in a door', { 'src/doors/sharded/a.ts': "import 'node:net';" }, /not for this layer/],
    [
      'a type of sockets there',
      { 'src/execute/a.ts': "import type { A } from 'node:net';" },
      /not for this layer/,
    ],
    [
      'a socket made by a session',
      { 'src/session/a.ts': "import { connect } from 'node:net';" },
      /not for this/,
    ],
    [
      'files in the router',
      { 'src/backend/a.ts': "import { readFileSync } from 'fs';" },
      /not for this layer/,
    ],
    ['another driver on the data path', { 'src/execute/a.ts': "import pg from 'pg';" }, /not for this layer/],
    ['a package for development', { 'src/base/a.ts': "import fc from 'fast-check';" }, /not among the dep/],
    [
      'support of tests',
      { 'src/cli/a.ts': "import '../../test/support/servers.ts';" },
      /not part of the program/,
    ],
    ['a test', { 'src/base/a.ts': "import './b.test.ts';" }, /not part of the program/],
    ['a barrel', { 'src/base/a.ts': "export { b } from './b.ts';" }, /a barrel/],
    ['an index', { 'src/base/index.ts': 'export const a = 1;' }, /a barrel/],
    ['a folder without a layer', { 'src/helpers/a.ts': '' }, /not among the layers/],
    ['a file in no folder', { 'src/a.ts': '' }, /not among the layers/],
    ['a long file', { 'src/base/a.ts': '//\n'.repeat(601) }, /601 lines/],
    [
      'a cycle',
      {
        'src/base/a.ts': "import { b } from './b.ts';",
        'src/base/b.ts': "import './c.ts';",
        'src/base/c.ts': "import './a.ts';",
      },
      /^cycle: src\/base\/a.ts → src\/base\/b.ts → src\/base\/c.ts → src\/base\/a.ts$/,
    ],
  ])('refuse %s', (_, files, message) => {
    const found = violations(new Map(Object.entries(files)), new Set());
    expect(found).toHaveLength(1);
    expect(found[0]).toMatch(message);
  });

  it('refuse doors that know one another', () => {
    const files = new Map([['src/doors/sharded/a.ts', "import '../leaderless/b.ts';"]]);
    expect(violations(files, new Set())).toEqual([
      'src/doors/sharded/a.ts: imports ../leaderless/b.ts, which is no layer below it',
    ]);
  });

  it('let types go round, and names that only look impure pass', () => {
    const files = new Map([
      ['src/plan/a.ts', "import type { B } from './b.ts'; export type A = B | { process: 1 };"],
      [
        'src/plan/b.ts',
        "import { type A } from './a.ts'; export const b = (a: { process: A }) => a.process;",
      ],
    ]);
    expect(violations(files, new Set())).toEqual([]);
  });
});
