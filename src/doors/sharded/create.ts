/** CREATE TABLE … WITH (postern.door = 'sharded', postern.key = …). */
import { notSupported, objectError } from '../../base/errors.ts';
import type { DdlContext, DdlResult, DdlSession } from '../../ddl/context.ts';
import { currentSchema } from '../../ddl/make.ts';
import { findRelation } from '../../ddl/recorded.ts';
import { quoteIdentifier } from '../../pg/identifier.ts';
import type { RouterCommand } from '../../plan/plan.ts';
import { makeShardedTable, mergesOf } from './make.ts';

export async function createShardedTable(
  context: DdlContext,
  command: Extract<RouterCommand, { kind: 'createShardedTable' }>,
  session: DdlSession,
): Promise<DdlResult> {
  const made = await makeShardedTable(context, session, command, async (home, strategy) => {
    // On a line of its own, in case the text ends in a comment.
    const createText = `${command.createText}\nPARTITION BY ${strategy} (${quoteIdentifier(command.key)})`;
    const schema = command.schema ?? (await currentSchema(home, session));
    if (schema === undefined) throw objectError('3F000', 'no schema has been selected to create in');
    if (/^pg_|^postern(_leaves|_internal)?$/.test(schema)) {
      throw notSupported(
        `a sharded table cannot be in schema "${schema}"`,
        'Name another schema, or put one first in search_path.',
      );
    }
    if (command.ifNotExists && (await findRelation(home, schema, command.name))) return undefined;
    return {
      schema,
      name: command.name,
      statements: [createText],
      sequences: [],
      storage: new Map(),
      makeAs: session,
      uniques: [],
      replaces: undefined,
      merges: mergesOf(command.coalesce),
    };
  });
  if (made) return { notices: [] };
  return { notices: [{ sqlState: '42P07', message: `relation "${command.name}" already exists, skipping` }] };
}
