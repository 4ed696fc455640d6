/**
 * A wire of chosen capacity and delay before a server: a TCP forwarder on loopback. All its connections share the capacity,
 * as the replicas of one primary share its link. `toClient` is what leaves the server.
 */
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

export class SlowWire {
  /** Of what leaves the server; Infinity: no limit. */
  bytesPerSecond = Number.POSITIVE_INFINITY;
  /** Of each message to the server. */
  delayMs = 0;
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();
  private freeAtMs = 0;

  private constructor(server: Server) {
    this.server = server;
  }

  static async open(port: number): Promise<SlowWire> {
    const server = createServer({ noDelay: true });
    const wire = new SlowWire(server);
    server.on('connection', (client) => wire.join(client, port));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen(0, '127.0.0.1', resolve);
    });
    return wire;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise<void>((resolve) => this.server.close(() => resolve()));
  }

  private join(client: Socket, port: number): void {
    const upstream = connect({ host: '127.0.0.1', port, noDelay: true });
    const end = (): void => {
      client.destroy();
      upstream.destroy();
      this.sockets.delete(client);
      this.sockets.delete(upstream);
    };
    for (const socket of [client, upstream]) {
      this.sockets.add(socket);
      socket.on('error', end).on('close', end);
    }
    client.on('data', (chunk: Buffer) => {
      if (this.delayMs === 0) upstream.write(chunk);
      else setTimeout(() => upstream.write(chunk), this.delayMs);
    });
    upstream.on('data', (chunk: Buffer) => this.carry(upstream, client, chunk));
  }

  /** Reads no more while what was read is on the wire, so that the sender feels it. */
  private carry(from: Socket, to: Socket, chunk: Buffer): void {
    const now = performance.now();
    if (!Number.isFinite(this.bytesPerSecond)) {
      to.write(chunk);
      return;
    }
    this.freeAtMs = Math.max(now, this.freeAtMs) + (chunk.length * 1000) / this.bytesPerSecond;
    from.pause();
    setTimeout(() => {
      to.write(chunk);
      from.resume();
    }, this.freeAtMs - now);
  }
}
