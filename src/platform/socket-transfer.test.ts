import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { stopAndDrain, stopReading } from './socket-transfer.ts';

const open: { destroy(): void }[] = [];

afterEach(() => {
  for (const one of open.splice(0)) one.destroy();
});

async function pair(): Promise<{ here: Socket; there: Socket }> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const there = connect((server.address() as { port: number }).port, '127.0.0.1');
  const [here] = (await once(server, 'connection')) as [Socket];
  server.close();
  open.push(here, there);
  return { here, there };
}

/** A round trip of another connection: what was written before it has arrived in this process. */
async function arrival(): Promise<void> {
  const { here, there } = await pair();
  there.write('x');
  await once(here, 'data');
}

async function until(condition: () => boolean): Promise<void> {
  for (let turns = 0; !condition(); turns++) {
    expect(turns).toBeLessThan(10_000);
    await new Promise(setImmediate);
  }
}

describe('a socket that is given away', () => {
  it('reads nothing any more, and what was read before and not taken is given', async () => {
    const { here, there } = await pair();
    here.pause();
    there.write('before ');
    // Paused, it reads ahead.
    here.read(0);
    await until(() => here.bytesRead > 0);
    expect(stopAndDrain(here)?.toString()).toBe('before ');
    there.write('after');
    await arrival();
    expect([here.bytesRead, here.readableLength]).toEqual(['before '.length, 0]);
  });

  it('reads on in spite of a pause alone', async () => {
    const { here, there } = await pair();
    here.resume();
    here.pause();
    there.write('read ahead');
    await until(() => here.bytesRead > 0);
    expect(stopAndDrain(here)?.toString()).toBe('read ahead');
  });

  it('is not given away when it is closed', async () => {
    const { here } = await pair();
    here.destroy();
    expect([stopReading(here), stopAndDrain(here)]).toEqual([false, undefined]);
  });
});
