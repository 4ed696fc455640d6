/** What is sent to a mesh for a client's statement: its own text, or one that asks the nodes less often for the same answer. */
import { BOUNDS } from '../base/bounds.ts';
import type { ReadyMesh } from '../execute/mesh.ts';
import { joinCorrelated } from '../plan/correlated.ts';
import { ServerError } from '../platform/control-connection.ts';

/** By mesh, since its tables' columns are; the oldest goes first. */
const joinedTexts = new WeakMap<ReadyMesh, Map<string, string>>();

export function textForMesh(mesh: ReadyMesh, text: string): string {
  const known = joinedTexts.get(mesh) ?? new Map<string, string>();
  joinedTexts.set(mesh, known);
  const found = known.get(text);
  if (found !== undefined) return found;
  const joined = joinCorrelated(text, (schema, name) => mesh.columnsOf(schema, name));
  if (text.length > BOUNDS.meshTextLengthMax) return joined;
  const [oldest] = known.keys();
  if (oldest !== undefined && known.size >= BOUNDS.meshTextsMax) known.delete(oldest);
  known.set(text, joined);
  return joined;
}

/** The client's own text may give an answer, or fails with its own words and positions. */
export function mayBeOfJoinedText(error: unknown): boolean {
  return error instanceof ServerError && /^(21|22|42|0A|54)/.test(error.sqlState);
}
