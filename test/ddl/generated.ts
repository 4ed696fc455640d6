/** Generated DDL on one table: each statement is of few names, so that what one makes another renames, uses or drops. */

/** A small generator of numbers, the same for the same seed (mulberry32). */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) % below;
  };
}

export function generatedStatements(options: { table: string; count: number; seed: number }): string[] {
  const { table, count, seed } = options;
  const random = randomOf(seed);
  const one = <T>(from: readonly T[]): T => from[random(from.length)]!;
  const column = () => one(['a', 'b', 'c', 'note', 'amount']);
  const type = () => one(['int', 'text', 'numeric(8, 2)', 'timestamptz', 'text[]', 'jsonb']);
  const object = () => one(['x', 'y', 'z']);
  const index = () => one(['i', 'j', `${table}_a_idx`, `${table}_note_idx`]);
  const constraint = () => one(['k', 'l', `${table}_check`, `${table}_a_check`, `${table}_tenant_a_key`]);
  const key = () => one(['tenant, a', 'a, tenant', 'tenant, id, b', 'tenant, lower(note)']);
  const privileges = () =>
    one(['SELECT', 'INSERT, UPDATE', 'ALL', `SELECT (${column()})`, `UPDATE (note, ${column()})`]);
  const commands: readonly (() => string)[] = [
    () => `ADD COLUMN ${one(['', 'IF NOT EXISTS '])}${column()} ${type()}`,
    () => `ADD COLUMN ${column()} int DEFAULT ${random(9)} CHECK (${table}.id > ${random(3) - 5})`,
    () => `ADD COLUMN ${column()} text NOT NULL DEFAULT '${one(['', "é''"])}'`,
    () => `DROP COLUMN ${one(['', 'IF EXISTS '])}${column()}${one(['', ' CASCADE'])}`,
    () => `ALTER COLUMN ${column()} TYPE text USING ${table}.note`,
    () => `ALTER COLUMN ${column()} SET DEFAULT NULL`,
    () => `ALTER COLUMN ${column()} DROP DEFAULT`,
    () => `ALTER COLUMN ${column()} ${one(['SET', 'DROP'])} NOT NULL`,
    () => `ALTER COLUMN ${column()} SET STATISTICS ${random(500)}`,
    () => `ALTER COLUMN ${column()} SET STORAGE ${one(['PLAIN', 'MAIN', 'EXTENDED'])}`,
    () =>
      `ADD ${one(['', 'CONSTRAINT k ', 'CONSTRAINT l '])}CHECK (id > ${random(3) - 9}${one(['', ` AND ${table}.tenant > 0`])})`,
    () => `ADD ${one(['', 'CONSTRAINT k '])}UNIQUE (${one(['tenant, a', 'b, tenant', 'tenant, note'])})`,
    () => `DROP CONSTRAINT ${one(['', 'IF EXISTS '])}${constraint()}`,
    () => `${one(['ENABLE', 'DISABLE', 'FORCE', 'NO FORCE'])} ROW LEVEL SECURITY`,
    () => one(['SET (fillfactor = 60)', 'RESET (fillfactor)', 'SET (autovacuum_enabled = off)']),
    () => `REPLICA IDENTITY ${one(['FULL', 'DEFAULT'])}`,
    () => `${one(['ENABLE', 'DISABLE', 'ENABLE ALWAYS'])} TRIGGER ${object()}`,
  ];
  const statements: readonly (() => string)[] = [
    ...commands.map(
      (command) => () =>
        `ALTER TABLE ${one(['', 'ONLY ', 'public.'])}${table} ${command()}`.replace('ONLY ', ''),
    ),
    () => `ALTER TABLE ${table} ${one(commands)()}, ${one(commands)()}`,
    () => `ALTER TABLE ${table} RENAME ${column()} TO ${column()}`,
    () => `ALTER TABLE ${table} RENAME CONSTRAINT ${constraint()} TO ${constraint()}`,
    () =>
      `CREATE INDEX ${one(['', 'i ', 'j ', 'IF NOT EXISTS i '])}ON ${table} (${one([column(), `lower(note)`, `(${table}.id + 1)`, `${column()} DESC, id`])})`,
    () =>
      `CREATE UNIQUE INDEX ${one(['i', 'j'])} ON ${table} (${key()})${one(['', ` WHERE ${table}.id > 0`])}`,
    () => `DROP INDEX ${one(['', 'IF EXISTS '])}${index()}`,
    () => `ALTER INDEX ${index()} RENAME TO ${one(['i', 'j'])}`,
    () =>
      `CREATE POLICY ${object()} ON ${table} ${one(['', 'FOR SELECT ', 'TO app '])}USING (${table}.id > ${random(3) - 9})`,
    () => `ALTER POLICY ${object()} ON ${table} RENAME TO ${object()}`,
    () => `DROP POLICY ${one(['', 'IF EXISTS '])}${object()} ON ${table}`,
    () =>
      `CREATE TRIGGER ${object()} BEFORE UPDATE ON ${table} FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()`,
    () => `DROP TRIGGER ${one(['', 'IF EXISTS '])}${object()} ON ${table}`,
    () =>
      `${one(['GRANT', 'GRANT', 'REVOKE'])} ${privileges()} ON ${table} TO PUBLIC`.replace(
        /^(REVOKE .*) TO /,
        '$1 FROM ',
      ),
    () => `COMMENT ON COLUMN ${table}.${column()} IS '${one(['one', 'two'])}'`,
    () => `CREATE STATISTICS ${one(['IF NOT EXISTS ', ''])}s ON tenant, id FROM ${table}`,
    () => `DROP STATISTICS ${one(['IF EXISTS ', ''])}s`,
    () => `INSERT INTO ${table} (tenant, id) VALUES (${random(20)}, ${random(1_000_000)})`,
  ];
  return Array.from({ length: count }, () => one(statements)());
}
