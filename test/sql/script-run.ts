/** Plays scripts of raw messages to a server and to a router, exchange by exchange, and says where their answers differ. */
import { type RawClient, sendCancel } from '../support/raw-client.ts';
import type { Exchange, Script } from './scripts.ts';

export interface Player {
  readonly client: RawClient;
  readonly port: number;
}

export interface Played {
  readonly refusal: string | undefined;
  readonly difference: string | undefined;
}

/**
 * Refused exchanges are left out on the server; if they have ended the transaction, the whole script ends, undone on both.
 * What differs ends it too.
 */
export async function play(script: Script, router: Player, server: Player): Promise<Played> {
  let refusal: string | undefined;
  for (const exchange of script) {
    const is = await answerOf(router, exchange);
    const refused = is.find((line) => / C=0A000 (?!M=cached plan)/.test(line));
    if (refused !== undefined) {
      refusal ??= refused;
      if (is.at(-1) === 'Ready I') continue;
      break;
    }
    const ought = await answerOf(server, exchange);
    const ordered = isOrdered(exchange);
    const [a, b] = [comparable(is, ordered), comparable(ought, ordered)];
    if (a !== b) {
      await rollback(router, server);
      const sent = exchange.messages.map((message) => message.join(' ')).join('\n    ');
      const before = script
        .slice(0, script.indexOf(exchange))
        .flatMap(({ messages }) => messages.map((m) => m.join(' ')));
      return {
        refusal,
        difference: `${sent}\n  after ${before.join(' · ').slice(0, 1500)}\n  is ${is.join(' · ').slice(0, 900)}\n  ought ${ought.join(' · ').slice(0, 900)}`,
      };
    }
  }
  await rollback(router, server);
  return { refusal, difference: undefined };
}

async function rollback(...players: readonly Player[]): Promise<void> {
  for (const { client } of players) await client.query('ROLLBACK');
}

async function answerOf(
  { client, port }: Player,
  { messages, cancels = false }: Exchange,
): Promise<string[]> {
  const count = messages.filter(([kind]) => kind === 'query' || kind === 'sync').length;
  const answer = client.exchange(messages, count);
  if (!cancels) return await answer;
  let open = true;
  const done = answer.finally(() => {
    open = false;
  });
  // One that comes before the statement runs does nothing.
  while (open) {
    await sendCancel(port, client.processId, client.secretKey);
    await Promise.race([done, new Promise((resolve) => setTimeout(resolve, 100))]);
  }
  return await done;
}

/** One text, whose ORDER BY (or cursor's) decides the order of all rows. */
function isOrdered({ messages }: Exchange): boolean {
  const texts = messages
    .filter(([kind]) => kind === 'query' || kind === 'parse')
    .map((message) => message.join(' '));
  return (
    texts.length === 1 &&
    /ORDER BY [^()]*$|ORDER BY.*TO STDOUT|FETCH/s.test(texts[0]!) &&
    !/RETURNING|; /.test(texts[0]!)
  );
}

const FIRST_USER_OID = 16_384;

/** Without what differs between any two servers: numbers of types, of columns; errors and notices by their code alone. */
function comparable(lines: readonly string[], ordered: boolean): string {
  const kept: string[] = [];
  let rows: string[] = [];
  // Settings may be told of at any moment, and in any order.
  const isSetting = (line: string) => line.startsWith('Parameter ');
  for (const line of [...lines.filter((one) => !isSetting(one)), ...lines.filter(isSetting).sort()]) {
    if (line.startsWith('Row ') || line.startsWith('CopyData ')) {
      rows.push(line);
      continue;
    }
    // What came before an error may differ: nodes answer side by side.
    if (line.startsWith('Error ')) {
      rows = [];
      if (kept.at(-1)?.startsWith('Columns ')) kept.pop();
    }
    kept.push(...(ordered ? rows : rows.sort()));
    rows = [];
    kept.push(
      line
        .replace(/:(\d+)\/\d+\//g, (_, oid: string) => `:${Number(oid) >= FIRST_USER_OID ? 'own' : oid}/`)
        .replace(/^(Error|Notice) (\w+) C=(\w+).*$/s, '$1 $2 $3'),
    );
  }
  return kept.concat(ordered ? rows : rows.sort()).join('\n');
}
