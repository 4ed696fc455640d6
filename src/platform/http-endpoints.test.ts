import { once } from 'node:events';
import { connect } from 'node:net';
import { afterEach, expect, it, vi } from 'vitest';
import { type HttpAnswer, HttpEndpoints } from './http-endpoints.ts';

let endpoints: HttpEndpoints;

async function serve(
  answers: Record<string, () => Promise<HttpAnswer>>,
  stallTimeoutMs?: number,
): Promise<string> {
  endpoints = new HttpEndpoints(answers, stallTimeoutMs);
  return `http://127.0.0.1:${await endpoints.listen('127.0.0.1', 0)}`;
}

afterEach(() => endpoints.close());

const text = (body: string): HttpAnswer => ({ status: 200, contentType: 'text/plain', body });

it('gives whole answers for paths that are there, and says nothing for others', async () => {
  const url = await serve({ '/a': async () => text('é'), '/b': () => Promise.reject(new Error('secret')) });
  const a = await fetch(`${url}/a?x=1`);
  expect([a.status, a.headers.get('content-length'), await a.text()]).toEqual([200, '2', 'é']);
  const head = await fetch(`${url}/a`, { method: 'HEAD' });
  expect([head.headers.get('content-length'), await head.text()]).toEqual(['2', '']);
  for (const [path, method, status] of [
    ['/b', 'GET', 500],
    ['/c', 'GET', 404],
    ['/a/', 'GET', 404],
    ['/__proto__', 'GET', 404],
    ['/a', 'DELETE', 405],
  ] as const) {
    const answer = await fetch(`${url}${path}`, { method });
    expect([path, answer.status, await answer.text()]).toEqual([path, status, '']);
  }
});

it('works once for all who ask at the same time, and anew for the next', async () => {
  let count = 0;
  let release = (): void => {};
  let onLast = (): void => {};
  const isLast = new Promise<void>((resolve) => {
    onLast = resolve;
  });
  const url = await serve({
    '/a': async () => {
      count++;
      const mine = String(count);
      await new Promise<void>((resolve) => {
        release = resolve;
      });
      return text(`answer ${mine}.`);
    },
    '/last': async () => {
      onLast();
      return text('');
    },
  });
  const socket = connect({ host: '127.0.0.1', port: Number(new URL(url).port) });
  let told = '';
  socket.on('data', (chunk: Buffer) => {
    told += chunk.toString();
  });
  const ask = (path: string): string => `GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`;
  // In one write, and read in order: at the last one, the others are there.
  socket.write(ask('/a').repeat(5) + ask('/last'));
  await isLast;
  expect(count).toBe(1);
  release();
  await vi.waitFor(() => expect(told.match(/answer 1\./g)).toHaveLength(5));
  socket.write(ask('/a'));
  await vi.waitFor(() => expect(count).toBe(2));
  release();
  await vi.waitFor(() => expect(told).toContain('answer 2.'));
  socket.destroy();
});

it('does not keep places for those who do not read their answers', async () => {
  const url = await serve({ '/a': async () => text('x'.repeat(200_000)) }, 100);
  const port = Number(new URL(url).port);
  const deaf = Array.from({ length: 64 }, () => {
    const socket = connect({ host: '127.0.0.1', port });
    socket.on('error', () => {});
    socket.pause().write('GET /a HTTP/1.1\r\nhost: x\r\n\r\n'.repeat(100));
    return socket;
  });
  const status = async () => (await fetch(`${url}/a`)).status;
  await Promise.all(deaf.map((socket) => once(socket, 'connect')));
  await vi.waitFor(async () => expect(await status()).toBe(200), { timeout: 10_000, interval: 100 });
  for (const socket of deaf) socket.destroy();
});
