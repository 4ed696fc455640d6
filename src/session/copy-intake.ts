/** What a session gives the client's messages of a COPY … FROM STDIN to, while the router carries it out. */
export interface CopyIntake {
  /** It takes no more for now; `onRoom` is called when it does again. */
  readonly isFull: boolean;
  onRoom: (() => void) | undefined;
  /** The body of a CopyData message; good for the call alone. */
  onData(buffer: Buffer, start: number, end: number): void;
  /** CopyDone. */
  onEnd(): void;
  /** CopyFail: the client gives up. */
  onFail(message: string): void;
}
