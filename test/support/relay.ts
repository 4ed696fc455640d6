/**
 * A TCP relay between a router and one server, so that a test can take the network away from between them: cut (both
 * ends see it at once), silent (nothing passes, nobody is told, as with a lost route or a frozen machine), or mute (only what
 * the server says is held back).
 *
 *   passing ──cut()──▶ cut ──heal()──▶ passing        connections are reset, and new ones too
 *      │ ▲
 *      ▼ │ heal(): what was held back goes on; or cut(): it is lost
 *    silent, mute                                     new connections are accepted, and hear nothing
 *
 * It can also break a branch behind its router's back: failOpenTransactions() sends a statement that fails on each idle
 * connection with an open transaction, and swallows the answer.
 */
import * as net from 'node:net';

type Mode = 'passing' | 'silent' | 'mute' | 'cut';

const READY_FOR_QUERY = 0x5a;
const QUERY = 0x51;
const SYNC = 0x53;
const IN_TRANSACTION = 0x54;
const HEADER_BYTES = 5;
/** Eight bytes before the start-up packet, answered by one that is no frame: S or N. */
const SSL_REQUEST_CODE = 80_877_103;
/** In the simple protocol; its answers are an ErrorResponse and ReadyForQuery. */
const FAILING_QUERY = Buffer.from('Q\0\0\0\x0fSELECT 1/0\0', 'latin1');

export class Relay {
  readonly port: number;
  readonly #target: number;
  readonly #server: net.Server;
  readonly #links = new Set<Link>();
  #mode: Mode = 'passing';
  #cutAt: Buffer | undefined;

  private constructor(server: net.Server, target: number) {
    this.#server = server;
    this.#target = target;
    this.port = (server.address() as net.AddressInfo).port;
    server.on('connection', (socket) => this.#accept(socket));
  }

  static async start(targetPort: number): Promise<Relay> {
    const server = net.createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', resolve);
    });
    return new Relay(server, targetPort);
  }

  cut(): void {
    this.#mode = 'cut';
    for (const link of this.#links) link.destroy();
  }

  silence(): void {
    this.#mode = 'silent';
    for (const link of this.#links) link.pass({ up: false, down: false });
  }

  mute(): void {
    this.#mode = 'mute';
    for (const link of this.#links) link.pass({ up: true, down: false });
  }

  heal(): void {
    this.#mode = 'passing';
    this.#cutAt = undefined;
    for (const link of this.#links) link.pass({ up: true, down: true });
  }

  /** Until heal(): a connection on which the router sends this text is cut, and what bears it never arrives. */
  cutAt(text: string): void {
    this.#cutAt = Buffer.from(text);
  }

  /** Resolves when each has failed; gives how many there were. */
  async failOpenTransactions(): Promise<number> {
    const failed = [...this.#links].map((link) => link.failTransaction());
    const all = failed.filter((one) => one !== undefined);
    await Promise.all(all);
    return all.length;
  }

  async stop(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #accept(socket: net.Socket): void {
    if (this.#mode === 'cut') {
      socket.on('error', () => {});
      socket.resetAndDestroy();
      return;
    }
    const link = new Link(socket, {
      target: this.#target,
      isForbidden: (chunk) => this.#cutAt !== undefined && chunk.includes(this.#cutAt),
      onClosed: () => this.#links.delete(link),
    });
    this.#links.add(link);
    link.pass({ up: this.#mode !== 'silent', down: this.#mode === 'passing' });
  }
}

class Link {
  readonly #router: net.Socket;
  readonly #target: number;
  readonly #isForbidden: (chunk: Buffer) => boolean;
  readonly #frames = new FrameScanner([READY_FOR_QUERY]);
  #server: net.Socket | undefined;
  /** Towards the server, and back. */
  #passes = { up: false, down: false };
  readonly #requests = new FrameScanner([QUERY, SYNC], { untypedFirst: true });
  /** Of failTransaction(): what the server answers is the relay's. */
  #onFailed: (() => void) | undefined;
  #hasAskedForTls = false;

  constructor(
    router: net.Socket,
    options: { target: number; isForbidden: (chunk: Buffer) => boolean; onClosed: () => void },
  ) {
    this.#router = router;
    this.#target = options.target;
    this.#isForbidden = options.isForbidden;
    router.setNoDelay(true);
    router.on('error', () => {});
    router.on('data', (chunk) => this.#fromRouter(chunk));
    router.on('end', () => this.#server?.end());
    router.on('close', () => {
      this.#server?.destroy();
      this.#onFailed?.();
      options.onClosed();
    });
    router.pause();
  }

  pass(passes: { up: boolean; down: boolean }): void {
    this.#passes = passes;
    if (passes.up) {
      this.#server ??= this.#connect();
      this.#router.resume();
    } else this.#router.pause();
    if (passes.down) this.#server?.resume();
    else this.#server?.pause();
  }

  destroy(): void {
    this.#router.resetAndDestroy();
    this.#server?.resetAndDestroy();
  }

  failTransaction(): Promise<void> | undefined {
    const { lastByte, isBetween, found } = this.#frames;
    // Each Query and each Sync has its ReadyForQuery, and so has the login; what is still to come would be taken for the relay's.
    const isIdle = isBetween && this.#requests.isBetween && found === this.#requests.found + 1;
    if (!isIdle || !this.#passes.down || lastByte !== IN_TRANSACTION) return undefined;
    return new Promise((resolve) => {
      this.#onFailed = resolve;
      this.#server?.write(FAILING_QUERY);
    });
  }

  #connect(): net.Socket {
    const server = net.connect(this.#target, '127.0.0.1');
    server.setNoDelay(true);
    server.on('error', () => {});
    server.on('data', (chunk) => this.#fromServer(chunk));
    server.on('end', () => this.#router.end());
    server.on('close', () => this.#router.destroy());
    return server;
  }

  #fromRouter(chunk: Buffer): void {
    if (this.#isForbidden(chunk)) {
      this.destroy();
      return;
    }
    if (chunk.length === 8 && chunk.readInt32BE(4) === SSL_REQUEST_CODE) this.#hasAskedForTls = true;
    else this.#requests.scan(chunk, 0, false);
    this.#write(chunk, this.#router, this.#server!);
  }

  #fromServer(chunk: Buffer): void {
    if (this.#hasAskedForTls) {
      this.#hasAskedForTls = false;
      this.#write(chunk, this.#server!, this.#router);
      return;
    }
    let from = 0;
    if (this.#onFailed) {
      const { found } = this.#frames;
      from = this.#frames.scan(chunk, 0, true);
      if (this.#frames.found === found) return;
      // Nobody but the relay has asked for it.
      this.#frames.found--;
      this.#onFailed();
      this.#onFailed = undefined;
      if (from === chunk.length) return;
    }
    this.#frames.scan(chunk, from, false);
    this.#write(chunk.subarray(from), this.#server!, this.#router);
  }

  #write(chunk: Buffer, from: net.Socket, to: net.Socket): void {
    if (to.write(chunk)) return;
    from.pause();
    to.once('drain', () => {
      if (from === this.#router ? this.#passes.up : this.#passes.down) from.resume();
    });
  }
}

/** Follows the frames of one direction, however they are cut, and counts those of some types. */
class FrameScanner {
  /** How many of them have come whole. */
  found = 0;
  /** The last byte of the last of them: of a ReadyForQuery, its status. */
  lastByte = 0;
  readonly #types: readonly number[];
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #headerBytes = 0;
  #bodyBytes = 0;

  /** `untypedFirst`: the start-up packet has a length alone. */
  constructor(types: readonly number[], options: { untypedFirst?: boolean } = {}) {
    this.#types = types;
    if (options.untypedFirst) this.#headerBytes = 1;
  }

  /** No frame has begun. */
  get isBetween(): boolean {
    return this.#headerBytes === 0;
  }

  /** Goes on from `start`, to the end or behind the first of the types. Gives where it has come to. */
  scan(chunk: Buffer, start: number, toFirst: boolean): number {
    let at = start;
    while (at < chunk.length) {
      if (this.#headerBytes < HEADER_BYTES) {
        this.#header[this.#headerBytes++] = chunk[at++]!;
        if (this.#headerBytes === HEADER_BYTES) this.#bodyBytes = this.#header.readUInt32BE(1) - 4;
        if (this.#headerBytes < HEADER_BYTES || this.#bodyBytes > 0) continue;
      } else {
        const taken = Math.min(this.#bodyBytes, chunk.length - at);
        at += taken;
        this.#bodyBytes -= taken;
        if (this.#bodyBytes > 0) continue;
      }
      this.#headerBytes = 0;
      if (!this.#types.includes(this.#header[0]!)) continue;
      this.lastByte = chunk[at - 1]!;
      this.found++;
      if (toFirst) return at;
    }
    return at;
  }
}
