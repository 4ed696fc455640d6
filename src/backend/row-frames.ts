/** The single frames of a run of DataRow messages that a backend connection hands on as one range. */
import type { Body } from '../wire/body-cursor.ts';

export function* rowFrames(buffer: Buffer, start: number, end: number): Generator<Body> {
  for (let at = start; at < end; ) {
    const frameEnd = at + 1 + buffer.readInt32BE(at + 1);
    yield { buffer, bodyStart: at + 5, end: frameEnd };
    at = frameEnd;
  }
}
