/** For tests of whatever speaks the protocol: frames out of written bytes, and the dumb way to cut a stream. */
import type { Frame } from './frame-reader.ts';
import { FrameWriter } from './frame-writer.ts';

export function written(write: (writer: FrameWriter) => void): Buffer {
  const writer = new FrameWriter();
  write(writer);
  return writer.take();
}

/** The one frame that `write` writes; what follows it in memory is not its own, and would be noticed if read. */
export function frameOf(write: (writer: FrameWriter) => void): Frame {
  return viewOf(written(write));
}

/** A frame somewhere in a larger buffer, as it comes from a socket. */
export function viewOf(bytes: Buffer): Frame {
  const before = Buffer.from('what was before');
  const buffer = Buffer.concat([before, bytes, Buffer.from('what comes behind\0\0\0\0')]);
  const start = before.length;
  return { type: bytes[0]!, buffer, start, bodyStart: start + 5, end: start + bytes.length };
}

/** The whole stream at once, each frame as its type and body in hexadecimal. */
export function cutDumbly(stream: Buffer): string[] {
  const frames: string[] = [];
  let at = 0;
  while (at < stream.length) {
    const end = at + 1 + stream.readInt32BE(at + 1);
    frames.push(`${stream[at]}:${stream.toString('hex', at + 5, end)}`);
    at = end;
  }
  return frames;
}
